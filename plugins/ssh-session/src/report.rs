//! Reads what the script `inspect.sh` printed. The guest may have printed anything.

use crate::contract::{Output, SessionState, Snapshot};
use banger_plugin::Refusal;

/// The fields of one session.
const FIELDS: usize = 10;

/// The sessions that the output tells of.
///
/// # Errors
/// The script failed, or the output is not, to the byte, what it prints.
pub fn read(output: &Output) -> Result<Vec<Snapshot>, Refusal> {
    if output.exit_code != 0 {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Refusal::new(format!(
            "the sessions could not be inspected (exit code {}): {}",
            output.exit_code,
            stderr.trim()
        )));
    }
    parse(&output.stdout).ok_or_else(|| {
        Refusal::new("the guest's report on its sessions is damaged")
            .hint("ask again for fewer sessions at once, or look at the guest's bash")
    })
}

fn parse(stdout: &[u8]) -> Option<Vec<Snapshot>> {
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
    sessions.chunks_exact(FIELDS).map(snapshot).collect()
}

fn snapshot(fields: &[&[u8]]) -> Option<Snapshot> {
    let &[
        id,
        state,
        pid,
        code,
        alive,
        error,
        stdout,
        stderr,
        started,
        ended,
    ] = fields
    else {
        return None;
    };
    let id = std::str::from_utf8(id).ok()?;
    if id.is_empty()
        || id.len() > 32
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return None;
    }
    let state = match state {
        b"starting" => SessionState::Starting,
        b"running" => SessionState::Running,
        b"exited" => SessionState::Exited,
        b"failed" => SessionState::Failed,
        b"lost" => SessionState::Lost,
        _ => return None,
    };
    let exit_code = optional(code)?;
    if exit_code.is_some_and(|code| code > 255)
        || exit_code.is_some() != (state == SessionState::Exited)
    {
        return None;
    }
    Some(Snapshot {
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
