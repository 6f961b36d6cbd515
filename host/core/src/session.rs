//! What a session is and how its state moves.

use crate::{ByteString, SessionId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a session's standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
pub enum StdinKind {
    /// `/dev/null`.
    None,
    /// A pipe that stays open.
    #[default]
    Pipe,
    /// A terminal.
    Tty,
}

/// One of a session's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    /// Standard output, or what a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// The launch has begun.
    Starting,
    /// The program runs.
    Running,
    /// The program ended; its exit code is known.
    Exited,
    /// The program never ran.
    Failed,
    /// It is gone, and nobody saw how it ended.
    Lost,
}

impl SessionState {
    /// Whether nothing more can happen to it.
    pub fn is_final(self) -> bool {
        match self {
            Self::Starting | Self::Running => false,
            Self::Exited | Self::Failed | Self::Lost => true,
        }
    }

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// The state after the guest has been asked, given the state known before.
    ///
    /// The guest owns the truth, with two exceptions. A final state stays, unless `lost` turns
    /// out to have been too early. And a session that the guest does not know any more (`None`)
    /// is lost, unless its end was known.
    pub fn observed(self, seen: Option<Self>) -> Self {
        match (self, seen) {
            (Self::Exited | Self::Failed, _) => self,
            (Self::Starting | Self::Running | Self::Lost, None) => Self::Lost,
            (Self::Starting | Self::Running | Self::Lost, Some(now)) => now,
        }
    }
}

/// What was true of a session when the guest was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Whose it is.
    pub id: SessionId,
    /// Its state.
    pub state: SessionState,
    /// The program's process in the guest.
    pub pid: Option<u32>,
    /// 0 to 255; 128 + n where signal n ended the program.
    pub exit_code: Option<i32>,
    /// Whether that process exists.
    pub alive: bool,
    /// Why it failed, from the guest: escape before showing.
    pub last_error: Option<ByteString>,
    /// Bytes ever written to standard output.
    pub stdout_bytes: u64,
    /// Bytes ever written to standard error.
    pub stderr_bytes: u64,
    /// Where what is kept of standard output begins.
    #[serde(default)]
    pub stdout_start: u64,
    /// Where what is kept of standard error begins.
    #[serde(default)]
    pub stderr_start: u64,
    /// Milliseconds since 1970, by the guest's clock.
    pub started_at_ms: Option<u64>,
    /// Milliseconds since 1970, by the guest's clock.
    pub ended_at_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::SessionState::{self, *};

    const ALL: [SessionState; 5] = [Starting, Running, Exited, Failed, Lost];

    #[test]
    fn every_state_meets_every_observation() {
        for known in ALL {
            for seen in ALL.map(Some).into_iter().chain([None]) {
                let expected = match (known, seen) {
                    (Exited, _) => Exited,
                    (Failed, _) => Failed,
                    (_, None) => Lost,
                    (_, Some(state)) => state,
                };
                assert_eq!(known.observed(seen), expected, "{known:?} saw {seen:?}");
            }
        }
    }
}
