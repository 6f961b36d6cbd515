//! The release build of `banger` with a home of its own, driven as a user drives it.

use crate::process::{self, Signals};
use crate::project::Project;
use crate::screen;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a command of a clean-up may take.
const TIDY_LIMIT: Duration = Duration::from_secs(60);

/// A `banger` and the directory that it keeps everything in.
#[derive(Debug)]
pub struct Banger {
    program: PathBuf,
    home: PathBuf,
    signals: Signals,
    /// Processes that were there before, somebody reading a log perhaps.
    bystanders: Vec<u32>,
    /// Held while this value lives: one demo, or one benchmark, at a time.
    _lock: File,
}

impl Banger {
    /// Builds `banger`, takes the home `directory`/home for it, and removes what a run that was
    /// killed has left there: VMs whose names start with `prefix`, and the daemon.
    ///
    /// # Errors
    /// If it does not build, or another run is at work in that directory.
    pub fn build(
        project: &Project,
        directory: &Path,
        prefix: &str,
        signals: &Signals,
    ) -> Result<Self> {
        let home = directory.join("home");
        std::fs::create_dir_all(&home)
            .with_context(|| format!("can't create {}", home.display()))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("can't create {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another run is at work in {}; wait for its end",
                directory.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("can't lock {}", lock_path.display()));
            }
        }
        let mut cargo = project.cargo();
        cargo.args(["build", "--release", "--locked", "--package", "banger"]);
        screen::say("$ cargo build --release --locked --package banger");
        signals.run(&mut cargo)?;
        let mut banger = Self {
            program: project.release_binary(),
            home,
            signals: signals.clone(),
            bystanders: Vec::new(),
            _lock: lock,
        };
        // Of another build perhaps, which understands other commands.
        banger.stop_daemon();
        banger.tidy(prefix);
        for (pid, line) in banger.running() {
            screen::warn(format!(
                "process {pid} is at work in {}: {line}",
                banger.home.display()
            ));
            banger.bystanders.push(pid);
        }
        Ok(banger)
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `banger ARGS…`, not yet run.
    pub fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .env("BANGER_HOME", &self.home);
        command
    }

    /// What `banger ARGS… --json` answers.
    ///
    /// # Errors
    /// If it fails or does not answer with JSON.
    pub fn json<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Value> {
        let mut command = self.command(arguments);
        command.arg("--json");
        let output = self.signals.output(&mut command)?;
        serde_json::from_slice(&output)
            .with_context(|| format!("`{}` answered with no JSON", process::line(&command)))
    }

    /// Runs `banger ARGS…`, its output where ours goes.
    ///
    /// # Errors
    /// If it fails.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<()> {
        let mut command = self.command(arguments);
        self.signals.run(&mut command)
    }

    /// Deletes every VM whose name starts with `prefix` and stops the daemon. Also after a run that
    /// was killed, and while a user is impatient.
    pub fn tidy(&self, prefix: &str) {
        let listed = process::tidy(&mut self.command(&["vm", "list", "--json"]), TIDY_LIMIT);
        let listed: Value = listed
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        for name in names(&listed) {
            if name.starts_with(prefix) {
                process::tidy(&mut self.command(&["vm", "delete", &name]), TIDY_LIMIT);
            }
        }
        self.stop_daemon();
    }

    /// The same at the end of a run.
    ///
    /// # Errors
    /// If a process goes on in spite of that, other than those that were there at the start.
    pub fn tidy_up(&self, prefix: &str) -> Result<()> {
        self.tidy(prefix);
        // A process that was told to end needs a moment for it.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self
                .running()
                .into_iter()
                .find(|(pid, _)| !self.bystanders.contains(pid));
            match left {
                None => return Ok(()),
                Some((pid, line)) if Instant::now() > end => {
                    bail!("this is over, but process {pid} still runs: {line}")
                }
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Processes of this home: those that name it, every qemu that works in it, and our own program
    /// with it in its environment.
    fn running(&self) -> Vec<(u32, String)> {
        let home = self.home.to_string_lossy();
        process::all()
            .into_iter()
            .filter(|process| {
                process
                    .words
                    .iter()
                    .any(|word| word.contains(home.as_ref()))
                    || (process.is_qemu() && process.works_under(&self.home))
                    || (process.runs(&self.program)
                        && process.has_variable("BANGER_HOME", &self.home))
            })
            .map(|process| (process.pid, process.words.join(" ")))
            .collect()
    }

    /// Stops the daemon of this home, if one runs.
    pub fn stop_daemon(&self) {
        process::tidy(&mut self.command(&["daemon", "stop"]), TIDY_LIMIT);
    }
}

/// The names in the answer of `vm list`.
fn names(listed: &Value) -> Vec<String> {
    listed
        .get("vms")
        .unwrap_or(listed)
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|vm| vm.get("name")?.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_read_from_a_list() {
        assert_eq!(
            names(&json!({"vms": [{"name": "a"}, {"name": "b"}]})),
            ["a", "b"]
        );
        assert!(names(&Value::Null).is_empty());
    }
}
