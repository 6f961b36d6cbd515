//! `banger vm session send`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::stream::{self, Ended, Input, OnSignal};
use crate::terminal::{Terminal, Trust};
use crate::value;
use banger_core::protocol::session::{SessionSend, SessionSent};
use banger_core::protocol::{Call, Stream};
use banger_core::{ByteString, Failure, Kind};
use clap::Args;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// Write to a session's standard input
///
/// Without --message, what is written is banger's own standard input, up to its end. Exactly these
/// bytes are written, and the session's input stays open, unless --eof is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session send my-vm agent --message 'go on' --newline
  banger vm session send my-vm agent < prompt.jsonl
  banger vm session send my-vm sorter --eof < lines")]
pub struct Send {
    #[command(flatten)]
    which: Which,
    /// What to write [default: standard input]
    #[arg(long, short, value_name = "TEXT")]
    message: Option<OsString>,
    /// End the message with a line feed
    #[arg(long, requires = "message")]
    newline: bool,
    /// Close the session's input afterwards, so that the program reads its end. Where standard
    /// input is a terminal and there is no message, nothing is written before
    #[arg(long)]
    eof: bool,
    /// How long the program may take to read it all, such as 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
}

impl Send {
    pub fn run(self, context: &Context) -> Outcome {
        let message = self.message.map(|message| {
            let mut bytes = message.into_vec();
            bytes.extend(self.newline.then_some(b'\n'));
            ByteString(bytes)
        });
        let request = SessionSend {
            vm: self.which.vm,
            session: self.which.session,
            message,
            close: self.eof,
            timeout_ms: self.timeout.map(value::milliseconds_32),
        };
        let closes_only = self.eof && std::io::stdin().is_terminal();
        if request.message.is_none() && !closes_only {
            return send_stdin(context, request);
        }
        let request = SessionSend {
            message: Some(request.message.unwrap_or_default()),
            ..request
        };
        let reply = context.call::<SessionSent>(Call::SessionSend(request))?;
        if context.output.json {
            context.output.print_json(&reply.json)?;
        }
        Ok(0)
    }
}

fn send_stdin(context: &Context, request: SessionSend) -> Outcome {
    let mut client = context.client()?;
    let reply = client.call::<Stream>(Call::SessionSend(request))?;
    let ended = stream::run(
        &reply.value,
        Input::Stdin,
        OnSignal::Leave,
        &context.signals()?,
        &mut Terminal::new(Trust::Escaped),
    )?;
    match ended {
        Ended::Exit(0) => Ok(0),
        Ended::Exit(code) => Err(Failure::new(
            Kind::Guest,
            format!("not all was written: it ended with exit code {code}"),
        )
        .into()),
        Ended::Left => Err(Failure::new(
            Kind::Cancelled,
            "cancelled: the session may have got a part",
        )
        .into()),
    }
}
