//! Finds the daemon, and starts it where none runs.

use crate::error::host;
use banger_core::{Failure, Kind};
use banger_host::daemon;
use banger_host::dirs::Dirs;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take until it answers.
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// How long another daemon has to answer or to go, before ours is started once more.
const RESPAWN: Duration = Duration::from_millis(200);
/// How much of the log's end is shown.
const LOG_SHOWN: u64 = 4096;

/// A connection, where a daemon runs.
///
/// # Errors
/// Where its socket can't be connected to although there is one.
pub fn connect(dirs: &Dirs) -> Result<Option<UnixStream>, Failure> {
    if let Some(stream) = connect_to_usual(dirs)? {
        return Ok(Some(stream));
    }
    // It may have been started with another runtime directory.
    Ok(daemon::holder(dirs)
        .filter(|holder| holder.socket != dirs.socket())
        .and_then(|holder| UnixStream::connect(holder.socket).ok()))
}

fn connect_to_usual(dirs: &Dirs) -> Result<Option<UnixStream>, Failure> {
    let socket = dirs.socket();
    match UnixStream::connect(&socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => {
            let mut failure = Failure::from_error(Kind::Daemon, &error);
            failure.message = format!("can't connect to `{}`: {error}", shown(&socket));
            Err(failure)
        }
    }
}

fn absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

/// A connection, and the daemon where it was started for it.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub socket: UnixStream,
    /// What was started.
    pub started: Option<Started>,
}

/// A daemon that was started here. It listens before it is ready, and may still fail.
#[derive(Debug)]
pub struct Started {
    child: Child,
    log: PathBuf,
    /// Where its part of the log begins.
    log_start: u64,
}

impl Started {
    /// Why it ended, where it has, or does within a second.
    pub fn why_ended(mut self) -> Option<Failure> {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(self.not_started(&format!("it ended with {status}")));
            }
            std::thread::sleep(PAUSE);
        }
        None
    }

    fn not_started(&self, why: &str) -> Failure {
        Failure::new(Kind::Daemon, format!("the daemon did not start: {why}"))
            .detail(&end_of(&self.log, self.log_start).unwrap_or_default())
            .hint(format!(
                "its log is `{}`; `banger daemon run` runs it in the foreground",
                shown(&self.log)
            ))
    }
}

/// A connection to the daemon that runs, or to one that is started here.
///
/// # Errors
/// Where it does not start, with the end of its log.
pub fn connect_or_start(dirs: &Dirs) -> Result<Connected, Failure> {
    match connect(dirs)? {
        Some(socket) => Ok(Connected {
            socket,
            started: None,
        }),
        None => start(dirs),
    }
}

fn start(dirs: &Dirs) -> Result<Connected, Failure> {
    dirs.create()?;
    let since = Instant::now();
    let mut started = spawn(dirs)?;
    let mut spawned = Instant::now();
    loop {
        if let Some(socket) = connect_to_usual(dirs)? {
            let started = Some(started);
            return Ok(Connected { socket, started });
        }
        match started.child.try_wait() {
            Ok(Some(status)) if !status.success() => {
                return Err(started.not_started(&format!("it ended with {status}")));
            }
            // Another daemon holds the lock: one that has just been started and answers soon, or
            // one that is about to end, after which ours must be started anew.
            Ok(Some(_)) if spawned.elapsed() > RESPAWN => {
                started = spawn(dirs)?;
                spawned = Instant::now();
            }
            Ok(_) => {}
            Err(error) => return Err(host("wait for the daemon", &error)),
        }
        if since.elapsed() > DEADLINE {
            let why = format!("it did not answer within {} s", DEADLINE.as_secs());
            return Err(started.not_started(&why));
        }
        std::thread::sleep(PAUSE);
    }
}

fn open_log(path: &Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| host(format!("open `{}`", shown(path)), &error);
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    options.open(path).map_err(failed)
}

/// Starts `banger daemon run`. It leaves our session by itself.
fn spawn(dirs: &Dirs) -> Result<Started, Failure> {
    let path = dirs.daemon_log();
    let mut log = open_log(&path)?;
    let log_start = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let failed = |error: std::io::Error| host("start the daemon", &error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["daemon", "run", "--own-session"]);
    command.stdin(Stdio::null()).current_dir("/");
    command.stdout(log.try_clone().map_err(failed)?);
    command.stderr(log);
    Ok(Started {
        child: command.spawn().map_err(failed)?,
        log: path,
        log_start,
    })
}

/// The end of what was written to a log since `start`.
fn end_of(log: &Path, start: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(LOG_SHOWN))))?;
    let mut bytes = Vec::new();
    file.take(LOG_SHOWN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn shown(path: &Path) -> String {
    banger_core::escape::text(path.as_os_str().as_encoded_bytes())
}
