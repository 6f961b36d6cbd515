//! The first-party plugins, as `build.rs` has built them.

/// A component in the binary.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// The crate's name, for messages before the plugin has told its own.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

/// Every first-party plugin, by name.
pub fn embedded() -> &'static [Embedded] {
    PLUGINS
}

include!(concat!(env!("OUT_DIR"), "/embedded_plugins.rs"));
