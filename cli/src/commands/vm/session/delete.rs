//! `banger vm session delete`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use banger_core::escape;
use banger_core::protocol::{Call, Empty};
use clap::Args;

/// Forget a session that has ended, with all that it wrote
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session delete my-vm tests")]
pub struct Delete {
    #[command(flatten)]
    which: Which,
}

impl Delete {
    pub fn run(self, context: &Context) -> Outcome {
        let name = escape::text(self.which.session.as_bytes());
        let call = Call::SessionDelete(self.which.into());
        context.answer(call, |_: &Empty| format!("{name} is deleted\n"))
    }
}
