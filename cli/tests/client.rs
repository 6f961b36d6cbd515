//! Does the client tell well what the daemon answers, and what it fails to answer?

mod fake;

use banger_core::protocol::machine::{Driver, Vm, VmList, VmState};
use banger_core::protocol::{Call, Empty};
use banger_core::{Failure, Kind};
use fake::{Fake, gone};
use rustix::process::Signal;
use std::io::Read as _;

fn machine(name: &str) -> Vm {
    Vm {
        id: "0123456789ab".parse().expect("an id"),
        name: name.parse().expect("a name"),
        driver: Driver::Qemu,
        state: VmState::Running,
        image: Some("base".parse().expect("a name")),
        cpus: 2,
        memory_mib: 2048,
        work_disk_mib: 16_384,
        created_at_ms: 0,
        ssh: Some("root@127.0.0.1:2222".into()),
        host_key: "SHA256:x".into(),
        workspaces: vec![],
    }
}

#[test]
fn a_list_is_a_table_or_json() {
    let fake = Fake::new(|asked| {
        assert_eq!(asked.call, Call::VmList(Empty {}));
        let vms = vec![machine("a"), machine("longer-name")];
        asked.reply(&VmList { vms });
    });
    let output = fake
        .banger(&["vm", "list"])
        .assert()
        .success()
        .stderr("")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "NAME         STATE    DRIVER  IMAGE  CPUS  MEMORY  AGE"
    );
    assert!(
        lines[1].starts_with("a            running  qemu    base   2     2 GiB   "),
        "{text}"
    );
    assert_eq!(lines.len(), 3);
    let output = fake
        .banger(&["--json", "vm", "list"])
        .assert()
        .success()
        .get_output()
        .clone();
    let json: VmList = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json.vms.len(), 2);
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        1
    );
}

#[test]
fn an_empty_list_says_what_to_do() {
    let fake = Fake::new(|asked| asked.reply(&VmList { vms: vec![] }));
    fake.banger(&["vm", "list"])
        .assert()
        .success()
        .stdout("")
        .stderr("hint: no machines: `banger vm run` puts a repository into a fresh one\n");
    fake.banger(&["vm", "list", "--quiet"])
        .assert()
        .success()
        .stdout("")
        .stderr("");
}

#[test]
fn every_kind_of_failure_has_its_exit_code() {
    for kind in Kind::ALL {
        let fake = Fake::new(move |asked| {
            let failure = Failure::new(kind, "no\x1b[2J")
                .hint("do this")
                .stage("boot");
            asked.fail(failure.detail(b"raw\noutput"));
        });
        fake.banger(&["vm", "show", "x"])
            .assert()
            .code(i32::from(kind.exit_code()))
            .stdout("")
            .stderr("error: no\\x1b[2J\n  stage: boot\n  | raw\n  | output\nhint: do this\n");
    }
}

#[test]
fn failures_are_json_where_replies_are() {
    let fake = Fake::new(|asked| asked.fail(gone()));
    let output = fake
        .banger(&["vm", "show", "x", "--json"])
        .assert()
        .code(3)
        .stdout("")
        .get_output()
        .clone();
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(json, serde_json::json!({ "error": gone() }));
    let output = fake
        .banger(&["vm", "show", "--json"])
        .assert()
        .code(2)
        .stdout("")
        .get_output()
        .clone();
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(json["error"]["kind"], "usage");
}

#[test]
fn own_failures_of_a_command_that_passes_codes_on_are_125() {
    let fake = Fake::new(|asked| asked.fail(gone()));
    for arguments in [
        &["vm", "exec", "x", "--", "true"][..],
        &["vm", "exec", "x"],
        &["vm", "session", "wait", "x", "y"],
        &["vm", "session", "attach", "x", "y"],
    ] {
        fake.banger(arguments).assert().code(125).stdout("");
    }
    fake.banger(&["vm", "exec", "--help"]).assert().success();
}

#[test]
fn a_daemon_of_another_version_is_refused() {
    let fake = Fake::speaking(2, |asked| asked.reply(&VmList { vms: vec![] }));
    let output = fake
        .banger(&["vm", "list"])
        .assert()
        .code(11)
        .stdout("")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.contains("protocol 2 (banger 9.9.9)"), "{text}");
    assert!(
        text.contains("hint: ") && text.contains("`banger daemon stop`"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_goes_away_is_told_of() {
    let fake = Fake::new(|asked| {
        asked.raw(b"{\"half");
        asked.close();
    });
    let output = fake
        .banger(&["vm", "list"])
        .assert()
        .code(11)
        .stdout("")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.contains("closed the connection"), "{text}");
    assert!(text.contains("banger daemon status"), "{text}");
}

#[test]
fn what_is_no_message_is_refused() {
    for line in [
        &b"no JSON\n"[..],
        b"{}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}\n",
    ] {
        let fake = Fake::new(move |asked| asked.raw(line));
        fake.banger(&["vm", "list"]).assert().code(11).stdout("");
    }
    // More than a message may have, without an end.
    let fake = Fake::new(|asked| asked.raw(&vec![b' '; banger_core::protocol::REPLY_LIMIT + 2]));
    fake.banger(&["vm", "list"]).assert().code(11).stdout("");
}

#[test]
fn messages_may_come_in_pieces_and_be_large() {
    let fake = Fake::new(|asked| {
        let vms = vec![machine("a"); 5000];
        asked.raw(b" ");
        asked.reply(&VmList { vms });
    });
    let output = fake
        .banger(&["vm", "list"])
        .assert()
        .success()
        .get_output()
        .clone();
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        5001
    );
}

#[test]
fn progress_goes_to_standard_error_a_line_a_step() {
    let fake = Fake::new(|asked| {
        asked.progress("image", "unpacking\x1b[2J: a");
        asked.progress("image", "unpacking\x1b[2J: b");
        asked.progress("image", "configuring");
        asked.progress("boot", "booting");
        asked.reply(&machine("a"));
    });
    fake.banger(&["vm", "start", "a"])
        .assert()
        .success()
        .stdout("a is running\n")
        .stderr("unpacking\\x1b[2J: a\nconfiguring\nbooting\n");
    for quiet in ["--quiet", "--json"] {
        fake.banger(&["vm", "start", "a", quiet])
            .assert()
            .success()
            .stderr("");
    }
}

#[test]
fn several_are_deleted_although_one_is_not() {
    let fake = Fake::new(|asked| match &asked.call {
        Call::VmDelete(machine) if machine.vm == "x" => asked.fail(gone()),
        _ => asked.reply(&Empty {}),
    });
    fake.banger(&["vm", "delete", "a", "x", "b"])
        .assert()
        .code(3)
        .stdout("a is deleted\nb is deleted\n")
        .stderr("error: there is no VM `x`\nhint: `banger vm list` lists them\n");
}

#[test]
fn ctrl_c_cancels_and_waits_for_the_daemon() {
    for signal in [Signal::INT, Signal::TERM] {
        let fake = Fake::new(|asked| {
            asked.progress("boot", "booting");
            asked.wait_for_end();
            asked.fail(Failure::new(Kind::Cancelled, "cancelled; nothing is left"));
        });
        let mut child = fake.spawn(&["vm", "create"]);
        let mut stderr = fake::read_until(&mut child, "booting");
        fake::kill(&child, signal);
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "cancelling…\nerror: cancelled; nothing is left\n");
        assert_eq!(child.wait().expect("ends").code(), Some(130));
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let fake = Fake::new(|asked| {
        asked.progress("boot", "booting");
        asked.wait_for_end();
        asked.progress("rollback", "never done");
        std::thread::park();
    });
    let mut child = fake.spawn(&["vm", "create"]);
    let stderr = fake::read_until(&mut child, "booting");
    fake::kill(&child, Signal::INT);
    child.stderr = Some(stderr.into_inner());
    fake::read_until(&mut child, "never done");
    fake::kill(&child, Signal::INT);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let fake = Fake::new(|asked| {
        let vms = vec![machine("a"); 5000];
        asked.reply(&VmList { vms });
    });
    let mut child = fake.spawn(&["vm", "list"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(output.stderr, b"");
}

#[test]
fn where_no_daemon_runs_status_and_stop_start_none() {
    let home = tempfile::tempdir().expect("a directory");
    let banger = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_banger"));
        command
            .env_clear()
            .env("BANGER_HOME", home.path())
            .args(arguments);
        command.assert()
    };
    banger(&["daemon", "status"])
        .code(11)
        .stdout("no daemon runs\n");
    banger(&["daemon", "status", "--json"])
        .code(11)
        .stdout("{\"running\":false}\n")
        .stderr("");
    banger(&["daemon", "stop"]).success().stdout("");
    assert_eq!(std::fs::read_dir(home.path()).expect("reads").count(), 0);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = tempfile::tempdir().expect("a directory");
    // Nobody can listen on a directory.
    std::fs::create_dir_all(home.path().join("runtime/daemon.sock/x")).expect("a directory");
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_banger"));
    command.env_clear().env("BANGER_HOME", home.path());
    let output = command
        .args(["vm", "list"])
        .assert()
        .code(11)
        .stdout("")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.starts_with("error: the daemon did not start: it ended with "),
        "{text}"
    );
    assert!(
        text.contains("\n  | error: "),
        "the log's end is missing: {text}"
    );
    assert!(text.contains("daemon.log"), "{text}");
}

/// `banger` with a home of its own, and the real daemon.
fn banger(home: &std::path::Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_banger"));
    command.env_clear().env("BANGER_HOME", home).args(arguments);
    command
}

/// Ends the daemon of a home, also where a test fails.
struct End<'a>(&'a std::path::Path);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let _ = banger(self.0, &["daemon", "stop", "-q"]).status();
    }
}

fn daemon_process(home: &std::path::Path) -> serde_json::Value {
    let output = banger(home, &["daemon", "status", "--json"])
        .output()
        .expect("runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json["pid"].clone()
}

#[test]
fn commands_at_once_start_one_daemon_which_outlives_them_and_ends_when_told() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _end = End(home);
    let children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = banger(home, &["vm", "list", "--json"]);
            command
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"vms\":[]}\n");
        assert!(output.status.success());
    }
    let first = daemon_process(home);
    assert!(first.is_u64(), "{first}");
    // Ends while others ask: each is served, by the old daemon or by a new one.
    let mut stop = banger(home, &["daemon", "stop", "-q"])
        .spawn()
        .expect("starts");
    for _ in 0..5 {
        let output = banger(home, &["vm", "list", "--json"])
            .output()
            .expect("runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"vms\":[]}\n");
    }
    assert!(stop.wait().expect("ends").success());
    assert_ne!(daemon_process(home), first);
    assert!(
        banger(home, &["daemon", "stop", "-q"])
            .status()
            .expect("runs")
            .success()
    );
    assert_eq!(
        banger(home, &["daemon", "status", "-q"])
            .output()
            .expect("runs")
            .status
            .code(),
        Some(11)
    );
}

#[test]
fn a_daemon_that_listens_and_then_fails_says_why() {
    let home = tempfile::tempdir().expect("a directory");
    // It is opened after the socket.
    std::fs::create_dir_all(home.path().join("state/banger.db")).expect("a directory");
    let output = banger(home.path(), &["vm", "list"]).output().expect("runs");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.starts_with("error: the daemon did not start: it ended with "),
        "{text}"
    );
    assert!(
        text.contains("\n  | error: "),
        "the log's end is missing: {text}"
    );
    assert_eq!(output.status.code(), Some(11));
}
