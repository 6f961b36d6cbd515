//! The ids, paths, protocol and states of banger.
//!
//! Nothing here touches a file, a process, the environment, a clock or a network; there is no
//! async runtime and no plugin engine. Whatever can be decided from values alone is decided here.

pub mod byte_string;
pub mod escape;
pub mod failure;
pub mod frame;
pub mod id;
pub mod path;
pub mod protocol;
pub mod script;
pub mod session;
pub mod workspace;

pub use byte_string::ByteString;
pub use failure::{Failure, Kind};
pub use id::{ImageName, PluginName, SessionId, SessionName, VmId, VmName};
pub use path::GuestPath;
pub use script::{Output, Script};
