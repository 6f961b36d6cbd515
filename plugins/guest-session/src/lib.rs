//! The life of a session's directory in the guest: what banger's session backends share.
//!
//! How a program gets its input and output is each backend's own business; here is how a session
//! is launched, told of, followed, signalled and removed, as scripts over its directory. Nothing
//! here knows the contract's generated types, which each backend has of its own.

pub mod report;
pub mod scripts;
pub mod signals;

/// A session's directory.
pub fn state_dir(state_root: &str, id: &str) -> String {
    format!("{}/{id}", state_root.trim_end_matches('/'))
}
