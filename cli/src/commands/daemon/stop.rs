//! `banger daemon stop`

use crate::client::Client;
use crate::context::{Context, NONE};
use crate::error::{Outcome, host};
use crate::launch;
use banger_core::protocol::{Call, Empty};
use banger_core::{Failure, Kind};
use clap::Args;
use rustix::process::{Signal, kill_process};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// End the daemon; machines and sessions go on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger daemon stop

A daemon of another version is ended also. Where none runs, there is nothing to do: exit code 0.")]
pub struct Stop {}

impl Stop {
    pub fn run(self, context: &Context) -> Outcome {
        let dirs = context.dirs()?;
        let Some(socket) = launch::connect(&dirs)? else {
            context.output.remark("no daemon runs");
            return report(context);
        };
        let mut client = Client::new(socket, context.signals()?, &context.output);
        let process = client.daemon_process();
        match (client.call::<Empty>(Call::DaemonStop(NONE)), process) {
            (Ok(_), _) => {}
            // It speaks another language; a signal is understood by every version.
            (Err(failure), Some(process)) if failure.kind == Kind::Daemon => {
                match kill_process(process, Signal::TERM) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(host("end the daemon", &error).into()),
                }
            }
            (Err(failure), _) => return Err(failure.into()),
        }
        drop(client);
        let since = Instant::now();
        while launch::connect(&dirs)?.is_some() {
            if since.elapsed() > DEADLINE {
                return Err(Failure::new(
                    Kind::TimedOut,
                    format!("the daemon still runs after {} s", DEADLINE.as_secs()),
                )
                .hint("`banger daemon status` shows its process and its log")
                .into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        context.output.remark("the daemon has ended");
        report(context)
    }
}

fn report(context: &Context) -> Outcome {
    if context.output.json {
        context.output.print("{\"running\":false}\n")?;
    }
    Ok(0)
}
