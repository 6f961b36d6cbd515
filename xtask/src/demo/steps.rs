//! Steps: each command is shown as it is typed, run, and timed.

use crate::banger::Banger;
use crate::process::Signals;
use crate::screen;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The steps so far.
pub struct Steps<'a> {
    banger: &'a Banger,
    /// The directory that commands run in.
    work: &'a Path,
    signals: &'a Signals,
    times: Vec<(String, Duration)>,
}

impl<'a> Steps<'a> {
    /// No steps yet.
    pub fn new(banger: &'a Banger, work: &'a Path, signals: &'a Signals) -> Self {
        Self {
            banger,
            work,
            signals,
            times: Vec::new(),
        }
    }

    /// The directory that commands run in.
    pub fn work(&self) -> &Path {
        self.work
    }

    /// Starts a chapter.
    pub fn title(&self, title: &str) {
        screen::say(format!("\n== {title}"));
    }

    /// Counts time for a stage.
    pub fn record(&mut self, stage: &str, time: Duration) {
        match self.times.iter_mut().find(|(name, _)| name == stage) {
            Some((_, sum)) => *sum += time,
            None => self.times.push((stage.to_owned(), time)),
        }
    }

    /// `banger ARGS…`; its time counts for `stage`.
    pub fn banger(&mut self, stage: Option<&str>, arguments: &[&str]) -> Result<()> {
        let command = self.banger.command(arguments);
        self.run(stage, "banger", command, arguments)
    }

    /// `banger ARGS…`, whose standard output is shown and returned without white space around it.
    pub fn banger_output(&mut self, stage: &str, arguments: &[&str]) -> Result<String> {
        let command = self.banger.command(arguments);
        self.output(stage, "banger", command, arguments)
    }

    /// `git ARGS…`; its time is not worth a line in the table.
    pub fn git(&mut self, arguments: &[&str]) -> Result<()> {
        self.run(None, "git", git(), arguments)
    }

    /// `git ARGS…`, whose standard output is shown and returned without white space around it.
    pub fn git_output(&mut self, stage: &str, arguments: &[&str]) -> Result<String> {
        self.output(stage, "git", git(), arguments)
    }

    fn run(
        &mut self,
        stage: Option<&str>,
        program: &str,
        mut command: Command,
        arguments: &[&str],
    ) -> Result<()> {
        show(program, arguments);
        if program == "git" {
            command.args(arguments);
        }
        let time = self.signals.time(command.current_dir(self.work))?;
        if let Some(stage) = stage {
            self.record(stage, time);
        }
        Ok(())
    }

    fn output(
        &mut self,
        stage: &str,
        program: &str,
        mut command: Command,
        arguments: &[&str],
    ) -> Result<String> {
        show(program, arguments);
        if program == "git" {
            command.args(arguments);
        }
        let start = Instant::now();
        let output = self.signals.output(command.current_dir(self.work))?;
        self.record(stage, start.elapsed());
        let text = String::from_utf8(output).context("a command's output is no text")?;
        let text = text.trim();
        screen::say(text);
        Ok(text.to_owned())
    }

    /// How long each stage took.
    pub fn table(&self, whole: Duration) -> String {
        let row = |name: &str, time: Duration| vec![name.to_owned(), screen::duration(time)];
        let mut rows: Vec<Vec<String>> = self
            .times
            .iter()
            .map(|(name, time)| row(name, *time))
            .collect();
        rows.push(row("in all", whole));
        screen::table(&["stage", "time"], &rows)
    }
}

fn show(program: &str, arguments: &[&str]) {
    let words = std::iter::once(program).chain(arguments.iter().copied());
    screen::say(format!("$ {}", screen::command_line(words)));
}

/// git, without what a user's configuration might change about it.
pub fn git() -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Demo")
        .env("GIT_AUTHOR_EMAIL", "demo@example.invalid")
        .env("GIT_COMMITTER_NAME", "Demo")
        .env("GIT_COMMITTER_EMAIL", "demo@example.invalid")
        .stdin(std::process::Stdio::null());
    command
}
