//! Is what happened to a session known after everything that may be lost was lost: the database,
//! the session's processes, a launch that did not get far?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use banger_tests::home::{HOST, Home};
use banger_tests::sshd::Options;
use serde_json::{Value, json};

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

fn start(home: &Home, name: &str, script: &str) {
    let words = [
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        name,
        "--tag",
        "task=42",
        "--tag",
        "ünï=c 'q'\"",
        "--",
        "bash",
        "-c",
        script,
    ];
    let _ = home.run(words).ok();
}

fn wait(home: &Home, name: &str) -> Option<i32> {
    home.run(["vm", "session", "wait", HOST, name, "--timeout", "50s"])
        .code
}

fn forget_everything(home: &Home) {
    let _ = home.run(["daemon", "stop"]).ok();
    for name in ["banger.db", "banger.db-wal", "banger.db-shm"] {
        let _ = fs::remove_file(home.banger_home().join("state").join(name));
    }
}

/// What must be known again: all but what was counted meanwhile.
fn essence(session: &Value) -> Value {
    let fields = [
        "id",
        "name",
        "command",
        "cwd",
        "tags",
        "stdin",
        "backend",
        "created_at_ms",
        "state_dir",
    ];
    let mut essence: Value = fields
        .iter()
        .map(|f| ((*f).to_owned(), session[*f].clone()))
        .collect();
    essence["state"] = session["snapshot"]["state"].clone();
    essence["exit_code"] = session["snapshot"]["exit_code"].clone();
    essence["bytes"] = session["snapshot"]["stdout_bytes"].clone();
    essence
}

#[test]
fn a_lost_database_loses_no_session() {
    let home = home();
    start(&home, "done", "echo out; echo err >&2; exit 42");
    start(&home, "alive", "read -r line; echo \"got $line\"; exit 5");
    start(&home, "later", "read -r line; exit 6");
    assert_eq!(wait(&home, "done"), Some(42));
    let before: Vec<Value> = ["done", "alive"]
        .iter()
        .map(|n| essence(&home.session(n)))
        .collect();

    forget_everything(&home);
    // It ends while nobody knows of it.
    let directory = home.guest_home().join(".local/state/banger/sessions");
    assert!(directory.is_dir());
    let adopted = home.run(home.adopt_arguments(HOST).expect("an sshd"));
    let _ = adopted.ok();
    let list = home
        .run(["--json", "vm", "session", "list", HOST])
        .ok()
        .json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(3), "{list}");
    for (name, before) in ["done", "alive"].iter().zip(before) {
        assert_eq!(essence(&home.session(name)), before);
    }
    let logs = home.run(["vm", "session", "logs", HOST, "done"]).ok();
    assert_eq!(
        (logs.text().as_str(), logs.errors().as_str()),
        ("out\n", "err\n")
    );
    for (name, code) in [("alive", 5), ("later", 6)] {
        let words = [
            "vm",
            "session",
            "send",
            HOST,
            name,
            "--newline",
            "--message",
            "x",
        ];
        let _ = home.run(words).ok();
        assert_eq!(wait(&home, name), Some(code));
    }
    // By its labels, and gone for good once it is deleted.
    let tagged = home
        .run(["--json", "vm", "session", "list", "--tag", "task=42"])
        .ok()
        .json();
    assert_eq!(tagged["sessions"].as_array().map(Vec::len), Some(3));
    let _ = home.run(["vm", "session", "delete", HOST, "done"]).ok();
    forget_everything(&home);
    let _ = home.run(home.adopt_arguments(HOST).expect("an sshd")).ok();
    // A session may also be named first, without a list.
    assert_eq!(home.session("alive")["snapshot"]["exit_code"], 5);
    let gone = home.run(["--json", "vm", "session", "show", HOST, "done"]);
    assert_eq!(gone.failure(3)["kind"], "not-found");
}

#[test]
fn a_damaged_record_in_the_guest_hides_no_other_session() {
    let home = home();
    for name in ["one", "two", "three"] {
        start(&home, name, "exit 3");
        assert_eq!(wait(&home, name), Some(3));
    }
    let record = |name: &str| {
        let directory = home.session(name)["state_dir"].as_str().map(String::from);
        std::path::PathBuf::from(directory.expect("a directory")).join("host-record")
    };
    let (torn, taken) = (record("one"), record("two"));
    fs::write(&torn, b"{\"name\": \"\xff").expect("written");
    // A guest that gives one session the name of another.
    let of_three = fs::read(record("three")).expect("there");
    fs::write(&taken, of_three).expect("written");
    forget_everything(&home);
    let _ = home.run(home.adopt_arguments(HOST).expect("an sshd")).ok();
    let list = home
        .run(["--json", "vm", "session", "list", HOST])
        .ok()
        .json();
    let mut names: Vec<&str> = list["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|session| session["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 2, "{list}");
    assert!(names.contains(&"three"), "{list}");
}

#[test]
fn a_failed_launch_is_kept_with_its_reason_and_its_name_can_be_used_again() {
    let home = home();
    let directory = home.guest_home().join("later");
    let mut words: Vec<std::ffi::OsString> = [
        "--json",
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        "agent",
        "--require",
        "nosuchcommand",
        "--cwd",
    ]
    .map(Into::into)
    .into();
    words.push(directory.clone().into());
    words.extend(["--", "bash", "-c", "exit 3"].map(Into::into));
    let refused = home.run(&words).failure(6);
    let stage = refused["stage"].as_str().unwrap_or_default().to_owned();
    assert!(stage.starts_with("preflight-"), "{refused}");

    let shown = home.session("agent");
    assert_eq!(shown["snapshot"]["state"], "failed");
    assert_eq!(shown["failure"]["stage"], stage.as_str());
    assert_eq!(shown["failure"]["message"], refused["message"]);
    let text = home
        .run(["vm", "session", "show", HOST, "agent"])
        .ok()
        .text();
    let message = refused["message"].as_str().expect("a message");
    assert!(text.contains(&stage) && text.contains(message), "{text}");
    // It outlives the daemon, and waiting for it does not hang.
    home.kill_next_daemon();
    assert_eq!(home.session("agent")["failure"]["stage"], stage.as_str());
    assert_eq!(wait(&home, "agent"), Some(125));

    // What was wrong is mended, and the same command is given once more.
    fs::create_dir(&directory).expect("made");
    let bin = home.guest_home().join("bin");
    fs::create_dir(&bin).expect("made");
    let program = bin.join("nosuchcommand");
    fs::write(&program, "#!/bin/sh\nexit 4\n").expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let again = home.run([
        "vm", "session", "start", HOST, "--name", "agent", "--", "bash", "-c", "exit 3",
    ]);
    let _ = again.ok();
    assert_eq!(wait(&home, "agent"), Some(3));
    assert_eq!(home.session("agent")["failure"], Value::Null);
    let list = home
        .run(["--json", "vm", "session", "list", HOST])
        .ok()
        .json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1), "{list}");

    // A program that is not there is found out where it is launched, or before.
    let missing = home.run([
        "--json", "vm", "session", "start", HOST, "--name", "gone", "--", "nosuch",
    ]);
    let failure = missing.failure(6);
    assert!(
        failure["message"]
            .as_str()
            .is_some_and(|text| text.contains("nosuch")),
        "{failure}"
    );
    assert_eq!(home.session("gone")["snapshot"]["state"], "failed");
}

#[test]
fn a_session_whose_processes_are_killed_is_lost_and_says_why() {
    let home = home();
    start(&home, "victim", "echo here; exec sleep 600");
    let mut follower = home.spawn(["vm", "session", "logs", HOST, "victim", "--follow"]);
    follower.until("here\n");
    let mut waiting = home.spawn(["--json", "vm", "session", "wait", HOST, "victim"]);
    home.kill_unseen("victim");
    let shown = home.session("victim");
    assert_eq!(shown["snapshot"]["state"], "lost", "{shown}");
    assert_eq!(shown["snapshot"]["exit_code"], Value::Null);
    assert_eq!(shown["snapshot"]["alive"], json!(false));
    let reason = shown["snapshot"]["last_error"].as_str().unwrap_or_default();
    assert!(reason.contains("supervisor"), "{shown}");
    // Nobody waits for ever, and what it wrote is there.
    waiting.close_input();
    assert_eq!(waiting.wait().code, Some(125));
    let followed = follower.wait();
    assert_eq!(followed.stdout, b"here\n");
    let attached = home.run(["--json", "vm", "session", "attach", HOST, "victim"]);
    assert_eq!(attached.code, Some(125), "{attached:?}");
    let _ = home.run(["vm", "session", "stop", HOST, "victim"]);
    let _ = home.run(["vm", "session", "delete", HOST, "victim"]).ok();
    let left = home
        .run(["--json", "vm", "session", "list", HOST])
        .ok()
        .json();
    assert_eq!(left["sessions"], json!([]));
}

#[test]
fn a_program_goes_on_without_its_supervisor() {
    let home = home();
    start(&home, "orphan", "exec sleep 600");
    let directory = home.session("orphan")["state_dir"]
        .as_str()
        .map(String::from)
        .expect("one");
    let text = fs::read_to_string(format!("{directory}/monitor-pid")).expect("there");
    let pid = text
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    assert_eq!(
        home.session("orphan")["snapshot"]["state"],
        "running",
        "it lives"
    );
    let _ = home.run(["vm", "session", "kill", HOST, "orphan"]);
    banger_tests::until("it has ended", || {
        home.session("orphan")["snapshot"]["state"] == "lost"
    });
}

#[test]
fn a_launch_whose_connection_is_cut_is_not_called_failed_while_it_goes_on() {
    let options = Options {
        own_programs: true,
        ..Options::default()
    };
    let home = Home::with_host_of(&options).expect("a home with a host");
    let bin = home.guest_home().join("bin");
    fs::create_dir(&bin).expect("made");
    // The launch waits at the program's door, where it can be cut.
    let (gate, reached) = (home.guest_home().join("gate"), home.guest_home().join("at"));
    let made = std::process::Command::new("mkfifo").arg(&gate).status();
    assert!(made.expect("mkfifo runs").success());
    let setsid = bin.join("setsid");
    let script = format!(
        "#!/bin/bash\n[[ $* != *' program '* ]] || {{ : >'{}'; read -r _ <'{}'; }}\n\
         exec /usr/bin/setsid \"$@\"\n",
        reached.display(),
        gate.display()
    );
    fs::write(&setsid, script).expect("written");
    fs::set_permissions(&setsid, fs::Permissions::from_mode(0o755)).expect("executable");

    let starting = home.spawn([
        "vm", "session", "start", HOST, "--name", "agent", "--", "sleep", "1000",
    ]);
    banger_tests::until("the launch is on its way", || reached.exists());
    home.sshd.as_ref().expect("an sshd").cut_network();
    fs::write(&gate, "go\n").expect("opened");
    let started = starting.wait();
    assert_eq!(started.code, Some(0), "{started:?}");
    assert_eq!(home.session("agent")["snapshot"]["state"], "running");
    let _ = home.run(["vm", "session", "stop", HOST, "agent"]).ok();
    let _ = home.run(["vm", "session", "delete", HOST, "agent"]).ok();
}
