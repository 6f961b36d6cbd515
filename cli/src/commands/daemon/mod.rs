//! `banger daemon …`

mod run;
mod start;
mod status;
mod stop;

use crate::context::Context;
use crate::error::Outcome;
use crate::style::Style;
use crate::{table, text};
use banger_core::escape;
use banger_core::protocol::DaemonInfo;
use clap::{Args, Subcommand};

/// The process that does the work; the other commands start it
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger daemon status")]
pub struct Daemon {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Start(start::Start),
    Status(status::Status),
    Stop(stop::Stop),
}

impl Daemon {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Run(command) => command.run(context),
            Verb::Start(command) => command.run(context),
            Verb::Status(command) => command.run(context),
            Verb::Stop(command) => command.run(context),
        }
    }
}

fn render(info: &DaemonInfo, style: Style) -> String {
    let safe = |text: &str| escape::text(text.as_bytes());
    table::pairs(
        &[
            ("version", safe(&info.version)),
            ("protocol", info.protocol.to_string()),
            ("process", info.pid.to_string()),
            ("running for", text::age(info.started_at_ms)),
            ("memory", text::bytes(info.memory_kib.saturating_mul(1024))),
            ("socket", safe(&info.socket)),
            ("log", safe(&info.log)),
        ],
        style,
    )
}
