//! `cargo xtask`: what a contributor does with this project, each as one command.
//!
//! It installs what is missing, runs the tests, shows the whole path in a real VM, and measures.
//! It drives `banger` only as a user does, through the binary; it knows none of banger's crates, so
//! that it compiles in seconds on a fresh machine.

mod banger;
mod bench;
mod demo;
mod deny;
mod process;
mod project;
mod pty;
mod screen;
mod setup;
mod test;

use clap::{Parser, Subcommand};
use process::Signals;
use std::process::ExitCode;

/// Work on banger: install what is missing, test, show, measure.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install the Debian packages and the Rust target that are missing.
    Setup(setup::Arguments),
    /// Run every test; ends with a line `N passed, N failed`.
    Test(test::Arguments),
    /// The whole path: an image, a VM, a repository in it, a session, a patch that applies.
    Demo(demo::Arguments),
    /// Measure against the floor: qemu and ssh themselves.
    Bench(bench::Arguments),
    /// Check licences, sources and duplicates of the dependencies.
    Deny(deny::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Signals::watch().and_then(|signals| {
        let outcome = match arguments.verb {
            Verb::Setup(arguments) => setup::run(&arguments, &signals),
            Verb::Test(arguments) => test::run(&arguments, &signals),
            Verb::Demo(arguments) => demo::run(&arguments, &signals),
            Verb::Bench(arguments) => bench::run(&arguments, &signals),
            Verb::Deny(arguments) => deny::run(&arguments, &signals),
        };
        match signals.received() {
            // Whatever it was that failed, it failed because the user wanted it to.
            Some(signal) if outcome.is_err() => Err(process::Interrupted(signal).into()),
            _ => outcome,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<test::Failed>() {
                screen::error(&error);
            }
            match error.downcast_ref::<process::Interrupted>() {
                Some(interrupted) => ExitCode::from(interrupted.exit_code()),
                None => ExitCode::FAILURE,
            }
        }
    }
}
