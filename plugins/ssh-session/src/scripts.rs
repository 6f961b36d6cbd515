//! The guest scripts with their arguments.

use crate::contract::{LaunchRequest, OutputStream, StdinKind};
use banger_plugin::{Refusal, Script};

/// A script's text: the parts that it is made of, one after the other.
macro_rules! body {
    ($($part:literal),+) => {
        concat!($(include_str!(concat!("../scripts/", $part))),+)
    };
}

/// What stays in the guest as the session's `script`.
const SUPERVISOR: &str = body!("state.sh", "supervisor.sh");

/// The most that the guest may take for what should be done at once.
const PROMPT_MS: u32 = 60_000;

/// Until when output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// What is there now.
    Now,
    /// Until the session has ended.
    Ended,
}

/// Why a terminal can't be had here.
pub fn no_terminal() -> Refusal {
    Refusal::new("the backend `ssh` gives a session pipes, no terminal")
        .hint("use the backend `tmux`, or launch it with a pipe as its stdin")
}

/// Starts a session.
pub fn launch(request: &LaunchRequest) -> Result<Script, Refusal> {
    let kind = match request.session.stdin_kind {
        StdinKind::None => "none",
        StdinKind::Pipe => "pipe",
        StdinKind::Tty => return Err(no_terminal()),
    };
    if request.command.first().is_none_or(Vec::is_empty) {
        return Err(Refusal::new("the command is empty"));
    }
    let mut command = Vec::new();
    for word in &request.command {
        if word.contains(&0) {
            return Err(Refusal::new("an argument of the command holds a NUL byte"));
        }
        command.extend_from_slice(word);
        command.push(0);
    }
    let mut environment = Vec::new();
    for (name, value) in &request.environment {
        if !is_variable_name(name) {
            return Err(Refusal::new(format!(
                "`{}` is no name for an environment variable",
                name.escape_default()
            )));
        }
        if value.contains(&0) {
            return Err(Refusal::new(format!(
                "the value of the environment variable {name} holds a NUL byte"
            )));
        }
        environment.extend_from_slice(name.as_bytes());
        environment.push(b'=');
        environment.extend_from_slice(value);
        environment.push(0);
    }
    Ok(Script::new(body!("state.sh", "launch.sh"))
        .arg(request.session.state_root.trim_end_matches('/'))
        .arg(request.session.id.as_str())
        .arg(kind)
        .arg(request.cwd.clone())
        .number(SUPERVISOR.len() as u64)
        .number(command.len() as u64)
        .number(environment.len() as u64)
        .stdin(SUPERVISOR.as_bytes())
        .stdin(&command)
        .stdin(&environment)
        .timeout_ms(PROMPT_MS))
}

/// Tells of sessions; [`crate::report`] reads what it prints.
pub fn inspect(state_root: &str, ids: &[String]) -> Script {
    ids.iter().fold(
        Script::new(body!("state.sh", "inspect.sh"))
            .arg(state_root.trim_end_matches('/'))
            .timeout_ms(PROMPT_MS),
        |script, id| script.arg(id.as_str()),
    )
}

/// Sends a signal to the session's process group.
pub fn signal(dir: &str, name: &'static str) -> Script {
    Script::new(body!("state.sh", "signal.sh"))
        .arg(dir)
        .arg(name)
        .timeout_ms(PROMPT_MS)
}

/// Ends the session, by force after the grace.
pub fn stop(dir: &str, grace_ms: u32) -> Script {
    Script::new(body!("state.sh", "stop.sh"))
        .arg(dir)
        .number(grace_ms.into())
        .timeout_ms(grace_ms.saturating_add(PROMPT_MS))
}

/// Copies stdin to the session's input.
pub fn attach_input(dir: &str) -> Script {
    Script::new(body!("state.sh", "input.sh", "attach-input.sh")).arg(dir)
}

/// Prints a log from an offset on.
pub fn attach_output(dir: &str, which: OutputStream, offset: u64, until: Until) -> Script {
    Script::new(body!("state.sh", "attach-output.sh"))
        .arg(dir)
        .arg(file_name(which))
        // Bash counts in 64 bits with a sign.
        .number(offset.min(i64::MAX as u64 - 1))
        .arg(match until {
            Until::Now => "now",
            Until::Ended => "follow",
        })
}

/// Prints the last lines of a log.
pub fn tail(dir: &str, which: OutputStream, lines: u64) -> Script {
    Script::new(body!("state.sh", "tail.sh"))
        .arg(dir)
        .arg(file_name(which))
        .number(lines)
}

/// Writes the rest of stdin to the session's input in one piece.
pub fn send(dir: &str, timeout_ms: u32) -> Script {
    Script::new(body!("state.sh", "input.sh", "send.sh"))
        .arg(dir)
        .number(timeout_ms.into())
        .timeout_ms(timeout_ms.saturating_add(PROMPT_MS))
}

/// Removes the session's directory.
pub fn remove(dir: &str) -> Script {
    Script::new(body!("state.sh", "remove.sh"))
        .arg(dir)
        .timeout_ms(PROMPT_MS)
}

const fn file_name(which: OutputStream) -> &'static str {
    match which {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
