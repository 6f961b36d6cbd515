//! `banger vm session logs`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::stream::{self, Ended, Input, OnSignal};
use crate::terminal::{Terminal, Trust};
use banger_core::Kind;
use banger_core::protocol::session::SessionLogs;
use banger_core::protocol::{Call, Stream};
use banger_core::session::OutputStream;
use clap::{Args, ValueEnum};

/// Show what a session wrote
///
/// Its standard output comes on standard output, its standard error on standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session logs my-vm tests --follow
  banger vm session logs my-vm tests --tail 20 --stream stderr")]
pub struct Logs {
    #[command(flatten)]
    which: Which,
    /// Go on until the session ends, or until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// One stream alone
    #[arg(long, value_enum)]
    stream: Option<OneStream>,
    /// Let escape sequences through where the output is a terminal
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OneStream {
    Stdout,
    Stderr,
}

impl Logs {
    pub fn run(self, context: &Context) -> Outcome {
        let request = SessionLogs {
            vm: self.which.vm,
            session: self.which.session,
            stream: self.stream.map(|stream| match stream {
                OneStream::Stdout => OutputStream::Stdout,
                OneStream::Stderr => OutputStream::Stderr,
            }),
            tail: self.tail,
            since_ms: None,
            follow: self.follow,
            stdout_offset: None,
            stderr_offset: None,
        };
        let mut client = context.client()?;
        let reply = client.call::<Stream>(Call::SessionLogs(request))?;
        let mut terminal = Terminal::new(Trust::from_flag(self.raw));
        let signals = context.signals()?;
        let ended = stream::run(
            &reply.value,
            Input::Nothing,
            OnSignal::Leave,
            &signals,
            &mut terminal,
        )?;
        Ok(match ended {
            Ended::Exit(code) => code,
            Ended::Left => Kind::Cancelled.exit_code(),
        })
    }
}
