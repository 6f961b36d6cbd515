//! `banger vm session wait`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionWait};
use banger_core::{Failure, Kind};
use clap::Args;
use std::time::Duration;

/// Wait until a session has ended
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session wait my-vm tests --timeout 10m

Exit code: the session's; 125 where it has none, or where banger itself fails.")]
pub struct Wait {
    #[command(flatten)]
    which: Which,
    /// How long, such as 10m [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub fn run(self, context: &Context) -> Outcome {
        let request = SessionWait {
            vm: self.which.vm,
            session: self.which.session,
            timeout_ms: self.timeout.map(value::milliseconds),
        };
        let reply = context.call::<Session>(Call::SessionWait(request))?;
        context.write(&reply, super::state_line)?;
        let session = reply.value;
        match session.snapshot.exit_code.map(u8::try_from) {
            Some(Ok(code)) => Ok(code),
            _ => {
                let state = session.state().as_str();
                let failure = session.failure.clone().unwrap_or_else(|| {
                    let why = super::why(&session);
                    let colon = if why.is_empty() { "" } else { ": " };
                    Failure::new(Kind::Guest, format!("the session is {state}{colon}{why}"))
                });
                Err(failure.into())
            }
        }
    }
}
