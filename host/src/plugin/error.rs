//! What can be wrong with a plugin, in sentences that name it.
//!
//! No message shows the engine's own dump; text that comes from a plugin is escaped and cut
//! before it gets in here.

use super::engine::{
    COMPONENT_LIMIT, DEADLINE, INPUT_LIMIT, MEMORY_LIMIT, OUTPUT_LIMIT, STACK_LIMIT,
};
use banger_core::{Failure, Kind};

/// A fault and whose it is.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} {fault}")]
pub struct PluginError {
    /// "ssh-session 0.1.0", or the file's name where the plugin could not be asked.
    pub plugin: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a plugin: a sentence that begins after its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The engine does not start on this machine.
    #[error("can't run, since the engine does not start on this machine: {detail}")]
    Engine {
        /// The engine's reason.
        detail: String,
    },
    /// The thread that stops a looping plugin can't be started.
    #[error("can't run, since no thread can be started to stop it in time")]
    Ticker {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be read.
    #[error("can't be read")]
    Read {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than a component may be.
    #[error("is larger than the {} MiB that a component may have", COMPONENT_LIMIT >> 20)]
    TooLarge,
    /// The file is another thing than a component.
    #[error("is no WebAssembly component: {found}")]
    NotComponent {
        /// What it is instead.
        found: &'static str,
    },
    /// It begins like a component, and is none.
    #[error("is a damaged component: {detail}")]
    Damaged {
        /// The validator's sentence.
        detail: String,
    },
    /// It wants something from outside.
    #[error("imports `{import}`, and plugins may import nothing")]
    Imports {
        /// The first import that is more than types.
        import: String,
    },
    /// It does not say who it is.
    #[error("does not export banger:plugin/metadata")]
    NoMetadata,
    /// It was made for another banger.
    #[error("speaks {interface}@{found}; this banger speaks {speaks}{advice}")]
    InterfaceVersion {
        /// The interface's name.
        interface: String,
        /// The plugin's version of it.
        found: String,
        /// Our version of it.
        speaks: &'static str,
        /// ": upgrade banger", where the plugin's is newer; else what its author does.
        advice: &'static str,
    },
    /// An interface has the right name and version, and other types.
    #[error("exports {interface}@{version} with functions or types that are not the contract's")]
    WrongTypes {
        /// The interface's name.
        interface: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// Another plugin has its name.
    #[error("has the name of {other}, which is loaded already")]
    NameTaken {
        /// Where the other is from.
        other: String,
    },
    /// Another plugin provides the same thing under the same name.
    #[error("provides the {what} `{name}`, and so does plugin {other}, which is used")]
    Provided {
        /// "session backend" or "workspace kind".
        what: &'static str,
        /// The thing's name.
        name: String,
        /// The plugin that is used.
        other: String,
    },
    /// It stopped by itself.
    #[error("failed in {function}: {trap}")]
    Trap {
        /// The function.
        function: &'static str,
        /// What the engine says.
        trap: String,
    },
    /// It took too long.
    #[error("was stopped in {function} after {} s", DEADLINE.as_secs())]
    Deadline {
        /// The function.
        function: &'static str,
    },
    /// It wanted too much memory.
    #[error("needs more than {} MiB of memory in {function}", MEMORY_LIMIT >> 20)]
    Memory {
        /// The function.
        function: &'static str,
    },
    /// It recursed too deeply.
    #[error("needs more than {} KiB of stack in {function}", STACK_LIMIT >> 10)]
    Stack {
        /// The function.
        function: &'static str,
    },
    /// We would have passed too much.
    #[error("can't be given {input} bytes in {function}: at most {INPUT_LIMIT} are allowed")]
    InputTooLarge {
        /// The function.
        function: &'static str,
        /// The size.
        input: usize,
    },
    /// It returned too much.
    #[error("returned more than {} MiB from {function}", OUTPUT_LIMIT >> 20)]
    OutputTooLarge {
        /// The function.
        function: &'static str,
    },
    /// What it returned can't be read.
    #[error("returned something from {function} that is no value of the promised type")]
    Malformed {
        /// The function.
        function: &'static str,
    },
    /// What it returned can be read, and breaks the contract.
    #[error("returned something from {function} that the contract forbids: {detail}")]
    Forbidden {
        /// The function.
        function: &'static str,
        /// What, for a person.
        detail: String,
    },
    /// We were asked to pass on what the contract has no form for.
    #[error("can't be asked: {detail}")]
    Unaskable {
        /// What, for a person.
        detail: String,
    },
    /// It says that this can't be done, as it may.
    #[error("refuses: {message}")]
    Refused {
        /// Its sentence.
        message: String,
        /// What to do next, or empty.
        hint: String,
    },
}

impl Fault {
    /// This fault, of that plugin.
    pub(super) fn of(self, plugin: &str) -> PluginError {
        PluginError {
            plugin: plugin.to_owned(),
            fault: self,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Engine { .. } | Self::Ticker { .. } => {
                "run `banger doctor`; a limit on memory or threads is the usual cause"
            }
            Self::Read { .. } => "check the file's permissions",
            Self::TooLarge => "build it in release mode and strip it",
            Self::NotComponent { .. } => {
                "a plugin is built with wasm-component-ld as its linker: see docs/plugin-contract.md"
            }
            Self::Damaged { .. } => "build or download the file again",
            Self::Imports { .. } => {
                "build it for wasm32-unknown-unknown, not for WASI: see docs/plugin-contract.md"
            }
            Self::NoMetadata | Self::WrongTypes { .. } => {
                "build it against this banger's wit/ directory: see docs/plugin-contract.md"
            }
            Self::InterfaceVersion { .. } | Self::Refused { .. } => "",
            Self::NameTaken { .. } | Self::Provided { .. } => {
                "remove one of the two from the plugin directory, or rename it"
            }
            Self::InputTooLarge { .. } | Self::Unaskable { .. } => "pass less, or in another form",
            Self::Trap { .. }
            | Self::Deadline { .. }
            | Self::Memory { .. }
            | Self::Stack { .. }
            | Self::OutputTooLarge { .. }
            | Self::Malformed { .. }
            | Self::Forbidden { .. } => {
                "this is a defect of the plugin: tell its author (`banger plugin list` shows its homepage)"
            }
        }
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        Self::from(&error)
    }
}

impl From<&PluginError> for Failure {
    fn from(error: &PluginError) -> Self {
        match &error.fault {
            Fault::Refused { message, hint } => Self::new(Kind::Invalid, message).hint(hint),
            Fault::InputTooLarge { .. } | Fault::Unaskable { .. } => {
                Self::from_error(Kind::Invalid, error).hint(error.fault.hint())
            }
            Fault::Engine { .. } | Fault::Ticker { .. } => {
                let mut failure = Self::from_error(Kind::Host, &error.fault);
                failure.message = format!("plugins {}", failure.message);
                failure.hint(error.fault.hint())
            }
            fault => {
                // The fault is part of our own sentence; its cause is not.
                let mut message = format!("plugin {} {fault}", error.plugin);
                if let Some(cause) = std::error::Error::source(fault) {
                    message = format!("{message}: {cause}");
                }
                Self::new(Kind::Plugin, message).hint(fault.hint())
            }
        }
    }
}
