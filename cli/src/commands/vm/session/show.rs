//! `banger vm session show`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::style::Style;
use crate::{table, text};
use banger_core::protocol::Call;
use banger_core::protocol::session::Session;
use banger_core::session::StdinKind;
use banger_core::{Failure, escape};
use clap::Args;

/// Show a session, and why it failed where it did
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session show my-vm tests")]
pub struct Show {
    #[command(flatten)]
    which: Which,
}

impl Show {
    pub fn run(self, context: &Context) -> Outcome {
        let call = Call::SessionGet(self.which.into());
        context.answer(call, |session: &Session| {
            render(session, context.output.style)
        })
    }
}

fn render(session: &Session, style: Style) -> String {
    let safe = |text: &str| escape::text(text.as_bytes());
    let shown = |number: Option<String>| number.unwrap_or_default();
    let snapshot = &session.snapshot;
    let failure = |part: fn(&Failure) -> &str| {
        let failure = session.failure.as_ref();
        failure.map_or(String::new(), |failure| safe(part(failure)))
    };
    let mut text = table::pairs(
        &[
            ("vm", session.vm.to_string()),
            ("name", session.name.to_string()),
            ("id", session.id.to_string()),
            ("state", session.state().as_str().into()),
            (
                "exit code",
                shown(snapshot.exit_code.map(|code| code.to_string())),
            ),
            ("error", super::why(session)),
            ("stage", failure(|failure| &failure.stage)),
            ("hint", failure(|failure| &failure.hint)),
            ("command", text::command_line(&session.command)),
            ("directory", session.cwd.to_string()),
            ("backend", safe(&session.backend)),
            (
                "stdin",
                match session.stdin {
                    StdinKind::None => "none",
                    StdinKind::Pipe => "pipe",
                    StdinKind::Tty => "tty",
                }
                .into(),
            ),
            ("process", shown(snapshot.pid.map(|pid| pid.to_string()))),
            ("stdout", log(snapshot.stdout_start, snapshot.stdout_bytes)),
            ("stderr", log(snapshot.stderr_start, snapshot.stderr_bytes)),
            ("age", text::age(session.created_at_ms)),
            ("tags", super::tags(&session.tags)),
            ("kept in", safe(&session.state_dir)),
        ],
        style,
    );
    // What it printed before it failed, as errors show it.
    let detail = session.failure.as_ref().map(|failure| &failure.detail);
    let detail = escape::lines(detail.map_or("", |detail| detail).as_bytes());
    for line in detail.trim_end().lines() {
        text += &format!("  | {line}\n");
    }
    text
}

/// How much was written, and what of it is still there.
fn log(start: u64, end: u64) -> String {
    let all = text::bytes(end);
    if start == 0 {
        all
    } else {
        let kept = text::bytes(end.saturating_sub(start));
        format!("{all}, of which the last {kept} are kept (from byte {start} on)")
    }
}
