//! Reads what the script `inspect.sh` printed. The guest may have printed anything.

use banger_plugin::Refusal;

/// The fields of one session.
const FIELDS: usize = 12;

/// What is true of a session now; the contract's `snapshot` tells what each field means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Report {
    pub id: String,
    pub state: State,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub alive: bool,
    pub last_error: Option<String>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub stdout_start: u64,
    pub stderr_start: u64,
    pub started_at_ms: Option<u64>,
    pub ended_at_ms: Option<u64>,
}

/// The contract's `session-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Starting,
    Running,
    Exited,
    Failed,
    Lost,
}

/// The sessions that the output tells of.
///
/// # Errors
/// The script failed, or the output is not, to the byte, what it prints.
pub fn read(exit_code: i32, stdout: &[u8], stderr: &[u8]) -> Result<Vec<Report>, Refusal> {
    if exit_code != 0 {
        let stderr = String::from_utf8_lossy(stderr);
        return Err(Refusal::new(format!(
            "the sessions could not be inspected (exit code {exit_code}): {}",
            stderr.trim()
        )));
    }
    parse(stdout).ok_or_else(|| {
        Refusal::new("the guest's report on its sessions is damaged")
            .hint("ask again for fewer sessions at once, or look at the guest's bash")
    })
}

fn parse(stdout: &[u8]) -> Option<Vec<Report>> {
    let fields: Vec<&[u8]> = stdout
        .strip_suffix(b"\0")?
        .split(|byte| *byte == 0)
        .collect();
    let [first, sessions @ .., last] = fields.as_slice() else {
        return None;
    };
    if *first != b"banger-sessions-1" || *last != b"end" || sessions.len() % FIELDS != 0 {
        return None;
    }
    sessions.chunks_exact(FIELDS).map(report).collect()
}

fn report(fields: &[&[u8]]) -> Option<Report> {
    let &[
        id,
        state,
        pid,
        code,
        alive,
        error,
        stdout,
        stderr,
        stdout_start,
        stderr_start,
        started,
        ended,
    ] = fields
    else {
        return None;
    };
    let id = std::str::from_utf8(id).ok()?;
    if !crate::is_id(id) {
        return None;
    }
    let state = match state {
        b"starting" => State::Starting,
        b"running" => State::Running,
        b"exited" => State::Exited,
        b"failed" => State::Failed,
        b"lost" => State::Lost,
        _ => return None,
    };
    let exit_code = optional(code)?;
    if exit_code.is_some_and(|code| code > 255) || exit_code.is_some() != (state == State::Exited) {
        return None;
    }
    Some(Report {
        id: id.to_owned(),
        state,
        pid: optional(pid)?.map(u32::try_from).transpose().ok()?,
        exit_code: exit_code.map(i32::try_from).transpose().ok()?,
        alive: match alive {
            b"0" => false,
            b"1" => true,
            _ => return None,
        },
        last_error: (!error.is_empty()).then(|| String::from_utf8_lossy(error).into_owned()),
        stdout_bytes: number(stdout)?,
        stderr_bytes: number(stderr)?,
        stdout_start: number(stdout_start)?,
        stderr_start: number(stderr_start)?,
        started_at_ms: optional(started)?,
        ended_at_ms: optional(ended)?,
    })
}

/// An empty field is no number; anything but a number is a mistake.
#[allow(clippy::option_option)]
fn optional(field: &[u8]) -> Option<Option<u64>> {
    if field.is_empty() {
        Some(None)
    } else {
        number(field).map(Some)
    }
}

fn number(field: &[u8]) -> Option<u64> {
    if !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}
