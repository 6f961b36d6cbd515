//! The macros that make a plugin's module `contract`.
//!
//! They expand in the plugin's crate, since the names that one generated world exports to the
//! linker can't stand twice in one crate.

/// A plugin that is one way of running a long-lived command in the guest. The argument is the path
/// of the directory `wit`, from the plugin's `Cargo.toml`.
#[macro_export]
macro_rules! session_backend {
    ($wit:literal) => {
        $crate::contract!($wit, "session-backend-plugin", session_backend);
    };
}

/// A plugin that checks the guest before a launch. The argument is the path of the directory
/// `wit`, from the plugin's `Cargo.toml`.
#[macro_export]
macro_rules! preflight {
    ($wit:literal) => {
        $crate::contract!($wit, "preflight-plugin", preflight);
    };
}

/// A plugin that is one kind of working copy. The argument is the path of the directory `wit`,
/// from the plugin's `Cargo.toml`.
#[macro_export]
macro_rules! workspace {
    ($wit:literal) => {
        $crate::contract!($wit, "workspace-plugin", workspace);
    };
}

/// The module `contract`: bindings to a world, its names within reach, and conversions from this
/// crate's own types.
#[doc(hidden)]
#[macro_export]
macro_rules! contract {
    ($wit:literal, $world:literal, $interface:ident) => {
        /// The contract's traits and types; what each means stands in `wit/`.
        pub mod contract {
            /// As generated.
            #[allow(missing_docs, unsafe_code, unused, clippy::all, clippy::unwrap_used)]
            pub mod bindings {
                $crate::wit_bindgen::generate!({
                    path: $wit,
                    world: $world,
                    runtime_path: "banger_plugin::wit_bindgen::rt",
                    additional_derives: [PartialEq],
                });
            }

            pub use bindings::exports::banger::plugin::$interface::*;
            pub use bindings::exports::banger::plugin::metadata::{Guest as Metadata, Info};

            impl From<$crate::Script> for Script {
                fn from(script: $crate::Script) -> Self {
                    let parts = script.into_parts();
                    Self {
                        body: parts.body.to_owned(),
                        args: parts.args,
                        env: parts.env,
                        stdin: parts.stdin,
                        timeout_ms: parts.timeout_ms,
                    }
                }
            }

            impl From<$crate::Refusal> for Refusal {
                fn from(refusal: $crate::Refusal) -> Self {
                    Self {
                        message: refusal.message,
                        hint: refusal.hint,
                    }
                }
            }
        }
    };
}
