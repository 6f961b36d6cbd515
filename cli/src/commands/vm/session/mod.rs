//! `banger vm session …`

mod attach;
mod delete;
mod events;
mod kill;
mod list;
mod logs;
mod resize;
mod send;
mod show;
mod start;
mod stop;
mod wait;

use crate::context::Context;
use crate::error::Outcome;
use banger_core::escape;
use banger_core::protocol::session::{self, SessionRef};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;

/// Commands that go on when you leave
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session start my-vm --name tests -- make test
  banger vm session logs my-vm tests --follow
  banger vm session attach my-vm tests
  banger vm session events                           what happens to them, while it happens")]
pub struct Session {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Start(start::Start),
    List(list::List),
    Show(show::Show),
    Logs(logs::Logs),
    Send(send::Send),
    Attach(attach::Attach),
    Wait(wait::Wait),
    Events(events::Events),
    Resize(resize::Resize),
    Stop(stop::Stop),
    Kill(kill::Kill),
    Delete(delete::Delete),
}

impl Session {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Start(command) => command.run(context),
            Verb::List(command) => command.run(context),
            Verb::Show(command) => command.run(context),
            Verb::Logs(command) => command.run(context),
            Verb::Send(command) => command.run(context),
            Verb::Attach(command) => command.run(context),
            Verb::Wait(command) => command.run(context),
            Verb::Events(command) => command.run(context),
            Verb::Resize(command) => command.run(context),
            Verb::Stop(command) => command.run(context),
            Verb::Kill(command) => command.run(context),
            Verb::Delete(command) => command.run(context),
        }
    }
}

/// Which session.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The machine's name or id
    vm: String,
    /// The session's name or id
    session: String,
}

impl From<Which> for SessionRef {
    fn from(which: Which) -> Self {
        Self {
            vm: which.vm,
            session: which.session,
        }
    }
}

/// One line: what a session is doing.
fn state_line(session: &session::Session) -> String {
    let state = session.state().as_str();
    let code = session.snapshot.exit_code;
    let code = code.map_or(String::new(), |code| format!(" with exit code {code}"));
    format!("{} {}: {state}{code}\n", session.vm, session.name)
}

/// Why a session has no exit code.
fn why(session: &session::Session) -> String {
    match (&session.failure, &session.snapshot.last_error) {
        (Some(failure), _) => escape::text(failure.message.as_bytes()),
        (None, Some(error)) => error.to_string(),
        (None, None) => String::new(),
    }
}

/// Labels on one line.
fn tags(tags: &BTreeMap<String, String>) -> String {
    let tag = |(key, value)| escape::text(format!("{key}={value}").as_bytes());
    let tags: Vec<String> = tags.iter().map(tag).collect();
    tags.join(" ")
}
