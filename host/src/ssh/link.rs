//! One SSH connection: its login, its channels, its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, DisconnectReason, Session};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::{HostKeyPolicy, Target, client_config};
use super::error::SshError;
use super::key::{HostKey, fingerprint};

/// A channel that was refused below the learnt limit is tried again after this time: a process
/// whose channel was closed under it may still hold its place on the server.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What the connection's task and its users both know.
pub(super) struct Ledger {
    /// Cancelled when the connection's task has ended, whatever ended it, a panic included.
    pub(super) lost: CancellationToken,
    reason: Mutex<Option<String>>,
    channels: Mutex<Channels>,
    /// Notified when a channel gets free; shared by all connections of a `Remote`.
    freed: Arc<Notify>,
}

#[derive(Default)]
struct Channels {
    open: usize,
    reserved: usize,
    opened_ever: bool,
    limit: Option<usize>,
    refused_at: Option<Instant>,
    closed: HashMap<ChannelId, CancellationToken>,
    idle_since: Option<Instant>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn new(freed: Arc<Notify>) -> Self {
        Self {
            lost: CancellationToken::new(),
            reason: Mutex::default(),
            channels: Mutex::default(),
            freed,
        }
    }

    /// What is known of the connection's end.
    pub(super) fn reason(&self) -> String {
        lock(&self.reason)
            .clone()
            .unwrap_or_else(|| "its task ended unexpectedly".into())
    }

    /// How long no channel has been open, `None` while one is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let channels = lock(&self.channels);
        (channels.open + channels.reserved == 0)
            .then(|| channels.idle_since.map(|since| since.elapsed()))
            .flatten()
    }

    /// A place for one more channel, unless the server is known to refuse it.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let mut channels = lock(&self.channels);
        if channels
            .refused_at
            .is_some_and(|at| at.elapsed() < REFUSED_FOR)
            || channels
                .limit
                .is_some_and(|limit| channels.open + channels.reserved >= limit)
        {
            return None;
        }
        channels.reserved += 1;
        Some(Reservation(Arc::clone(self)))
    }

    /// The token that is cancelled when the server closes this channel.
    fn closed_token(&self, id: ChannelId) -> CancellationToken {
        lock(&self.channels).closed.entry(id).or_default().clone()
    }

    /// Forgets a channel that nobody uses any more; true where the server hasn't closed it.
    pub(super) fn forget(&self, id: ChannelId) -> bool {
        let mut channels = lock(&self.channels);
        let open = channels
            .closed
            .remove(&id)
            .is_some_and(|token| !token.is_cancelled());
        if open {
            channels.left();
        }
        drop(channels);
        self.freed.notify_waiters();
        open
    }
}

impl Channels {
    fn left(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.refused_at = None;
        self.idle_since = Some(Instant::now());
    }
}

/// A place for a channel that is being opened.
pub(super) struct Reservation(Arc<Ledger>);

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut channels = lock(&self.0.channels);
        channels.reserved = channels.reserved.saturating_sub(1);
        channels.idle_since = Some(Instant::now());
        drop(channels);
        self.0.freed.notify_waiters();
    }
}

/// One authenticated connection. Dropping the last reference ends it.
pub(super) struct Link {
    handle: client::Handle<Wire>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) endpoint: Arc<str>,
    /// Cancelled by `Remote::close`.
    pub(super) closing: CancellationToken,
    /// For what must still be sent when a user drops its end outside of any task.
    pub(super) runtime: tokio::runtime::Handle,
}

/// Why no channel came.
pub(super) enum OpenError {
    /// The server has enough of them on this connection.
    Refused,
    /// Anything else.
    Failed(SshError),
}

/// An open channel and the token that tells when the server has closed it.
pub(super) struct OpenChannel {
    pub(super) channel: Channel<client::Msg>,
    pub(super) closed: CancellationToken,
}

impl Link {
    /// Exchanges keys over a fresh stream, checks the host key and logs in. No deadline of its own.
    pub(super) async fn establish(
        stream: TcpStream,
        target: &Target,
        trusted: &Arc<OnceLock<HostKey>>,
        freed: Arc<Notify>,
        closing: CancellationToken,
    ) -> Result<Self, SshError> {
        let endpoint: Arc<str> = target.endpoint().into();
        if let HostKeyPolicy::Pinned(key) = &target.host_key {
            let _ = trusted.set(key.clone());
        }
        let ledger = Arc::new(Ledger::new(freed));
        let wire = Wire {
            endpoint: Arc::clone(&endpoint),
            trusted: Arc::clone(trusted),
            ledger: Arc::clone(&ledger),
            _lost: ledger.lost.clone().drop_guard(),
        };
        let handshake = |source: russh::Error| SshError::Handshake {
            endpoint: endpoint.to_string(),
            source: Arc::new(source),
        };
        let mut handle = client::connect_stream(client_config(trusted.get()), stream, wire)
            .await
            .map_err(|stop| match stop {
                Stop::HostKey { expected, offered } => SshError::HostKey {
                    endpoint: endpoint.to_string(),
                    expected,
                    offered,
                },
                Stop::Failed(source) => handshake(source),
            })?;
        let key = PrivateKeyWithHashAlg::new(target.identity.private(), None);
        let answer = handle
            .authenticate_publickey(target.user.clone(), key)
            .await
            .map_err(handshake)?;
        if !answer.success() {
            // russh reports a connection that ended meanwhile as a refusal, too.
            if handle.is_closed() {
                return Err(SshError::Lost {
                    endpoint: endpoint.to_string(),
                    reason: ledger.reason(),
                });
            }
            return Err(SshError::Authentication {
                endpoint: endpoint.to_string(),
                user: target.user.clone(),
                fingerprint: target.identity.fingerprint(),
            });
        }
        Ok(Self {
            handle,
            ledger,
            endpoint,
            closing,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Opens a session channel. Not to be cancelled: the channel would stay open for ever.
    pub(super) async fn open(&self) -> Result<OpenChannel, OpenError> {
        let opened = tokio::select! {
            opened = self.handle.channel_open_session() => opened,
            () = self.closing.cancelled() => return Err(OpenError::Failed(self.closed_error())),
        };
        match opened {
            Ok(channel) => Ok(OpenChannel {
                closed: self.ledger.closed_token(channel.id()),
                channel,
            }),
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                if lock(&self.ledger.channels).opened_ever {
                    Err(OpenError::Refused)
                } else {
                    Err(OpenError::Failed(SshError::ChannelRefused {
                        endpoint: self.endpoint.to_string(),
                        reason: format!("{reason:?}"),
                    }))
                }
            }
            Err(_) => {
                self.ledger.lost.cancelled().await;
                Err(OpenError::Failed(self.lost_error()))
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.ledger.lost.is_cancelled() || self.handle.is_closed()
    }

    pub(super) fn lost_error(&self) -> SshError {
        SshError::Lost {
            endpoint: self.endpoint.to_string(),
            reason: self.ledger.reason(),
        }
    }

    pub(super) fn closed_error(&self) -> SshError {
        SshError::Closed {
            endpoint: self.endpoint.to_string(),
        }
    }

    /// Says good-bye to the server.
    pub(super) async fn disconnect(&self) {
        // A connection that is already gone needs no good-bye.
        let _ = self
            .handle
            .disconnect(Disconnect::ByApplication, "", "")
            .await;
    }
}

/// russh's view of us: called from the connection's task, in the order of the packets.
struct Wire {
    endpoint: Arc<str>,
    trusted: Arc<OnceLock<HostKey>>,
    ledger: Arc<Ledger>,
    _lost: DropGuard,
}

#[derive(Debug)]
enum Stop {
    HostKey { expected: String, offered: String },
    Failed(russh::Error),
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Self {
        Self::Failed(error)
    }
}

impl client::Handler for Wire {
    type Error = Stop;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        let expected = self
            .trusted
            .get_or_init(|| HostKey::from_public(key.clone()));
        if expected.matches(key) {
            return Ok(true);
        }
        Err(Stop::HostKey {
            expected: expected.fingerprint(),
            offered: fingerprint(key),
        })
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        let mut channels = lock(&self.ledger.channels);
        channels.open += 1;
        channels.opened_ever = true;
        channels.closed.entry(id).or_default();
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _id: ChannelId,
        reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        let mut channels = lock(&self.ledger.channels);
        let limit = channels.limit.unwrap_or(0).max(channels.open).max(1);
        channels.limit = Some(limit);
        if channels.open < limit {
            channels.refused_at = Some(Instant::now());
        }
        tracing::debug!(
            endpoint = %self.endpoint, ?reason, limit,
            description = %banger_core::escape::text(description.as_bytes()),
            "the server refuses a channel"
        );
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Stop> {
        let mut channels = lock(&self.ledger.channels);
        if let Some(token) = channels.closed.get(&id)
            && !token.is_cancelled()
        {
            token.cancel();
            channels.left();
        }
        drop(channels);
        self.ledger.freed.notify_waiters();
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Stop>) -> Result<(), Stop> {
        let text = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => format!(
                "the server ended it: {}",
                banger_core::escape::text(info.message.as_bytes())
            ),
            DisconnectReason::Error(Stop::Failed(error)) => error.to_string(),
            DisconnectReason::Error(Stop::HostKey { expected, offered }) => {
                format!("its host key changed from {expected} to {offered}")
            }
        };
        tracing::debug!(endpoint = %self.endpoint, reason = %text, "connection ended");
        *lock(&self.ledger.reason) = Some(text);
        Ok(())
    }
}
