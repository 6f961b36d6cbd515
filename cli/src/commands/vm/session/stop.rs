//! `banger vm session stop`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionStop};
use clap::Args;
use std::time::Duration;

/// Stop a session: SIGTERM, and SIGKILL after a grace
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session stop my-vm agent --grace 30s")]
pub struct Stop {
    #[command(flatten)]
    which: Which,
    /// How long it may take before it is killed, such as 30s [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    grace: Option<Duration>,
}

impl Stop {
    pub fn run(self, context: &Context) -> Outcome {
        let request = SessionStop {
            vm: self.which.vm,
            session: self.which.session,
            grace_ms: self.grace.map(value::milliseconds_32),
        };
        context.answer(Call::SessionStop(request), |session: &Session| {
            super::state_line(session)
        })
    }
}
