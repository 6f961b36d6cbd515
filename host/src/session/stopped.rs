//! Sessions of a machine that is stopped, read from its work disk: how they ended, and their logs.
//!
//! Where their files are, the backend tells; what is in them stands in the contract
//! (`session-paths`). The guest wrote them, so none is believed beyond what is possible: a file that
//! is not of its form counts as missing.

use super::Sessions;
use super::logs::{check_kept, streams};
use crate::machine::work_disk::{DiskFile, Ext4Error, Look, PIECE_LIMIT, WorkDisk};
use crate::plugin::{
    self, HOST_RECORD_LIMIT, PluginError, SNAPSHOTS_LIMIT, SessionBackend, SessionPaths,
    TIME_LIMIT_MS,
};
use crate::store::VmRecord;
use crate::stream::{Connection, FrameWriter};
use crate::vm::StoppedGuest;
use banger_core::frame::Frame;
use banger_core::protocol::session::{OutputFrom, Session, SessionAttach, SessionLogs};
use banger_core::session::{OutputStream, SessionState, Snapshot, StdinKind};
use banger_core::{ByteString, Failure, GuestPath, Kind, SessionId};
use std::sync::Arc;

/// How often a disk is read again that has changed meanwhile.
const TRIES: u32 = 3;
/// Bytes of a small file; a longer one is none of the contract's.
const FILE_LIMIT: usize = 4096;

/// A session as it was when its machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedSession {
    /// What is known of it. Its state is final.
    pub snapshot: Snapshot,
    /// What the host stored with it; `None` where there is nothing that it can have stored.
    pub host_record: Option<Vec<u8>>,
}

/// Where in a log to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFrom {
    /// Where what is kept of it begins.
    Beginning,
    /// At this byte.
    Offset(u64),
    /// At the last lines.
    LastLines(u64),
}

impl Sessions {
    /// What a stopped machine's disk tells of these sessions of a backend. One that can't be read
    /// tells of none.
    ///
    /// # Errors
    /// The plugin's fault; kind `Conflict` where the machine was started meanwhile.
    pub(super) async fn snapshots_of_stopped(
        &self,
        vm: &VmRecord,
        backend: &SessionBackend,
        known: &[&Session],
    ) -> Result<Vec<Snapshot>, Failure> {
        let known: Vec<(SessionId, StdinKind)> = known
            .iter()
            .map(|session| (session.id.clone(), session.stdin))
            .collect();
        let read = || async {
            let guest = self.machines.stopped_guest(vm).await?;
            sessions(&guest, backend, &known).await
        };
        let read = async {
            let mut tries = 0;
            loop {
                match read().await {
                    // Written to while it was read: by a QEMU that is ending.
                    Err(failure) if failure.kind == Kind::Conflict && tries < TRIES => tries += 1,
                    answer => break answer,
                }
                if self.machines.is_running(vm).await? {
                    break Err(Failure::new(Kind::Conflict, "the VM was started meanwhile"));
                }
            }
        };
        match read.await {
            Ok(found) => Ok(found.into_iter().map(|one| one.snapshot).collect()),
            Err(failure) if matches!(failure.kind, Kind::Conflict | Kind::Plugin) => Err(failure),
            Err(failure) => {
                tracing::warn!(vm = %vm.name, error = %failure, "a work disk can't be read");
                Ok(Vec::new())
            }
        }
    }

    /// The host records that a stopped machine's disk holds.
    ///
    /// # Errors
    /// As [`sessions`].
    pub(super) async fn host_records_of_stopped(
        &self,
        vm: &VmRecord,
        backend: &SessionBackend,
    ) -> Result<Vec<(SessionId, Vec<u8>)>, Failure> {
        let guest = self.machines.stopped_guest(vm).await?;
        let found = all_sessions(&guest, backend).await?;
        Ok(found
            .into_iter()
            .filter_map(|one| Some((one.snapshot.id, one.host_record?)))
            .collect())
    }

    /// Opens a stream with what a stopped machine's disk has of a session's logs.
    ///
    /// # Errors
    /// As [`sessions`]; kind `Conflict` where a time is asked for, which only a guest can tell.
    pub(super) async fn logs_of_stopped(
        &self,
        vm: &VmRecord,
        session: &Session,
        request: &SessionLogs,
    ) -> Result<OutputFrom, Failure> {
        if request.since_ms.is_some() {
            return Err(Failure::new(
                Kind::Conflict,
                format!(
                    "the VM `{}` is stopped: nobody can tell when a line was written",
                    vm.name
                ),
            )
            .hint(format!(
                "leave the time out, or `banger vm start {}`",
                vm.name
            )));
        }
        check_kept(
            session,
            request.stdout_offset.unwrap_or(u64::MAX),
            request.stderr_offset.unwrap_or(u64::MAX),
        )?;
        let guest = self.machines.stopped_guest(vm).await?;
        let backend = self.registry.session_backend(&session.backend)?;
        let reference = plugin::Session {
            id: session.id.clone(),
            state_root: guest.state_root.clone(),
            stdin_kind: session.stdin,
        };
        let (mut stdout_offset, mut stderr_offset) = (0, 0);
        let mut logs = Vec::new();
        for stream in streams(session, request.stream) {
            let (asked, offset) = match stream {
                OutputStream::Stdout => (request.stdout_offset, &mut stdout_offset),
                OutputStream::Stderr => (request.stderr_offset, &mut stderr_offset),
            };
            let from = match (asked, request.tail) {
                (Some(offset), _) => LogFrom::Offset(offset),
                (None, Some(lines)) => LogFrom::LastLines(lines),
                (None, None) => LogFrom::Beginning,
            };
            let log = StoppedLog::open(&guest, &backend, &reference, stream, from).await?;
            *offset = log.offset();
            logs.push(log);
        }
        let session_id = session.id.clone();
        let stream = self.streams.open(move |connection| async move {
            let Connection { reader, mut writer } = connection;
            let end = tokio::select! {
                end = serve_logs(&mut writer, logs) => end,
                () = reader.hung_up() => None,
            };
            if let Some(end) = end {
                writer.finish(end.map(|()| 0)).await;
            }
        });
        Ok(OutputFrom {
            stream,
            session_id,
            stdout_offset,
            stderr_offset,
        })
    }

    /// Opens a stream with what an attached client has not had yet of a session's output, and how
    /// the session ended: its machine may have been stopped under the client. A terminal has
    /// nothing more to show.
    ///
    /// # Errors
    /// As [`sessions`]; kind `Gone` where the log no longer has what is asked for.
    pub(super) async fn attach_to_stopped(
        self: &Arc<Self>,
        vm: &VmRecord,
        session: Session,
        request: &SessionAttach,
    ) -> Result<OutputFrom, Failure> {
        let snapshot = &session.snapshot;
        let stdout_offset = request.stdout_offset.unwrap_or(snapshot.stdout_bytes);
        let stderr_offset = request.stderr_offset.unwrap_or(snapshot.stderr_bytes);
        let mut logs = Vec::new();
        if request.terminal.is_none() {
            check_kept(&session, stdout_offset, stderr_offset)?;
            let guest = self.machines.stopped_guest(vm).await?;
            let backend = self.registry.session_backend(&session.backend)?;
            let reference = plugin::Session {
                id: session.id.clone(),
                state_root: guest.state_root.clone(),
                stdin_kind: session.stdin,
            };
            for stream in streams(&session, None) {
                let from = LogFrom::Offset(match stream {
                    OutputStream::Stdout => stdout_offset,
                    OutputStream::Stderr => stderr_offset,
                });
                logs.push(StoppedLog::open(&guest, &backend, &reference, stream, from).await?);
            }
        }
        let session_id = session.id.clone();
        let (sessions, vm) = (Arc::clone(self), vm.clone());
        let stream = self.streams.open(move |connection| async move {
            let Connection { reader, mut writer } = connection;
            let end = tokio::select! {
                end = serve_logs(&mut writer, logs) => end,
                () = reader.hung_up() => None,
            };
            let end = match end {
                None => return,
                Some(Ok(())) => sessions.ending(&vm, session).await,
                Some(Err(failure)) => Err(failure),
            };
            writer.finish(end).await;
        });
        Ok(OutputFrom {
            stream,
            session_id,
            stdout_offset,
            stderr_offset,
        })
    }
}

/// These sessions of the backend; those that the disk does not have are left out.
///
/// # Errors
/// The plugin's fault; kind `Conflict` where the machine was started meanwhile; kind `Guest` where
/// the disk is damaged.
pub async fn sessions(
    guest: &StoppedGuest,
    backend: &SessionBackend,
    sessions: &[(SessionId, StdinKind)],
) -> Result<Vec<StoppedSession>, Failure> {
    read(guest, backend, Some(sessions.to_vec())).await
}

/// All sessions of the backend that the disk has, as to find them again. A directory that does not
/// tell whose it is is none.
///
/// # Errors
/// As [`sessions`]; also where there are more than the host would know.
pub async fn all_sessions(
    guest: &StoppedGuest,
    backend: &SessionBackend,
) -> Result<Vec<StoppedSession>, Failure> {
    read(guest, backend, None).await
}

async fn read(
    guest: &StoppedGuest,
    backend: &SessionBackend,
    known: Option<Vec<(SessionId, StdinKind)>>,
) -> Result<Vec<StoppedSession>, Failure> {
    let (backend, state_root) = (backend.clone(), guest.state_root.clone());
    let name = backend.info().name.as_str().as_bytes().to_vec();
    let kind = backend.info().stdin_kinds.first().copied();
    let kind = kind.unwrap_or(StdinKind::None);
    let paths = move |id: &SessionId, stdin_kind| {
        backend.paths(&plugin::Session {
            id: id.clone(),
            state_root: state_root.clone(),
            stdin_kind,
        })
    };
    let root = guest.state_root.clone();
    let sessions = guest
        .disk
        .look(move |look| {
            let must_tell = known.is_none();
            let wanted = match known {
                Some(known) => known,
                None => listed(look, &root)?
                    .into_iter()
                    .map(|id| (id, kind))
                    .collect(),
            };
            let mut found = Vec::new();
            for (id, kind) in wanted {
                let paths = match paths(&id, kind) {
                    Ok(paths) => paths,
                    Err(error) => return Ok(Err(error)),
                };
                if belongs(look, &paths, &name, must_tell)? {
                    found.push(session(look, id, &paths)?);
                }
            }
            Ok(Ok::<_, PluginError>(found))
        })
        .await?;
    Ok(sessions?)
}

/// The ids in the state root.
fn listed(look: &Look<'_>, root: &GuestPath) -> Result<Vec<SessionId>, Ext4Error> {
    let mut ids: Vec<SessionId> = look
        .names(root)?
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok()?.parse().ok())
        .collect();
    ids.sort();
    ids.dedup();
    ids.truncate(SNAPSHOTS_LIMIT);
    Ok(ids)
}

/// Whether there is such a session and it is this backend's.
fn belongs(
    look: &Look<'_>,
    paths: &SessionPaths,
    backend: &[u8],
    must_tell: bool,
) -> Result<bool, Ext4Error> {
    if !look.is_directory(&paths.state_dir)? {
        return Ok(false);
    }
    let told = match paths.state_dir.join("backend") {
        Ok(file) => line(look, Some(&file))?,
        Err(_) => None,
    };
    Ok(told.map_or(!must_tell, |told| told == backend))
}

/// What the disk has of a session.
fn session(
    look: &Look<'_>,
    id: SessionId,
    paths: &SessionPaths,
) -> Result<StoppedSession, Ext4Error> {
    let status = line(look, paths.status.as_ref())?;
    let exit_code = number(look, paths.exit_code.as_ref())?
        .and_then(|code| u8::try_from(code).ok())
        .map(i32::from);
    let error = line(look, paths.error.as_ref())?.filter(|error| !error.is_empty());
    let (state, error) = match (exit_code, status.as_deref()) {
        (Some(_), _) => (SessionState::Exited, error),
        (None, Some(b"failed")) => (SessionState::Failed, error),
        (None, Some(b"starting" | b"running")) => (
            SessionState::Lost,
            error.or_else(|| Some(b"the VM stopped before the program's end was recorded".into())),
        ),
        (None, _) => (
            SessionState::Lost,
            error.or_else(|| Some(b"the state directory is damaged".into())),
        ),
    };
    let time = |path: &Option<GuestPath>| {
        Ok(number(look, path.as_ref())?.filter(|time| *time <= TIME_LIMIT_MS))
    };
    let (stdout_start, stdout_bytes) = log_range(look, paths, OutputStream::Stdout)?;
    let (stderr_start, stderr_bytes) = log_range(look, paths, OutputStream::Stderr)?;
    let snapshot = Snapshot {
        state,
        pid: match state {
            // The program never ran.
            SessionState::Failed => None,
            _ => process(look, paths.pid.as_ref())?,
        },
        exit_code,
        alive: false,
        last_error: error.map(ByteString),
        stdout_bytes,
        stderr_bytes,
        stdout_start,
        stderr_start,
        started_at_ms: time(&paths.started_at)?,
        ended_at_ms: time(&paths.ended_at)?,
        id,
    };
    let host_record = match &paths.host_record {
        Some(path) => look.contents(path, HOST_RECORD_LIMIT)?,
        None => None,
    };
    Ok(StoppedSession {
        snapshot,
        host_record,
    })
}

/// The first byte of a log that is kept, and its length.
fn log_range(
    look: &Look<'_>,
    paths: &SessionPaths,
    stream: OutputStream,
) -> Result<(u64, u64), Ext4Error> {
    let (log, start) = log_paths(paths, stream);
    let length = match log {
        Some(log) => look.file(log)?.map_or(0, |file| file.length()),
        None => 0,
    };
    let start = number(look, start)?.unwrap_or(0);
    Ok((start.min(length), length))
}

fn log_paths(
    paths: &SessionPaths,
    stream: OutputStream,
) -> (Option<&GuestPath>, Option<&GuestPath>) {
    match stream {
        OutputStream::Stdout => (paths.stdout.as_ref(), paths.stdout_start.as_ref()),
        OutputStream::Stderr => (paths.stderr.as_ref(), paths.stderr_start.as_ref()),
    }
}

/// A file of one line, without the line feed at its end.
fn line(look: &Look<'_>, path: Option<&GuestPath>) -> Result<Option<Vec<u8>>, Ext4Error> {
    let Some(path) = path else { return Ok(None) };
    let mut line = look.contents(path, FILE_LIMIT)?;
    if let Some(line) = &mut line
        && line.last() == Some(&b'\n')
    {
        line.pop();
    }
    Ok(line)
}

fn number(look: &Look<'_>, path: Option<&GuestPath>) -> Result<Option<u64>, Ext4Error> {
    Ok(line(look, path)?.and_then(|line| decimal(&line)))
}

/// The process in a file that holds its id, a space, and when it started.
fn process(look: &Look<'_>, path: Option<&GuestPath>) -> Result<Option<u32>, Ext4Error> {
    Ok(line(look, path)?.and_then(|line| {
        let id = line.split(|byte| *byte == b' ').next()?;
        let id = u32::try_from(decimal(id)?).ok()?;
        (1..1 << 22).contains(&id).then_some(id)
    }))
}

/// A plain decimal number of at most 18 digits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A log of a stopped machine's session, and where in it to begin.
#[derive(Debug, Clone)]
pub struct StoppedLog {
    disk: WorkDisk,
    stream: OutputStream,
    /// `None` where there is no such file: nothing was written.
    file: Option<DiskFile>,
    offset: u64,
}

impl StoppedLog {
    /// Finds a session's log. What is no longer kept is passed over.
    ///
    /// # Errors
    /// As [`sessions`].
    pub async fn open(
        guest: &StoppedGuest,
        backend: &SessionBackend,
        session: &plugin::Session,
        stream: OutputStream,
        from: LogFrom,
    ) -> Result<Self, Failure> {
        let paths = backend.paths(session)?;
        let found = guest
            .disk
            .look(move |look| {
                let (log, start) = log_paths(&paths, stream);
                let Some(log) = log else { return Ok(None) };
                let Some(file) = look.file(log)? else {
                    return Ok(None);
                };
                let start = number(look, start)?.unwrap_or(0).min(file.length());
                let offset = match from {
                    LogFrom::Beginning => start,
                    LogFrom::Offset(offset) => offset.clamp(start, file.length()),
                    LogFrom::LastLines(lines) => look.start_of_last_lines(&file, start, lines)?,
                };
                Ok(Some((file, offset)))
            })
            .await?;
        let (file, offset) = found.map_or((None, 0), |(file, offset)| (Some(file), offset));
        Ok(Self {
            disk: guest.disk.clone(),
            stream,
            file,
            offset,
        })
    }

    /// The byte of the stream that comes next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// As [`sessions`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = self.file.clone() else {
            return Ok(None);
        };
        let offset = self.offset;
        let piece = self
            .disk
            .look(move |look| look.read(&file, offset, PIECE_LIMIT))
            .await?;
        self.offset += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Carries logs to a client, one after the other. `None` where the client has gone.
pub async fn serve_logs(
    writer: &mut FrameWriter,
    logs: Vec<StoppedLog>,
) -> Option<Result<(), Failure>> {
    for mut log in logs {
        loop {
            let piece = match log.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(failure) => return Some(Err(changed(failure))),
            };
            let frame = match log.stream {
                OutputStream::Stdout => Frame::Stdout(piece),
                OutputStream::Stderr => Frame::Stderr(piece),
            };
            if writer.write(frame).await.is_err() {
                return None;
            }
        }
    }
    Some(Ok(()))
}

fn changed(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Conflict => failure.hint("the VM was started meanwhile: ask again"),
        _ => failure,
    }
}
