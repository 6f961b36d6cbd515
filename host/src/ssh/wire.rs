//! What a connection's task tells us, in the order of the packets.

use std::sync::{Arc, OnceLock};

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure};
use tokio_util::sync::DropGuard;

use super::key::{HostKey, fingerprint};
use super::link::Ledger;

/// russh's view of us. Nothing here may wait: the whole connection would.
pub(super) struct Wire {
    endpoint: Arc<str>,
    trusted: Arc<OnceLock<HostKey>>,
    ledger: Arc<Ledger>,
    /// Tells the ledger that the connection's task has ended, whatever ended it.
    _lost: DropGuard,
}

impl Wire {
    pub(super) fn new(
        endpoint: Arc<str>,
        trusted: Arc<OnceLock<HostKey>>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            endpoint,
            trusted,
            _lost: ledger.lost.clone().drop_guard(),
            ledger,
        }
    }
}

/// Why the key exchange or the connection stopped.
#[derive(Debug)]
pub(super) enum Stop {
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
        self.ledger.opened(id);
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
        let limit = self.ledger.refused();
        tracing::debug!(
            endpoint = %self.endpoint, ?reason, limit,
            description = %banger_core::escape::text(description.as_bytes()),
            "the server refuses a channel"
        );
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Stop> {
        self.ledger.closed(id);
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
        self.ledger.set_reason(text);
        Ok(())
    }

    // russh accepts by default what a server opens towards us. Dropping the reply refuses it.

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        Ok(())
    }
}
