//! `banger vm …`

mod adopt;
mod create;
mod delete;
mod exec;
mod list;
mod logs;
mod run;
mod session;
mod show;
mod ssh;
mod start;
mod stop;
mod workspace;

use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::machine::{Driver, VmCreate, VmState};
use banger_core::{ImageName, VmName};
use clap::{Args, Subcommand};

/// Machines, and what is in them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm run .
  banger vm list")]
pub struct Vm {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Create(create::Create),
    List(list::List),
    Show(show::Show),
    Start(start::Start),
    Stop(stop::Stop),
    Delete(delete::Delete),
    Exec(exec::Exec),
    Ssh(ssh::Ssh),
    Logs(logs::Logs),
    Adopt(adopt::Adopt),
    Workspace(workspace::Workspace),
    Session(session::Session),
}

impl Vm {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Run(command) => command.run(context),
            Verb::Create(command) => command.run(context),
            Verb::List(command) => command.run(context),
            Verb::Show(command) => command.run(context),
            Verb::Start(command) => command.run(context),
            Verb::Stop(command) => command.run(context),
            Verb::Delete(command) => command.run(context),
            Verb::Exec(command) => command.run(context),
            Verb::Ssh(command) => command.run(context),
            Verb::Logs(command) => command.run(context),
            Verb::Adopt(command) => command.run(context),
            Verb::Workspace(command) => command.run(context),
            Verb::Session(command) => command.run(context),
        }
    }
}

/// What a new machine is to be.
#[derive(Debug, Args)]
struct Shape {
    /// Its name [default: one is made up]
    #[arg(long)]
    name: Option<VmName>,
    /// The image it is made from [default: base]
    #[arg(long)]
    image: Option<ImageName>,
    /// Processors [default: half of this machine's, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory, such as 512M or 4G [default: 2G]
    #[arg(long, value_name = "SIZE", value_parser = value::mebibytes_32)]
    memory: Option<u32>,
    /// The most that its work disk may hold, such as 64G; it takes only what is written
    /// [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = value::mebibytes)]
    disk: Option<u64>,
}

impl From<Shape> for VmCreate {
    fn from(shape: Shape) -> Self {
        Self {
            name: shape.name,
            image: shape.image,
            cpus: shape.cpus,
            memory_mib: shape.memory,
            work_disk_mib: shape.disk,
        }
    }
}

fn state(state: VmState) -> &'static str {
    match state {
        VmState::Creating => "creating",
        VmState::Stopped => "stopped",
        VmState::Running => "running",
    }
}

fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Qemu => "qemu",
        Driver::Ssh => "ssh",
    }
}

/// A number of processors; `-` for 0, which stands for unknown.
fn processors(count: u32) -> String {
    match count {
        0 => "-".into(),
        count => count.to_string(),
    }
}
