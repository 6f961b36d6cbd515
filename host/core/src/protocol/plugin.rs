//! Requests and replies about plugins.

use crate::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginOrigin {
    /// It is part of the binary.
    Embedded,
    /// It is a file of the user's.
    File {
        /// Its path.
        path: String,
    },
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plugin {
    /// Its name; where it can't be loaded, its file's.
    pub name: String,
    /// Its version, or empty where it can't be loaded.
    pub version: String,
    /// What it is for.
    pub summary: String,
    /// A URL, or empty.
    pub homepage: String,
    /// The interfaces it exports: `session-backend@0.1.0`, …
    pub interfaces: Vec<String>,
    /// What it adds, such as `backend ssh` or `workspace git`.
    pub provides: Vec<String>,
    /// Where it comes from.
    pub origin: PluginOrigin,
    /// Of the component, in hexadecimal.
    pub sha256: String,
    /// The component's size in bytes.
    pub bytes: u64,
    /// Whether it takes the place of one that is part of the binary.
    pub overrides: bool,
    /// Why it can't be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Names a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginRef {
    /// Its name.
    pub name: String,
}

/// `plugin.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginList {
    /// By name.
    pub plugins: Vec<Plugin>,
}
