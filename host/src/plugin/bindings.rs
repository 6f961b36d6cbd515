//! The Rust side of `wit/`: types and typed functions, generated for every interface.
//!
//! Only the parts of single interfaces are used (`…::GuestIndices`), never the world: a plugin
//! exports whichever interfaces it likes. No other module of this crate sees these types except
//! the façade of the same interface, which turns them into `banger-core`'s.

// SAFETY of the generated code: wasmtime's macro casts a function to its type unchecked after
// `GuestIndices::load` has checked that very type. There is no unsafe code of our own here.
#![allow(unsafe_code, missing_docs, rust_2018_idioms)]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package banger:host;

        world every-interface {
            export banger:plugin/metadata@0.1.0;
            export banger:plugin/session-backend@0.1.0;
            export banger:plugin/preflight@0.1.0;
            export banger:plugin/workspace@0.1.0;
        }
    ",
    world: "banger:host/every-interface",
});

pub use banger::plugin::types;
pub use exports::banger::plugin::{metadata, preflight, session_backend, workspace};
