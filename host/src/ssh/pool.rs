//! The connections to one guest: which one a channel is opened on, when another is made.

use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::{CONNECT_DEADLINE, Target, open_tcp};
use super::error::SshError;
use super::key::HostKey;
use super::link::{Link, OpenChannel, OpenError, Reservation, lock};
use super::process::{Home, Lane, Process, Terminal};

/// Shared connections at most; with sshd's default that is 80 commands at once.
const SHARED_LIMIT: usize = 8;
/// A second shared connection is opened when no channel of the first got free for this long.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a command waits for a free channel.
const CHANNEL_DEADLINE: Duration = Duration::from_secs(60);
/// How long the server may take to open a channel before its connection counts as lost.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// Shared connections beyond the first are closed when unused for this long.
const SURPLUS_IDLE: Duration = Duration::from_secs(30);
/// Connections without a process that are kept for the next `start`.
const SPARE_STREAMS: usize = 2;
/// Logins at once; sshd drops some when more than ten are under way (`MaxStartups`).
const LOGINS_AT_ONCE: usize = 4;

/// Whether commands can be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connectivity {
    /// Nothing has needed a connection yet.
    Idle,
    /// There is a connection.
    Connected,
    /// The last connection was lost; the next command makes a new one.
    Lost {
        /// What is known of the cause.
        reason: String,
    },
    /// [`Remote::close`](super::Remote::close) was called.
    Closed,
}

type Connected = Result<Arc<Link>, SshError>;

/// The connections of one `Remote`.
pub(super) struct Pool {
    pub(super) target: Target,
    trusted: Arc<OnceLock<HostKey>>,
    state: Mutex<State>,
    freed: Arc<Notify>,
    logins: Semaphore,
    connectivity: watch::Sender<Connectivity>,
    pub(super) closing: CancellationToken,
}

#[derive(Default)]
struct State {
    shared: Vec<Arc<Link>>,
    spare: Vec<Arc<Link>>,
    connecting: Option<watch::Receiver<Option<Connected>>>,
}

impl Pool {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            trusted: Arc::default(),
            state: Mutex::default(),
            freed: Arc::default(),
            logins: Semaphore::new(LOGINS_AT_ONCE),
            connectivity: watch::Sender::new(Connectivity::Idle),
            closing: CancellationToken::new(),
        }
    }

    pub(super) fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.connectivity.subscribe()
    }

    pub(super) fn host_key(&self) -> Option<HostKey> {
        self.trusted.get().cloned()
    }

    fn closed_error(&self) -> SshError {
        SshError::Closed {
            endpoint: self.target.endpoint(),
        }
    }

    /// Runs a command line on a shared connection. The caller must read until the end.
    pub(super) async fn exec_shared(
        self: &Arc<Self>,
        command_line: Vec<u8>,
    ) -> Result<Process, SshError> {
        let deadline = Instant::now() + CHANNEL_DEADLINE;
        let mut losses = 0;
        loop {
            let (link, reservation) = self.reserve(deadline).await?;
            let opened = self.open(&link).await;
            match opened {
                Ok(channel) => {
                    let process =
                        Process::exec(channel, link, Home::Shared, command_line, None).await;
                    drop(reservation);
                    return process;
                }
                Err(OpenError::Refused) => {}
                // Nothing was sent yet, so a fresh connection may be tried, once.
                Err(OpenError::Failed(SshError::Lost { .. })) if losses == 0 => losses += 1,
                Err(OpenError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Runs a command line on a lane, a new one where there is none yet.
    pub(super) async fn exec_lane(
        self: &Arc<Self>,
        lane: Option<Arc<Lane>>,
        command_line: Vec<u8>,
        terminal: Option<Terminal>,
    ) -> Result<(Process, Arc<Lane>), SshError> {
        let (lane, opened) = match lane {
            Some(lane) => {
                let opened = self.open(&lane.link).await;
                (lane, opened)
            }
            None => self.open_lane().await?,
        };
        match opened {
            Ok(channel) => {
                let link = Arc::clone(&lane.link);
                let home = Home::Lane(Arc::clone(&lane));
                let process = Process::exec(channel, link, home, command_line, terminal).await?;
                Ok((process, lane))
            }
            Err(OpenError::Refused) => Err(SshError::ChannelRefused {
                endpoint: self.target.endpoint(),
                reason: "too many sessions".into(),
            }),
            Err(OpenError::Failed(error)) => Err(error),
        }
    }

    /// A connection for one reader, and its first channel: a spare one, or a new one.
    async fn open_lane(
        self: &Arc<Self>,
    ) -> Result<(Arc<Lane>, Result<OpenChannel, OpenError>), SshError> {
        loop {
            let spare = self.take_spare();
            let reused = spare.is_some();
            let link = match spare {
                Some(link) => link,
                None => {
                    // All who find the guest unreachable share one attempt and its error.
                    self.shared_link().await?;
                    self.connect_stream().await?
                }
            };
            match self.open(&link).await {
                Err(OpenError::Refused | OpenError::Failed(SshError::Lost { .. })) if reused => {}
                opened => return Ok((Lane::new(link, Arc::downgrade(self)), opened)),
            }
        }
    }

    /// Takes back a connection whose processes have ended.
    pub(super) fn keep(&self, link: &Arc<Link>) {
        if link.is_lost() || self.closing.is_cancelled() {
            return;
        }
        let mut state = lock(&self.state);
        if state.spare.len() < SPARE_STREAMS {
            state.spare.push(Arc::clone(link));
        }
    }

    fn take_spare(&self) -> Option<Arc<Link>> {
        let mut state = lock(&self.state);
        while let Some(link) = state.spare.pop() {
            if !link.is_lost() {
                return Some(link);
            }
        }
        None
    }

    async fn open(&self, link: &Arc<Link>) -> Result<OpenChannel, OpenError> {
        match tokio::time::timeout(OPEN_DEADLINE, link.open()).await {
            Ok(opened) => opened,
            Err(_) => {
                lock(&self.state)
                    .shared
                    .retain(|other| !Arc::ptr_eq(other, link));
                Err(OpenError::Failed(SshError::Lost {
                    endpoint: self.target.endpoint(),
                    reason: format!("no answer to a new channel within {OPEN_DEADLINE:?}"),
                }))
            }
        }
    }

    /// A place on a shared connection.
    async fn reserve(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<(Arc<Link>, Reservation), SshError> {
        let mut patient_until = Instant::now() + PATIENCE;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let (connecting, is_first) = {
                let mut state = lock(&self.state);
                self.prune(&mut state);
                if let Some(found) = state.shared.iter().find_map(|link| {
                    let reservation = link.ledger.reserve()?;
                    Some((Arc::clone(link), reservation))
                }) {
                    return Ok(found);
                }
                let now = Instant::now();
                let is_first = state.shared.is_empty();
                let wanted =
                    is_first || (now >= patient_until && state.shared.len() < SHARED_LIMIT);
                let connecting = match wanted {
                    true => Some(self.connecting(&mut state)?),
                    false => None,
                };
                (connecting, is_first)
            };
            let now = Instant::now();
            if now >= deadline {
                return Err(SshError::Busy {
                    endpoint: self.target.endpoint(),
                    after: CHANNEL_DEADLINE,
                });
            }
            match connecting {
                Some(connecting) => tokio::select! {
                    connected = self.joined(connecting) => match connected {
                        Err(error) if is_first => return Err(error),
                        // The channels of the others will get free.
                        Err(_) => patient_until = Instant::now() + CHANNEL_DEADLINE,
                        Ok(_) => {}
                    },
                    () = freed => {}
                },
                None => tokio::select! {
                    () = freed => {}
                    () = tokio::time::sleep_until(deadline.min(now + PATIENCE)) => {}
                    () = self.closing.cancelled() => return Err(self.closed_error()),
                },
            }
        }
    }

    fn prune(&self, state: &mut State) {
        state.shared.retain(|link| !link.is_lost());
        let mut first = true;
        state.shared.retain(|link| {
            let surplus = !std::mem::take(&mut first);
            !(surplus
                && link
                    .ledger
                    .idle_for()
                    .is_some_and(|idle| idle > SURPLUS_IDLE))
        });
    }

    /// Some live shared connection, made if there is none.
    pub(super) async fn shared_link(self: &Arc<Self>) -> Connected {
        let connecting = {
            let mut state = lock(&self.state);
            self.prune(&mut state);
            if let Some(link) = state.shared.first() {
                return Ok(Arc::clone(link));
            }
            self.connecting(&mut state)?
        };
        self.joined(connecting).await
    }

    /// The attempt that is under way, or a new one. Its task outlives whoever asked first.
    fn connecting(
        self: &Arc<Self>,
        state: &mut State,
    ) -> Result<watch::Receiver<Option<Connected>>, SshError> {
        if self.closing.is_cancelled() {
            return Err(self.closed_error());
        }
        if let Some(connecting) = &state.connecting
            && connecting.has_changed().is_ok()
        {
            return Ok(connecting.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.connecting = Some(receiver.clone());
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let connected = pool.connect().await;
            let connected = connected.and_then(|link| pool.adopt(link));
            lock(&pool.state).connecting = None;
            // Nobody may be waiting any more.
            let _ = sender.send(Some(connected));
        });
        Ok(receiver)
    }

    async fn joined(&self, mut connecting: watch::Receiver<Option<Connected>>) -> Connected {
        let lost = || SshError::Lost {
            endpoint: self.target.endpoint(),
            reason: "the task that connects ended unexpectedly".into(),
        };
        match connecting.wait_for(Option::is_some).await {
            Ok(connected) => (*connected).clone().unwrap_or_else(|| Err(lost())),
            Err(_) => Err(lost()),
        }
    }

    /// A connection of nobody yet.
    async fn connect(&self) -> Result<Link, SshError> {
        // Waiting for one's turn is not the server's silence: the clock starts after it.
        let _permit = tokio::select! {
            permit = self.logins.acquire() => permit,
            () = self.closing.cancelled() => return Err(self.closed_error()),
        };
        let login = async {
            let stream = open_tcp(&self.target.host, self.target.port).await?;
            self.login(stream).await
        };
        tokio::select! {
            connected = tokio::time::timeout(CONNECT_DEADLINE, login) => {
                connected.unwrap_or_else(|_| Err(SshError::ConnectTimedOut {
                    endpoint: self.target.endpoint(),
                    after: CONNECT_DEADLINE,
                }))
            }
            () = self.closing.cancelled() => Err(self.closed_error()),
        }
    }

    async fn connect_stream(self: &Arc<Self>) -> Connected {
        let link = Arc::new(self.connect().await?);
        self.watch(&link);
        Ok(link)
    }

    pub(super) async fn login(&self, stream: TcpStream) -> Result<Link, SshError> {
        Link::establish(
            stream,
            &self.target,
            &self.trusted,
            Arc::clone(&self.freed),
            self.closing.clone(),
        )
        .await
    }

    /// Makes a connection one of the shared ones.
    pub(super) fn adopt(self: &Arc<Self>, link: Link) -> Connected {
        if self.closing.is_cancelled() {
            return Err(self.closed_error());
        }
        let link = Arc::new(link);
        lock(&self.state).shared.push(Arc::clone(&link));
        self.connectivity.send_replace(Connectivity::Connected);
        self.watch(&link);
        Ok(link)
    }

    /// Notices the end of a connection, and says good-bye when the pool closes.
    fn watch(self: &Arc<Self>, link: &Arc<Link>) {
        let pool: Weak<Self> = Arc::downgrade(self);
        let ledger = Arc::clone(&link.ledger);
        let link = Arc::downgrade(link);
        let closing = self.closing.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ledger.lost.cancelled() => {}
                () = closing.cancelled() => {
                    if let Some(link) = link.upgrade() {
                        let _ = tokio::time::timeout(PATIENCE, link.disconnect()).await;
                    }
                    return;
                }
            }
            let Some(pool) = pool.upgrade() else { return };
            {
                let mut state = lock(&pool.state);
                let before = state.shared.len();
                state.shared.retain(|link| !link.is_lost());
                state.spare.retain(|link| !link.is_lost());
                if before > 0 && state.shared.is_empty() {
                    let reason = ledger.reason();
                    pool.connectivity
                        .send_replace(Connectivity::Lost { reason });
                }
            }
            pool.freed.notify_waiters();
        });
    }

    /// Ends every connection, also those that a process uses.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let links: Vec<Arc<Link>> = {
            let mut state = lock(&self.state);
            let shared = std::mem::take(&mut state.shared);
            shared
                .into_iter()
                .chain(std::mem::take(&mut state.spare))
                .collect()
        };
        self.connectivity.send_replace(Connectivity::Closed);
        for link in links {
            let ledger = Arc::clone(&link.ledger);
            let _ = tokio::time::timeout(PATIENCE, link.disconnect()).await;
            drop(link);
            let _ = tokio::time::timeout(PATIENCE, ledger.lost.cancelled()).await;
        }
    }
}
