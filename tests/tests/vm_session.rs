//! Sessions in one real VM: what is true of them when the machine is paused, its clock is set back,
//! its disk is full, when it is stopped, and when it is killed?
//!
//! The image is shared with the tests of machines; see there.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_tests::compared::{Compared, Expected, Told};
use banger_tests::home::Home;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For how long the machine stands still: longer than a connection is believed in.
const PAUSE: Duration = Duration::from_secs(60);
/// Lines that the paused session prints, in so many pieces.
const LINES: usize = 60_000;
const PIECES: usize = 30;

fn images() -> PathBuf {
    std::env::var_os("BANGER_TEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("banger-test-images"),
        PathBuf::from,
    )
}

/// Runs `banger` without a deadline of ours: a guest in software emulation takes what it takes.
fn banger(home: &Home, words: &[&str]) -> Output {
    home.command(words).output().expect("banger runs")
}

#[track_caller]
fn ok(home: &Home, words: &[&str]) -> Vec<u8> {
    let output = banger(home, words);
    assert!(
        output.status.success(),
        "{words:?}: {:?}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[track_caller]
fn show(home: &Home, session: &str) -> Value {
    let shown = ok(home, &["--json", "vm", "session", "show", "one", session]);
    serde_json::from_slice(&shown).expect("JSON")
}

#[track_caller]
fn start(home: &Home, session: &str, script: &str) {
    let words = [
        "vm", "session", "start", "one", "--name", session, "--", "bash", "-c", script,
    ];
    ok(home, &words);
}

#[track_caller]
fn exec(home: &Home, script: &str) -> Vec<u8> {
    ok(home, &["vm", "exec", "one", "--", "bash", "-c", script])
}

#[track_caller]
fn ends(home: &Home, session: &str, code: i32) {
    let waited = banger(
        home,
        &["vm", "session", "wait", "one", session, "--timeout", "100s"],
    );
    assert_eq!(waited.status.code(), Some(code), "{session}: {waited:?}");
}

/// Waits until a session has written this.
fn says(home: &Home, session: &str, text: &[u8]) {
    banger_tests::until("it says so", || {
        ok(home, &["vm", "session", "logs", "one", session]).ends_with(text)
    });
}

/// The machine's directory, and its process where it runs.
fn machine(home: &Home) -> (PathBuf, Option<Pid>) {
    let vms = home.banger_home().join("state/vms");
    let directory = fs::read_dir(&vms)
        .expect("machines")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("record.json").exists())
        .expect("a machine");
    let process = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .find(|entry| {
            let cwd = fs::read_link(entry.path().join("cwd"));
            cwd.is_ok_and(|cwd| cwd == directory)
        });
    let pid = process.and_then(|entry| entry.file_name().to_str()?.parse().ok());
    (directory, pid.and_then(Pid::from_raw))
}

/// Tells QEMU one thing and waits for its answer.
fn tell_qemu(home: &Home, command: &str) {
    let socket = machine(home).0.join("qmp.sock");
    let mut stream = UnixStream::connect(socket).expect("QEMU listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
    lines.next().expect("a greeting").expect("read");
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{{\"execute\": \"{command}\"}}").expect("written");
        let answered = lines.any(|line| line.is_ok_and(|line| line.starts_with("{\"return\"")));
        assert!(answered, "{command}");
    }
}

/// A client gets every byte although the machine stands still for a minute while the session prints.
fn is_paused(home: &Home) {
    let line = "seq -f '%08.0f: a line that is like no other, because of its number'";
    let each = LINES / PIECES;
    start(
        home,
        "paused",
        &format!(
            "until read -r -t 0.2 word && [[ $word == go ]]; do printf .; done; \
             for ((n = 0; n < {PIECES}; n++)); do \
             {line} $((n * {each})) $((n * {each} + {each} - 1)); sleep 0.1; done; exit 4"
        ),
    );
    let text: String = (0..LINES)
        .map(|n| format!("{n:08}: a line that is like no other, because of its number\n"))
        .collect();
    let length = text.len();
    let expected = Expected {
        stdout: Arc::new(text.into_bytes()),
        lead: Some(b'.'),
        ..Expected::default()
    };
    let (progress, mut told) = Told::new(2);
    let mut clients: Vec<Compared> = ["attach", "logs"]
        .iter()
        .enumerate()
        .map(|(number, verb)| {
            let more = if *verb == "logs" {
                "--follow"
            } else {
                "--observe"
            };
            let words = ["--quiet", "vm", "session", verb, "one", "paused", more];
            Compared::spawn(home.command(words), number, &expected, &progress)
        })
        .collect();
    drop(progress);
    banger_tests::until("both clients follow", || told.all_heard());
    ok(
        home,
        &[
            "vm",
            "session",
            "send",
            "one",
            "paused",
            "--message",
            "go\n",
        ],
    );
    let begun = told.wait(Instant::now() + PAUSE, |totals| {
        totals.iter().all(|total| *total > length / 10)
    });
    assert!(begun, "{:?}", told.totals());
    tell_qemu(home, "stop");
    let stopped = Instant::now();
    let all = told.wait(stopped + PAUSE, |totals| {
        totals.iter().all(|total| *total == length)
    });
    assert!(!all, "it was paused while it printed");
    tell_qemu(home, "cont");
    for (client, code) in clients.iter_mut().zip([4, 0]) {
        assert_eq!(client.finish(), Ok(Some(code)));
    }
}

/// A day back: what is counted by a clock that jumps would be wrong by that much.
fn clock_jumps(home: &Home) {
    start(
        home,
        "clock",
        "echo before; read -r; echo after; exec sleep 600",
    );
    says(home, "clock", b"before\n");
    let created = show(home, "clock")["snapshot"]["started_at_ms"]
        .as_u64()
        .expect("a time");
    exec(home, "date -s \"@$(($(date +%s) - 86400))\"");
    let shown = show(home, "clock");
    assert_eq!(shown["snapshot"]["state"], "running");
    assert_eq!(shown["snapshot"]["started_at_ms"], created);
    ok(
        home,
        &["vm", "session", "send", "one", "clock", "--message", "\n"],
    );
    says(home, "clock", b"before\nafter\n");
    let since = ok(
        home,
        &["vm", "session", "logs", "one", "clock", "--since", "1h"],
    );
    assert_eq!(since, b"before\nafter\n");
    start(home, "today", "exit 5");
    ends(home, "today", 5);
    let waiting = home.spawn(["vm", "session", "wait", "one", "clock"]);
    let begun = Instant::now();
    ok(home, &["vm", "session", "stop", "one", "clock"]);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(waiting.wait().code, Some(143));
    exec(home, "date -s \"@$(($(date +%s) + 86400))\"");
}

fn disk_is_full(home: &Home) {
    start(
        home,
        "full",
        "trap 'exit 6' TERM; echo ready; while :; do read -r -t 1 || :; done",
    );
    says(home, "full", b"ready\n");
    exec(
        home,
        "fallocate -l $(($(stat -f -c '%a * %S' /root) - 1048576)) /root/fill; \
         cat /dev/zero >>/root/fill2 2>/dev/null; ! echo x >/root/one-more 2>/dev/null",
    );
    let begun = Instant::now();
    let words = [
        "--json", "vm", "session", "start", "one", "--name", "no", "--", "true",
    ];
    let refused = banger(home, &words);
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    let error: Value = serde_json::from_slice(&refused.stderr).expect("JSON");
    let stage = error["error"]["stage"].as_str().unwrap_or_default();
    assert!(["launch", "upload"].contains(&stage), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(show(home, "no")["snapshot"]["state"], "failed");
    assert_eq!(show(home, "full")["snapshot"]["state"], "running");
    // Its end is recorded all the same.
    ok(home, &["vm", "session", "stop", "one", "full"]);
    ends(home, "full", 6);
    exec(home, "rm -f /root/fill /root/fill2 /root/one-more");
    start(home, "no", "exit 8");
    ends(home, "no", 8);
}

/// What is known of the sessions of a stopped machine, without booting it.
fn is_stopped(home: &Home) {
    let printed = ok(home, &["vm", "session", "logs", "one", "paused"]);
    start(home, "last", "echo last; echo problem >&2; exec sleep 600");
    says(home, "last", b"last\n");
    ok(home, &["vm", "stop", "one"]);
    // By a daemon that has nothing in its memory.
    ok(home, &["daemon", "stop"]);
    for (session, state, code) in [
        ("paused", "exited", Some(4)),
        ("clock", "exited", Some(143)),
        ("full", "exited", Some(6)),
        ("no", "exited", Some(8)),
    ] {
        let shown = show(home, session);
        assert_eq!(shown["snapshot"]["state"], state, "{shown}");
        assert_eq!(shown["snapshot"]["exit_code"].as_i64(), code, "{shown}");
    }
    let last = show(home, "last");
    let state = last["snapshot"]["state"].as_str().unwrap_or_default();
    assert!(["exited", "lost"].contains(&state), "{last}");
    let logs = banger(home, &["vm", "session", "logs", "one", "last"]);
    assert_eq!(
        (&logs.stdout[..], &logs.stderr[..]),
        (&b"last\n"[..], &b"problem\n"[..])
    );
    let tail = ok(
        home,
        &["vm", "session", "logs", "one", "paused", "--tail", "1"],
    );
    assert!(
        printed.ends_with(&tail) && tail.starts_with(b"00059999"),
        "{tail:?}"
    );
    let logs = ok(home, &["vm", "session", "logs", "one", "paused"]);
    assert!(logs == printed, "{} of {} bytes", logs.len(), printed.len());
    let list = ok(home, &["vm", "session", "list", "one"]);
    assert!(String::from_utf8_lossy(&list).contains("paused"));
    for verb in ["send", "attach", "stop"] {
        let mut words = vec!["--json", "vm", "session", verb, "one", "last"];
        words.extend(
            (verb == "send")
                .then_some(["--message", "x"])
                .into_iter()
                .flatten(),
        );
        let begun = Instant::now();
        let _ = banger(home, &words);
        assert!(begun.elapsed() < Duration::from_secs(20), "{verb} hangs");
    }
    assert_eq!(machine(home).1, None, "nothing was booted");
}

fn is_killed(home: &Home) {
    ok(home, &["vm", "start", "one"]);
    start(home, "victim", "echo here; exec sleep 600");
    let mut follower = home.spawn(["vm", "session", "logs", "one", "victim", "--follow"]);
    follower.until("here\n");
    let mut waiting = home.spawn(["vm", "session", "wait", "one", "victim"]);
    waiting.close_input();
    let pid = machine(home).1.expect("it runs");
    kill_process(pid, Signal::KILL).expect("killed");
    banger_tests::until("it is gone", || machine(home).1.is_none());
    assert_eq!(waiting.wait().code, Some(125), "whoever waits learns of it");
    assert_eq!(show(home, "victim")["snapshot"]["state"], "lost");
    ok(home, &["vm", "start", "one"]);
    let shown = show(home, "victim");
    assert_eq!(shown["snapshot"]["state"], "lost", "{shown}");
    assert_eq!(shown["snapshot"]["alive"], false);
    assert_ne!(
        shown["snapshot"]["last_error"],
        Value::Null,
        "it says why: {shown}"
    );
    start(home, "again", "exit 9");
    ends(home, "again", 9);
    assert_eq!(show(home, "paused")["snapshot"]["exit_code"], 4);
}

#[test]
fn vm_sessions_stay_true_whatever_happens_to_their_machine() {
    let home = Home::new().expect("a home");
    let data = home.banger_home().join("data");
    fs::create_dir_all(&data).expect("made");
    fs::create_dir_all(images()).expect("made");
    std::os::unix::fs::symlink(images(), data.join("images")).expect("linked");
    let begun = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s {what}", begun.elapsed().as_secs_f64());
    let create = [
        "vm", "create", "--name", "one", "--memory", "512M", "--disk", "1G",
    ];
    ok(&home, &create);
    ok(&home, &["vm", "start", "one"]);
    tell("booted");
    clock_jumps(&home);
    tell("the clock has jumped");
    disk_is_full(&home);
    tell("the disk was full");
    is_paused(&home);
    tell("paused for a minute");
    is_stopped(&home);
    tell("read while stopped");
    is_killed(&home);
    tell("killed, and booted again");
    ok(&home, &["vm", "delete", "one"]);
}
