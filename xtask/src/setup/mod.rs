//! Installs what is missing: Debian packages, and the Rust target of the plugins.
//!
//! Where nothing is missing it does nothing, and needs no network.

mod packages;
mod toolchain;

use crate::process::Signals;
use crate::project::Project;
use crate::screen;
use anyhow::Result;
use clap::ValueEnum;

/// What to install for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What it is for: the demo needs fewer packages than the tests.
    #[arg(long, value_enum, default_value_t = Purpose::Test)]
    purpose: Purpose,
}

/// What a machine is to be able to do. Each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Purpose {
    /// Build banger, its image, and run VMs.
    Demo,
    /// Also run the tests and the measurements, which need a real sshd.
    Test,
}

/// `cargo xtask setup`.
pub fn run(arguments: &Arguments, signals: &Signals) -> Result<()> {
    ensure(&Project::locate()?, arguments.purpose, signals)?;
    screen::say("setup: everything is there");
    Ok(())
}

/// Installs what is missing for a purpose.
pub fn ensure(project: &Project, purpose: Purpose, signals: &Signals) -> Result<()> {
    packages::ensure(project, purpose, signals)?;
    toolchain::ensure(project, signals)
}
