//! Child processes, and signals that must not leave any of them behind.
//!
//! Children run in our own foreground process group, so that Ctrl-C reaches them directly; a signal
//! that was sent to this process alone is passed on. A clean-up runs in a group of its own, so that
//! an impatient second Ctrl-C does not cut it short.

use crate::screen;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Deliveries;
use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child may take to end by itself after Ctrl-C, before it is sent TERM.
const PATIENCE: Duration = Duration::from_secs(3);

/// The user stopped us with this signal.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted(pub i32);

impl Interrupted {
    /// 128 and the signal's number, as shells have it.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(1)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Interrupted {}

/// INT, TERM and HUP, which from now on are noted instead of ending this process.
#[derive(Debug, Clone)]
pub struct Signals {
    received: Arc<AtomicI32>,
    /// The child that is waited for, by a descriptor: a process id might be used again.
    child: Arc<Mutex<Option<OwnedFd>>>,
}

impl Signals {
    /// Starts to note signals.
    pub fn watch() -> Result<Self> {
        let signals = Self {
            received: Arc::new(AtomicI32::new(0)),
            child: Arc::default(),
        };
        let mut deliveries =
            Deliveries::new([SIGINT, SIGTERM, SIGHUP]).context("can't watch signals")?;
        let noted = signals.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in deliveries.forever() {
                    let first = noted
                        .received
                        .compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst)
                        .is_ok();
                    if signal != SIGINT {
                        noted.end_child();
                    } else if first {
                        let noted = noted.clone();
                        thread::spawn(move || {
                            thread::sleep(PATIENCE);
                            noted.end_child();
                        });
                    }
                }
            })
            .context("can't start a thread")?;
        Ok(signals)
    }

    /// The signal that was noted first.
    pub fn received(&self) -> Option<i32> {
        Some(self.received.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// An error once a signal was noted.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.received() {
            Some(signal) => Err(Interrupted(signal)),
            None => Ok(()),
        }
    }

    fn end_child(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = child.as_ref() {
            let _ = rustix::process::pidfd_send_signal(child, Signal::TERM);
        }
    }

    /// Runs a command to its end, its output where ours goes.
    ///
    /// # Errors
    /// If it can't be started, or a signal was noted meanwhile.
    pub fn status(&self, command: &mut Command) -> Result<ExitStatus> {
        self.check()?;
        let child = spawn(command)?;
        self.wait(child)
    }

    /// Runs a command to its end, its output where ours goes.
    ///
    /// # Errors
    /// If it can't be started, fails, or a signal was noted meanwhile.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let status = self.status(command)?;
        succeed(command, status)
    }

    /// Runs a command to its end, its output where ours goes. Returns how long it took.
    ///
    /// # Errors
    /// If it can't be started, fails, or a signal was noted meanwhile.
    pub fn time(&self, command: &mut Command) -> Result<Duration> {
        let start = Instant::now();
        let status = self.status(command)?;
        let time = start.elapsed();
        succeed(command, status)?;
        Ok(time)
    }

    /// Runs a command to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// If it can't be started, fails, or a signal was noted meanwhile.
    pub fn output(&self, command: &mut Command) -> Result<Vec<u8>> {
        let mut written = Vec::new();
        let status = self.stream(command, |bytes| written.extend_from_slice(bytes))?;
        succeed(command, status)?;
        Ok(written)
    }

    /// Runs a command to its end and hands over what it writes to standard output as it comes.
    ///
    /// # Errors
    /// If it can't be started, or a signal was noted meanwhile.
    pub fn stream(&self, command: &mut Command, mut sink: impl FnMut(&[u8])) -> Result<ExitStatus> {
        self.check()?;
        let mut child = spawn(command.stdout(Stdio::piped()))?;
        let mut output = child.stdout.take().context("a pipe is missing")?;
        let _registration = self.register(&child)?;
        let mut buffer = [0; 64 << 10];
        loop {
            match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => sink(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("can't read a command's output"),
            }
        }
        let status = child.wait().context("can't wait for a command")?;
        self.check()?;
        Ok(status)
    }

    /// Waits for a child that was started already.
    ///
    /// # Errors
    /// If a signal was noted meanwhile.
    pub fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        {
            let _registration = self.register(&child)?;
            // Without reaping it: the descriptor must go first.
            let _ = rustix::process::waitid(
                WaitId::Pid(pid_of(&child)?),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
        }
        let status = child.wait().context("can't wait for a command")?;
        self.check()?;
        Ok(status)
    }

    fn register(&self, child: &Child) -> Result<Registration<'_>> {
        let descriptor = rustix::process::pidfd_open(pid_of(child)?, PidfdFlags::empty())
            .context("can't open a process descriptor")?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor);
        if matches!(self.received(), Some(signal) if signal != SIGINT) {
            self.end_child();
        }
        Ok(Registration(self))
    }
}

/// While it lives, a signal is passed on to the child.
struct Registration<'a>(&'a Signals);

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        *self.0.child.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a child has no process id")
}

fn spawn(command: &mut Command) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("can't run `{}`", line(command)))
}

/// Turns a bad exit into an error.
///
/// # Errors
/// If the command failed.
pub fn succeed(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => bail!("`{}` failed with exit code {code}", line(command)),
        (_, Some(signal)) => bail!("`{}` was killed by signal {signal}", line(command)),
        _ => bail!("`{}` failed", line(command)),
    }
}

/// The command as one would type it, cut where it is very long.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy());
    let line = screen::command_line(words);
    if line.chars().count() > 300 {
        line.chars().take(300).chain("…".chars()).collect()
    } else {
        line
    }
}

/// Runs a command of a clean-up: out of reach of Ctrl-C, silent, and killed after `limit`.
/// Returns what it wrote to standard output, or nothing where it did not succeed.
pub fn tidy(command: &mut Command, limit: Duration) -> Option<Vec<u8>> {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut output = child.stdout.take()?;
    let reader = thread::spawn(move || {
        let mut written = Vec::new();
        let _ = output.read_to_end(&mut written);
        written
    });
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                return status.success().then(|| reader.join().unwrap_or_default());
            }
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// A process that is killed when this value goes, and also when this process dies by SIGKILL.
#[derive(Debug)]
pub struct Guarded(Child);

impl Guarded {
    /// Starts it. `program` and its arguments are run under `setpriv --pdeathsig KILL`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(
        words: impl IntoIterator<Item = S>,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(words);
        command.process_group(0);
        prepare(&mut command);
        Ok(Self(spawn(&mut command)?))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        // Without reaping it: that is left to the end.
        let state = pid_of(&self.0).and_then(|pid| {
            Ok(rustix::process::waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG,
            )?)
        });
        matches!(state, Ok(None))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The words of its command line.
    pub words: Vec<String>,
}

impl Process {
    /// Whether it is a system emulator.
    pub fn is_qemu(&self) -> bool {
        self.words
            .first()
            .is_some_and(|word| word.contains("qemu-system"))
    }

    /// Its working directory.
    pub fn directory(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// Whether its working directory is under this one.
    pub fn works_under(&self, directory: &Path) -> bool {
        self.directory()
            .is_some_and(|own| own.starts_with(directory))
    }

    /// Whether it runs this program, also one that was built anew since.
    pub fn runs(&self, program: &Path) -> bool {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok_and(|running| {
            let running = running.to_string_lossy();
            Path::new(running.strip_suffix(" (deleted)").unwrap_or(&running)) == program
        })
    }

    /// Whether it is ours and has an environment variable with this value.
    pub fn has_variable(&self, name: &str, value: &Path) -> bool {
        let wanted = [name.as_bytes(), b"=", value.as_os_str().as_bytes()].concat();
        std::fs::read(format!("/proc/{}/environ", self.pid)).is_ok_and(|variables| {
            variables
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted)
        })
    }
}

/// Every process but this one.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .filter(|process| process.pid != std::process::id())
        .collect()
}

fn process(pid: u32) -> Option<Process> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let words = bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    Some(Process { pid, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_process_dies_with_its_guard() {
        let guarded = Guarded::spawn(["sleep", "600"], |_| {}).expect("starts");
        let pid = guarded.0.id();
        drop(guarded);
        assert!(process(pid).is_none());
    }

    #[test]
    fn a_process_is_known_by_its_program_and_environment() {
        let sleep = std::fs::canonicalize("/bin/sleep").expect("coreutils are there");
        let guarded = Guarded::spawn([sleep.as_os_str(), "600".as_ref()], |command| {
            command.env("XTASK_TEST", "/a b");
        })
        .expect("starts");
        let pid = guarded.0.id();
        // First it is the program that looks after it.
        let end = Instant::now() + Duration::from_secs(30);
        let process = loop {
            let process = process(pid).expect("runs");
            // Its program is there a moment before its command line.
            if process.runs(&sleep) && process.words.len() == 2 {
                break process;
            }
            assert!(Instant::now() < end);
            thread::yield_now();
        };
        assert!(!process.runs(Path::new("/bin/true")));
        assert!(!process.is_qemu());
        assert!(process.has_variable("XTASK_TEST", Path::new("/a b")));
        assert!(!process.has_variable("XTASK_TEST", Path::new("/a")));
        assert!(process.works_under(&std::env::current_dir().expect("a directory")));
        assert!(!process.works_under(Path::new("/proc")));
        assert!(all().iter().any(|other| other.pid == pid));
    }

    #[test]
    fn tidying_has_an_end() {
        let start = Instant::now();
        assert_eq!(
            tidy(Command::new("sleep").arg("600"), Duration::from_millis(50)),
            None
        );
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_eq!(
            tidy(Command::new("echo").arg("a"), Duration::from_secs(60)),
            Some(b"a\n".to_vec())
        );
    }

    #[test]
    fn a_failure_names_the_command() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let status = command.status().expect("sh runs");
        let error = succeed(&command, status).expect_err("failed");
        assert_eq!(
            error.to_string(),
            "`sh -c 'exit 3'` failed with exit code 3"
        );
    }
}
