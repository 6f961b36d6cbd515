//! Harness and the tests that cross crates, grouped by the question they answer.

pub mod compared;
pub mod home;
pub mod random;
pub mod rpc;
pub mod schema;
pub mod screen;
pub mod sshd;
pub mod stream;

/// Asks again and again until the answer is yes.
///
/// # Panics
/// After two minutes, naming what was waited for.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !ask() {
        assert!(
            since.elapsed() < std::time::Duration::from_secs(120),
            "waited in vain: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
