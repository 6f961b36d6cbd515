//! `banger vm session events`

use crate::client::Client;
use crate::context::Context;
use crate::error::{CommandError, Outcome};
use crate::signal::Event as Heard;
use crate::{text, value};
use banger_core::protocol::Call;
use banger_core::protocol::event::{Event, EventKind, Subscribe, Subscribed};
use banger_core::{Failure, Kind};
use clap::Args;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// See what happens to sessions, while it happens
///
/// A line for each event: it started, is idle (has written nothing for a time), resumed, exited,
/// failed, is lost, was deleted. It goes on until Ctrl-C. Where the daemon goes away, it connects
/// again and says that events may be missing; `list` and `show` say how things are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session events
  banger vm session events my-vm agent --idle 2m
  banger vm session events --tag task=42 --json

With --json, each event is an object on a line of its own. One whose kind is `lagged` says that events
are missing before it; where that is because the daemon was away, it names no session.

Exit code: 0 where Ctrl-C ends it.")]
pub struct Events {
    /// The machine's name or id [default: all machines]
    vm: Option<String>,
    /// The session's name or id [default: all sessions]
    session: Option<String>,
    /// Only of sessions with this label; may be repeated, and all of them must be there
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::tag)]
    tag: Vec<(String, String)>,
    /// After how long without output a session is idle, such as 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    idle: Option<Duration>,
}

impl Events {
    pub fn run(self, context: &Context) -> Outcome {
        let subscribe = Call::Subscribe(Subscribe {
            vm: self.vm,
            session: self.session,
            tags: self.tag.into_iter().collect(),
            idle_ms: self.idle.map(value::milliseconds),
        });
        let mut client = subscribed(context, &subscribe)?;
        context.output.hint("waiting for events; Ctrl-C ends");
        loop {
            match client.next_event() {
                Ok(Some(event)) => print(context, &event)?,
                Ok(None) => return Ok(0),
                Err(failure) if failure.kind == Kind::Daemon => {
                    match subscribed_again(context, &subscribe)? {
                        Some(next) => client = next,
                        None => return Ok(0),
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }
}

fn subscribed(context: &Context, subscribe: &Call) -> Result<Client, Failure> {
    let mut client = context.client()?;
    client.call::<Subscribed>(subscribe.clone())?;
    Ok(client)
}

/// A new subscription after the daemon went away; none where a signal wants an end.
fn subscribed_again(context: &Context, subscribe: &Call) -> Result<Option<Client>, CommandError> {
    context.output.remark("connection lost; reconnecting…");
    let mut pause = FIRST_PAUSE;
    loop {
        if let Heard::Signal(_) = context.signals()?.wait(None, Some(pause))? {
            return Ok(None);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        match subscribed(context, subscribe) {
            Ok(client) => {
                tell_of_gap(context)?;
                return Ok(Some(client));
            }
            Err(failure) if failure.kind == Kind::Cancelled => return Ok(None),
            Err(failure) if matches!(failure.kind, Kind::Daemon | Kind::Unreachable) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

fn tell_of_gap(context: &Context) -> Result<(), CommandError> {
    context.output.remark(
        "reconnected; events may be missing: `banger vm session list` shows how things are",
    );
    if context.output.json {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = value::milliseconds(now.unwrap_or_default());
        let lagged = serde_json::json!({ "kind": EventKind::Lagged, "at_ms": at_ms });
        context.output.print(&format!("{lagged}\n"))?;
    }
    Ok(())
}

fn print(context: &Context, json: &serde_json::Value) -> Result<(), CommandError> {
    if context.output.json {
        return context.output.print(&format!("{json}\n"));
    }
    // A kind that a newer daemon knows is nothing to stop for.
    match serde_json::from_value::<Event>(json.clone()) {
        Ok(event) => context.output.print(&line(&event)),
        Err(_) => {
            context
                .output
                .remark("an event that this banger does not know; --json shows it");
            Ok(())
        }
    }
}

fn line(event: &Event) -> String {
    let Event {
        vm, session, kind, ..
    } = event;
    let what = match kind {
        EventKind::Started => "started".into(),
        EventKind::OutputIdle => "is idle".into(),
        EventKind::OutputResumed => "writes again".into(),
        EventKind::Exited => match event.exit_code {
            Some(code) => format!("exited with exit code {code}"),
            None => "exited".into(),
        },
        EventKind::Failed => "failed: it never ran".into(),
        EventKind::Lost => "is lost: nobody saw how it ended".into(),
        EventKind::Deleted => "was deleted".into(),
        EventKind::Lagged => "events before this are missing".into(),
    };
    let time = text::utc(event.at_ms);
    format!("{time}  {vm} {session}  {what}\n")
}
