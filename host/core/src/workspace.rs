//! What a working copy is, on the host and in the guest.

use crate::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a path differs from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content or mode changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another name.
    Renamed,
    /// A file became a link, say.
    TypeChanged,
}

/// One path that differs from the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// From the guest: escape before showing.
    pub path: ByteString,
    /// The path before, for [`ChangeKind::Renamed`].
    pub old_path: Option<ByteString>,
}

/// What is true of a guest's working copy now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The commit that is checked out there.
    pub head: Option<String>,
    /// Its branch.
    pub branch: Option<String>,
    /// The full id of the commit compared with.
    pub base: String,
    /// Commits that the head has and the base has not.
    pub commits: u32,
    /// Everything that differs from the base.
    pub changes: Vec<Change>,
}
