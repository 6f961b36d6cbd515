//! `banger daemon status`

use crate::client::Client;
use crate::context::{Context, NONE};
use crate::error::Outcome;
use crate::launch;
use banger_core::protocol::{Call, DaemonInfo};
use banger_core::{Kind, escape};
use clap::Args;

/// Show the daemon, and start none
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger daemon status

Exit code 11 where none runs.")]
pub struct Status {}

impl Status {
    pub fn run(self, context: &Context) -> Outcome {
        let dirs = context.dirs()?;
        let Some(socket) = launch::connect(&dirs)? else {
            let log = dirs.daemon_log();
            if context.output.json {
                context.output.print("{\"running\":false}\n")?;
            } else {
                context.output.print("no daemon runs\n")?;
                let log = escape::text(log.as_os_str().as_encoded_bytes());
                context
                    .output
                    .hint(&format!("any other command starts it; its log is `{log}`"));
            }
            return Ok(Kind::Daemon.exit_code());
        };
        let mut client = Client::new(socket, context.signals()?, &context.output);
        let reply = client.call::<DaemonInfo>(Call::DaemonInfo(NONE))?;
        context.write(&reply, |info| super::render(info, context.output.style))?;
        Ok(0)
    }
}
