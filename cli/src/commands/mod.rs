//! The commands, a file for each verb.

mod completions;
mod daemon;
mod doctor;
mod image;
mod plugin;
mod reference;
mod vm;

use crate::context::Context;
use crate::error::Outcome;
use clap::{Args, Parser, Subcommand};
use std::ffi::{OsStr, OsString};

/// Run coding agents in disposable Linux VMs: a repository in, a patch out.
#[derive(Debug, Parser)]
#[command(
    name = "banger",
    version,
    max_term_width = 100,
    disable_help_subcommand = false,
    after_help = "Examples:
  banger vm run .                                    a fresh VM with this repository in it
  banger vm session start my-vm -- make test         a command that goes on when you leave
  banger vm session events                           what happens to sessions, while it happens
  banger vm workspace export my-vm --output work.patch

Exit codes: docs/exit-codes.md"
)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Debug, Args)]
pub struct Global {
    /// Print replies as JSON on standard output, and errors as JSON on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Show no progress and no remarks
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
}

/// What banger can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Machines, and what is in them
    Vm(vm::Vm),
    /// What machines are made from
    Image(image::Image),
    /// What adds backends, checks and kinds of workspace
    Plugin(plugin::Plugin),
    /// Check whether this machine has what banger needs
    Doctor(doctor::Doctor),
    /// The process that does the work; the other commands start it
    Daemon(daemon::Daemon),
    /// Print a script that completes banger's commands in a shell
    Completions(completions::Completions),
    /// Print docs/cli.md
    #[command(hide = true)]
    Reference(reference::Reference),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Vm(command) => command.run(context),
            Self::Image(command) => command.run(context),
            Self::Plugin(command) => command.run(context),
            Self::Doctor(command) => command.run(context),
            Self::Daemon(command) => command.run(context),
            Self::Completions(command) => command.run(context),
            Self::Reference(command) => command.run(context),
        }
    }
}

/// Whether a command line is of a command that passes the guest's exit code on. Its own failures
/// have a code of their own, also where the command line is malformed.
pub fn passes_exit_code_on(arguments: &[OsString]) -> bool {
    const COMMANDS: [&[&str]; 3] = [
        &["vm", "exec"],
        &["vm", "session", "wait"],
        &["vm", "session", "attach"],
    ];
    let words: Vec<&OsStr> = arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .filter(|argument| !argument.as_encoded_bytes().starts_with(b"-"))
        .map(OsString::as_os_str)
        .collect();
    let is = |command: &[&str]| {
        command.len() <= words.len() && command.iter().zip(&words).all(|(a, b)| a == b)
    };
    let mut options = arguments.iter().take_while(|argument| *argument != "--");
    COMMANDS.into_iter().any(is)
        || (is(&["vm", "session", "start"]) && options.any(|option| option == "--attach"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_passed_on_by_some_commands_only() {
        let passes = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            passes_exit_code_on(&words)
        };
        assert!(passes("banger vm exec my-vm -- true"));
        assert!(passes("banger --json vm session -q wait a b"));
        assert!(passes("banger vm session attach a b"));
        assert!(passes("banger vm session start a --attach -- sh"));
        assert!(!passes("banger vm session start a -- vm exec --attach"));
        assert!(!passes("banger -- vm exec"));
        assert!(!passes("banger vm"));
    }
}
