//! Every test of both workspaces, and one line at the end that adds them up.

use crate::process::Signals;
use crate::project::Project;
use crate::screen;
use crate::setup::{self, Purpose};
use anyhow::Result;
use std::io::Write;
use std::process::Command;

/// What to test.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                        everything
  cargo xtask test patch                  tests with `patch` in their names
  cargo xtask test -p banger-core         one crate of the main workspace
  cargo xtask test -- --nocapture         arguments for the test programs

The tests that boot a VM share one image, in the directory that BANGER_TEST_IMAGES names.")]
pub struct Arguments {
    /// Arguments for `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// `cargo xtask test`.
pub fn run(arguments: &Arguments, signals: &Signals) -> Result<()> {
    let project = Project::locate()?;
    setup::ensure(&project, Purpose::Test, signals)?;
    let mut tally = Tally::default();
    let selects = selects_packages(&arguments.arguments);

    let mut main = project.cargo();
    cargo_test(&mut main, arguments, selects);
    if std::env::var_os("BANGER_TEST_IMAGES").is_none() {
        main.env("BANGER_TEST_IMAGES", project.target.join("test-images"));
    }
    tally.add(&mut main, signals, &mut std::io::stdout())?;
    // A package is selected by its name in the main workspace; the plugins have other names.
    if let Some(mut plugins) = project.cargo_plugins().filter(|_| !selects) {
        cargo_test(&mut plugins, arguments, selects);
        tally.add(&mut plugins, signals, &mut std::io::stdout())?;
    }

    screen::say(tally.summary());
    if tally.failed > 0 {
        return Err(Failed.into());
    }
    Ok(())
}

/// Tests failed. The summary has said so, and it is the last line.
#[derive(Debug)]
pub struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for Failed {}

fn cargo_test(command: &mut Command, arguments: &Arguments, selects: bool) {
    command.args(["test", "--locked", "--no-fail-fast"]);
    if !selects {
        command.arg("--workspace");
    }
    command.args(&arguments.arguments);
}

fn selects_packages(arguments: &[String]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| {
            argument.starts_with("--package")
                || argument == "--manifest-path"
                || (argument.starts_with("-p") && !argument.starts_with("--"))
        })
}

/// How many tests passed and failed, in all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Runs a command, passes its output on, and counts.
    fn add(
        &mut self,
        command: &mut Command,
        signals: &Signals,
        out: &mut impl Write,
    ) -> Result<()> {
        let failed_before = self.failed;
        let mut rest = Vec::new();
        let status = signals.stream(command, |bytes| {
            let _ = out.write_all(bytes);
            let _ = out.flush();
            rest.extend_from_slice(bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                self.read(&String::from_utf8_lossy(&line));
            }
        })?;
        self.read(&String::from_utf8_lossy(&rest));
        if !status.success() && self.failed == failed_before {
            // Something did not compile, or a test program died without a result.
            self.failed += 1;
        }
        Ok(())
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line
            .trim()
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(count), Some(what)) = (count, words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn summary(&self) -> String {
        let counts = format!("{} passed, {} failed", self.passed, self.failed);
        match self.ignored {
            0 => counts,
            ignored => format!("({ignored} ignored)\n{counts}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "test a::test result: 5 passed ... ok",
        ] {
            tally.read(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 7,
                failed: 2,
                ignored: 1
            }
        );
        assert_eq!(tally.summary(), "(1 ignored)\n7 passed, 2 failed");
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_a_failure() {
        let signals = Signals::watch().expect("signals");
        let mut tally = Tally::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 1 passed; 0 failed'; exit 101"]);
        let mut out = Vec::new();
        tally.add(&mut command, &signals, &mut out).expect("runs");
        assert_eq!(out, b"test result: ok. 1 passed; 0 failed\n");
        assert_eq!(tally.summary(), "1 passed, 1 failed");
    }

    #[test]
    fn packages_are_seen_before_the_dashes_only() {
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        assert!(selects_packages(&words("-p banger-core")));
        assert!(selects_packages(&words("-pbanger-core name")));
        assert!(selects_packages(&words("--package=banger-core")));
        assert!(!selects_packages(&words("name -- -p")));
    }
}
