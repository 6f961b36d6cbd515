//! `banger image …`

mod build;
mod list;

use crate::context::Context;
use crate::error::Outcome;
use clap::{Args, Subcommand};

/// What machines are made from
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger image build")]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::Build),
    List(list::List),
}

impl Image {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Build(command) => command.run(context),
            Verb::List(command) => command.run(context),
        }
    }
}
