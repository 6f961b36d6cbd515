//! What happens to sessions, told while it happens.

use crate::session::SessionState;
use crate::{SessionId, SessionName, VmId, VmName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `events.subscribe`: events come as notifications `event` until the connection closes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Name or id of a machine; all where absent.
    #[serde(default)]
    pub vm: Option<String>,
    /// Name or id of a session of it.
    #[serde(default)]
    pub session: Option<String>,
    /// Only sessions with all of these labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// A session counts as idle after so many milliseconds without output; 30 000 where absent,
    /// at least 1 000.
    #[serde(default)]
    pub idle_ms: Option<u64>,
}

/// The subscription has begun: what happens from now on is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subscribed {
    /// The request's id, which every notification of this subscription carries.
    pub subscription: u64,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventOf {
    /// Of which subscription.
    pub subscription: u64,
    /// What happened.
    pub event: Event,
}

/// Something happened to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Milliseconds since 1970 by the host's clock, when the daemon learnt of it.
    pub at_ms: u64,
    /// The machine.
    pub vm: VmName,
    /// That machine's id.
    pub vm_id: VmId,
    /// The session.
    pub session: SessionName,
    /// That session's id.
    pub session_id: SessionId,
    /// The session's labels.
    pub tags: BTreeMap<String, String>,
    /// Its state now.
    pub state: SessionState,
    /// How it ended, where it did.
    pub exit_code: Option<i32>,
    /// Bytes ever written to standard output, as known now.
    pub stdout_bytes: u64,
    /// Bytes ever written to standard error, as known now.
    pub stderr_bytes: u64,
}

/// What can happen to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Its program runs.
    Started,
    /// It has written nothing for the subscription's time.
    OutputIdle,
    /// It writes again after it was idle.
    OutputResumed,
    /// Its program ended; the exit code is known.
    Exited,
    /// Its program never ran.
    Failed,
    /// It is gone, and nobody saw how it ended.
    Lost,
    /// It was deleted.
    Deleted,
    /// Events were dropped before this one, for the client did not read them: ask for the list.
    Lagged,
}

impl EventKind {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::OutputIdle => "output-idle",
            Self::OutputResumed => "output-resumed",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Deleted => "deleted",
            Self::Lagged => "lagged",
        }
    }
}
