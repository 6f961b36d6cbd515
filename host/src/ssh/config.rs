//! Whom to connect to, how, and the key exchange that only fetches a host key.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};
use russh::{Limits, Preferred, SshId, cipher, client, compression, kex};
use tokio::net::TcpStream;

use super::error::SshError;
use super::key::{HostKey, Identity};

/// How long a connection may take from its first packet to the login. A guest in software
/// emulation needs up to two seconds for it.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// A guest's sshd and how to log in there.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User in the guest.
    pub user: String,
    /// The key to log in with.
    pub identity: Identity,
    /// Which key the server must show.
    pub host_key: HostKeyPolicy,
}

impl Target {
    /// `host:port`, as errors name it.
    pub fn endpoint(&self) -> String {
        endpoint(&self.host, self.port)
    }
}

/// Which host key is accepted.
#[derive(Debug, Clone)]
pub enum HostKeyPolicy {
    /// Exactly this one.
    Pinned(HostKey),
    /// Whatever the first connection shows; later connections of the same
    /// [`Remote`](super::Remote) must show the same.
    TrustFirst,
}

fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// russh's settings for a server that is known by this key, if any.
pub(super) fn client_config(host_key: Option<&HostKey>) -> Arc<client::Config> {
    // A server with several host keys shows the one that the client prefers: prefer the pinned.
    let key = match host_key {
        Some(key) => vec![key.algorithm()],
        None => vec![
            Algorithm::Ed25519,
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP384,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP521,
            },
        ],
    };
    Arc::new(client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-banger_",
            env!("CARGO_PKG_VERSION")
        ))),
        // 1 GiB and an hour, as RFC 4253 recommends.
        limits: Limits::default(),
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        channel_buffer_size: QUEUED_PACKETS,
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::ECDH_SHA2_NISTP256,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]),
            key: Cow::Owned(key),
            cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        nodelay: true,
        ..client::Config::default()
    })
}

/// What a channel may have in flight. Also half of what russh lets arrive while it renews keys.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The largest packet that the server may send.
const PACKET_BYTES: u32 = 32 * 1024;
/// Packets that wait for a channel's reader before the connection is held back.
const QUEUED_PACKETS: usize = 64;

/// A TCP connection without Nagle's delay: with it a command takes 45 ms instead of 3.
pub(super) async fn open_tcp(host: &str, port: u16) -> Result<TcpStream, SshError> {
    let failed = |source: std::io::Error| SshError::Connect {
        endpoint: endpoint(host, port),
        source: Arc::new(source),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// The key that the server at this address shows, without logging in. The server has proved that
/// it owns the key; whether it is the right one is for a person to judge, by its fingerprint.
///
/// # Errors
/// Nothing answers there, or it is no SSH server with an ed25519 or ecdsa host key.
pub async fn scan_host_key(host: &str, port: u16) -> Result<HostKey, SshError> {
    let endpoint = endpoint(host, port);
    let timed_out = SshError::ConnectTimedOut {
        endpoint: endpoint.clone(),
        after: CONNECT_DEADLINE,
    };
    let scan = async {
        let stream = open_tcp(host, port).await?;
        match client::connect_stream(client_config(None), stream, Scanner).await {
            Err(Scanned::Key(key)) => Ok(*key),
            Err(Scanned::Failed(source)) => Err(SshError::Handshake {
                endpoint: endpoint.clone(),
                source: Arc::new(source),
            }),
            Ok(_) => Err(SshError::Handshake {
                endpoint: endpoint.clone(),
                source: Arc::new(russh::Error::Inconsistent),
            }),
        }
    };
    tokio::time::timeout(CONNECT_DEADLINE, scan)
        .await
        .unwrap_or(Err(timed_out))
}

/// Ends the key exchange as soon as the host key is known.
struct Scanner;

#[derive(Debug)]
enum Scanned {
    Key(Box<HostKey>),
    Failed(russh::Error),
}

impl From<russh::Error> for Scanned {
    fn from(error: russh::Error) -> Self {
        Self::Failed(error)
    }
}

impl client::Handler for Scanner {
    type Error = Scanned;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Scanned> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Err(Scanned::Key(Box::new(HostKey::from_public(key.clone()))))
            }
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}
