//! `banger completions`

use super::Cli;
use crate::context::Context;
use crate::error::Outcome;
use clap::{Args, CommandFactory as _};

/// Print a script that completes banger's commands in a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger completions bash > ~/.local/share/bash-completion/completions/banger")]
pub struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self, context: &Context) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "banger", &mut script);
        context.output.print_bytes(&script)?;
        Ok(0)
    }
}
