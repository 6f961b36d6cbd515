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
    /// The full id of the commit compared with, or of the empty tree.
    pub base: String,
    /// The id of the tree that holds everything in the working tree.
    pub tree: String,
    /// Commits that the head has and the base has not.
    pub commits: u32,
    /// Everything that differs from the base.
    pub changes: Vec<Change>,
    /// Whether there are more changes than are listed.
    pub more: bool,
    /// Submodules with work of their own, which an export does not bring.
    pub submodules: Vec<Submodule>,
}

/// A submodule of a guest with work of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submodule {
    /// Relative to the top. From the guest: escape before showing.
    pub path: ByteString,
    /// The commit that the base has it at.
    pub base: Option<String>,
}

/// The id of the tree without entries, in the object format of another id.
pub fn empty_tree(like: &str) -> &'static str {
    match like.len() {
        64 => "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
        _ => "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    }
}
