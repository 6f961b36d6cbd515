//! Requests and replies about sessions.

use crate::session::{OutputStream, SessionState, Snapshot, StdinKind};
use crate::{ByteString, Failure, GuestPath, SessionId, SessionName, VmId, VmName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: SessionName,
    /// The machine it is in.
    pub vm: VmName,
    /// That machine's id.
    pub vm_id: VmId,
    /// The backend that runs it.
    pub backend: String,
    /// What its standard input is.
    pub stdin: StdinKind,
    /// Program and arguments.
    pub command: Vec<ByteString>,
    /// Its working directory.
    pub cwd: GuestPath,
    /// Its directory in the guest.
    pub state_dir: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Milliseconds since 1970, by the host's clock.
    pub created_at_ms: u64,
    /// What was true of it when the guest was asked last.
    pub snapshot: Snapshot,
    /// Why it did not start: the stage, a sentence, raw output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Session {
    /// Its state.
    pub fn state(&self) -> SessionState {
        self.snapshot.state
    }
}

/// Names a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRef {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
}

/// `guest.session.start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionStart {
    /// Name or id of the machine.
    pub vm: String,
    /// Program and arguments, byte for byte; at least one.
    pub command: Vec<ByteString>,
    /// Its name; made from the program's where absent.
    #[serde(default)]
    pub name: Option<SessionName>,
    /// The backend; where absent, the first that offers this kind of stdin.
    #[serde(default)]
    pub backend: Option<String>,
    /// Where it runs; where absent, the workspace if one was prepared, else the home.
    #[serde(default)]
    pub cwd: Option<GuestPath>,
    /// Added to its environment.
    #[serde(default)]
    pub env: Vec<(String, ByteString)>,
    /// Commands that must be there before it is launched.
    #[serde(default)]
    pub require: Vec<String>,
    /// What its standard input is; a pipe where absent.
    #[serde(default)]
    pub stdin: StdinKind,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// `guest.session.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionListCall {
    /// Name or id of a machine; all where absent.
    #[serde(default)]
    pub vm: Option<String>,
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    /// By machine, then oldest first.
    pub sessions: Vec<Session>,
}

/// `guest.session.logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionLogs {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// One stream alone; both where absent.
    #[serde(default)]
    pub stream: Option<OutputStream>,
    /// How many of the last lines; all where absent.
    #[serde(default)]
    pub tail: Option<u64>,
    /// Go on until the session ends.
    #[serde(default)]
    pub follow: bool,
}

/// `guest.session.attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionAttach {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// Read only: any number may; there is one writer.
    #[serde(default)]
    pub observe: bool,
    /// Bytes of standard output that the client has already; where absent, it gets what is
    /// written from now on.
    #[serde(default)]
    pub stdout_offset: Option<u64>,
    /// The same for standard error.
    #[serde(default)]
    pub stderr_offset: Option<u64>,
}

/// `guest.session.send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSend {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// What to write; where absent, it comes through a stream.
    #[serde(default)]
    pub message: Option<ByteString>,
    /// Milliseconds for the program to read it all; 30 000 where absent.
    #[serde(default)]
    pub timeout_ms: Option<u32>,
}

/// A message was written whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionSent {
    /// How many bytes.
    pub bytes: u64,
}

/// `guest.session.signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSignal {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// The signal's name without `SIG`: `INT`, `TERM`, `KILL`, `HUP`, …
    pub signal: String,
}

/// `guest.session.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionStop {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// Milliseconds between TERM and KILL; 5 000 where absent.
    #[serde(default)]
    pub grace_ms: Option<u32>,
}

/// `guest.session.wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionWait {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// Milliseconds to wait; for ever where absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}
