//! A guest whose sessions these tests run: a state root of its own, under a name that is a nuisance.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

use banger_plugin_testing::{command, eventually, exit_code, run};
use banger_ssh_session::Plugin;
use banger_ssh_session::contract::{
    Guest as _, LaunchRequest, Output, OutputStream, Script, Session, SessionState, Snapshot,
    StdinKind,
};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};

pub struct Guest {
    pub root: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        for snapshot in self.inspect() {
            self.run(Plugin::stop(self.session(&snapshot.id), 0).unwrap(), b"");
        }
        // It would end by itself, but may make files while the directory is being removed.
        if let Some(keeper) = self.keeper() {
            drop(Command::new("kill").args(["-s", "KILL", &keeper]).output());
        }
    }
}

impl Guest {
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("banger 'odd' $(name)\n")
            .tempdir()
            .unwrap();
        Self { root }
    }

    pub fn root(&self) -> String {
        format!("{}/sessions", self.root.path().display())
    }

    pub fn session(&self, id: &str) -> Session {
        Session {
            id: id.to_owned(),
            state_root: self.root(),
            stdin_kind: StdinKind::Pipe,
        }
    }

    pub fn run(&self, script: Script, stdin: &[u8]) -> std::process::Output {
        run(
            &script.body,
            &script.args,
            &[script.stdin.as_slice(), stdin].concat(),
        )
    }

    pub fn request(
        &self,
        id: &str,
        command: &[&[u8]],
        environment: &[(&str, &[u8])],
    ) -> LaunchRequest {
        LaunchRequest {
            session: self.session(id),
            command: command.iter().map(|word| word.to_vec()).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            cwd: b"/tmp".to_vec(),
            columns: 80,
            rows: 24,
            log_limit: 0,
            host_record: b"{}".to_vec(),
            options: Vec::new(),
        }
    }

    pub fn launch(
        &self,
        id: &str,
        command: &[&[u8]],
        environment: &[(&str, &[u8])],
    ) -> std::process::Output {
        let script = Plugin::launch(self.request(id, command, environment)).unwrap();
        self.run(script, b"")
    }

    pub fn launched(&self, id: &str, command: &[&[u8]]) {
        let output = self.launch(id, command, &[]);
        assert!(output.status.success(), "{output:?}");
    }

    pub fn inspect(&self) -> Vec<Snapshot> {
        let output = self.run(Plugin::inspect(self.root(), vec![]), b"");
        Plugin::read_inspect(Output {
            exit_code: exit_code(&output),
            stdout: output.stdout,
            stderr: output.stderr,
        })
        .unwrap()
    }

    pub fn one(&self, id: &str) -> Snapshot {
        self.inspect().into_iter().find(|one| one.id == id).unwrap()
    }

    pub fn ended(&self, id: &str) -> Snapshot {
        eventually("the session ends", || {
            Some(self.one(id)).filter(|one| one.state == SessionState::Exited)
        })
    }

    /// Sends as the host does, with the mark at the payload's end.
    pub fn send(&self, id: &str, timeout_ms: u32, payload: &[u8]) -> std::process::Output {
        self.send_stream(id, timeout_ms, &[payload, MARK.as_bytes()].concat())
    }

    pub fn send_stream(&self, id: &str, timeout_ms: u32, stream: &[u8]) -> std::process::Output {
        let script = Plugin::send(self.session(id), timeout_ms).unwrap();
        let mut child = command(&script.body, &script.args)
            .env("BANGER_END_MARK", MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A script that ends early closes the pipe: its exit code is what counts.
        drop(child.stdin.take().unwrap().write_all(stream));
        child.wait_with_output().unwrap()
    }

    /// Starts a program whose logs keep their last `log_limit` bytes.
    pub fn launched_with_limit(&self, id: &str, log_limit: u64, command: &[&[u8]]) {
        let mut request = self.request(id, command, &[]);
        request.log_limit = log_limit;
        let output = self.run(Plugin::launch(request).unwrap(), b"");
        assert!(output.status.success(), "{output:?}");
    }

    /// Starts a script whose stdin the caller holds.
    pub fn spawn(&self, script: Script) -> Child {
        command(&script.body, &script.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Prints a log from an offset on, not following.
    pub fn log(&self, id: &str, offset: u64) -> std::process::Output {
        let script =
            Plugin::attach_output(self.session(id), OutputStream::Stdout, offset, false).unwrap();
        self.run(script, b"")
    }

    pub fn dir(&self, id: &str) -> String {
        Plugin::paths(self.session(id)).state_dir
    }

    /// The log keeper's process.
    pub fn keeper(&self) -> Option<String> {
        let name = std::fs::read_to_string(format!("{}/.keeper/pid", self.root())).ok()?;
        Some(name.split_once(' ')?.0.to_owned())
    }

    /// Has the log keeper look at once.
    pub fn wake_keeper(&self) {
        let wake = format!("{}/.keeper/wake", self.root());
        // O_NONBLOCK: it may be full.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(0o4000)
            .open(wake);
        drop(file.and_then(|mut file| file.write_all(b"\n")));
    }

    pub fn stdout(&self, id: &str) -> Vec<u8> {
        std::fs::read(Plugin::paths(self.session(id)).stdout).unwrap()
    }
}

pub const MARK: &str = "00112233445566778899aabbccddeeff";

pub fn follow(guest: &Guest, id: &str, offset: u64) -> Child {
    let script =
        Plugin::attach_output(guest.session(id), OutputStream::Stdout, offset, true).unwrap();
    command(&script.body, &script.args)
        // Its end would end the reader.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

pub fn kill(pid: &str, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, pid]).status();
    assert!(status.unwrap().success());
}

pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<String> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}
