//! Does every repository that git can hold go into a guest exactly, and is the user's left alone?
//!
//! The host's half and the plugin's script, joined by pipes on this machine; over a real sshd it is
//! tested in `tests/tests/workspace.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

mod again;
mod interrupted;
mod large;
mod property;
mod special;
mod untouched;
mod world;
