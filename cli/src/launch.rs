//! Finds the daemon, and starts it where none runs.

use crate::error::host;
use banger_core::{Failure, Kind};
use banger_host::dirs::Dirs;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take until it answers.
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// How much of the log's end is shown.
const LOG_SHOWN: u64 = 4096;

/// A connection, where a daemon runs.
///
/// # Errors
/// Where its socket can't be connected to although there is one.
pub fn connect(dirs: &Dirs) -> Result<Option<UnixStream>, Failure> {
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

/// A connection to the daemon that runs, or to one that is started here.
///
/// # Errors
/// Where it does not start, with the end of its log.
pub fn connect_or_start(dirs: &Dirs) -> Result<UnixStream, Failure> {
    match connect(dirs)? {
        Some(socket) => Ok(socket),
        None => start(dirs),
    }
}

fn start(dirs: &Dirs) -> Result<UnixStream, Failure> {
    dirs.create()?;
    let path = dirs.daemon_log();
    let mut log = open_log(&path)?;
    let start = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let mut child = spawn(&log)?;
    let since = Instant::now();
    loop {
        if let Some(socket) = connect(dirs)? {
            return Ok(socket);
        }
        // Another banger may have started one at the same time: then ours ends with 0, and the
        // other's answers soon.
        match child.try_wait() {
            Ok(Some(status)) if !status.success() => {
                return Err(not_started(
                    &path,
                    start,
                    &format!("it ended with {status}"),
                ));
            }
            Ok(_) => {}
            Err(error) => return Err(host("wait for the daemon", &error)),
        }
        if since.elapsed() > DEADLINE {
            let why = format!("it did not answer within {} s", DEADLINE.as_secs());
            return Err(not_started(&path, start, &why));
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
fn spawn(log: &File) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| host("start the daemon", &error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["daemon", "run", "--own-session"]);
    command.stdin(Stdio::null()).current_dir("/");
    command.stdout(log.try_clone().map_err(failed)?);
    command.stderr(log.try_clone().map_err(failed)?);
    command.spawn().map_err(failed)
}

fn not_started(log: &Path, start: u64, why: &str) -> Failure {
    Failure::new(Kind::Daemon, format!("the daemon did not start: {why}"))
        .detail(&end_of(log, start).unwrap_or_default())
        .hint(format!(
            "its log is `{}`; `banger daemon run` runs it in the foreground",
            shown(log)
        ))
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
