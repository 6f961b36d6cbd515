//! What goes wrong, as people and programs see it: a kind, a sentence, a hint, an exit code.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of failure it is. The kind decides the process's exit code and the JSON-RPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A defect of banger, or something that nobody foresaw.
    Internal,
    /// The command line or the request is malformed.
    Usage,
    /// No such VM, session, image or plugin.
    NotFound,
    /// The thing is there but in another state, or the name is taken.
    Conflict,
    /// A value was understood and can't be accepted: a path that is no repository, say.
    Invalid,
    /// The guest lacks what the launch needs, or the launch itself failed.
    Launch,
    /// The guest does not answer.
    Unreachable,
    /// The guest's host key is not the pinned one.
    HostKey,
    /// A plugin is missing, was refused, or misbehaved.
    Plugin,
    /// This machine lacks something: a package, disk space, a permission.
    Host,
    /// The daemon does not answer, or speaks another version.
    Daemon,
    /// Something took longer than it may.
    TimedOut,
    /// A command in the guest failed.
    Guest,
    /// What was asked for is no longer kept: the beginning of a log, say.
    Gone,
    /// The user stopped it.
    Cancelled,
}

impl Kind {
    /// Every kind, in the order of their exit codes.
    pub const ALL: [Self; 15] = [
        Self::Internal,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::Invalid,
        Self::Launch,
        Self::Unreachable,
        Self::HostKey,
        Self::Plugin,
        Self::Host,
        Self::Daemon,
        Self::TimedOut,
        Self::Guest,
        Self::Gone,
        Self::Cancelled,
    ];

    /// The exit code of `banger`, a documented contract (docs/exit-codes.md).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Invalid => 5,
            Self::Launch => 6,
            Self::Unreachable => 7,
            Self::HostKey => 8,
            Self::Plugin => 9,
            Self::Host => 10,
            Self::Daemon => 11,
            Self::TimedOut => 12,
            Self::Guest => 13,
            Self::Gone => 14,
            Self::Cancelled => 130,
        }
    }

    /// The code of a JSON-RPC error object: -32000 less the exit code.
    pub fn rpc_code(self) -> i32 {
        -32000 - i32::from(self.exit_code())
    }
}

/// A failure that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort.
    pub kind: Kind,
    /// One sentence without a full stop at its end. Untrusted parts of it are escaped.
    pub message: String,
    /// What to do next, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Which stage of a longer operation failed, such as `preflight-cwd`; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Raw output that tells more, escaped; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: String::new(),
            stage: String::new(),
            detail: String::new(),
        }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with the stage that failed.
    #[must_use]
    pub fn stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = stage.into();
        self
    }

    /// The same with raw output, which is escaped here.
    #[must_use]
    pub fn detail(mut self, raw: &[u8]) -> Self {
        self.detail = crate::escape::lines(raw);
        self
    }

    /// An error of this kind with its whole chain of causes as the sentence.
    pub fn from_error(kind: Kind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_share_an_exit_code() {
        let codes: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
    }
}
