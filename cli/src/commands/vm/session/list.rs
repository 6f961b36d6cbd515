//! `banger vm session list`

use crate::context::Context;
use crate::error::Outcome;
use crate::table::Table;
use crate::{text, value};
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::session::{SessionList, SessionListCall};
use banger_core::session::SessionState;
use clap::{Args, ValueEnum};

const COMMAND_WIDTH: usize = 60;

/// List the sessions, also of machines that are stopped
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session list my-vm
  banger vm session list --tag task=42 --state starting,running")]
pub struct List {
    /// The machine's name or id [default: all machines]
    vm: Option<String>,
    /// Only those with this label; may be repeated, and all of them must be there
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::tag)]
    tag: Vec<(String, String)>,
    /// Only those in one of these states
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<State>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Starting,
    Running,
    Exited,
    Failed,
    Lost,
}

impl From<State> for SessionState {
    fn from(state: State) -> Self {
        match state {
            State::Starting => Self::Starting,
            State::Running => Self::Running,
            State::Exited => Self::Exited,
            State::Failed => Self::Failed,
            State::Lost => Self::Lost,
        }
    }
}

impl List {
    pub fn run(self, context: &Context) -> Outcome {
        let is_filtered = !self.tag.is_empty() || !self.state.is_empty();
        let call = Call::SessionListCall(SessionListCall {
            vm: self.vm,
            tags: self.tag.into_iter().collect(),
            states: self.state.into_iter().map(SessionState::from).collect(),
        });
        let reply = context.call::<SessionList>(call)?;
        context.write(&reply, |reply| {
            let mut table = Table::new([
                "VM", "NAME", "STATE", "EXIT", "BACKEND", "AGE", "TAGS", "COMMAND",
            ])
            .without_empty_columns();
            for session in &reply.sessions {
                let code = session.snapshot.exit_code;
                table.row([
                    session.vm.to_string(),
                    session.name.to_string(),
                    session.state().as_str().into(),
                    code.map_or("-".into(), |code| code.to_string()),
                    escape::text(session.backend.as_bytes()),
                    text::age(session.created_at_ms),
                    super::tags(&session.tags),
                    text::cut(&text::command_line(&session.command), COMMAND_WIDTH),
                ]);
            }
            table.render(context.output.style)
        })?;
        if reply.value.sessions.is_empty() {
            context.output.hint(if is_filtered {
                "no such sessions"
            } else {
                "no sessions: `banger vm session start VM -- CMD…`"
            });
        }
        Ok(0)
    }
}
