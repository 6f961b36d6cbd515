//! What goes wrong between banger and a guest's sshd.

use std::sync::Arc;
use std::time::Duration;

use banger_core::script::ScriptError;
use banger_core::{Failure, Kind};

/// An error of SSH. Cloned to everyone who waited for the same connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SshError {
    /// No TCP connection, or it ended before sshd said what it is.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// `host:port`.
        endpoint: String,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The connection was not up within its deadline.
    #[error("{endpoint} did not answer as an SSH server within {after:?}")]
    ConnectTimedOut {
        /// `host:port`.
        endpoint: String,
        /// The deadline.
        after: Duration,
    },
    /// The two sides did not agree, or the server gave up.
    #[error("the SSH handshake with {endpoint} failed")]
    Handshake {
        /// `host:port`.
        endpoint: String,
        /// What the library said.
        source: Arc<russh::Error>,
    },
    /// Another key than the pinned one.
    #[error("{endpoint} shows the host key {offered}, expected is {expected}")]
    HostKey {
        /// `host:port`.
        endpoint: String,
        /// The fingerprint of the pinned key.
        expected: String,
        /// The fingerprint of the one shown.
        offered: String,
    },
    /// The server does not accept the identity.
    #[error("{endpoint} does not let {user} in with the key {fingerprint}")]
    Authentication {
        /// `host:port`.
        endpoint: String,
        /// The user on the server.
        user: String,
        /// The fingerprint of the identity.
        fingerprint: String,
    },
    /// The connection ended while something depended on it.
    #[error("the connection to {endpoint} was lost: {reason}")]
    Lost {
        /// `host:port`.
        endpoint: String,
        /// What is known of the cause.
        reason: String,
    },
    /// [`Remote::close`](super::Remote::close) was called.
    #[error("the connection to {endpoint} is closed")]
    Closed {
        /// `host:port`.
        endpoint: String,
    },
    /// The server opens no channel, not even on a connection without any.
    #[error("{endpoint} refuses to open a session: {reason}")]
    ChannelRefused {
        /// `host:port`.
        endpoint: String,
        /// The reason that the server gave.
        reason: String,
    },
    /// All channels that the server allows stayed in use.
    #[error("all sessions that {endpoint} allows stayed in use for {after:?}")]
    Busy {
        /// `host:port`.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server refused to run the command.
    #[error("{endpoint} refuses to run the command")]
    ExecRefused {
        /// `host:port`.
        endpoint: String,
    },
    /// The process has ended or closed its stdin.
    #[error("the process no longer reads its input")]
    InputClosed,
    /// The script's own limit.
    #[error("the script did not end within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The script has no command line.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The guest's sshd did not come up in time.
    #[error("{endpoint} was not ready within {after:?}")]
    NotReady {
        /// `host:port`.
        endpoint: String,
        /// The deadline.
        after: Duration,
        /// Why the last attempt failed, if any has ended.
        source: Option<Box<SshError>>,
    },
    /// The machine ended while its sshd was waited for.
    #[error("the machine ended before its SSH server answered: {reason}")]
    MachineEnded {
        /// What the caller's check said.
        reason: String,
    },
}

impl SshError {
    /// The kind that decides the exit code.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimedOut { .. }
            | Self::Handshake { .. }
            | Self::Authentication { .. }
            | Self::Lost { .. }
            | Self::Closed { .. }
            | Self::MachineEnded { .. } => Kind::Unreachable,
            Self::HostKey { .. } => Kind::HostKey,
            Self::Busy { .. } | Self::TimedOut { .. } | Self::NotReady { .. } => Kind::TimedOut,
            Self::ChannelRefused { .. } | Self::ExecRefused { .. } | Self::InputClosed => {
                Kind::Guest
            }
            Self::Script(_) => Kind::Invalid,
        }
    }

    /// What to do next; empty where there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::ConnectTimedOut { .. } => {
                "see whether the VM runs and whether its sshd listens"
            }
            Self::Handshake { .. } => {
                "see the log of the guest's sshd; ed25519 or ecdsa host keys and curve25519 are needed"
            }
            Self::HostKey { .. } => {
                "if the machine was made anew, adopt it again; otherwise something else answers at its address"
            }
            Self::Authentication { .. } => {
                "add the VM's public key to ~/.ssh/authorized_keys in the guest"
            }
            Self::Lost { .. } => "what ran may have gone on; look before you try again",
            Self::ChannelRefused { .. } | Self::Busy { .. } => {
                "raise MaxSessions in the guest's sshd_config"
            }
            Self::NotReady { .. } | Self::MachineEnded { .. } => {
                "the machine's console log tells how far it booted"
            }
            Self::Script(ScriptError::TooLong { .. }) => "pass large values through stdin",
            Self::Closed { .. }
            | Self::ExecRefused { .. }
            | Self::InputClosed
            | Self::TimedOut { .. }
            | Self::Script(_) => "",
        }
    }

    /// Whether a guest that is still booting may give this answer.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimedOut { .. }
                | Self::Handshake { .. }
                | Self::Lost { .. }
        )
    }
}

impl From<SshError> for Failure {
    fn from(error: SshError) -> Self {
        Self::from_error(error.kind(), &error).hint(error.hint())
    }
}
