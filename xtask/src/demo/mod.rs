//! The whole path on a real repository in a real VM, each step as the command a user types.
//!
//! Everything is under `demo/` in the target directory: banger's home, so that the image is there
//! for the second run, and the repository. It deletes its VM and stops its daemon at the end, also
//! after a failure or Ctrl-C; what a killed run has left is removed by the next.

mod repository;
mod steps;

use crate::banger::Banger;
use crate::process::Signals;
use crate::project::Project;
use crate::screen;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result, bail};
use std::time::Instant;
use steps::Steps;

/// Names of the demo's VMs start with this.
const PREFIX: &str = "demo-";

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo            the whole path; the first run makes the image
  cargo xtask demo --keep     and leaves the VM running, to look around in it")]
pub struct Arguments {
    /// Leave the VM running at the end. The next demo deletes it.
    #[arg(long)]
    keep: bool,
}

/// `cargo xtask demo`.
pub fn run(arguments: &Arguments, signals: &Signals) -> Result<()> {
    let start = Instant::now();
    let project = Project::locate()?;
    setup::ensure(&project, Purpose::Demo, signals)?;
    let setup_time = start.elapsed();

    let directory = project.target.join("demo");
    let build_start = Instant::now();
    let banger = Banger::build(&project, &directory, PREFIX, signals)?;
    let build_time = build_start.elapsed();

    let work = directory.join("run");
    if work.exists() {
        std::fs::remove_dir_all(&work)
            .with_context(|| format!("can't remove {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("can't create {}", work.display()))?;

    let mut steps = Steps::new(&banger, &work, signals);
    steps.record("packages and target", setup_time);
    steps.record("cargo build --release", build_time);
    let name = format!("{PREFIX}{:04x}", std::process::id() & 0xffff);
    let outcome = path(&project, &mut steps, &name);
    if outcome.is_ok() && arguments.keep {
        summarise(&steps, start);
        screen::say(format!(
            "\n{name} still runs. To use it:\n  export BANGER_HOME={}\n  {} vm ssh {name}",
            screen::command_line([banger.home().to_string_lossy()]),
            screen::command_line([project.release_binary().to_string_lossy()]),
        ));
        return Ok(());
    }
    let outcome = outcome.and_then(|()| {
        steps.title("Nothing stays behind");
        steps.banger(Some("vm delete"), &["vm", "delete", &name])?;
        steps.banger(None, &["daemon", "stop"])
    });
    if outcome.is_err() {
        screen::warn("demo: cleaning up");
    }
    let tidied = banger.tidy_up(PREFIX);
    outcome?;
    tidied?;
    summarise(&steps, start);
    Ok(())
}

fn summarise(steps: &Steps<'_>, start: Instant) {
    screen::say(format!("\n{}", steps.table(start.elapsed())));
}

/// From an empty home to a patch that is applied.
fn path(project: &Project, steps: &mut Steps<'_>, name: &str) -> Result<()> {
    steps.title("This machine");
    steps.banger(Some("doctor"), &["doctor"])?;

    steps.title("A Debian image, built when there is none yet");
    steps.banger(Some("image build"), &["image", "build"])?;

    steps.title("A repository, with changes that are not committed");
    let head = repository::make(project, steps)?;

    steps.title("It goes into a fresh VM");
    steps.banger(Some("vm run"), &["vm", "run", "repo", "--name", name])?;

    steps.title("A session that runs detached, and is talked to");
    steps.banger(
        Some("session start"),
        &[
            "vm", "session", "start", name, "--name", "shell", "--stdin", "pipe", "--", "bash",
            "-ex",
        ],
    )?;
    steps.banger(
        Some("session send, work, wait"),
        &[
            "vm",
            "session",
            "send",
            name,
            "shell",
            "--message",
            repository::GUEST_WORK,
        ],
    )?;
    steps.banger(
        Some("session send, work, wait"),
        &[
            "vm",
            "session",
            "send",
            name,
            "shell",
            "--message",
            "exit 0\n",
        ],
    )?;
    steps.banger(
        Some("session send, work, wait"),
        &["vm", "session", "wait", name, "shell"],
    )?;
    steps.banger(
        Some("session logs"),
        &["vm", "session", "logs", name, "shell"],
    )?;

    steps.title("Its work comes back as a patch");
    steps.banger(
        Some("workspace export"),
        &["vm", "workspace", "export", name, "--output", "work.patch"],
    )?;
    let guest = steps.banger_output(
        "compare the trees",
        &[
            "vm",
            "exec",
            name,
            "--",
            "bash",
            "-c",
            repository::GUEST_TREE,
        ],
    )?;

    steps.title("and applies in a fresh clone on the host");
    let host = repository::apply(steps, &head)?;
    if guest != host {
        bail!("the guest's tree is {guest}, and the patched clone's is {host}");
    }
    screen::say(format!(
        "\nThe tree in the guest and the patched clone are equal: {host}"
    ));
    Ok(())
}
