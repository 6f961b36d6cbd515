//! `banger vm session attach`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::stream::{self, Ended, Input, OnSignal};
use crate::terminal::{Terminal, Trust};
use banger_core::protocol::session::SessionAttach;
use banger_core::protocol::{Call, Stream};
use banger_core::{ByteString, escape};
use clap::Args;

/// See what a session writes from now on, and write to it
///
/// What you type goes to it line by line. One may write at a time; any number may observe. Ctrl-C
/// detaches, and the session goes on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session attach my-vm agent
  banger vm session attach my-vm agent --observe

Exit code: the session's where it ends; 0 where you detach; 125 where banger itself fails.")]
pub struct Attach {
    #[command(flatten)]
    which: Which,
    /// Only look on
    #[arg(long)]
    observe: bool,
    /// Let escape sequences through where the output is a terminal
    #[arg(long)]
    raw: bool,
}

impl Attach {
    pub fn run(self, context: &Context) -> Outcome {
        let Which { vm, session } = self.which.clone();
        let request = SessionAttach {
            vm: self.which.vm,
            session: self.which.session,
            observe: self.observe,
            takeover: false,
            writer: None,
            terminal: None,
            stdout_offset: None,
            stderr_offset: None,
        };
        let mut client = context.client()?;
        let reply = client.call::<Stream>(Call::SessionAttach(request))?;
        let (what, input) = if self.observe {
            ("observing", Input::Nothing)
        } else {
            ("attached to", Input::Stdin)
        };
        let shown = escape::text(session.as_bytes());
        context
            .output
            .hint(&format!("{what} {shown}; Ctrl-C detaches, it goes on"));
        let mut terminal = Terminal::new(Trust::from_flag(self.raw));
        let signals = context.signals()?;
        match stream::run(
            &reply.value,
            input,
            OnSignal::Leave,
            &signals,
            &mut terminal,
        )? {
            Ended::Exit(code) => {
                context
                    .output
                    .remark(&format!("{shown} ended with exit code {code}"));
                Ok(code)
            }
            Ended::Left => {
                let words = ["banger", "vm", "session", "attach", &vm, &session];
                let command: Vec<ByteString> = words.into_iter().map(ByteString::from).collect();
                let command = crate::text::command_line(&command);
                context.output.remark(&format!(
                    "\ndetached; {shown} goes on: `{command}` comes back"
                ));
                Ok(0)
            }
        }
    }
}
