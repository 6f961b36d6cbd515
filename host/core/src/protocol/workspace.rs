//! Requests and replies about working copies.

use super::Stream;
use crate::workspace::{Change, Submodule};
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
    /// Overwrite a working copy that is there. Work in it that was not exported is saved on the
    /// host first.
    #[serde(default)]
    pub force: bool,
    /// With `force`: do not save it.
    #[serde(default)]
    pub discard: bool,
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
    /// Where work was saved that this replaced.
    #[serde(default)]
    pub saved: Vec<Saved>,
    /// The tree of everything in the guest's working tree, as it was put in; where it is not
    /// known, what went in uncommitted counts as work of the guest.
    #[serde(default)]
    pub prepared_tree: Option<String>,
    /// The tree of everything in the guest's working tree that was last exported, since the
    /// recorded head and to its end.
    #[serde(default)]
    pub exported_tree: Option<String>,
    /// The guest's HEAD at that export.
    #[serde(default)]
    pub exported_head: Option<String>,
    /// Of a machine that is stopped: whether there was work then that was not exported. `None`
    /// where it could not be asked, and while it runs.
    #[serde(default)]
    pub unexported_at_stop: Option<bool>,
}

/// Work that was saved before it would have been lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Saved {
    /// Where the working copy was in the guest.
    pub guest_path: GuestPath,
    /// The file on the host: a git bundle with the ref `refs/banger/work`, or a patch.
    pub file: ByteString,
    /// Which of the two.
    pub format: ExportFormat,
    /// The commit that it is from.
    pub base_commit: String,
    /// Its size.
    pub bytes: u64,
}

/// The form in which work comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// One binary patch, for `git apply`.
    #[default]
    Patch,
    /// A mail for each commit, for `git am`; what is not committed is one more.
    Mbox,
    /// A git bundle with the commits as they are and one ref, `refs/banger/work`; what is not
    /// committed is one more commit.
    Bundle,
}

/// The largest export where no limit is given, in bytes.
pub const EXPORT_LIMIT_BYTES: u64 = 1 << 30;

/// `vm.workspace.export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Name or id of the machine.
    pub vm: String,
    /// Where in the guest; [`DEFAULT_GUEST_PATH`] where absent.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
    /// A commit or ref in the guest's repository, or the empty tree's id; its HEAD where absent.
    #[serde(default)]
    pub base_commit: Option<String>,
    /// The form of the work.
    #[serde(default)]
    pub format: ExportFormat,
    /// The most bytes that the guest may send; [`EXPORT_LIMIT_BYTES`] where absent.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
}

/// What an export is of, and where its patch can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportReply {
    /// What was asked for: the given ref, or `HEAD`.
    pub base_ref: String,
    /// The full id of the commit that the patch is from, or of the empty tree.
    pub base_commit: String,
    /// The guest's HEAD.
    pub head_commit: Option<String>,
    /// Its branch.
    pub branch: Option<String>,
    /// Commits since the base.
    pub commits: u32,
    /// The id of the tree that holds everything in the working tree.
    pub tree: String,
    /// What the patch changes.
    pub changes: Vec<Change>,
    /// Whether it changes more than is listed.
    pub more: bool,
    /// Submodules with work of their own, which is not part of it: export each by its path.
    #[serde(default)]
    pub submodules: Vec<Submodule>,
    /// The work in its format, as stdout frames, then exit 0. A client that has it all sends
    /// stdin end: only then the work counts as exported.
    pub patch: Stream,
}

/// `vm.workspace.diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// Name or id of the machine.
    pub vm: String,
    /// Where in the guest; where absent, [`DEFAULT_GUEST_PATH`] or the only working copy.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
    /// A commit or ref in the guest's repository; the recorded head where absent.
    #[serde(default)]
    pub base_commit: Option<String>,
    /// The most bytes that the guest may send; [`EXPORT_LIMIT_BYTES`] where absent.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
}

/// `vm.workspace.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceRef {
    /// Name or id of the machine.
    pub vm: String,
    /// Where in the guest; where absent, [`DEFAULT_GUEST_PATH`] or the only working copy.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
}

/// What is true of a working copy now, compared with what was put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceStatus {
    /// Top of the repository on the host.
    pub path: ByteString,
    /// Where it is in the guest.
    pub guest_path: GuestPath,
    /// The recorded head.
    pub base_commit: String,
    /// The guest's HEAD.
    pub head_commit: Option<String>,
    /// Its branch.
    pub branch: Option<String>,
    /// Commits since the base.
    pub commits: u32,
    /// The id of the tree that holds everything in the working tree.
    pub tree: String,
    /// Everything that differs from the base.
    pub changes: Vec<Change>,
    /// Whether there are more changes than are listed.
    pub more: bool,
    /// Submodules with work of their own, which is not part of it: export each by its path.
    #[serde(default)]
    pub submodules: Vec<Submodule>,
    /// Whether there is work that was not exported or applied.
    pub unexported: bool,
}

/// `vm.workspace.apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Name or id of the machine.
    pub vm: String,
    /// Where in the guest; where absent, [`DEFAULT_GUEST_PATH`] or the only working copy.
    #[serde(default)]
    pub guest_path: Option<GuestPath>,
    /// Absolute path on the host of the repository; the recorded one where absent.
    #[serde(default)]
    pub path: Option<ByteString>,
    /// The new branch; `banger/` and the machine's name where absent.
    #[serde(default)]
    pub branch: Option<String>,
    /// Merge the work into the commit that is checked out on the host now.
    #[serde(default)]
    pub three_way: bool,
    /// Only say whether it can be done.
    #[serde(default)]
    pub check: bool,
    /// The most bytes that the guest may send; [`EXPORT_LIMIT_BYTES`] where absent.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
}

/// What `vm.workspace.apply` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Top of the repository on the host.
    pub path: ByteString,
    /// The new branch; none where there was nothing to apply, or it was only checked.
    pub branch: Option<String>,
    /// Its commit; none where there was nothing to apply.
    pub commit: Option<String>,
    /// The recorded head, which the work comes after.
    pub base_commit: String,
    /// The commit that the work was merged into, where that was asked for and needed.
    pub merged_into: Option<String>,
    /// Commits of the guest since the base.
    pub commits: u32,
    /// Whether one more commit holds what was not committed in the guest.
    pub uncommitted: bool,
    /// Everything that differs from the base.
    pub changes: Vec<Change>,
    /// Whether there are more changes than are listed.
    pub more: bool,
    /// Submodules with work of their own, which is not part of it: export each by its path.
    #[serde(default)]
    pub submodules: Vec<Submodule>,
    /// What the user should know.
    pub notes: Vec<String>,
}
