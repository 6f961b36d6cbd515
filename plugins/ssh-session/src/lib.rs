//! The session backend `ssh`: a program with a FIFO as its stdin and files as its output, kept by
//! a small supervisor in bash that outlives the connection.
//!
//! It gives no terminal; the backend `tmux` does. What runs in the guest stands in `scripts/`.

banger_plugin::session_backend!("../../wit");

mod report;
mod scripts;
mod signals;

use contract::{
    BackendInfo, Guest, Info, LaunchRequest, Metadata, Output, OutputStream, Refusal, Script,
    Session, SessionPaths, Snapshot, StdinKind,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

#[cfg(target_arch = "wasm32")]
contract::bindings::export!(Plugin with_types_in contract::bindings);

impl Metadata for Plugin {
    fn describe() -> Info {
        Info {
            name: "ssh".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Sessions with pipes, detached from SSH".to_owned(),
            homepage: String::new(),
        }
    }
}

impl Guest for Plugin {
    fn info() -> BackendInfo {
        BackendInfo {
            name: "ssh".to_owned(),
            stdin_kinds: vec![StdinKind::None, StdinKind::Pipe],
            needs: ["bash", "setsid", "flock", "timeout", "dd", "tail", "stat"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    fn paths(session: Session) -> SessionPaths {
        let dir = state_dir(&session);
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
            pid: file("pid"),
            monitor_pid: file("monitor-pid"),
            status: file("status"),
            exit_code: file("exit-code"),
            error: file("error"),
            state_dir: dir,
        }
    }

    fn launch(request: LaunchRequest) -> Result<Script, Refusal> {
        scripts::launch(&request)
            .map(Into::into)
            .map_err(Into::into)
    }

    fn inspect(state_root: String, ids: Vec<String>) -> Script {
        scripts::inspect(&state_root, &ids).into()
    }

    fn read_inspect(output: Output) -> Result<Vec<Snapshot>, Refusal> {
        report::read(&output).map_err(Into::into)
    }

    fn signal(session: Session, signal: String) -> Result<Script, Refusal> {
        let name = signals::name(&signal)?;
        Ok(scripts::signal(&state_dir(&session), name).into())
    }

    fn stop(session: Session, grace_ms: u32) -> Result<Script, Refusal> {
        Ok(scripts::stop(&state_dir(&session), grace_ms).into())
    }

    fn attach_input(session: Session) -> Result<Script, Refusal> {
        takes_input(&session)?;
        Ok(scripts::attach_input(&state_dir(&session)).into())
    }

    fn attach_output(
        session: Session,
        which: OutputStream,
        offset: u64,
        follow: bool,
    ) -> Result<Script, Refusal> {
        let follow = if follow {
            scripts::Until::Ended
        } else {
            scripts::Until::Now
        };
        Ok(scripts::attach_output(&state_dir(&session), which, offset, follow).into())
    }

    fn tail(session: Session, which: OutputStream, lines: u64) -> Result<Script, Refusal> {
        Ok(scripts::tail(&state_dir(&session), which, lines).into())
    }

    fn send(session: Session, timeout_ms: u32) -> Result<Script, Refusal> {
        takes_input(&session)?;
        Ok(scripts::send(&state_dir(&session), timeout_ms).into())
    }

    fn resize(_: Session, _: u16, _: u16) -> Result<Script, Refusal> {
        Err(
            banger_plugin::Refusal::new("a session of the backend `ssh` has no terminal to resize")
                .hint("launch it with the backend `tmux` to get one")
                .into(),
        )
    }

    fn remove(session: Session) -> Result<Script, Refusal> {
        Ok(scripts::remove(&state_dir(&session)).into())
    }
}

/// Where a session's things are.
fn state_dir(session: &Session) -> String {
    format!(
        "{}/{}",
        session.state_root.trim_end_matches('/'),
        session.id
    )
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
