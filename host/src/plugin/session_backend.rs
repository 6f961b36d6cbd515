//! A plugin's way of running a command detached in the guest.
//!
//! Every function turns values into a script, or a script's output into values; none runs
//! anything.

use super::bindings::session_backend as wit;
use super::bindings::types;
use super::component::Plugin;
use super::error::{Fault, PluginError};
use super::{snapshot, validate};
use banger_core::session::{OutputStream, Snapshot, StdinKind};
use banger_core::{GuestPath, Output, PluginName, Script, SessionId};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::Store;

/// A session backend that a plugin provides. Cloning it is cheap.
#[derive(Clone)]
pub struct SessionBackend {
    plugin: Arc<Plugin>,
    indices: wit::GuestIndices,
    info: Arc<BackendInfo>,
}

/// What a backend can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its name, as in `--backend NAME`.
    pub name: PluginName,
    /// The kinds of standard input that it can give a session.
    pub stdin_kinds: Vec<StdinKind>,
    /// Commands that the guest must have for it.
    pub needs: Vec<String>,
}

/// A session, as every function needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// The directory in the guest below which each session has its own.
    pub state_root: GuestPath,
    /// What its standard input is.
    pub stdin_kind: StdinKind,
}

/// Where in the guest a session's things are; `None` where the backend has no such thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionPaths {
    /// The session's directory; everything else is in it.
    pub state_dir: GuestPath,
    pub script: Option<GuestPath>,
    pub command: Option<GuestPath>,
    pub environment: Option<GuestPath>,
    pub stdin: Option<GuestPath>,
    pub stdout: Option<GuestPath>,
    pub stderr: Option<GuestPath>,
    pub stdout_start: Option<GuestPath>,
    pub stderr_start: Option<GuestPath>,
    pub pid: Option<GuestPath>,
    pub monitor_pid: Option<GuestPath>,
    pub status: Option<GuestPath>,
    pub exit_code: Option<GuestPath>,
    pub error: Option<GuestPath>,
    pub started_at: Option<GuestPath>,
    pub ended_at: Option<GuestPath>,
    pub host_record: Option<GuestPath>,
}

/// What shall run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// As which session.
    pub session: Session,
    /// The program and its arguments; at least one.
    pub command: Vec<Vec<u8>>,
    /// Added to the environment.
    pub environment: Vec<(String, Vec<u8>)>,
    /// The working directory.
    pub cwd: GuestPath,
    /// The terminal's width, for [`StdinKind::Tty`].
    pub columns: u16,
    /// The terminal's height, for [`StdinKind::Tty`].
    pub rows: u16,
    /// How many of its last bytes each log keeps; 0 for all.
    pub log_limit: u64,
    /// What is to be found again in the guest; see [`SessionBackend::host_records`].
    pub host_record: Vec<u8>,
    /// Keys that a backend does not know are ignored by it.
    pub options: Vec<(String, String)>,
}

/// The length of a host record, in bytes.
pub const HOST_RECORD_LIMIT: usize = 16 << 10;

type Answer = Result<types::Script, types::Refusal>;

impl SessionBackend {
    /// Asks a plugin for its backend; `None` where it has none.
    pub(super) fn of(plugin: &Arc<Plugin>) -> Result<Option<Self>, PluginError> {
        const FUNCTION: &str = "session-backend.info";
        let Some(indices) = plugin.session_backend.clone() else {
            return Ok(None);
        };
        let info = plugin.call(FUNCTION, 0, |store, instance| {
            indices.load(&mut *store, instance)?.call_info(store)
        })?;
        let checked = (|| {
            let name = info.name.parse().map_err(|e| format!("{e}"))?;
            let mut stdin_kinds: Vec<StdinKind> = Vec::new();
            for kind in info.stdin_kinds.iter().copied().map(from_stdin_kind) {
                if stdin_kinds.contains(&kind) {
                    return Err("a kind of stdin is named twice".to_owned());
                }
                stdin_kinds.push(kind);
            }
            validate::needs(&info.needs)?;
            Ok(BackendInfo {
                name,
                stdin_kinds,
                needs: info.needs,
            })
        })();
        let info = checked.map_err(|detail| forbidden(plugin, FUNCTION, detail))?;
        Ok(Some(Self {
            plugin: Arc::clone(plugin),
            indices,
            info: Arc::new(info),
        }))
    }

    /// What it can do.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// The plugin's name and version, for people.
    pub fn plugin(&self) -> &str {
        &self.plugin.label
    }

    /// Where the session's things are.
    ///
    /// # Errors
    /// The plugin's fault; also where a path is not below the session's state root.
    pub fn paths(&self, session: &Session) -> Result<SessionPaths, PluginError> {
        const FUNCTION: &str = "session-backend.paths";
        let session_wit = self.session(session)?;
        let paths = self.call(FUNCTION, 0, |guest, store| {
            guest.call_paths(store, &session_wit)
        })?;
        let checked = (|| {
            let state_dir = validate::path_below(&paths.state_dir, &session.state_root)?;
            let part = |path: &str| match path {
                "" => Ok(None),
                path => validate::path_below(path, &state_dir).map(Some),
            };
            Ok(SessionPaths {
                script: part(&paths.script)?,
                command: part(&paths.command)?,
                environment: part(&paths.environment)?,
                stdin: part(&paths.stdin)?,
                stdout: part(&paths.stdout)?,
                stderr: part(&paths.stderr)?,
                stdout_start: part(&paths.stdout_start)?,
                stderr_start: part(&paths.stderr_start)?,
                pid: part(&paths.pid)?,
                monitor_pid: part(&paths.monitor_pid)?,
                status: part(&paths.status)?,
                exit_code: part(&paths.exit_code)?,
                error: part(&paths.error)?,
                started_at: part(&paths.started_at)?,
                ended_at: part(&paths.ended_at)?,
                host_record: part(&paths.host_record)?,
                state_dir,
            })
        })();
        checked.map_err(|detail| forbidden(&self.plugin, FUNCTION, detail))
    }

    /// The script that starts a session.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn launch(&self, request: &LaunchRequest) -> Result<Script, PluginError> {
        let input = request.command.iter().map(Vec::len).sum::<usize>()
            + request
                .environment
                .iter()
                .map(|(n, v)| n.len() + v.len())
                .sum::<usize>()
            + request
                .options
                .iter()
                .map(|(n, v)| n.len() + v.len())
                .sum::<usize>()
            + request.host_record.len();
        let request = wit::LaunchRequest {
            session: self.session(&request.session)?,
            command: request.command.clone(),
            environment: request.environment.clone(),
            cwd: request.cwd.as_bytes().to_vec(),
            columns: request.columns,
            rows: request.rows,
            log_limit: request.log_limit,
            host_record: request.host_record.clone(),
            options: request.options.clone(),
        };
        self.script("session-backend.launch", input, |guest, store| {
            guest.call_launch(store, &request)
        })
    }

    /// The script that tells of these sessions, or of all where there are none.
    ///
    /// # Errors
    /// The plugin's fault.
    pub fn inspect(
        &self,
        state_root: &GuestPath,
        ids: &[SessionId],
    ) -> Result<Script, PluginError> {
        let root = validate::utf8(state_root).map_err(|fault| self.plugin.error(fault))?;
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let input = ids.iter().map(String::len).sum();
        self.script("session-backend.inspect", input, |guest, store| {
            guest.call_inspect(store, root, &ids).map(Ok)
        })
    }

    /// What an `inspect` script told. `asked` is what it was asked for; where that is empty,
    /// things in the state root that are no sessions of banger's are passed over.
    ///
    /// # Errors
    /// The plugin's fault or refusal; also where it tells of a session twice, or of another one.
    pub fn read_inspect(
        &self,
        asked: &[SessionId],
        output: &Output,
    ) -> Result<Vec<Snapshot>, PluginError> {
        const FUNCTION: &str = "session-backend.read-inspect";
        let input = output.stdout.len() + output.stderr.len();
        let output = to_output(output);
        let snapshots = self
            .call(FUNCTION, input, |guest, store| {
                guest.call_read_inspect(store, &output)
            })?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        snapshot::check(snapshots, asked)
            .map_err(|detail| forbidden(&self.plugin, FUNCTION, detail))
    }

    /// The script that tells which sessions there are, with their host records.
    ///
    /// # Errors
    /// The plugin's fault.
    pub fn host_records(&self, state_root: &GuestPath) -> Result<Script, PluginError> {
        let root = validate::utf8(state_root).map_err(|fault| self.plugin.error(fault))?;
        self.script("session-backend.host-records", 0, |guest, store| {
            guest.call_host_records(store, root).map(Ok)
        })
    }

    /// What a `host-records` script told. What is no session of banger's is passed over.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn read_host_records(
        &self,
        output: &Output,
    ) -> Result<Vec<(SessionId, Vec<u8>)>, PluginError> {
        let input = output.stdout.len() + output.stderr.len();
        let output = to_output(output);
        let records = self
            .call(
                "session-backend.read-host-records",
                input,
                |guest, store| guest.call_read_host_records(store, &output),
            )?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        Ok(records
            .into_iter()
            .filter(|(_, record)| record.len() <= HOST_RECORD_LIMIT)
            .filter_map(|(id, record)| Some((id.parse().ok()?, record)))
            .take(snapshot::SNAPSHOTS_LIMIT)
            .collect())
    }

    /// The script that prints the ids of sessions whose state may have changed.
    ///
    /// # Errors
    /// The plugin's fault.
    pub fn watch(&self, state_root: &GuestPath) -> Result<Script, PluginError> {
        let root = validate::utf8(state_root).map_err(|fault| self.plugin.error(fault))?;
        self.script("session-backend.watch", 0, |guest, store| {
            guest.call_watch(store, root).map(Ok)
        })
    }

    /// The script that sends a signal ("TERM") to the session's processes.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn signal(&self, session: &Session, signal: &str) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.signal", signal.len(), |guest, store| {
            guest.call_signal(store, &session, signal)
        })
    }

    /// The script that ends the session: TERM, and KILL after the grace.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn stop(&self, session: &Session, grace: Duration) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.stop", 0, |guest, store| {
            guest.call_stop(store, &session, milliseconds(grace))
        })
    }

    /// The script that copies its stdin to the session's input, for this writer.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn attach_input(&self, session: &Session, writer: &str) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script(
            "session-backend.attach-input",
            writer.len(),
            |guest, store| guest.call_attach_input(store, &session, writer),
        )
    }

    /// The script that closes the session's input.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn close_input(&self, session: &Session, timeout: Duration) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.close-input", 0, |guest, store| {
            guest.call_close_input(store, &session, milliseconds(timeout))
        })
    }

    /// The script that shows the session on the terminal that it is run on.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn attach_terminal(&self, session: &Session, role: Role) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        let observe = match role {
            Role::Writer => false,
            Role::Observer => true,
        };
        self.script("session-backend.attach-terminal", 0, |guest, store| {
            guest.call_attach_terminal(store, &session, observe)
        })
    }

    /// The script that prints the offset at which what was written in this time begins.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn offset_since(
        &self,
        session: &Session,
        which: OutputStream,
        age: Duration,
    ) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.script("session-backend.offset-since", 0, |guest, store| {
            guest.call_offset_since(store, &session, to_stream(which), age_ms)
        })
    }

    /// The script that prints a stream from a byte offset on, and on until the session's end
    /// where `follow` says so.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn attach_output(
        &self,
        session: &Session,
        which: OutputStream,
        offset: u64,
        follow: Follow,
    ) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        let follow = match follow {
            Follow::UntilEnd => true,
            Follow::No => false,
        };
        self.script("session-backend.attach-output", 0, |guest, store| {
            guest.call_attach_output(store, &session, to_stream(which), offset, follow)
        })
    }

    /// The script that prints the offset at which a stream's last lines begin.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn offset_of_lines(
        &self,
        session: &Session,
        which: OutputStream,
        lines: u64,
    ) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.offset-of-lines", 0, |guest, store| {
            guest.call_offset_of_lines(store, &session, to_stream(which), lines)
        })
    }

    /// The script that writes its stdin to the session's input in one piece.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn send(&self, session: &Session, timeout: Duration) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.send", 0, |guest, store| {
            guest.call_send(store, &session, milliseconds(timeout))
        })
    }

    /// The script that tells the terminal's new size.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn resize(
        &self,
        session: &Session,
        columns: u16,
        rows: u16,
    ) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.resize", 0, |guest, store| {
            guest.call_resize(store, &session, columns, rows)
        })
    }

    /// The script that removes the session's directory.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn remove(&self, session: &Session) -> Result<Script, PluginError> {
        let session = self.session(session)?;
        self.script("session-backend.remove", 0, |guest, store| {
            guest.call_remove(store, &session)
        })
    }

    fn call<T>(
        &self,
        function: &'static str,
        input: usize,
        call: impl FnOnce(wit::Guest, &mut Store<super::engine::Usage>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        self.plugin.call(function, input, |store, instance| {
            let guest = self.indices.load(&mut *store, instance)?;
            call(guest, store)
        })
    }

    fn script(
        &self,
        function: &'static str,
        input: usize,
        call: impl FnOnce(wit::Guest, &mut Store<super::engine::Usage>) -> wasmtime::Result<Answer>,
    ) -> Result<Script, PluginError> {
        let script = self
            .call(function, input, call)?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        validate::script(script).map_err(|detail| forbidden(&self.plugin, function, detail))
    }

    fn session(&self, session: &Session) -> Result<wit::Session, PluginError> {
        let state_root =
            validate::utf8(&session.state_root).map_err(|fault| self.plugin.error(fault))?;
        Ok(wit::Session {
            id: session.id.to_string(),
            state_root: state_root.to_owned(),
            stdin_kind: match session.stdin_kind {
                StdinKind::None => wit::StdinKind::None,
                StdinKind::Pipe => wit::StdinKind::Pipe,
                StdinKind::Tty => wit::StdinKind::Tty,
            },
        })
    }
}

/// What an attached client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Write, and say how large the terminal is.
    Writer,
    /// Look on.
    Observer,
}

/// Whether to go on printing what a session writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Until the session has ended and every byte is out.
    UntilEnd,
    /// Only what is there.
    No,
}

pub(super) fn forbidden(plugin: &Plugin, function: &'static str, detail: String) -> PluginError {
    plugin.error(Fault::Forbidden { function, detail })
}

pub(super) fn to_output(output: &Output) -> types::Output {
    types::Output {
        exit_code: output.exit_code,
        stdout: output.stdout.clone(),
        stderr: output.stderr.clone(),
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn to_stream(which: OutputStream) -> wit::OutputStream {
    match which {
        OutputStream::Stdout => wit::OutputStream::Stdout,
        OutputStream::Stderr => wit::OutputStream::Stderr,
    }
}

fn from_stdin_kind(kind: wit::StdinKind) -> StdinKind {
    match kind {
        wit::StdinKind::None => StdinKind::None,
        wit::StdinKind::Pipe => StdinKind::Pipe,
        wit::StdinKind::Tty => StdinKind::Tty,
    }
}
