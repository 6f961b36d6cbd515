//! Sessions of stopped machines, as the backend in the binary lays them out.

use crate::fixture::{Disk, MOUNT_POINT, guest};
use banger_core::frame::Frame;
use banger_core::protocol::Stream;
use banger_core::protocol::machine::Driver;
use banger_core::session::{OutputStream, SessionState, StdinKind};
use banger_core::{ByteString, Failure, Kind, SessionId, VmId};
use banger_host::dirs::Dirs;
use banger_host::plugin::{HOST_RECORD_LIMIT, Registry, Session, SessionBackend, embedded};
use banger_host::session::stopped::{self, LogFrom, StoppedLog, StoppedSession, serve_logs};
use banger_host::store::{Store, VmRecord};
use banger_host::stream::Streams;
use banger_host::vm::{Machines, StoppedGuest};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, LazyLock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::load(embedded(), None, None).expect("the engine starts"));

const ROOT: &str = ".local/state/banger/sessions";

pub fn backend() -> SessionBackend {
    REGISTRY.session_backend("ssh").expect("it is embedded")
}

pub fn id(n: u8) -> SessionId {
    SessionId::from_random([0, 0, 0, 0, 0, n])
}

pub fn state_root() -> banger_core::GuestPath {
    guest(&format!("{MOUNT_POINT}/{ROOT}"))
}

fn session(n: u8) -> Session {
    Session {
        id: id(n),
        state_root: state_root(),
        stdin_kind: StdinKind::Pipe,
    }
}

impl Disk {
    pub fn session(&self, n: u8, files: &[(&str, &[u8])]) {
        self.file(self.in_session(n, "backend"), "ssh\n");
        for (name, content) in files {
            self.file(self.in_session(n, name), content);
        }
    }

    pub fn in_session(&self, n: u8, name: &str) -> std::path::PathBuf {
        self.path(format!("{ROOT}/{}/{name}", id(n)))
    }

    async fn stopped(&self) -> StoppedGuest {
        StoppedGuest {
            disk: self.open().await.expect("opened"),
            state_root: state_root(),
        }
    }

    async fn one(&self, n: u8) -> StoppedSession {
        let asked = [(id(n), StdinKind::Pipe)];
        let guest = self.stopped().await;
        let mut sessions = stopped::sessions(&guest, &backend(), &asked)
            .await
            .expect("read");
        assert_eq!(sessions.len(), 1);
        sessions.remove(0)
    }
}

#[tokio::test]
async fn a_session_that_ended_is_told_of_whole() {
    let disk = Disk::new();
    disk.session(
        1,
        &[
            ("status", b"exited\n"),
            ("exit-code", b"143\n"),
            ("pid", b"812 4711\n"),
            ("started-at", b"1700000000123\n"),
            ("ended-at", b"1700000009456\n"),
            ("stdout", b"0123456789"),
            ("stdout-start", b"4\n"),
            ("stderr", b"oh"),
            ("host-record", b"{\"name\":\"\xff\"}\n"),
        ],
    );
    disk.make(64);
    let StoppedSession {
        snapshot,
        host_record,
    } = disk.one(1).await;
    assert_eq!(snapshot.id, id(1));
    assert_eq!(snapshot.state, SessionState::Exited);
    assert_eq!(snapshot.exit_code, Some(143));
    assert_eq!(snapshot.pid, Some(812));
    assert_eq!(snapshot.last_error, None);
    assert!(!snapshot.alive);
    assert_eq!((snapshot.stdout_start, snapshot.stdout_bytes), (4, 10));
    assert_eq!((snapshot.stderr_start, snapshot.stderr_bytes), (0, 2));
    assert_eq!(snapshot.started_at_ms, Some(1_700_000_000_123));
    assert_eq!(snapshot.ended_at_ms, Some(1_700_000_009_456));
    assert_eq!(host_record.as_deref(), Some(&b"{\"name\":\"\xff\"}\n"[..]));
}

#[tokio::test]
async fn every_state_is_final() {
    type Case<'a> = (&'a [(&'a str, &'a [u8])], SessionState, Option<&'a str>);
    let cases: [Case<'_>; 9] = [
        (
            &[("status", b"exited\n"), ("exit-code", b"0\n")],
            SessionState::Exited,
            None,
        ),
        // The supervisor was killed between the two.
        (
            &[("status", b"running\n"), ("exit-code", b"7\n")],
            SessionState::Exited,
            None,
        ),
        (
            &[("status", b"failed\n"), ("error", b"no such program\n")],
            SessionState::Failed,
            Some("no such program"),
        ),
        (&[("status", b"failed\n")], SessionState::Failed, None),
        (
            &[("status", b"running\n")],
            SessionState::Lost,
            Some("the VM stopped before the program's end was recorded"),
        ),
        (
            &[("status", b"starting\n")],
            SessionState::Lost,
            Some("the VM stopped before the program's end was recorded"),
        ),
        (
            &[("status", b"running\n"), ("exit-code", b"256\n")],
            SessionState::Lost,
            Some("the VM stopped before the program's end was recorded"),
        ),
        (
            &[("status", b"\xff\0 nonsense")],
            SessionState::Lost,
            Some("the state directory is damaged"),
        ),
        (
            &[],
            SessionState::Lost,
            Some("the state directory is damaged"),
        ),
    ];
    let disk = Disk::new();
    for (n, (files, ..)) in (0..).zip(cases) {
        disk.session(n, files);
    }
    disk.make(64);
    for (n, (files, state, error)) in (0..).zip(cases) {
        let snapshot = disk.one(n).await.snapshot;
        let error = error.map(|error| ByteString(error.into()));
        assert_eq!(
            (snapshot.state, snapshot.last_error),
            (state, error),
            "{files:?}"
        );
        assert_eq!(snapshot.exit_code.is_some(), state == SessionState::Exited);
    }
}

#[tokio::test]
async fn what_is_not_of_its_form_counts_as_missing() {
    let disk = Disk::new();
    disk.session(
        1,
        &[
            ("status", &[b'x'; 5000]),
            ("pid", b"-1 5\n"),
            ("started-at", b"99999999999999999999\n"),
            ("ended-at", b"300000000000000\n"),
            ("stdout-start", b"+5\n"),
            ("stderr", b"four"),
            ("stderr-start", b"500\n"),
            ("host-record", &[b'x'; HOST_RECORD_LIMIT + 1]),
            ("exit-code/nested", b"0\n"),
        ],
    );
    let secret = disk.path("secret");
    std::fs::write(&secret, "not a log").expect("written");
    for name in ["stdout", "error"] {
        std::os::unix::fs::symlink("../../../../../../secret", disk.in_session(1, name))
            .expect("linked");
    }
    disk.make(64);
    let StoppedSession {
        snapshot,
        host_record,
    } = disk.one(1).await;
    assert_eq!(snapshot.state, SessionState::Lost);
    assert_eq!(
        snapshot.last_error,
        Some(ByteString(b"the state directory is damaged".into()))
    );
    assert_eq!((snapshot.pid, snapshot.exit_code), (None, None));
    assert_eq!((snapshot.started_at_ms, snapshot.ended_at_ms), (None, None));
    assert_eq!((snapshot.stdout_start, snapshot.stdout_bytes), (0, 0));
    assert_eq!((snapshot.stderr_start, snapshot.stderr_bytes), (4, 4));
    assert_eq!(host_record, None);
    let guest = disk.stopped().await;
    let stream = OutputStream::Stdout;
    let mut log = open_log(&guest, stream, LogFrom::Beginning).await;
    assert_eq!(log.next().await.expect("read"), None, "a link is no log");
}

#[tokio::test]
async fn only_sessions_of_the_backend_are_told_of() {
    let disk = Disk::new();
    for n in 1..=3 {
        disk.session(n, &[("status", b"failed\n")]);
    }
    disk.file(disk.in_session(2, "backend"), "tmux\n");
    std::fs::remove_file(disk.in_session(3, "backend")).expect("removed");
    std::os::unix::fs::symlink(id(1).as_str(), disk.path(format!("{ROOT}/{}", id(4))))
        .expect("linked");
    for odd in [
        &b".new.abc"[..],
        b"not-an-id",
        b"\xff\xfe",
        b"UPPERCASE000",
        b"000000000001x",
    ] {
        let name = std::path::Path::new(ROOT).join(std::ffi::OsStr::from_bytes(odd));
        disk.file(name.join("backend"), "ssh\n");
    }
    disk.file(format!("{ROOT}/{}", id(5)), "a file");
    disk.make(64);
    let guest = disk.stopped().await;
    let ids = |sessions: Result<Vec<StoppedSession>, Failure>| -> Vec<SessionId> {
        let sessions = sessions.expect("read");
        sessions.into_iter().map(|one| one.snapshot.id).collect()
    };
    assert_eq!(
        ids(stopped::all_sessions(&guest, &backend()).await),
        [id(1)]
    );
    // One that lost its mark is told of where it was asked for, as by a guest that runs.
    let asked: Vec<_> = (1..=6).map(|n| (id(n), StdinKind::Pipe)).collect();
    let told = ids(stopped::sessions(&guest, &backend(), &asked).await);
    assert_eq!(told, [id(1), id(3)]);
}

#[tokio::test]
async fn a_disk_without_sessions_has_none() {
    let disk = Disk::new();
    disk.make(64);
    let guest = disk.stopped().await;
    let all = stopped::all_sessions(&guest, &backend()).await;
    assert_eq!(all.expect("read"), []);
}

#[tokio::test]
async fn ten_thousand_entries_are_refused_and_hide_no_session() {
    let disk = Disk::new();
    disk.session(1, &[("status", b"exited\n"), ("exit-code", b"3\n")]);
    for n in 0..10_000 {
        disk.file(format!("{ROOT}/{n:032}"), "");
    }
    disk.make(64);
    let guest = disk.stopped().await;
    let failure = stopped::all_sessions(&guest, &backend())
        .await
        .expect_err("too many");
    assert_eq!(failure.kind, Kind::Guest);
    assert_eq!(disk.one(1).await.snapshot.exit_code, Some(3));
}

async fn open_log(guest: &StoppedGuest, stream: OutputStream, from: LogFrom) -> StoppedLog {
    StoppedLog::open(guest, &backend(), &session(1), stream, from)
        .await
        .expect("opened")
}

/// Serves logs as a stream of the daemon, and hands each frame to `take`.
async fn served(logs: Vec<StoppedLog>, mut take: impl FnMut(u8, Vec<u8>)) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let streams = Streams::new(&path);
    let listener = tokio::net::UnixListener::bind(&path).expect("bound");
    let server = {
        let streams = streams.clone();
        tokio::spawn(async move { streams.serve(listener).await })
    };
    let Stream { socket, token } = streams.open(move |mut connection| async move {
        if let Some(end) = serve_logs(&mut connection.writer, logs).await {
            connection.writer.finish(end.map(|()| 0)).await;
        }
    });
    let mut client = tokio::net::UnixStream::connect(socket)
        .await
        .expect("connects");
    client
        .write_all(format!("{token}\n").as_bytes())
        .await
        .expect("written");
    let mut header = [0; 5];
    while client.read_exact(&mut header).await.is_ok() {
        let (kind, length) = banger_core::frame::parse_header(header).expect("a header");
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.expect("a payload");
        take(kind, payload);
    }
    server.abort();
}

#[tokio::test]
async fn a_log_of_300_mb_is_streamed_in_bounded_memory() {
    const LINE: &[u8] = b"the quick brown fox jumps over the lazy dog 0123456789 and again.\n";
    const PUNCHED: u64 = 8 << 20;
    let disk = Disk::new();
    disk.session(1, &[("status", b"running\n"), ("stderr", b"at the end\n")]);
    disk.file(disk.in_session(1, "stdout-start"), format!("{PUNCHED}\n"));
    let stdout = disk.in_session(1, "stdout");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&stdout).expect("created"));
    let lines = 300 * 1_000_000 / LINE.len() as u64;
    for _ in 0..lines {
        file.write_all(LINE).expect("written");
    }
    let file = file.into_inner().expect("flushed");
    let length = lines * LINE.len() as u64;
    use rustix::fs::FallocateFlags;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, PUNCHED).expect("punched");
    disk.make(400);
    std::fs::remove_file(&stdout).expect("removed");

    let guest = disk.stopped().await;
    let mut logs = Vec::new();
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        logs.push(open_log(&guest, stream, LogFrom::Beginning).await);
    }
    assert_eq!((logs[0].offset(), logs[1].offset()), (PUNCHED, 0));
    let (mut at, mut stderr, mut ends, mut most) = (PUNCHED, Vec::new(), Vec::new(), 0);
    let before = resident_mib();
    served(logs, |kind, bytes| match kind {
        banger_core::frame::STDOUT => {
            let expected = LINE.iter().cycle().skip((at % LINE.len() as u64) as usize);
            assert!(bytes.iter().eq(expected.take(bytes.len())), "at {at}");
            at += bytes.len() as u64;
            most = most.max(resident_mib());
        }
        banger_core::frame::STDERR => stderr.extend(bytes),
        kind => ends.push(Frame::decode(kind, bytes).expect("a frame")),
    })
    .await;
    assert_eq!(at, length);
    assert_eq!(stderr, b"at the end\n");
    assert_eq!(ends, [Frame::Exit(0)]);
    // Other tests of this process take memory too.
    assert!(most < before + 100, "{before} MiB before, up to {most} MiB");

    let stream = OutputStream::Stdout;
    for (from, expected) in [
        (LogFrom::Offset(0), PUNCHED),
        (LogFrom::Offset(PUNCHED + 5), PUNCHED + 5),
        (LogFrom::Offset(u64::MAX), length),
        (LogFrom::LastLines(2), length - 2 * LINE.len() as u64),
        (LogFrom::LastLines(0), length),
    ] {
        let log = open_log(&guest, stream, from).await;
        assert_eq!(log.offset(), expected, "{from:?}");
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        >> 10
}

#[tokio::test]
async fn a_log_that_is_started_meanwhile_ends_in_an_error() {
    let disk = Disk::new();
    disk.session(1, &[("stdout", b"text")]);
    let image = disk.make(64);
    let guest = disk.stopped().await;
    let stream = OutputStream::Stdout;
    let log = open_log(&guest, stream, LogFrom::Beginning).await;
    let raw = std::fs::File::options()
        .write(true)
        .open(image)
        .expect("opened");
    raw.write_all_at(b"x", 60 << 20).expect("written");
    let mut frames = Vec::new();
    served(vec![log], |kind, bytes| {
        frames.push(Frame::decode(kind, bytes).expect("a frame"));
    })
    .await;
    assert!(
        matches!(&frames[..], [Frame::Error(failure)] if failure.kind == Kind::Conflict),
        "{frames:?}"
    );
}

#[tokio::test]
async fn the_disk_of_a_machine_that_runs_is_not_read() {
    let disk = Disk::new();
    disk.session(1, &[("status", b"exited\n"), ("exit-code", b"0\n")]);
    let image = disk.make(64);
    let home = tempfile::tempdir().expect("a directory");
    let dirs = Dirs::under(home.path());
    dirs.create().expect("made");
    let store = Arc::new(Store::open(&dirs.database()).expect("opened"));
    let vm = VmId::from_random([9; 6]);
    let dir = dirs.vm(&vm);
    std::fs::create_dir_all(&dir).expect("made");
    let description = serde_json::json!({
        "spec": {"name": "vm", "cpus": 1, "memory_mib": 512, "work_disk_mib": 64},
        "image": "base", "image_key": "k",
    });
    std::fs::write(dir.join("machine.json"), description.to_string()).expect("written");
    std::fs::rename(image, dir.join("work.ext4")).expect("moved");
    let machines = Machines::new(dirs, store);
    let record = VmRecord {
        id: vm,
        name: "vm".parse().expect("a name"),
        driver: Driver::Qemu,
        complete: true,
        image: None,
        cpus: 1,
        memory_mib: 512,
        work_disk_mib: 64,
        created_at_ms: 0,
        host_key: String::new(),
        adopted: None,
    };
    let guest = machines
        .stopped_guest(&record)
        .await
        .expect("it is stopped");
    let all = stopped::all_sessions(&guest, &backend())
        .await
        .expect("read");
    assert_eq!(all.len(), 1);

    // What is taken for its QEMU: a process of that id that works in its directory.
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .current_dir(&dir)
        .spawn()
        .expect("starts");
    std::fs::write(dir.join("qemu.pid"), child.id().to_string()).expect("written");
    let refused = machines.stopped_guest(&record).await.err();
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(refused.expect("it runs").kind, Kind::Conflict);
    machines
        .stopped_guest(&record)
        .await
        .expect("it is stopped again");
}
