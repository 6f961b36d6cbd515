//! One SSH connection: its login, its channels, its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use russh::client;
use russh::keys::PrivateKeyWithHashAlg;
use russh::{Channel, ChannelId, Disconnect};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{HostKeyPolicy, Target, client_config};
use super::error::SshError;
use super::key::HostKey;
use super::wire::{Stop, Wire};

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

    pub(super) fn set_reason(&self, reason: String) {
        *lock(&self.reason) = Some(reason);
    }

    /// The server has opened this channel.
    pub(super) fn opened(&self, id: ChannelId) {
        let mut channels = lock(&self.channels);
        channels.open += 1;
        channels.opened_ever = true;
        channels.closed.entry(id).or_default();
    }

    /// The server has refused a channel: so many it allows. Returns how many.
    pub(super) fn refused(&self) -> usize {
        let mut channels = lock(&self.channels);
        let limit = channels.limit.unwrap_or(0).max(channels.open).max(1);
        channels.limit = Some(limit);
        if channels.open < limit {
            channels.refused_at = Some(Instant::now());
        }
        limit
    }

    /// The server has closed this channel. Whoever learns it first says so: the connection's task,
    /// or the reader of the channel.
    pub(super) fn closed(&self, id: ChannelId) {
        let mut channels = lock(&self.channels);
        let Some(token) = channels.closed.get(&id).filter(|t| !t.is_cancelled()) else {
            return;
        };
        token.cancel();
        channels.left();
        drop(channels);
        self.freed.notify_waiters();
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
        let wire = Wire::new(
            Arc::clone(&endpoint),
            Arc::clone(trusted),
            Arc::clone(&ledger),
        );
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
