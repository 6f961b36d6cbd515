//! `banger daemon run`

use crate::context::Context;
use crate::error::{Outcome, host};
use banger_host::daemon::{self, Options};
use clap::Args;

/// Be the daemon, in the foreground
///
/// Other commands start it by themselves. Run it here to see what it says, or under a service
/// manager.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger daemon run")]
pub struct Run {
    /// Leave the session and the terminal that it was started from
    #[arg(long, hide = true)]
    own_session: bool,
}

impl Run {
    pub fn run(self, context: &Context) -> Outcome {
        if self.own_session {
            // It fails only where it is done already.
            let _ = rustix::process::setsid();
        }
        let dirs = context.dirs()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| host("start the daemon's threads", &error))?;
        runtime.block_on(daemon::run(Options { dirs }))?;
        // Work that can't be interrupted is left behind, not waited for.
        runtime.shutdown_background();
        Ok(0)
    }
}
