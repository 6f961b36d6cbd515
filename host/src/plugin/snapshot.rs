//! What a session backend told of its sessions, checked.
//!
//! The guest wrote it and a plugin read it: neither is believed beyond what is possible.

use super::bindings::session_backend as wit;
use super::validate;
use banger_core::session::{SessionState, Snapshot};
use banger_core::{ByteString, SessionId};
use std::collections::HashSet;

/// Sessions that one `inspect` may tell of.
pub(crate) const SNAPSHOTS_LIMIT: usize = 4096;
/// The length of a session's last error, in bytes.
const LAST_ERROR_LIMIT: usize = 64 << 10;
/// The last millisecond of the year 9999.
pub(crate) const TIME_LIMIT_MS: u64 = 253_402_300_799_999;

/// The sessions that a backend told of, where it was asked for those.
pub fn check(snapshots: Vec<wit::Snapshot>, asked: &[SessionId]) -> Result<Vec<Snapshot>, String> {
    if snapshots.len() > SNAPSHOTS_LIMIT {
        return Err(format!(
            "{} sessions; at most {SNAPSHOTS_LIMIT} are allowed",
            snapshots.len()
        ));
    }
    let asked: HashSet<&str> = asked.iter().map(SessionId::as_str).collect();
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        if !asked.is_empty() && !asked.contains(snapshot.id.as_str()) {
            let id = validate::shown(snapshot.id.as_bytes());
            return Err(format!("session `{id}`, which nobody asked for"));
        }
        // A hostile guest may have made any directory there.
        let Ok(id) = snapshot.id.parse::<SessionId>() else {
            continue;
        };
        if !seen.insert(id.clone()) {
            return Err(format!("session {id} twice"));
        }
        let snapshot =
            from_snapshot(id.clone(), snapshot).map_err(|e| format!("session {id}: {e}"))?;
        checked.push(snapshot);
    }
    Ok(checked)
}

fn from_snapshot(id: SessionId, snapshot: wit::Snapshot) -> Result<Snapshot, String> {
    let state = match snapshot.state {
        wit::SessionState::Starting => SessionState::Starting,
        wit::SessionState::Running => SessionState::Running,
        wit::SessionState::Exited => SessionState::Exited,
        wit::SessionState::Failed => SessionState::Failed,
        wit::SessionState::Lost => SessionState::Lost,
    };
    if let Some(code) = snapshot.exit_code
        && !(0..=255).contains(&code)
    {
        return Err(format!("the exit code {code}"));
    }
    if state == SessionState::Exited && snapshot.exit_code.is_none() {
        return Err("exited without an exit code".into());
    }
    if snapshot.pid == Some(0) {
        return Err("the process id 0".into());
    }
    if let Some(error) = &snapshot.last_error
        && error.len() > LAST_ERROR_LIMIT
    {
        return Err(format!("an error of {} bytes", error.len()));
    }
    for time in [snapshot.started_at_ms, snapshot.ended_at_ms]
        .into_iter()
        .flatten()
    {
        if time > TIME_LIMIT_MS {
            return Err(format!("{time} ms as a point in time"));
        }
    }
    for (start, bytes) in [
        (snapshot.stdout_start, snapshot.stdout_bytes),
        (snapshot.stderr_start, snapshot.stderr_bytes),
    ] {
        if i64::try_from(bytes).is_err() {
            return Err(format!("a log of {bytes} bytes"));
        }
        if start > bytes {
            return Err(format!("a log of {bytes} bytes that begins at {start}"));
        }
    }
    Ok(Snapshot {
        id,
        state,
        pid: snapshot.pid,
        exit_code: snapshot.exit_code,
        alive: snapshot.alive,
        last_error: snapshot
            .last_error
            .map(|error| ByteString(error.into_bytes())),
        stdout_bytes: snapshot.stdout_bytes,
        stderr_bytes: snapshot.stderr_bytes,
        stdout_start: snapshot.stdout_start,
        stderr_start: snapshot.stderr_start,
        started_at_ms: snapshot.started_at_ms,
        ended_at_ms: snapshot.ended_at_ms,
    })
}
