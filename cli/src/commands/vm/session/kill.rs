//! `banger vm session kill`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use banger_core::protocol::Call;
use banger_core::protocol::session::Session;
use clap::Args;

/// Kill a session at once
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session kill my-vm agent")]
pub struct Kill {
    #[command(flatten)]
    which: Which,
}

impl Kill {
    pub fn run(self, context: &Context) -> Outcome {
        let call = Call::SessionKill(self.which.into());
        context.answer(call, |session: &Session| super::state_line(session))
    }
}
