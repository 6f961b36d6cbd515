//! `banger plugin …`

mod list;
mod show;

use crate::context::Context;
use crate::error::Outcome;
use clap::{Args, Subcommand};

/// What adds backends, checks and kinds of workspace
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger plugin list")]
pub struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::List),
    Show(show::Show),
}

impl Plugin {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::List(command) => command.run(context),
            Verb::Show(command) => command.run(context),
        }
    }
}
