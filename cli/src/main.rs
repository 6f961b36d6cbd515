//! `banger`: the one binary.
//!
//! It parses a command line into a request, sends that to the daemon and renders the reply. It
//! decides nothing: what a request means, and whether it may be done, is the daemon's business.
//! Only `banger daemon run`, which is the daemon, starts an async runtime.

mod attach;
mod client;
mod commands;
mod context;
mod error;
mod frames;
mod launch;
mod output;
mod progress;
mod signal;
mod stream;
mod style;
mod table;
mod terminal;
mod text;
mod value;

use clap::Parser as _;
use commands::Cli;
use context::Context;
use error::CommandError;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let passes_on = commands::passes_exit_code_on(&arguments);
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return error::report_usage(&error, &arguments, passes_on).into(),
    };
    let context = Context::new(&cli.global);
    match cli.command.run(&context) {
        Ok(code) => code.into(),
        Err(CommandError::BrokenPipe) => error::BROKEN_PIPE.into(),
        Err(CommandError::Failure(failure)) => {
            error::report(&failure, &context.output, passes_on).into()
        }
    }
}
