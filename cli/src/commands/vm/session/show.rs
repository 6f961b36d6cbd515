//! `banger vm session show`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::style::Style;
use crate::{table, text};
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::session::Session;
use banger_core::session::StdinKind;
use clap::Args;

/// Show a session
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
    let tags: Vec<String> = session
        .tags
        .iter()
        .map(|(key, value)| safe(&format!("{key}={value}")))
        .collect();
    table::pairs(
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
            (
                "stage",
                session
                    .failure
                    .as_ref()
                    .map_or(String::new(), |f| safe(&f.stage)),
            ),
            (
                "hint",
                session
                    .failure
                    .as_ref()
                    .map_or(String::new(), |f| safe(&f.hint)),
            ),
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
            ("stdout", text::bytes(snapshot.stdout_bytes)),
            ("stderr", text::bytes(snapshot.stderr_bytes)),
            ("age", text::age(session.created_at_ms)),
            ("tags", tags.join(" ")),
            ("kept in", safe(&session.state_dir)),
        ],
        style,
    )
}
