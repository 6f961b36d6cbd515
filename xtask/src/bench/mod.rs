//! Measures banger against the floor: the same thing done by qemu and ssh themselves, in the same
//! run on the same machine, alternating.
//!
//! Everything is under `bench/` in the target directory. Only the image stays there; machines,
//! servers, copies of disks and the daemon are gone at the end.

mod boot;
mod exec;
mod figure;
mod keys;
mod loopback;
mod memory;
mod plugins;
mod session;
mod throughput;

use crate::banger::Banger;
use crate::process::{Interrupted, Signals};
use crate::project::Project;
use crate::screen;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use figure::Figure;
use loopback::Loopback;
use std::cell::OnceCell;
use std::path::PathBuf;

/// Names of the benchmark's machines start with this.
const PREFIX: &str = "bench-";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench                          everything
  cargo xtask bench --only exec,throughput   two parts
  cargo xtask bench --only boot --runs 9")]
pub struct Arguments {
    /// Parts to measure; all where none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// How often to measure a boot and a transfer; commands are measured ten times as often.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// Parts, in the order in which they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The daemon's memory while it is idle.
    Memory,
    /// A command through `vm exec`.
    Exec,
    /// 256 MiB each way through `vm exec`.
    Throughput,
    /// 256 MiB of a session's output: kept, and as it is printed.
    Session,
    /// A key to a session with a terminal, and back.
    Keys,
    /// Loading and calling plugins.
    Plugins,
    /// From nothing to SSH.
    Boot,
}

/// What the parts share.
struct Bench<'a> {
    project: &'a Project,
    banger: &'a Banger,
    signals: &'a Signals,
    /// For files that go away at the end.
    scratch: PathBuf,
    runs: u32,
    loopback: OnceCell<Loopback>,
}

impl Bench<'_> {
    /// The sshd on loopback, adopted as a machine; started when it is needed first.
    fn loopback(&self) -> Result<&Loopback> {
        if let Some(loopback) = self.loopback.get() {
            return Ok(loopback);
        }
        let loopback = Loopback::start(self.banger, self.signals)?;
        Ok(self.loopback.get_or_init(|| loopback))
    }
}

/// `cargo xtask bench`.
pub fn run(arguments: &Arguments, signals: &Signals) -> Result<()> {
    let project = Project::locate()?;
    setup::ensure(&project, Purpose::Test, signals)?;
    let directory = project.target.join("bench");
    let banger = Banger::build(&project, &directory, PREFIX, signals)?;
    let scratch = directory.join("scratch");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)
        .with_context(|| format!("can't create {}", scratch.display()))?;

    let bench = Bench {
        project: &project,
        banger: &banger,
        signals,
        scratch,
        runs: arguments.runs,
        loopback: OnceCell::new(),
    };
    let outcome = measure(&bench, &arguments.only);
    let scratch = bench.scratch.clone();
    // The machines first, then the server that one of them is.
    let tidied = banger.tidy_up(PREFIX);
    drop(bench);
    let _ = std::fs::remove_dir_all(scratch);
    outcome?;
    tidied
}

/// Measures, and prints what could be measured even where a part fails.
fn measure(bench: &Bench<'_>, only: &[Part]) -> Result<()> {
    let mut figures: Vec<Figure> = Vec::new();
    let mut failures = Vec::new();
    for part in Part::value_variants() {
        if !only.is_empty() && !only.contains(part) {
            continue;
        }
        screen::say(format!("\n== {}", part_name(*part)));
        let measured = match part {
            Part::Memory => memory::measure(bench),
            Part::Exec => exec::measure(bench),
            Part::Throughput => throughput::measure(bench),
            Part::Session => session::measure(bench),
            Part::Keys => keys::measure(bench),
            Part::Plugins => plugins::measure(bench),
            Part::Boot => boot::measure(bench),
        };
        bench.signals.check()?;
        match measured {
            Ok(measured) => figures.extend(measured),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                screen::error(&error);
                failures.push(part_name(*part));
            }
        }
    }
    screen::say(format!("\n{}", figure::report(&figures)));
    if !failures.is_empty() {
        bail!("could not be measured: {}", failures.join(", "));
    }
    Ok(())
}

fn part_name(part: Part) -> String {
    part.to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
