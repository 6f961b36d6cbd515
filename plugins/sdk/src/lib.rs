//! What a plugin for banger is written with: the contract's types and traits.
//!
//! A plugin is a pure function from facts to data. This crate gives it no way to have an effect:
//! there is no file, clock, network or randomness behind any of it, and the component that comes
//! out imports nothing.
//!
//! One macro per kind of plugin makes a module `contract` in the plugin's crate: the traits to
//! implement (`Metadata`, and `Guest` for the kind's own interface) and the types that they speak.
//! The export stands behind `#[cfg(target_arch = "wasm32")]`, so that everything else in a plugin
//! is tested natively:
//!
//! ```ignore
//! banger_plugin::preflight!("../../wit");
//!
//! struct Plugin;
//! impl contract::Metadata for Plugin { … }
//! impl contract::Guest for Plugin { … }
//!
//! #[cfg(target_arch = "wasm32")]
//! contract::bindings::export!(Plugin with_types_in contract::bindings);
//! ```

mod kind;
mod script;

pub use script::{Refusal, Script, ScriptParts};

#[doc(hidden)]
pub use wit_bindgen;
