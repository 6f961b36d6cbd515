//! Harness and the tests that cross crates, grouped by the question they answer.

pub mod home;
pub mod rpc;
pub mod sshd;
