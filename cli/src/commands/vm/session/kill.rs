//! `banger vm session kill`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionSignal};
use clap::Args;

/// Kill a session at once, or send it another signal
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session kill my-vm agent
  banger vm session kill my-vm agent --signal INT")]
pub struct Kill {
    #[command(flatten)]
    which: Which,
    /// By its name: INT, TERM, HUP, USR1, …
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL",
        value_parser = value::signal)]
    signal: String,
}

impl Kill {
    pub fn run(self, context: &Context) -> Outcome {
        let call = if self.signal == "KILL" {
            Call::SessionKill(self.which.into())
        } else {
            Call::SessionSignal(SessionSignal {
                vm: self.which.vm,
                session: self.which.session,
                signal: self.signal,
            })
        };
        context.answer(call, |session: &Session| super::state_line(session))
    }
}
