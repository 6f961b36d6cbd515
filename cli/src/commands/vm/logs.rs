//! `banger vm logs`

use crate::context::Context;
use crate::error::{CommandError, Outcome, host};
use crate::frames::Channel;
use crate::signal::Event;
use crate::stream::Sink as _;
use crate::terminal::{Terminal, Trust};
use banger_core::protocol::Call;
use banger_core::protocol::machine::{VmLogs, VmRef};
use banger_core::{Kind, escape};
use clap::Args;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(100);

/// Show what a machine's console says
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm logs my-vm --follow

With --json the log's path is printed.")]
pub struct Logs {
    /// Its name or its id
    vm: String,
    /// Go on until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Let escape sequences through where the output is a terminal
    #[arg(long)]
    raw: bool,
}

impl Logs {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<VmLogs>(Call::VmLogs(VmRef { vm: self.vm }))?;
        if context.output.json {
            context.output.print_json(&reply.json)?;
            return Ok(0);
        }
        let path = &reply.value.console;
        let failed = |error: std::io::Error| -> CommandError {
            host(format!("read `{}`", escape::text(path.as_bytes())), &error).into()
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut terminal = Terminal::new(Trust::from_flag(self.raw));
        let signals = context.signals()?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = file.read(&mut buffer).map_err(failed)?;
            let pause = if length > 0 { Duration::ZERO } else { PAUSE };
            if length > 0 {
                terminal.write(Channel::Stdout, buffer.get(..length).unwrap_or_default())?;
            } else if !self.follow {
                return Ok(0);
            }
            if let Event::Signal(_) = signals.wait(None, Some(pause))? {
                return Ok(Kind::Cancelled.exit_code());
            }
        }
    }
}
