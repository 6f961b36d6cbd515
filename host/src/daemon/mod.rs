//! The daemon: one process a user, which owns the machines' connections and answers on a socket.
//!
//! It can be killed at any moment: machines and sessions go on without it, and the next daemon
//! finds them again.

mod dispatch;
mod server;

use crate::dirs::Dirs;
use crate::plugin::{Registry, embedded};
use crate::session::Sessions;
use crate::store::Store;
use crate::stream::Streams;
use crate::task::now_ms;
use crate::vm::Machines;
use crate::workspace::Workspaces;
use banger_core::{Failure, Kind};
use rustix::fs::FlockOperation;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the daemon looks whether its socket is still there.
const SOCKET_CHECK: Duration = Duration::from_secs(2);

/// Longer than [`holder`] holds the lock that it tries.
const LOOK_TIME: Duration = Duration::from_millis(100);

/// What a daemon needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its files are.
    pub dirs: Dirs,
}

/// Everything that requests act on.
pub struct Daemon {
    dirs: Dirs,
    registry: Arc<Registry>,
    machines: Arc<Machines>,
    sessions: Arc<Sessions>,
    workspaces: Workspaces,
    streams: Streams,
    started_at_ms: u64,
    stop: CancellationToken,
    /// Requests that have not ended.
    running: TaskTracker,
}

/// Runs the daemon until it is told to stop or gets SIGTERM or SIGINT. Where one runs already,
/// returns at once.
///
/// # Errors
/// Where its files or sockets can't be made, or the database is a newer banger's.
pub async fn run(options: Options) -> Result<(), Failure> {
    let dirs = options.dirs;
    dirs.create()?;
    let Some(_lock) = lock(&dirs)? else {
        return Ok(());
    };
    log_to_stderr();
    // A stream's connection is refused until the sockets are there, so they come last; but both
    // are bound before anything slow, and a client that connects early is served when all is up.
    let requests = bind(&dirs.socket())?;
    let frames = bind(&dirs.stream_socket())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        socket = %dirs.socket().display(),
        "the daemon starts"
    );
    let store = Arc::new(Store::open(&dirs.database())?);
    let machines = Arc::new(Machines::new(dirs.clone(), Arc::clone(&store)));
    machines.recover().await?;
    crate::quarantine::clear(&[&dirs.quarantine(), &dirs.saved()]);
    let (plugins, cache) = (dirs.user_plugins(), dirs.plugin_cache());
    let registry = tokio::task::spawn_blocking(move || {
        Registry::load(embedded(), Some(&plugins), Some(&cache))
    })
    .await
    .map_err(|error| Failure::from_error(Kind::Internal, &error))??;
    let registry = Arc::new(registry);
    let streams = Streams::new(&dirs.stream_socket());
    let stop = CancellationToken::new();
    let daemon = Arc::new(Daemon {
        sessions: Arc::new(Sessions::new(
            Arc::clone(&machines),
            Arc::clone(&store),
            Arc::clone(&registry),
            streams.clone(),
        )),
        workspaces: Workspaces::new(
            Arc::clone(&machines),
            Arc::clone(&store),
            Arc::clone(&registry),
            streams.clone(),
            dirs.clone(),
        ),
        dirs: dirs.clone(),
        registry,
        machines,
        streams: streams.clone(),
        started_at_ms: now_ms(),
        stop: stop.clone(),
        running: TaskTracker::new(),
    });
    let mut terminate = on_signal(SignalKind::terminate())?;
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let requests_open = CancellationToken::new();
    tokio::select! {
        () = server::serve(Arc::clone(&daemon), requests, requests_open.clone()) => {}
        () = streams.serve(frames) => {}
        () = stop.cancelled() => {}
        () = socket_gone(dirs.socket()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // What still runs is taken back before the lock is given up.
    requests_open.cancel();
    daemon.settle().await;
    for socket in [dirs.socket(), dirs.stream_socket()] {
        let _ = std::fs::remove_file(socket);
    }
    if let Err(error) = store.checkpoint() {
        tracing::warn!(%error, "the database's log was not folded into it");
    }
    tracing::info!("the daemon ends");
    Ok(())
}

/// The daemon that runs, as it says in the file that it has locked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Where it listens: elsewhere than expected where it was started with another
    /// `XDG_RUNTIME_DIR`.
    pub socket: PathBuf,
}

/// The daemon that holds the lock, whether or not its socket can be found; `None` where none does.
pub fn holder(dirs: &Dirs) -> Option<Holder> {
    let file = std::fs::File::open(dirs.daemon_lock()).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => serde_json::from_reader(file).ok(),
        _ => None,
    }
}

/// The lock of the daemon that runs; `None` where another holds it.
fn lock(dirs: &Dirs) -> Result<Option<std::fs::File>, Failure> {
    let path = dirs.daemon_lock();
    let fail = |error: std::io::Error| {
        Failure::new(
            Kind::Host,
            format!("can't lock {}: {error}", path.display()),
        )
    };
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(fail)?;
    let since = std::time::Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // It may be somebody who only looks whether a daemon holds it.
            Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < LOOK_TIME => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        }
    }
    let holder = Holder {
        pid: std::process::id(),
        socket: dirs.socket(),
    };
    file.set_len(0).map_err(fail)?;
    serde_json::to_writer(&mut file, &holder).map_err(|error| fail(error.into()))?;
    Ok(Some(file))
}

/// Resolves when a socket is no longer the one that was bound: nobody can connect any more, and the
/// next command needs a daemon that it can reach.
async fn socket_gone(path: PathBuf) {
    use std::os::unix::fs::MetadataExt as _;
    let inode = || std::fs::symlink_metadata(&path).ok().map(|file| file.ino());
    let bound = inode();
    while inode() == bound {
        tokio::time::sleep(SOCKET_CHECK).await;
    }
    tracing::warn!(socket = %path.display(), "the daemon's socket is gone");
}

/// A socket that only this user can connect to. One that a killed daemon left is replaced: the
/// lock tells that nobody listens on it.
fn bind(path: &Path) -> Result<UnixListener, Failure> {
    let fail = |error: std::io::Error| {
        Failure::new(
            Kind::Host,
            format!("can't listen on {}: {error}", path.display()),
        )
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Kind::Internal, format!("can't wait for signals: {error}")))
}

/// One JSON object a line on stderr, which is the log file where the CLI started the daemon.
/// `BANGER_LOG` sets what is logged, as `info` or `banger_host=debug`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BANGER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,russh=warn"));
    // A test may have set another subscriber.
    let _ = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
