//! Requests and replies about images.

use crate::ImageName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image that is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// What it was built from, such as `Debian bookworm`.
    pub base: String,
    /// Milliseconds since 1970.
    pub built_at_ms: u64,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// How many packages are in it.
    pub packages: u64,
    /// Its directory.
    pub path: String,
}

/// `image.build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBuild {
    /// Which; `base` where absent.
    #[serde(default)]
    pub name: Option<ImageName>,
    /// Build it even where it is complete and up to date.
    #[serde(default)]
    pub force: bool,
}

/// Names an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Its name.
    pub name: ImageName,
}

/// `image.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageList {
    /// By name.
    pub images: Vec<Image>,
}
