//! Plugins: WASM components that turn facts into data.
//!
//! [`Registry::load`] makes the first-party plugins (embedded in the binary) and the user's known;
//! [`SessionBackend`], [`Preflight`] and [`Workspace`] are typed faces of what they export.
//!
//! A plugin gets no power of any kind: a component that imports a function is refused, each call
//! runs in a store of its own that is thrown away, and time, memory, stack, input and output are
//! limited. What it returns is data from a stranger: the faces check it before anyone sees it.
//! Nothing here runs a script, reads a user's file (except `*.wasm`) or opens a connection.
//!
//! # Threads
//! Calls are synchronous: short for a well-behaved plugin, and up to [`DEADLINE`] for one that
//! loops. On a runtime of several threads the others take over meanwhile.

mod bindings;
mod cache;
mod component;
mod embedded;
mod engine;
mod error;
mod loading;
mod preflight;
mod registry;
mod session_backend;
mod snapshot;
mod ticker;
mod validate;
mod workspace;

pub use component::CodeOrigin;
pub use embedded::{Embedded, embedded};
pub use engine::{
    COMPONENT_LIMIT, DEADLINE, INPUT_LIMIT, MEMORY_LIMIT, OUTPUT_LIMIT, Runtime, STACK_LIMIT,
};
pub use error::{Fault, PluginError};
pub use preflight::{Check, Preflight, PreflightRequest, Verdict};
pub use registry::{Origin, PluginInfo, Registry};
pub use session_backend::{
    BackendInfo, Follow, HOST_RECORD_LIMIT, LaunchRequest, Role, Session, SessionBackend,
    SessionPaths,
};
pub(crate) use snapshot::{SNAPSHOTS_LIMIT, TIME_LIMIT_MS};
pub use workspace::{Existing, ReceiveRequest, Transport, Workspace, WorkspaceInfo};

/// The version of package `banger:plugin` that this banger speaks.
pub const CONTRACT: &str = "0.1.0";
