//! `banger vm session signal`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionSignal};
use clap::Args;

/// Send a signal to a session
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session signal my-vm agent INT")]
pub struct Signal {
    #[command(flatten)]
    which: Which,
    /// Its name: INT, TERM, HUP, USR1, …
    #[arg(value_parser = value::signal)]
    signal: String,
}

impl Signal {
    pub fn run(self, context: &Context) -> Outcome {
        let request = SessionSignal {
            vm: self.which.vm,
            session: self.which.session,
            signal: self.signal,
        };
        context.answer(Call::SessionSignal(request), |session: &Session| {
            super::state_line(session)
        })
    }
}
