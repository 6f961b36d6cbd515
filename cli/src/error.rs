//! The one edge at which errors become text and an exit code.

use crate::output::Output;
use crate::style::Style;
use banger_core::{Failure, Kind, escape};
use std::ffi::OsString;
use std::io::Write as _;

/// The exit code where standard output was closed early, as a shell shows it for SIGPIPE.
pub const BROKEN_PIPE: u8 = 141;

/// The exit code of banger's own failures in commands that pass the guest's exit code on.
pub const OWN_FAILURE: u8 = 125;

/// Why a command ends early.
#[derive(Debug)]
pub enum CommandError {
    /// Something to tell the user.
    Failure(Failure),
    /// Nobody reads our output any more: nothing to tell.
    BrokenPipe,
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// What a command ends with: an exit code, 0 where all is well.
pub type Outcome = Result<u8, CommandError>;

/// A failure of the operating system on this machine: what was tried, and why not.
pub fn host(doing: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
    let mut failure = Failure::from_error(Kind::Host, error);
    failure.message = format!("can't {doing}: {}", failure.message);
    failure
}

/// Shows a failure on standard error and says with which code to exit.
pub fn report(failure: &Failure, output: &Output, passes_exit_code_on: bool) -> u8 {
    let text = if output.json {
        as_json(failure)
    } else {
        as_text(failure, output.error_style)
    };
    // Where standard error is closed, the exit code still tells.
    let _ = std::io::stderr().write_all(text.as_bytes());
    exit_code(failure.kind, passes_exit_code_on)
}

fn exit_code(kind: Kind, passes_exit_code_on: bool) -> u8 {
    match kind {
        Kind::Cancelled => Kind::Cancelled.exit_code(),
        _ if passes_exit_code_on => OWN_FAILURE,
        kind => kind.exit_code(),
    }
}

/// Shows what clap says about a command line: help on standard output, else an error.
pub fn report_usage(error: &clap::Error, arguments: &[OsString], passes_exit_code_on: bool) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let before_dashes = arguments.iter().take_while(|argument| *argument != "--");
    if before_dashes
        .into_iter()
        .any(|argument| argument == "--json")
    {
        let text = error.render().to_string();
        let sentence = text.lines().next().unwrap_or_default();
        let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
        let failure = Failure::new(Kind::Usage, escape::text(sentence.as_bytes()))
            .hint("`banger help` lists what there is");
        let _ = std::io::stderr().write_all(as_json(&failure).as_bytes());
    } else {
        let _ = error.print();
    }
    exit_code(Kind::Usage, passes_exit_code_on)
}

fn as_json(failure: &Failure) -> String {
    format!("{}\n", serde_json::json!({ "error": failure }))
}

/// `error: sentence`, then what else is known. Everything is escaped once more: the daemon has
/// done so, but this is the last place that can.
fn as_text(failure: &Failure, style: Style) -> String {
    let safe = |text: &str| escape::lines(text.as_bytes());
    let mut text = format!("{} {}\n", style.error("error:"), safe(&failure.message));
    if !failure.stage.is_empty() {
        text += &format!("  stage: {}\n", safe(&failure.stage));
    }
    let detail = safe(&failure.detail);
    for line in detail.trim_end().lines() {
        text += &format!("  | {line}\n");
    }
    if !failure.hint.is_empty() {
        text += &format!("{} {}\n", style.hint("hint:"), safe(&failure.hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_known_is_shown_and_safe() {
        let mut failure = Failure::new(Kind::Launch, "can't start\x1b[2J")
            .hint("install it")
            .stage("preflight-commands")
            .detail(b"one\ntwo\n");
        assert_eq!(
            as_text(&failure, Style::Plain),
            "error: can't start\\x1b[2J\n  stage: preflight-commands\n  | one\n  | two\nhint: install it\n"
        );
        failure = Failure::new(Kind::Internal, "x");
        assert_eq!(as_text(&failure, Style::Plain), "error: x\n");
    }

    #[test]
    fn own_failures_are_told_from_the_guests_codes() {
        for kind in Kind::ALL {
            let expected = if kind == Kind::Cancelled { 130 } else { 125 };
            assert_eq!(exit_code(kind, true), expected);
            assert_eq!(exit_code(kind, false), kind.exit_code());
        }
    }
}
