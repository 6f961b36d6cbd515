//! Waits for the sshd of a machine that is booting.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::{CONNECT_DEADLINE, open_tcp};
use super::error::SshError;
use super::pool::Pool;

/// After an attempt was refused, the next begins this much later. A refusal means that the guest's
/// network is up, so sshd is near.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// While an attempt is unanswered, another begins after this time, the next after twice that,
/// and so on. QEMU's user network accepts a connection at once and repeats its SYN to the guest
/// ever more rarely, so an attempt that came too early notices sshd late.
const OVERLAP: Duration = Duration::from_millis(500);
/// How long an attempt waits for the server's first byte. Each attempt costs the guest a new sshd
/// process, which needs a second in software emulation and several on a busy host: giving up early
/// and trying anew would keep the guest so busy that none ever succeeds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Attempts at once.
const ATTEMPTS: usize = 6;

impl Pool {
    /// Tries until a login succeeds. `check` is asked before each attempt whether the machine
    /// still runs.
    pub(super) async fn wait_ready(
        self: &Arc<Self>,
        limit: Duration,
        check: impl Fn() -> Result<(), String>,
    ) -> Result<(), SshError> {
        let deadline = Instant::now() + limit;
        let mut last = None;
        match tokio::time::timeout_at(deadline, self.try_until_ready(check, &mut last)).await {
            Ok(ready) => ready,
            Err(_) => Err(SshError::NotReady {
                endpoint: self.target.endpoint(),
                after: limit,
                source: last.map(Box::new),
            }),
        }
    }

    async fn try_until_ready(
        self: &Arc<Self>,
        check: impl Fn() -> Result<(), String>,
        last: &mut Option<SshError>,
    ) -> Result<(), SshError> {
        let mut attempts = JoinSet::new();
        let mut next = Instant::now();
        let mut overlap = OVERLAP;
        loop {
            check().map_err(|reason| SshError::MachineEnded { reason })?;
            if Instant::now() >= next && attempts.len() < ATTEMPTS {
                let pool = Arc::clone(self);
                attempts.spawn(async move { pool.greeted().await });
                next = Instant::now() + overlap;
                overlap *= 2;
            }
            let greeted = tokio::select! {
                Some(greeted) = attempts.join_next() => greeted,
                () = tokio::time::sleep_until(next) => {
                    if attempts.len() >= ATTEMPTS {
                        next = Instant::now() + AFTER_REFUSAL;
                    }
                    continue;
                }
                () = self.closing.cancelled() => {
                    return Err(SshError::Closed { endpoint: self.target.endpoint() });
                }
            };
            let result = match greeted {
                Ok(Ok(stream)) => {
                    // The others would only compete with this one for the guest's processor.
                    attempts.abort_all();
                    attempts = JoinSet::new();
                    self.login_within(stream).await
                }
                Ok(Err(error)) => Err(error),
                Err(_) => continue,
            };
            match result {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => *last = Some(error),
                Err(error) => return Err(error),
            }
            next = next.min(Instant::now() + AFTER_REFUSAL);
        }
    }

    async fn login_within(self: &Arc<Self>, stream: TcpStream) -> Result<(), SshError> {
        match tokio::time::timeout(CONNECT_DEADLINE, self.login(stream)).await {
            Ok(link) => self.adopt(link?).map(drop),
            Err(_) => Err(SshError::ConnectTimedOut {
                endpoint: self.target.endpoint(),
                after: CONNECT_DEADLINE,
            }),
        }
    }

    /// A connection on which the server has begun to speak; none of it is consumed.
    async fn greeted(&self) -> Result<TcpStream, SshError> {
        let greeting = async {
            let stream = open_tcp(&self.target.host, self.target.port).await?;
            match stream.peek(&mut [0]).await {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(stream),
                Err(error) => Err(error),
            }
            .map_err(|source: std::io::Error| SshError::Connect {
                endpoint: self.target.endpoint(),
                source: Arc::new(source),
            })
        };
        tokio::time::timeout(PATIENCE, greeting)
            .await
            .unwrap_or_else(|_| {
                Err(SshError::ConnectTimedOut {
                    endpoint: self.target.endpoint(),
                    after: PATIENCE,
                })
            })
    }
}
