//! The life of a session's directory in the guest: what banger's session backends share.
//!
//! How a program gets its input and output is each backend's own business; here is how a session
//! is launched, told of, followed, signalled and removed, as scripts over its directory. Nothing
//! here knows the contract's generated types, which each backend has of its own.

pub mod records;
pub mod report;
pub mod scripts;
pub mod signals;

use banger_plugin::Refusal;

/// A session's directory.
pub fn state_dir(state_root: &str, id: &str) -> String {
    format!("{}/{id}", state_root.trim_end_matches('/'))
}

/// Refuses what is no name of a writer: those are file names in the guest.
///
/// # Errors
/// It is not `[a-z0-9]+`, of 32 bytes at most.
pub fn check_writer(writer: &str) -> Result<(), Refusal> {
    if is_id(writer) {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "`{}` is no name for a writer",
        writer.escape_default()
    ))
    .hint("use lower-case letters and digits, at most 32"))
}

/// Whether it is `[a-z0-9]+`, of 32 bytes at most.
fn is_id(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
