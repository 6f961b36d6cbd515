//! The real `banger` with a home of its own, and a loopback sshd that it can adopt as a machine.
//!
//! Nothing of the user's reaches it: the environment is cleared, `HOME` and `BANGER_HOME` are
//! temporary. Dropping a [`Home`] ends its daemon and everything that was started in its machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sshd::{Options, Sshd};

/// How long one command, or one wait, may take.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The name of the machine that is adopted.
pub const HOST: &str = "host";

/// One user's banger.
pub struct Home {
    directory: tempfile::TempDir,
    binary: PathBuf,
    /// The machine, where there is one.
    pub sshd: Option<Sshd>,
}

impl Home {
    /// A home without machines. No daemon runs yet.
    ///
    /// # Errors
    /// There is no binary, or no directory can be made.
    pub fn new() -> Result<Self> {
        let home = Self::cold()?;
        let cache = home.banger_home().join("cache/plugins");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&cache)?;
        for (name, bytes) in compiled_plugins()? {
            fs::write(cache.join(name), bytes)?;
        }
        Ok(home)
    }

    /// The same without a cache of compiled plugins: the first daemon starts slowly.
    ///
    /// # Errors
    /// As [`Home::new`].
    pub fn cold() -> Result<Self> {
        // Short: the path of a socket has at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("bg-").tempdir_in("/tmp")?;
        fs::create_dir(directory.path().join("home"))?;
        Ok(Self {
            directory,
            binary: binary()?,
            sshd: None,
        })
    }

    /// A home with a loopback sshd as the machine [`HOST`].
    ///
    /// # Errors
    /// There is no sshd, or it can't be adopted.
    pub fn with_host() -> Result<Self> {
        Self::with_host_of(&Options::default())
    }

    /// The same, with these options of the sshd.
    ///
    /// # Errors
    /// As [`Home::with_host`].
    pub fn with_host_of(options: &Options) -> Result<Self> {
        let mut home = Self::new()?;
        home.sshd = Some(Sshd::start_with(options)?);
        let adopted = home.run(home.adopt_arguments(HOST)?);
        if adopted.code != Some(0) {
            bail!("the sshd can't be adopted: {adopted:?}");
        }
        Ok(home)
    }

    /// The words that adopt the sshd under this name.
    ///
    /// # Errors
    /// There is no sshd.
    pub fn adopt_arguments(&self, name: &str) -> Result<Vec<OsString>> {
        let sshd = self.sshd.as_ref().context("no sshd")?;
        let address = format!("ssh://{}@127.0.0.1:{}", Sshd::user()?, sshd.port());
        let mut words: Vec<OsString> = ["vm", "adopt", name, &address, "--identity"]
            .map(OsString::from)
            .into();
        words.push(sshd.client_key_path().into());
        Ok(words)
    }

    /// `HOME` in the machine.
    ///
    /// # Panics
    /// Where there is no machine.
    pub fn guest_home(&self) -> PathBuf {
        self.sshd.as_ref().expect("a machine").home()
    }

    /// `BANGER_HOME`.
    pub fn banger_home(&self) -> PathBuf {
        self.directory.path().join("b")
    }

    /// A directory of the test's own, removed with the home.
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// The JSON-RPC socket.
    pub fn socket(&self) -> PathBuf {
        self.banger_home().join("runtime/daemon.sock")
    }

    /// `banger` with these arguments, not yet started; its standard input is closed.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.command_of(&self.binary, arguments)
    }

    /// Another program in the same surroundings.
    pub fn command_of<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.scratch())
            .env("BANGER_HOME", self.banger_home())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.scratch())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `banger` to its end.
    ///
    /// # Panics
    /// Where it can't be started, or does not end in time.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        finish(self.command(arguments), &[])
    }

    /// The same with this standard input.
    ///
    /// # Panics
    /// As [`Home::run`].
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        stdin: &[u8],
    ) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        finish(command, stdin)
    }

    /// Starts `banger` and goes on; its standard input stays open.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        Running::spawn(command)
    }

    /// `banger` itself.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// What `--json` says of a session.
    ///
    /// # Panics
    /// Where there is none.
    pub fn session(&self, name: &str) -> Value {
        self.run(["--json", "vm", "session", "show", HOST, name])
            .ok()
            .json()
    }

    /// The daemon's process, where one runs.
    ///
    /// # Panics
    /// Where its status is malformed.
    pub fn daemon_pid(&self) -> Option<Pid> {
        let status = self.run(["--json", "daemon", "status"]);
        let pid = status.json()["pid"].as_i64()?;
        Pid::from_raw(i32::try_from(pid).expect("a process id"))
    }

    /// Kills the daemon with SIGKILL and returns at once: it may still be about to go.
    ///
    /// # Panics
    /// Where none runs.
    pub fn kill_daemon(&self) -> Pid {
        let pid = self.daemon_pid().expect("a daemon runs");
        kill_process(pid, Signal::KILL).expect("killed");
        pid
    }

    /// Kills a session's supervisor and then its program with SIGKILL: nobody sees how it ends.
    ///
    /// # Panics
    /// Where its state directory does not tell who they are.
    pub fn kill_unseen(&self, name: &str) {
        let session = self.session(name);
        let directory = PathBuf::from(session["state_dir"].as_str().expect("a directory"));
        for file in ["monitor-pid", "pid"] {
            let text = fs::read_to_string(directory.join(file)).expect("there");
            let pid = text
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok());
            let pid = pid.and_then(Pid::from_raw).expect("a process id");
            kill_process(pid, Signal::KILL).expect("killed");
        }
    }

    /// The daemon that holds the lock; none where none does. It asks no daemon, so it is quick, and
    /// tells also of one that answers nobody.
    pub fn holder(&self) -> Option<Pid> {
        let file = fs::File::open(self.banger_home().join("state/daemon.lock")).ok()?;
        let free = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
        if free.is_ok() {
            return None;
        }
        let holder: Value = serde_json::from_reader(file).ok()?;
        Pid::from_raw(i32::try_from(holder["pid"].as_i64()?).ok()?)
    }

    /// Waits until a daemon runs and kills it with SIGKILL.
    pub fn kill_next_daemon(&self) {
        crate::until("a daemon runs", || {
            self.holder()
                .is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
        });
    }

    /// A greeted connection to the daemon, which is started where none runs.
    ///
    /// # Panics
    /// Where there is none.
    pub fn rpc(&self) -> crate::rpc::Rpc {
        let _ = self.run(["daemon", "start"]).ok();
        crate::rpc::Rpc::greet(&self.socket()).expect("a daemon")
    }

    /// Everything below `BANGER_HOME`, with contents: to show that nothing has changed.
    /// The database's own files and the log are left out.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.banger_home())
            .into_iter()
            .filter(|(path, _)| {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                !name.starts_with(b"banger.db") && name != b"daemon.log"
            })
            .collect()
    }

    /// Processes that have one of this home's directories in their environment.
    fn processes(&self) -> Vec<Pid> {
        let mut marks = vec![self.banger_home()];
        marks.extend(self.sshd.as_ref().map(Sshd::home));
        let is_ours = |environment: &[u8]| {
            environment.split(|byte| *byte == 0).any(|variable| {
                marks.iter().any(|mark| {
                    [b"HOME=".as_slice(), b"BANGER_HOME="].iter().any(|name| {
                        variable.strip_prefix(*name) == Some(mark.as_os_str().as_encoded_bytes())
                    })
                })
            })
        };
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| {
                fs::read(entry.path().join("environ")).is_ok_and(|bytes| is_ours(&bytes))
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(sshd) = &mut self.sshd {
            sshd.stop();
        }
        let since = Instant::now();
        // Again until none is left: a process may have started another meanwhile.
        loop {
            let left = self.processes();
            if left.is_empty() || since.elapsed() > DEADLINE {
                return;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
    }
}

/// Names and contents.
type Files = &'static [(OsString, Vec<u8>)];

/// What a first daemon compiles, once for all homes of this process.
fn compiled_plugins() -> Result<Files> {
    static COMPILED: Mutex<Option<Files>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = *compiled {
        return Ok(compiled);
    }
    let home = Home::cold()?;
    for verb in ["start", "stop"] {
        let ran = home.run(["daemon", verb]);
        if ran.code != Some(0) {
            bail!("`banger daemon {verb}` fails: {ran:?}");
        }
    }
    let files: Vec<_> = files(&home.banger_home().join("cache/plugins"))
        .into_iter()
        .filter_map(|(path, bytes)| Some((path.file_name()?.to_owned(), bytes)))
        .collect();
    Ok(compiled.insert(files.leak()))
}

/// Every file below a directory with its content, or a link with its target, sorted.
pub fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_symlink() => {
                    let target = fs::read_link(&path).unwrap_or_default();
                    found.push((path, target.into_os_string().into_encoded_bytes()));
                }
                Ok(kind) if kind.is_file() => {
                    let content = fs::read(&path).unwrap_or_default();
                    found.push((path, content));
                }
                _ => found.push((path, Vec::new())),
            }
        }
    }
    found.sort();
    found
}

/// How a command ended.
#[derive(Clone)]
pub struct Ran {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote beside.
    pub stderr: Vec<u8>,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes.get(..bytes.len().min(4096)).unwrap_or_default())
                .into_owned()
        };
        write!(
            f,
            "exit code {:?}\nstdout: {}\nstderr: {}",
            self.code,
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }
}

impl Ran {
    /// Checks that it ended well.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// What it wrote, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it wrote beside, as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What it wrote, as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The failure of a command with `--json`, checked as a person would read it: this exit code,
    /// nothing on standard output, one clear sentence and a hint.
    ///
    /// # Panics
    /// Where it is not so.
    #[track_caller]
    pub fn failure(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        let error: Value = serde_json::from_slice(&self.stderr)
            .unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let failure = error["error"].clone();
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(
            !message.is_empty() && !message.contains('\n') && message.len() < 400,
            "{self:?}"
        );
        let hint = failure["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "there is a hint: {self:?}");
        failure
    }
}

fn finish(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child = command.spawn().expect("banger starts");
    let watchdog = Watchdog::over(&child);
    let input = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut input) = input {
                // Whoever does not read has its reason, which the test sees.
                let _ = input.write_all(stdin);
            }
        });
        child.wait_with_output().expect("it ends")
    });
    watchdog.finish(&format!("{command:?}"));
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

/// Kills a process that takes too long.
struct Watchdog {
    cancel: Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watchdog {
    fn over(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (cancel, cancelled) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = cancelled.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        Self { cancel, thread }
    }

    #[track_caller]
    fn finish(self, what: &str) {
        drop(self.cancel);
        let late = self.thread.join().unwrap_or(true);
        assert!(!late, "{what} did not end within {DEADLINE:?}");
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    input: Option<std::process::ChildStdin>,
    output: Receiver<Vec<u8>>,
    errors: Receiver<Vec<u8>>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Running {
    /// Starts a command, whose output must be pipes.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        let output = pump(child.stdout.take().expect("piped"));
        let errors = pump(child.stderr.take().expect("piped"));
        Self {
            child,
            input,
            output,
            errors,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until its standard output holds this.
    ///
    /// # Panics
    /// Where that does not come.
    #[track_caller]
    pub fn until(&mut self, text: &str) {
        let since = Instant::now();
        while !holds(&self.stdout, text) {
            match self
                .output
                .recv_timeout(DEADLINE.saturating_sub(since.elapsed()))
            {
                Ok(bytes) => self.stdout.extend(bytes),
                Err(error) => panic!(
                    "no `{text}` ({error}) in `{}`; it said `{}`",
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.errors.try_iter().flatten().collect::<Vec<_>>())
                ),
            }
        }
    }

    /// Waits until its standard output holds so many bytes.
    ///
    /// # Panics
    /// Where they do not come.
    #[track_caller]
    pub fn until_bytes(&mut self, count: usize) {
        let since = Instant::now();
        while self.stdout.len() < count {
            match self
                .output
                .recv_timeout(DEADLINE.saturating_sub(since.elapsed()))
            {
                Ok(bytes) => self.stdout.extend(bytes),
                Err(error) => panic!("{error} after {} of {count} bytes", self.stdout.len()),
            }
        }
    }

    /// Waits until its standard error holds this.
    ///
    /// # Panics
    /// Where that does not come.
    #[track_caller]
    pub fn until_error(&mut self, text: &str) {
        let since = Instant::now();
        while !holds(&self.stderr, text) {
            match self
                .errors
                .recv_timeout(DEADLINE.saturating_sub(since.elapsed()))
            {
                Ok(bytes) => self.stderr.extend(bytes),
                Err(error) => panic!(
                    "no `{text}` ({error}) in `{}`",
                    String::from_utf8_lossy(&self.stderr)
                ),
            }
        }
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// Where it does not read.
    pub fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("open");
        input.write_all(text.as_bytes()).expect("written");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signalled");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end in time.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let watchdog = Watchdog::over(&self.child);
        let status: ExitStatus = self.child.wait().expect("it ends");
        watchdog.finish("the command");
        let mut stdout = std::mem::take(&mut self.stdout);
        stdout.extend(self.output.iter().flatten());
        let mut stderr = std::mem::take(&mut self.stderr);
        stderr.extend(self.errors.iter().flatten());
        Ran {
            code: status.code(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn pump(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = source.read(&mut buffer) {
            if sender
                .send(buffer.get(..read).unwrap_or_default().to_vec())
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// The `banger` beside the tests, as `cargo test --workspace` builds it; built here where only
/// the tests' own crate was.
fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Mutex<()>> = OnceLock::new();
    let tests = std::env::current_exe()?;
    let profile = tests
        .ancestors()
        .nth(2)
        .context("the tests have no directory")?;
    let binary = profile.join("banger");
    let _one_at_a_time = BUILT
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !binary.exists() {
        let target = profile.parent().context("no target directory")?;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(["build", "--quiet", "--package", "banger", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() || !binary.exists() {
            bail!("cannot build {}", binary.display());
        }
    }
    Ok(binary)
}
