//! SSH to guests: keys, connections that are made when needed and remade when lost, and processes
//! whose two directions flow independently.
//!
//! [`Remote`] is the way in. It refuses to know what is run: command lines come ready made, output
//! is bytes. It never retries a command that may have begun, only what failed before it was sent.
//!
//! # Which connection a process gets
//! SSH gives every channel a window, but russh extends it on *receipt*, not when the reader has
//! taken the data, and has no call to extend it by hand. So a reader that stops either makes
//! the queue of its channel grow without limit, or, with a bounded queue, stops the connection's
//! task and with it every other channel. Therefore:
//!
//! - [`Remote::run`] always reads until the end, so all its channels share a connection.
//! - [`Remote::start`] hands the reading to the caller, so its process has a connection to itself
//!   while it lives, a lane; those of [`Remote::start_together`] have one reader, and share a lane.
//!   A stalled reader stops that connection only; TCP then holds the guest's
//!   process back; memory stays below the channel's queue (64 packets of at most 32 KiB).
//!   Lanes whose processes ended are kept for the next `start`.
//!
//! sshd refuses more than `MaxSessions` (by default 10) channels on one connection. How many it
//! allows is learnt from its first refusal; further commands wait for a free channel, and when
//! none gets free soon, another shared connection is opened.

mod config;
mod error;
mod key;
mod link;
mod output;
mod pool;
mod process;
mod ready;
mod remote;
mod wire;

pub use bytes::Bytes;
pub use config::{HostKeyPolicy, Target, scan_host_key};
pub use error::SshError;
pub use key::{HostKey, Identity, KeyError, KeyPair};
pub use pool::Connectivity;
pub use process::{Exit, Process, ProcessEvent, ProcessInput, ProcessOutput, Terminal};
pub use remote::Remote;
