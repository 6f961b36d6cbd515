//! `banger daemon start`

use crate::context::{Context, NONE};
use crate::error::Outcome;
use banger_core::protocol::{Call, DaemonInfo};
use clap::Args;

/// Start the daemon, where it does not run
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger daemon start")]
pub struct Start {}

impl Start {
    pub fn run(self, context: &Context) -> Outcome {
        context.answer(Call::DaemonInfo(NONE), |info: &DaemonInfo| {
            super::render(info, context.output.style)
        })
    }
}
