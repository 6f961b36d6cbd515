//! `banger vm session wait`

use crate::client::Reply;
use crate::context::Context;
use crate::error::{self, CommandError, Outcome};
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionList, SessionListCall, SessionWait};
use banger_core::session::SessionState;
use banger_core::{Failure, Kind};
use clap::Args;
use std::ops::ControlFlow;
use std::time::Duration;

/// Wait until sessions have ended
///
/// Each is printed as it ends. With --json, each is a JSON object on a line of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session wait my-vm tests --timeout 10m
  banger vm session wait my-vm build lint tests
  banger vm session wait my-vm --any build lint
  banger vm session wait my-vm --all

Exit code: the session's. Of several, 0 where all are 0, else that of the first, in the order given,
that is not; with --any, that of the one that ended first. 125 where a session has none, or where
banger itself fails.")]
pub struct Wait {
    /// The machine's name or id
    vm: String,
    /// The sessions' names or ids
    #[arg(value_name = "SESSION", required_unless_present = "all")]
    sessions: Vec<String>,
    /// Every session of the machine that has not ended, in the order in which they were started
    #[arg(long, conflicts_with = "sessions")]
    all: bool,
    /// Only until the first of them ends
    #[arg(long)]
    any: bool,
    /// How long, such as 10m [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub fn run(self, context: &Context) -> Outcome {
        let mut client = context.client()?;
        let sessions = if self.all {
            let call = Call::SessionListCall(SessionListCall {
                vm: Some(self.vm.clone()),
                tags: Default::default(),
                states: vec![SessionState::Starting, SessionState::Running],
            });
            let list = client.call::<SessionList>(call)?.value.sessions;
            list.iter().map(|session| session.id.to_string()).collect()
        } else {
            self.sessions
        };
        if sessions.is_empty() {
            context
                .output
                .hint("there is no session that has not ended");
        }
        let mut codes: Vec<Option<u8>> = vec![None; sessions.len()];
        let wait = |session| {
            Call::SessionWait(SessionWait {
                vm: self.vm.clone(),
                session,
                timeout_ms: self.timeout.map(value::milliseconds),
            })
        };
        let is_one = sessions.len() == 1;
        let calls = sessions.into_iter().map(wait).collect();
        let mut stopped: Option<CommandError> = None;
        client.call_each::<Session>(calls, |place, answer| {
            let code = match answer
                .map_err(CommandError::from)
                .and_then(|r| end(context, &r))
            {
                Ok(code) => code,
                // One failure is the command's; of several each is told, and the others go on.
                Err(CommandError::Failure(failure))
                    if !is_one && failure.kind != Kind::Cancelled =>
                {
                    error::report(&failure, &context.output, true)
                }
                Err(error) => {
                    stopped = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if let Some(kept) = codes.get_mut(place) {
                *kept = Some(code);
            }
            if self.any {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let Some(error) = stopped {
            return Err(error);
        }
        let first = codes.into_iter().flatten().find(|code| *code != 0);
        Ok(first.unwrap_or(0))
    }
}

/// Prints a session that has ended, and says with which code to exit.
fn end(context: &Context, reply: &Reply<Session>) -> Outcome {
    if context.output.json {
        // One a line also where a person looks: several may follow.
        context.output.print(&format!("{}\n", reply.json))?;
    } else {
        context.output.print(&super::state_line(&reply.value))?;
    }
    let session = &reply.value;
    match session.snapshot.exit_code.map(u8::try_from) {
        Some(Ok(code)) => Ok(code),
        _ => {
            let state = session.state().as_str();
            let failure = session.failure.clone().unwrap_or_else(|| {
                let why = super::why(session);
                let colon = if why.is_empty() { "" } else { ": " };
                let name = &session.name;
                Failure::new(
                    Kind::Guest,
                    format!("the session {name} is {state}{colon}{why}"),
                )
            });
            Err(failure.into())
        }
    }
}
