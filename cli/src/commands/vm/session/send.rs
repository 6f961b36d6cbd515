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
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// Write to a session's standard input
///
/// Without --message, what is written is banger's own standard input, up to its end. Exactly these
/// bytes are written, and the session's input stays open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session send my-vm agent --message 'go on' --newline
  banger vm session send my-vm agent < prompt.jsonl")]
pub struct Send {
    #[command(flatten)]
    which: Which,
    /// What to write [default: standard input]
    #[arg(long, short, value_name = "TEXT")]
    message: Option<OsString>,
    /// End the message with a line feed
    #[arg(long, requires = "message")]
    newline: bool,
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
        let streams = message.is_none();
        let call = Call::SessionSend(SessionSend {
            vm: self.which.vm,
            session: self.which.session,
            message,
            close: false,
            timeout_ms: self.timeout.map(value::milliseconds_32),
        });
        if !streams {
            let reply = context.call::<SessionSent>(call)?;
            if context.output.json {
                context.output.print_json(&reply.json)?;
            }
            return Ok(0);
        }
        let mut client = context.client()?;
        let reply = client.call::<Stream>(call)?;
        let mut terminal = Terminal::new(Trust::Escaped);
        let signals = context.signals()?;
        let ended = stream::run(
            &reply.value,
            Input::Stdin,
            OnSignal::Leave,
            &signals,
            &mut terminal,
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
}
