//! The guest scripts that every backend has, with their arguments.

use banger_plugin::{Refusal, Script};

/// A script's text: the parts that it is made of, one after the other.
macro_rules! body {
    ($($part:literal),+) => {
        concat!($(include_str!(concat!("../scripts/", $part))),+)
    };
}

/// What every supervisor's script begins with: the role `keep_logs`.
const KEEPER: &str = body!("keeper.sh");

/// The most that the guest may take for what should be done at once, in milliseconds.
pub const PROMPT_MS: u32 = 60_000;

/// Until when output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// What is there now.
    Now,
    /// Until the session has ended.
    Ended,
}

/// One of a session's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Log {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What shall run, and under whose care; the contract's `launch-request` tells more.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Launch<'a> {
    /// The backend's name.
    pub backend: &'static str,
    /// The text that stays in the guest as the session's `script`, after the log keeper's.
    pub supervisor: &'static str,
    pub state_root: &'a str,
    pub id: &'a str,
    /// `none`, `pipe` or `tty`.
    pub kind: &'static str,
    pub command: &'a [Vec<u8>],
    pub environment: &'a [(String, Vec<u8>)],
    pub cwd: &'a [u8],
    pub columns: u16,
    pub rows: u16,
    pub log_limit: u64,
    pub host_record: &'a [u8],
}

/// Starts a session.
///
/// # Errors
/// A command or an environment that no program can get.
pub fn launch(request: &Launch<'_>) -> Result<Script, Refusal> {
    if request.command.first().is_none_or(Vec::is_empty) {
        return Err(Refusal::new("the command is empty"));
    }
    let mut command = Vec::new();
    for word in request.command {
        if word.contains(&0) {
            return Err(Refusal::new("an argument of the command holds a NUL byte"));
        }
        command.extend_from_slice(word);
        command.push(0);
    }
    let mut environment = Vec::new();
    for (name, value) in request.environment {
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
    Ok(Script::new(body!("state.sh", "tell.sh", "launch.sh"))
        .arg(request.state_root.trim_end_matches('/'))
        .arg(request.id)
        .arg(request.kind)
        .arg(request.cwd)
        .arg(request.backend)
        .number(request.columns.into())
        .number(request.rows.into())
        .number(request.log_limit)
        .number((KEEPER.len() + request.supervisor.len()) as u64)
        .number(command.len() as u64)
        .number(environment.len() as u64)
        .number(request.host_record.len() as u64)
        .stdin(KEEPER.as_bytes())
        .stdin(request.supervisor.as_bytes())
        .stdin(&command)
        .stdin(&environment)
        .stdin(request.host_record)
        .timeout_ms(PROMPT_MS))
}

/// Tells of a backend's sessions; [`crate::report`] reads what it prints.
pub fn inspect(state_root: &str, backend: &'static str, ids: &[String]) -> Script {
    ids.iter().fold(
        Script::new(body!("state.sh", "tell.sh", "inspect.sh"))
            .arg(state_root.trim_end_matches('/'))
            .arg(backend)
            .timeout_ms(PROMPT_MS),
        |script, id| script.arg(id.as_str()),
    )
}

/// Prints a backend's host records; [`crate::records`] reads them.
pub fn host_records(state_root: &str, backend: &'static str) -> Script {
    Script::new(body!("state.sh", "host-records.sh"))
        .arg(state_root.trim_end_matches('/'))
        .arg(backend)
        .timeout_ms(PROMPT_MS)
}

/// Tells of each change of state of a backend's sessions.
pub fn watch(state_root: &str, backend: &'static str) -> Script {
    Script::new(body!("readers.sh", "watch.sh"))
        .arg(state_root.trim_end_matches('/'))
        .arg(backend)
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

/// Prints a log from an offset on.
pub fn attach_output(dir: &str, log: Log, offset: u64, until: Until) -> Script {
    Script::new(body!("state.sh", "readers.sh", "attach-output.sh"))
        .arg(dir)
        .arg(log.file_name())
        // Bash counts in 64 bits with a sign.
        .number(offset.min(i64::MAX as u64 - 1))
        .arg(match until {
            Until::Now => "now",
            Until::Ended => "follow",
        })
}

/// Prints where the last lines of a log begin.
pub fn offset_of_lines(dir: &str, log: Log, lines: u64) -> Script {
    Script::new(body!("state.sh", "offset-of-lines.sh"))
        .arg(dir)
        .arg(log.file_name())
        .number(lines)
}

/// Prints where in a log begins what was written in the last `age_ms` milliseconds.
pub fn offset_since(dir: &str, log: Log, age_ms: u64) -> Script {
    Script::new(body!("state.sh", "offset-since.sh"))
        .arg(dir)
        .arg(log.file_name())
        // Bash counts in 64 bits with a sign.
        .number(age_ms.min(i64::MAX as u64))
        .timeout_ms(PROMPT_MS)
}

/// Removes the session's directory.
pub fn remove(dir: &str) -> Script {
    Script::new(body!("state.sh", "remove.sh"))
        .arg(dir)
        .timeout_ms(PROMPT_MS)
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
