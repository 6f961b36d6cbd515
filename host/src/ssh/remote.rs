//! One guest as a place to run commands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use banger_core::{Output, Script};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::Target;
use super::error::SshError;
use super::key::HostKey;
use super::output::collect;
use super::pool::{Connectivity, Pool};
use super::process::{Lane, Process, Terminal};

/// A guest's sshd. Cheap to clone; all clones share the connections, which end with the last clone
/// (those that a process uses, with the process).
///
/// Connections are made when needed. A lost one is replaced by the next command; all that need it
/// at the same time wait for one attempt and share its error.
#[derive(Clone)]
pub struct Remote {
    pool: Arc<Pool>,
}

impl Remote {
    /// Does not connect yet.
    pub fn new(target: Target) -> Self {
        Self {
            pool: Arc::new(Pool::new(target)),
        }
    }

    /// Whom it connects to.
    pub fn target(&self) -> &Target {
        &self.pool.target
    }

    /// The key that the server must show: the pinned one, or with
    /// [`HostKeyPolicy::TrustFirst`](super::HostKeyPolicy::TrustFirst) the one that the first
    /// connection saw. `None` before the first connection.
    pub fn host_key(&self) -> Option<HostKey> {
        self.pool.host_key()
    }

    /// Whether there is a connection, now and from now on.
    pub fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.pool.connectivity()
    }

    /// Makes the connection if there is none.
    ///
    /// # Errors
    /// The guest can't be reached, is not the expected one, or refuses the identity.
    pub async fn connect(&self) -> Result<(), SshError> {
        self.pool.shared_link().await.map(drop)
    }

    /// Starts a command line, byte for byte, in the guest's login shell. The process gets
    /// a connection of its own (a spare one, or a new one), so that its reader may take its time
    /// without holding up others.
    ///
    /// # Errors
    /// No connection or no channel. After `Ok` errors come as
    /// [`Exit::Failed`](super::Exit::Failed).
    pub async fn start(&self, command_line: &[u8]) -> Result<Process, SshError> {
        let (process, _) = self.start_on(None, command_line, None).await?;
        Ok(process)
    }

    /// The same on a terminal.
    ///
    /// # Errors
    /// As for [`Remote::start`].
    pub async fn start_on_terminal(
        &self,
        command_line: &[u8],
        terminal: Terminal,
    ) -> Result<Process, SshError> {
        let (process, _) = self.start_on(None, command_line, Some(terminal)).await?;
        Ok(process)
    }

    /// Starts several command lines for one reader, on one connection: what it does not read holds
    /// up all of them, and nobody else.
    ///
    /// # Errors
    /// As for [`Remote::start`]; those that were started end then.
    pub async fn start_together(
        &self,
        command_lines: &[Vec<u8>],
    ) -> Result<Vec<Process>, SshError> {
        let mut lane = None;
        let mut processes = Vec::with_capacity(command_lines.len());
        for line in command_lines {
            let (process, of) = self.start_on(lane.take(), line, None).await?;
            processes.push(process);
            lane = Some(of);
        }
        Ok(processes)
    }

    async fn start_on(
        &self,
        lane: Option<Arc<Lane>>,
        command_line: &[u8],
        terminal: Option<Terminal>,
    ) -> Result<(Process, Arc<Lane>), SshError> {
        let pool = Arc::clone(&self.pool);
        let line = command_line.to_vec();
        self.uncancelled(async move { pool.exec_lane(lane, line, terminal).await })
            .await
    }

    /// Runs a script to its end. Each of its streams is cut at `limit_bytes`; the rest is read and
    /// discarded.
    ///
    /// # Errors
    /// As for [`Remote::start`]; the connection was lost; the script's timeout passed, counted from
    /// this call. An exit code other than 0 is no error.
    pub async fn run(&self, script: &Script, limit_bytes: usize) -> Result<Output, SshError> {
        let line = script.command_line()?;
        let stdin = Bytes::from(script.stdin.clone());
        let pool = Arc::clone(&self.pool);
        let running = async move {
            let process = self
                .uncancelled(async move { pool.exec_shared(line).await })
                .await?;
            // In a task of its own, for the promise that a shared connection's channels are always
            // read must not depend on how the caller polls this future. Dropping the set ends it.
            let mut collecting = JoinSet::new();
            collecting.spawn(collect(process, stdin, limit_bytes));
            match collecting.join_next().await {
                Some(Ok(output)) => output,
                Some(Err(_)) | None => Err(SshError::Lost {
                    endpoint: self.pool.target.endpoint(),
                    reason: "the task that reads the output ended unexpectedly".into(),
                }),
            }
        };
        match script.timeout {
            Some(after) => tokio::time::timeout(after, running)
                .await
                .unwrap_or(Err(SshError::TimedOut { after })),
            None => running.await,
        }
    }

    /// Waits until the guest's sshd answers and lets us in, at most for `limit`. Refused, reset and
    /// unanswered connections are tried again; a wrong host key and a refused identity are final.
    /// `check` is called some times a second; its error, a reason, ends the waiting.
    ///
    /// # Errors
    /// [`SshError::NotReady`], [`SshError::MachineEnded`], [`SshError::HostKey`],
    /// [`SshError::Authentication`].
    pub async fn wait_ready(
        &self,
        limit: Duration,
        check: impl Fn() -> Result<(), String>,
    ) -> Result<(), SshError> {
        self.pool.wait_ready(limit, check).await
    }

    /// Ends all connections; processes that use one end with [`SshError::Closed`], as does
    /// everything that is tried afterwards.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs to its end even if the caller goes away: a channel whose opening is cancelled half-way
    /// would stay open on the server for ever.
    async fn uncancelled<T: Send + 'static>(
        &self,
        opening: impl Future<Output = Result<T, SshError>> + Send + 'static,
    ) -> Result<T, SshError> {
        tokio::spawn(opening).await.unwrap_or_else(|error| {
            Err(SshError::Lost {
                endpoint: self.pool.target.endpoint(),
                reason: error.to_string(),
            })
        })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Remote({}@{})",
            self.pool.target.user,
            self.pool.target.endpoint()
        )
    }
}
