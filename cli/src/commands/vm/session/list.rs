//! `banger vm session list`

use crate::context::Context;
use crate::error::Outcome;
use crate::table::Table;
use crate::text;
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::session::{SessionList, SessionListCall};
use clap::Args;

const COMMAND_WIDTH: usize = 60;

/// List the sessions
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session list my-vm")]
pub struct List {
    /// The machine's name or id [default: all machines]
    vm: Option<String>,
}

impl List {
    pub fn run(self, context: &Context) -> Outcome {
        let call = Call::SessionListCall(SessionListCall {
            vm: self.vm,
            tags: Default::default(),
            states: Vec::new(),
        });
        let reply = context.call::<SessionList>(call)?;
        context.write(&reply, |reply| {
            let mut table =
                Table::new(["VM", "NAME", "STATE", "EXIT", "BACKEND", "AGE", "COMMAND"]);
            for session in &reply.sessions {
                let code = session.snapshot.exit_code;
                table.row([
                    session.vm.to_string(),
                    session.name.to_string(),
                    session.state().as_str().into(),
                    code.map_or("-".into(), |code| code.to_string()),
                    escape::text(session.backend.as_bytes()),
                    text::age(session.created_at_ms),
                    text::cut(&text::command_line(&session.command), COMMAND_WIDTH),
                ]);
            }
            table.render(context.output.style)
        })?;
        if reply.value.sessions.is_empty() {
            context
                .output
                .hint("no sessions: `banger vm session start VM -- CMD…`");
        }
        Ok(0)
    }
}
