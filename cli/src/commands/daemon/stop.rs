//! `banger daemon stop`

use crate::client::Client;
use crate::context::{Context, NONE};
use crate::error::{Outcome, host};
use crate::launch;
use crate::signal::Event;
use banger_core::protocol::{Call, Empty};
use banger_core::{Failure, Kind};
use banger_host::daemon;
use clap::Args;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

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
            // One whose socket is gone can still be told by a signal.
            let process = daemon::holder(&dirs)
                .and_then(|holder| Pid::from_raw(i32::try_from(holder.pid).ok()?));
            let Some(handle) =
                process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok())
            else {
                context.output.remark("no daemon runs");
                return report(context);
            };
            terminate(&handle)?;
            return wait(context, &handle);
        };
        let mut client = Client::new(socket, context.signals()?, &context.output);
        let process = client.daemon_process();
        // Names this process for ever, also when its number has gone to another.
        let handle = process
            .and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok())
            .ok_or_else(|| Failure::new(Kind::Daemon, "the daemon's process can't be seen"))?;
        match client.call::<Empty>(Call::DaemonStop(NONE)) {
            Ok(_) => {}
            // It speaks another language; a signal is understood by every version.
            Err(failure) if failure.kind == Kind::Daemon => {
                terminate(&handle)?;
            }
            Err(failure) => return Err(failure.into()),
        }
        drop(client);
        wait(context, &handle)
    }
}

fn terminate(process: &OwnedFd) -> Result<(), Failure> {
    match pidfd_send_signal(process, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(host("end the daemon", &error)),
    }
}

/// Waits until the daemon has ended.
fn wait(context: &Context, process: &OwnedFd) -> Outcome {
    match context
        .signals()?
        .wait(Some(process.as_fd()), Some(DEADLINE))?
    {
        Event::Readable => {}
        Event::Signal(_) => return Ok(Kind::Cancelled.exit_code()),
        Event::TimedOut => {
            return Err(Failure::new(
                Kind::TimedOut,
                format!("the daemon still runs after {} s", DEADLINE.as_secs()),
            )
            .hint("`banger daemon status` shows its process and its log")
            .into());
        }
    }
    context.output.remark("the daemon has ended");
    report(context)
}

fn report(context: &Context) -> Outcome {
    if context.output.json {
        context.output.print("{\"running\":false}\n")?;
    }
    Ok(0)
}
