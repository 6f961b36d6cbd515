//! Requests and replies about sessions.

use super::Stream;
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
    #[schemars(length(min = 1))]
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
    /// How many of its last bytes each log keeps; 0 for all. 512 MiB where absent.
    #[serde(default)]
    pub log_limit_bytes: Option<u64>,
    /// The terminal's size until somebody attaches, for [`StdinKind::Tty`]; 80 × 24 where absent.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// `guest.session.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionListCall {
    /// Name or id of a machine; all where absent.
    #[serde(default)]
    pub vm: Option<String>,
    /// Only sessions with all of these labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Only sessions in one of these states; in any where empty.
    #[serde(default)]
    pub states: Vec<SessionState>,
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
    /// Only what was written in the last so many milliseconds, or somewhat more.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Go on until the session ends.
    #[serde(default)]
    pub follow: bool,
    /// From this byte of standard output on. Not together with `tail` or `since_ms`.
    #[serde(default)]
    pub stdout_offset: Option<u64>,
    /// The same for standard error.
    #[serde(default)]
    pub stderr_offset: Option<u64>,
}

/// A stream of output, and where in the logs it begins.
///
/// A client that counts what it gets can ask for the rest after its stream was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFrom {
    /// Where the bytes come.
    #[serde(flatten)]
    pub stream: Stream,
    /// Whose they are: another session may get the name later.
    pub session_id: SessionId,
    /// The first byte of standard output.
    pub stdout_offset: u64,
    /// The first byte of standard error.
    pub stderr_offset: u64,
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
    /// Become the writer also where another is attached, whose stream ends then.
    #[serde(default)]
    pub takeover: bool,
    /// Names this client across its connections: 1 to 32 of `a` to `z` and `0` to `9`. A writer
    /// that comes back under its name takes its own place, and learns what of its input was
    /// taken. Made up where absent.
    #[serde(default)]
    #[schemars(extend("pattern" = "^[a-z0-9]{1,32}$"))]
    pub writer: Option<String>,
    /// Show the session on a terminal, for [`StdinKind::Tty`]: what comes as standard output
    /// draws it. Offsets mean nothing then.
    #[serde(default)]
    pub terminal: Option<AttachTerminal>,
    /// Bytes of standard output that the client has already; where absent, it gets what is
    /// written from now on.
    #[serde(default)]
    pub stdout_offset: Option<u64>,
    /// The same for standard error.
    #[serde(default)]
    pub stderr_offset: Option<u64>,
}

/// The client's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachTerminal {
    /// Its size now; frames tell of later ones.
    pub size: TerminalSize,
    /// Its type, as in `TERM`: 1 to 64 letters, digits and `+-._`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9+._-]{1,64}$"))]
    pub term: String,
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
    /// Close the input once it is written: the program reads its end. With an empty message,
    /// nothing is written before.
    #[serde(default)]
    pub close: bool,
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

/// `guest.session.resize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionResize {
    /// Name or id of the machine.
    pub vm: String,
    /// Name or id of the session.
    pub session: String,
    /// The terminal's new size, until somebody attaches.
    pub size: TerminalSize,
}
