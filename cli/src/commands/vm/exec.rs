//! `banger vm exec`

use crate::context::Context;
use crate::error::Outcome;
use crate::stream::{self, Ended, Input, OnSignal};
use crate::terminal::{Terminal, Trust};
use crate::value;
use banger_core::Kind;
use banger_core::protocol::machine::VmExec;
use banger_core::protocol::{Call, Stream};
use clap::Args;
use std::ffi::OsString;

/// Run a command in a machine, and wait for it
///
/// Standard input, output and error are the command's, byte for byte, and SIGINT and SIGTERM go to
/// it; a second one within two seconds ends banger itself. Without a terminal of its own the
/// command sees pipes: for a shell to type in there is `banger vm ssh`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm exec my-vm -- uname -a
  tar c . | banger vm exec my-vm -- tar x -C /root

Exit code: the command's; 125 where banger itself fails.")]
pub struct Exec {
    /// Its name or its id
    vm: String,
    /// Let escape sequences through where the output is a terminal
    #[arg(long)]
    raw: bool,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Exec {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmExec {
            vm: self.vm,
            command: value::byte_strings(self.command),
        };
        // It stays open: the daemon stops what runs on a closed connection.
        let mut client = context.client()?;
        let reply = client.call::<Stream>(Call::VmExec(request))?;
        let mut terminal = Terminal::new(Trust::from_flag(self.raw));
        let ended = stream::run(
            &reply.value,
            Input::Stdin,
            OnSignal::Forward,
            &context.signals()?,
            &mut terminal,
        )?;
        Ok(match ended {
            Ended::Exit(code) => code,
            Ended::Left => Kind::Cancelled.exit_code(),
        })
    }
}
