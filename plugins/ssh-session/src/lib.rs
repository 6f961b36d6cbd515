//! The session backend `ssh`: a program with a FIFO as its stdin and files as its output, kept by
//! a small supervisor in bash that outlives the connection.
//!
//! It gives no terminal; the backend `tmux` does. What runs in the guest stands in `scripts/`.

banger_plugin::session_backend!("../../wit");

mod scripts;

use banger_guest_session::report::{self, Report, State};
use banger_guest_session::scripts::{self as shared, Launch, Log, Until};
use banger_guest_session::{check_writer, records, signals, state_dir};
use contract::{
    BackendInfo, Guest, Info, LaunchRequest, Metadata, Output, OutputStream, Refusal, Script,
    Session, SessionPaths, SessionState, Snapshot, StdinKind,
};

/// The backend's name, as in `--backend NAME`.
const NAME: &str = "ssh";

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

#[cfg(target_arch = "wasm32")]
contract::bindings::export!(Plugin with_types_in contract::bindings);

impl Metadata for Plugin {
    fn describe() -> Info {
        Info {
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Sessions with pipes, detached from SSH".to_owned(),
            homepage: String::new(),
        }
    }
}

impl Guest for Plugin {
    fn info() -> BackendInfo {
        BackendInfo {
            name: NAME.to_owned(),
            stdin_kinds: vec![StdinKind::None, StdinKind::Pipe],
            needs: ["bash", "setsid", "flock", "fallocate", "dd", "tail", "stat"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    fn paths(session: Session) -> SessionPaths {
        let dir = dir(&session);
        let file = |name: &str| format!("{dir}/{name}");
        SessionPaths {
            script: file("script"),
            command: file("command"),
            environment: file("environment"),
            stdin: match session.stdin_kind {
                StdinKind::Pipe => file("stdin"),
                StdinKind::None | StdinKind::Tty => String::new(),
            },
            stdout: file("stdout"),
            stderr: file("stderr"),
            stdout_start: file("stdout-start"),
            stderr_start: file("stderr-start"),
            pid: file("pid"),
            monitor_pid: file("monitor-pid"),
            status: file("status"),
            exit_code: file("exit-code"),
            error: file("error"),
            started_at: file("started-at"),
            ended_at: file("ended-at"),
            host_record: file("host-record"),
            state_dir: dir,
        }
    }

    fn launch(request: LaunchRequest) -> Result<Script, Refusal> {
        let kind = match request.session.stdin_kind {
            StdinKind::None => "none",
            StdinKind::Pipe => "pipe",
            StdinKind::Tty => return Err(scripts::no_terminal().into()),
        };
        shared::launch(&Launch {
            backend: NAME,
            supervisor: scripts::SUPERVISOR,
            state_root: &request.session.state_root,
            id: &request.session.id,
            kind,
            command: &request.command,
            environment: &request.environment,
            cwd: &request.cwd,
            columns: request.columns,
            rows: request.rows,
            log_limit: request.log_limit,
            host_record: &request.host_record,
        })
        .map(Into::into)
        .map_err(Into::into)
    }

    fn inspect(state_root: String, ids: Vec<String>) -> Script {
        shared::inspect(&state_root, NAME, &ids).into()
    }

    fn read_inspect(output: Output) -> Result<Vec<Snapshot>, Refusal> {
        let reports = report::read(output.exit_code, &output.stdout, &output.stderr)?;
        Ok(reports.into_iter().map(snapshot).collect())
    }

    fn host_records(state_root: String) -> Script {
        shared::host_records(&state_root, NAME).into()
    }

    fn read_host_records(output: Output) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        records::read(output.exit_code, &output.stdout, &output.stderr).map_err(Into::into)
    }

    fn watch(state_root: String) -> Script {
        shared::watch(&state_root, NAME).into()
    }

    fn signal(session: Session, signal: String) -> Result<Script, Refusal> {
        let name = signals::name(&signal)?;
        Ok(shared::signal(&dir(&session), name).into())
    }

    fn stop(session: Session, grace_ms: u32) -> Result<Script, Refusal> {
        Ok(shared::stop(&dir(&session), grace_ms).into())
    }

    fn attach_input(session: Session, writer: String) -> Result<Script, Refusal> {
        takes_input(&session)?;
        check_writer(&writer)?;
        Ok(scripts::attach_input(&dir(&session), &writer).into())
    }

    fn close_input(session: Session, timeout_ms: u32) -> Result<Script, Refusal> {
        takes_input(&session)?;
        Ok(scripts::close_input(&dir(&session), timeout_ms).into())
    }

    fn attach_output(
        session: Session,
        which: OutputStream,
        offset: u64,
        follow: bool,
    ) -> Result<Script, Refusal> {
        let until = if follow { Until::Ended } else { Until::Now };
        Ok(shared::attach_output(&dir(&session), log(which), offset, until).into())
    }

    fn attach_terminal(_: Session, _: bool) -> Result<Script, Refusal> {
        Err(scripts::no_terminal().into())
    }

    fn offset_of_lines(
        session: Session,
        which: OutputStream,
        lines: u64,
    ) -> Result<Script, Refusal> {
        Ok(shared::offset_of_lines(&dir(&session), log(which), lines).into())
    }

    fn offset_since(session: Session, which: OutputStream, age_ms: u64) -> Result<Script, Refusal> {
        Ok(shared::offset_since(&dir(&session), log(which), age_ms).into())
    }

    fn send(session: Session, timeout_ms: u32) -> Result<Script, Refusal> {
        takes_input(&session)?;
        Ok(scripts::send(&dir(&session), timeout_ms).into())
    }

    fn resize(_: Session, _: u16, _: u16) -> Result<Script, Refusal> {
        Err(scripts::no_terminal().into())
    }

    fn remove(session: Session) -> Result<Script, Refusal> {
        Ok(shared::remove(&dir(&session)).into())
    }
}

/// Where a session's things are.
fn dir(session: &Session) -> String {
    state_dir(&session.state_root, &session.id)
}

const fn log(which: OutputStream) -> Log {
    match which {
        OutputStream::Stdout => Log::Stdout,
        OutputStream::Stderr => Log::Stderr,
    }
}

fn snapshot(report: Report) -> Snapshot {
    Snapshot {
        id: report.id,
        state: match report.state {
            State::Starting => SessionState::Starting,
            State::Running => SessionState::Running,
            State::Exited => SessionState::Exited,
            State::Failed => SessionState::Failed,
            State::Lost => SessionState::Lost,
        },
        pid: report.pid,
        exit_code: report.exit_code,
        alive: report.alive,
        last_error: report.last_error,
        stdout_bytes: report.stdout_bytes,
        stderr_bytes: report.stderr_bytes,
        stdout_start: report.stdout_start,
        stderr_start: report.stderr_start,
        started_at_ms: report.started_at_ms,
        ended_at_ms: report.ended_at_ms,
    }
}

/// Refuses what would send to a session without a pipe.
fn takes_input(session: &Session) -> Result<(), banger_plugin::Refusal> {
    match session.stdin_kind {
        StdinKind::Pipe => Ok(()),
        StdinKind::None => Err(banger_plugin::Refusal::new(format!(
            "session {} takes no input: its stdin is /dev/null",
            session.id
        ))
        .hint("launch it with a pipe as its stdin")),
        StdinKind::Tty => Err(scripts::no_terminal()),
    }
}
