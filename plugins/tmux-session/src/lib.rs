//! The session backend `tmux`: a program on a terminal that anyone may look at and type into, kept by
//! a tmux server of its own, which outlives the connection.
//!
//! A terminal has one output, so there is no `stderr`. Its input has no end and no count of what the
//! program has read: what tmux has taken it keeps until the program reads. `send` types, so a line
//! feed becomes a carriage return; `attach_input` passes bytes on as they are. What runs in the guest
//! stands in `scripts/`.

banger_plugin::session_backend!("../../wit");

mod scripts;

use banger_guest_session::report::{self, Report, State};
use banger_guest_session::scripts::{self as shared, Launch, Log, Until};
use banger_guest_session::{check_writer, records, signals, state_dir};
use contract::{
    BackendInfo, Guest, Info, LaunchRequest, Metadata, Output, OutputStream, Refusal, Script,
    Session, SessionPaths, SessionState, Snapshot, StdinKind,
};
use scripts::Client;

/// The backend's name, as in `--backend NAME`.
const NAME: &str = "tmux";

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
            summary: "Sessions with a terminal, detached from SSH".to_owned(),
            homepage: String::new(),
        }
    }
}

impl Guest for Plugin {
    fn info() -> BackendInfo {
        BackendInfo {
            name: NAME.to_owned(),
            stdin_kinds: vec![StdinKind::Tty],
            needs: [
                "bash", "tmux", "setsid", "flock", "timeout", "dd", "tail", "stat",
            ]
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
            stdin: String::new(),
            stdout: file("stdout"),
            stderr: String::new(),
            stdout_start: file("stdout-start"),
            stderr_start: String::new(),
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
        has_terminal(&request.session)?;
        if request.columns == 0 || request.rows == 0 {
            return Err(no_size().into());
        }
        shared::launch(&Launch {
            backend: NAME,
            supervisor: scripts::SUPERVISOR,
            state_root: &request.session.state_root,
            id: &request.session.id,
            kind: "tty",
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
        Ok(scripts::stop(&dir(&session), grace_ms).into())
    }

    fn attach_input(session: Session, writer: String) -> Result<Script, Refusal> {
        has_terminal(&session)?;
        check_writer(&writer)?;
        Ok(scripts::attach_input(&dir(&session), &writer).into())
    }

    fn close_input(session: Session, _: u32) -> Result<Script, Refusal> {
        // What Ctrl-D does is the program's choice, and none of its input could be refused after it.
        Err(banger_plugin::Refusal::new(format!(
            "the input of session {} is a terminal, which has no end",
            session.id
        ))
        .hint("send a Ctrl-D (the byte 4): a program that reads lines takes it for the end")
        .into())
    }

    fn attach_output(
        session: Session,
        which: OutputStream,
        offset: u64,
        follow: bool,
    ) -> Result<Script, Refusal> {
        let until = if follow { Until::Ended } else { Until::Now };
        Ok(shared::attach_output(&dir(&session), log(which)?, offset, until).into())
    }

    fn attach_terminal(session: Session, observe: bool) -> Result<Script, Refusal> {
        has_terminal(&session)?;
        let client = if observe {
            Client::Observer
        } else {
            Client::Writer
        };
        Ok(scripts::attach_terminal(&dir(&session), client).into())
    }

    fn offset_of_lines(
        session: Session,
        which: OutputStream,
        lines: u64,
    ) -> Result<Script, Refusal> {
        Ok(shared::offset_of_lines(&dir(&session), log(which)?, lines).into())
    }

    fn offset_since(session: Session, which: OutputStream, age_ms: u64) -> Result<Script, Refusal> {
        Ok(shared::offset_since(&dir(&session), log(which)?, age_ms).into())
    }

    fn send(session: Session, timeout_ms: u32) -> Result<Script, Refusal> {
        has_terminal(&session)?;
        Ok(scripts::send(&dir(&session), timeout_ms).into())
    }

    fn resize(session: Session, columns: u16, rows: u16) -> Result<Script, Refusal> {
        has_terminal(&session)?;
        if columns == 0 || rows == 0 {
            return Err(no_size().into());
        }
        Ok(scripts::resize(&dir(&session), columns, rows).into())
    }

    fn remove(session: Session) -> Result<Script, Refusal> {
        Ok(shared::remove(&dir(&session)).into())
    }
}

/// Where a session's things are.
fn dir(session: &Session) -> String {
    state_dir(&session.state_root, &session.id)
}

fn log(which: OutputStream) -> Result<Log, banger_plugin::Refusal> {
    match which {
        OutputStream::Stdout => Ok(Log::Stdout),
        OutputStream::Stderr => Err(banger_plugin::Refusal::new(
            "a session with a terminal has one output, and no stderr",
        )
        .hint("ask for stdout: what the program writes to either is there")),
    }
}

fn no_size() -> banger_plugin::Refusal {
    banger_plugin::Refusal::new("a terminal has at least one column and one row")
        .hint("use 80 columns and 24 rows")
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

/// Refuses what is no session of this backend.
fn has_terminal(session: &Session) -> Result<(), banger_plugin::Refusal> {
    match session.stdin_kind {
        StdinKind::Tty => Ok(()),
        StdinKind::None | StdinKind::Pipe => Err(banger_plugin::Refusal::new(
            "the backend `tmux` gives a session a terminal, no pipes",
        )
        .hint("use the backend `ssh`, or launch it with a terminal as its stdin")),
    }
}
