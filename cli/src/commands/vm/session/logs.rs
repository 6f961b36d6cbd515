//! `banger vm session logs`

use super::Which;
use crate::attach::{Ask, Ended, Face, Following, Keys, Link, OnBreak};
use crate::context::Context;
use crate::error::Outcome;
use crate::terminal::{Terminal, Trust};
use crate::value;
use banger_core::Kind;
use banger_core::protocol::session::SessionLogs;
use banger_core::session::OutputStream;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Show what a session wrote
///
/// Its standard output comes on standard output, its standard error on standard error. With
/// --follow, a connection that breaks is made again, and the log goes on at the very byte where it
/// was; where bytes are no longer kept by then, that is said.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session logs my-vm tests --follow
  banger vm session logs my-vm tests --since 1h30m
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
    /// Only what was written in the last so long, such as 10m or 1h30m, or somewhat more
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    since: Option<Duration>,
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
        let ask = Ask::Logs(SessionLogs {
            vm: self.which.vm,
            session: self.which.session,
            stream: self.stream.map(|stream| match stream {
                OneStream::Stdout => OutputStream::Stdout,
                OneStream::Stderr => OutputStream::Stderr,
            }),
            tail: self.tail,
            since_ms: self.since.map(value::milliseconds),
            follow: self.follow,
            stdout_offset: None,
            stderr_offset: None,
        });
        let link = Link::open(context.client()?, ask.clone(), None)?;
        let on_break = if self.follow {
            OnBreak::Reconnect
        } else {
            OnBreak::Fail
        };
        let face = Face::Bytes(Terminal::new(Trust::from_flag(self.raw)));
        let following = Following::new(context, ask, link, Keys::Ignored, face, on_break)?;
        Ok(match following.run()? {
            Ended::Exit(code) => code,
            Ended::Left { .. } => Kind::Cancelled.exit_code(),
        })
    }
}
