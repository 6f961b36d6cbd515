//! Requests and replies about working copies.

use super::Stream;
use crate::workspace::Change;
use crate::{ByteString, GuestPath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The path in the guest where none is given, in machines of banger's own; on an adopted host it is
/// `repo` in the user's home.
pub const DEFAULT_GUEST_PATH: &str = "/root/repo";

/// How much of the repository goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum PrepareMode {
    /// HEAD with bounded history, then the working tree's differences laid over.
    #[default]
    ShallowOverlay,
    /// The whole history and all references.
    FullCopy,
}

/// Whether files that git does not know go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum Untracked {
    /// They do.
    #[default]
    Include,
    /// They don't.
    Exclude,
}

/// `vm.workspace.prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Name or id of the machine.
    #[serde(default)]
    pub vm: String,
    /// Absolute path on the host of the repository, or of a directory in it.
    pub path: ByteString,
    /// Where in the guest; [`DEFAULT_GUEST_PATH`] where absent.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
    /// How much goes in.
    #[serde(default)]
    pub mode: PrepareMode,
    /// Whether files that git does not know go in.
    #[serde(default)]
    pub untracked: Untracked,
    /// Globs of ignored files that go in all the same; `*` does not match a slash, `**` does.
    #[serde(default)]
    pub include_ignored: Vec<String>,
    /// Start the guest on this new branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// Overwrite what is there, also work that was not exported.
    #[serde(default)]
    pub force: bool,
}

/// A working copy in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Prepared {
    /// Top of the repository on the host.
    pub path: ByteString,
    /// Where it is in the guest.
    pub guest_path: GuestPath,
    /// The plugin that made it.
    pub kind: String,
    /// How much went in.
    pub mode: PrepareMode,
    /// The commit that was checked out: the recorded head, the base of later exports.
    pub head_commit: String,
    /// Its branch.
    pub branch: Option<String>,
    /// Files laid over the commit: modified or untracked.
    pub files_laid_over: u64,
    /// Files of the commit that the user's tree does not have.
    pub files_deleted: u64,
    /// Paths that are staged.
    #[serde(default)]
    pub files_staged: u64,
    /// Submodules with a working tree.
    #[serde(default)]
    pub submodules: u64,
    /// Bytes sent to the guest in all.
    pub bytes_sent: u64,
    /// Milliseconds since 1970.
    pub prepared_at_ms: u64,
    /// What the user should know, such as what did not come along.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The tree that was last exported from there.
    #[serde(default)]
    pub exported_tree: Option<String>,
}

/// `vm.workspace.export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Name or id of the machine.
    pub vm: String,
    /// Where in the guest; [`DEFAULT_GUEST_PATH`] where absent.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
    /// A commit or ref in the guest's repository; its HEAD where absent.
    #[serde(default)]
    pub base_commit: Option<String>,
}

/// What an export is of, and where its patch can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportReply {
    /// What was asked for: the given ref, or `HEAD`.
    pub base_ref: String,
    /// The full id of the commit that the patch is from.
    pub base_commit: String,
    /// The guest's HEAD.
    pub head_commit: Option<String>,
    /// Its branch.
    pub branch: Option<String>,
    /// Commits since the base.
    pub commits: u32,
    /// What the patch changes.
    pub changes: Vec<Change>,
    /// The patch, as stdout frames, then exit 0.
    pub patch: Stream,
}
