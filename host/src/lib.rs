//! The host side of banger: everything that has an effect.
//!
//! A request plus observed facts becomes a plan (made by `banger-core` and by plugins); only this
//! crate turns a plan into effects. It never writes to the terminal: `cli` renders.

pub mod daemon;
pub mod dirs;
pub mod doctor;
pub mod exec;
pub mod guest_script;
pub mod image;
pub mod machine;
pub mod plugin;
pub mod quarantine;
pub mod repository;
pub mod session;
pub mod ssh;
pub mod store;
pub mod stream;
pub mod task;
pub mod vm;
pub mod workspace;
