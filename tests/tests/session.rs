//! Do sessions do what is said of them, through the real command, daemon and sshd, and do they
//! outlive everything that may be killed?

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use banger_tests::home::{HOST, Home, Ran};
use rustix::process::Signal;

const MIB: usize = 1 << 20;

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// Starts a session of a bash script.
#[track_caller]
fn start(home: &Home, name: &str, script: &str) {
    let _ = home
        .run([
            "vm", "session", "start", HOST, "--name", name, "--", "bash", "-c", script,
        ])
        .ok();
}

#[track_caller]
fn verb(home: &Home, verb: &str, name: &str, more: &[&str]) -> Ran {
    let words = ["vm", "session", verb, HOST, name];
    home.run(words.iter().chain(more))
}

#[track_caller]
fn wait(home: &Home, name: &str) -> Option<i32> {
    verb(home, "wait", name, &["--timeout", "50s"]).code
}

#[track_caller]
fn send(home: &Home, name: &str, line: &str) {
    let _ = verb(home, "send", name, &["--newline", "--message", line]).ok();
}

#[test]
fn a_session_takes_input_keeps_its_logs_and_passes_its_exit_code_on() {
    let home = home();
    start(
        &home,
        "talk",
        "read line; echo \"out $line\"; echo \"err $line\" >&2; exit 42",
    );
    assert_eq!(home.session("talk")["snapshot"]["state"], "running");
    send(&home, "talk", "hello");
    assert_eq!(wait(&home, "talk"), Some(42));
    let logs = verb(&home, "logs", "talk", &[]).ok();
    assert_eq!(logs.stdout, b"out hello\n");
    assert_eq!(logs.stderr, b"err hello\n");
    let shown = home.session("talk");
    assert_eq!(shown["snapshot"]["exit_code"], 42);
    assert_eq!(shown["snapshot"]["state"], "exited");

    let one = verb(&home, "logs", "talk", &["--stream", "stderr"]).ok();
    assert_eq!(
        (one.text().as_str(), one.errors().as_str()),
        ("", "err hello\n")
    );
    let attached = verb(&home, "attach", "talk", &[]);
    assert_eq!(attached.code, Some(42), "an ended session tells its code");

    // What has ended takes no input.
    let late = home.run([
        "--json",
        "vm",
        "session",
        "send",
        HOST,
        "talk",
        "--message",
        "x",
    ]);
    assert_eq!(late.failure(4)["kind"], "conflict");
}

#[test]
fn any_bytes_are_sent_and_kept() {
    let home = home();
    let bytes: Vec<u8> = (0..=255).cycle().take(3 * MIB).collect();
    let script = format!("head -c {}", bytes.len());
    start(&home, "cat", &script);
    let _ = home
        .run_with(["vm", "session", "send", HOST, "cat"], &bytes)
        .ok();
    assert_eq!(wait(&home, "cat"), Some(0));
    let logs = verb(&home, "logs", "cat", &[]).ok();
    assert!(
        logs.stdout == bytes,
        "{} bytes came back",
        logs.stdout.len()
    );
}

#[test]
fn without_a_standard_input_reads_end_at_once_and_sends_are_refused() {
    let home = home();
    let started = [
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        "deaf",
        "--stdin",
        "none",
        "--",
        "bash",
        "-c",
        "cat; echo end; exec sleep 600",
    ];
    let _ = home.run(started).ok();
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "deaf", "--follow"]);
    logs.until("end\n");
    let refused = home.run([
        "--json",
        "vm",
        "session",
        "send",
        HOST,
        "deaf",
        "--message",
        "x",
    ]);
    let failure = refused.failure(4);
    assert!(
        failure["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--stdin pipe"))
    );
    let _ = verb(&home, "kill", "deaf", &[]).ok();
    assert_eq!(
        logs.wait().stdout,
        b"end\n",
        "the logs end with the session"
    );
}

/// Words that a shell, an option parser or a decoder would like to eat.
fn hostile() -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "",
        " ",
        "two  words",
        "-n",
        "--",
        "--help",
        "-",
        "'",
        "\"",
        "it's \"so\"",
        "$(touch no)",
        "`touch no`",
        "$HOME",
        "\\",
        "\\n",
        "a\nb\n",
        "\n",
        "\t",
        "*",
        "~",
        "!x",
        "#",
        ";ls",
        "&",
        "|",
        ">no",
        "{a,b}",
        "ä€😀",
        "\u{1b}[2J",
        "%s",
        "=",
        "a=b",
        "!!",
    ]
    .map(OsString::from)
    .into();
    words.push(OsString::from_vec(vec![0xff, 0xfe, b'x', 0x80]));
    words.push(OsString::from_vec((1..=255).collect()));
    words
}

fn nul_separated(words: &[OsString]) -> Vec<u8> {
    words
        .iter()
        .flat_map(|word| word.as_bytes().iter().copied().chain([0]))
        .collect()
}

#[test]
fn arguments_reach_a_session_unchanged() {
    let home = home();
    let mut words: Vec<OsString> = [
        "vm", "session", "start", HOST, "--name", "argv", "--", "printf", "%s\\0",
    ]
    .map(OsString::from)
    .into();
    words.extend(hostile());
    let _ = home.run(&words).ok();
    assert_eq!(wait(&home, "argv"), Some(0));
    let logs = verb(&home, "logs", "argv", &[]).ok();
    assert_eq!(logs.stdout, nul_separated(&hostile()));

    let mut words: Vec<OsString> = ["vm", "exec", HOST, "--", "printf", "%s\\0"]
        .map(OsString::from)
        .into();
    words.extend(hostile());
    assert_eq!(home.run(&words).ok().stdout, nul_separated(&hostile()));
    assert!(!home.guest_home().join("no").exists());
}

#[test]
fn the_environment_and_the_directory_reach_a_session_unchanged() {
    let home = home();
    let mut words: Vec<OsString> = ["vm", "session", "start", HOST, "--name", "env"]
        .map(OsString::from)
        .into();
    let values = hostile();
    for (number, value) in values.iter().enumerate() {
        let mut pair = OsString::from(format!("V{number}="));
        pair.push(value);
        words.extend(["--env".into(), pair]);
    }
    let script = format!(
        "for n in {{0..{}}}; do v=V$n; printf '%s\\0' \"${{!v}}\"; done",
        values.len() - 1
    );
    words.extend(["--", "bash", "-c", &script].map(OsString::from));
    let _ = home.run(&words).ok();
    assert_eq!(wait(&home, "env"), Some(0));
    let logs = verb(&home, "logs", "env", &[]).ok();
    assert_eq!(logs.stdout, nul_separated(&values));

    let names: [&[u8]; 6] = [
        b"two words",
        b"-n",
        b"$(touch no)'\"`",
        b"line\nfeed\n",
        b"\xff\xfe",
        b"*",
    ];
    for (number, name) in names.iter().enumerate() {
        let directory = home.guest_home().join(OsStr::from_bytes(name));
        std::fs::create_dir(&directory).expect("made");
        let name = format!("cwd{number}");
        let mut words: Vec<OsString> = ["vm", "session", "start", HOST, "--name", &name, "--cwd"]
            .map(OsString::from)
            .into();
        words.push(directory.clone().into());
        words.extend(["--", "bash", "-c", "printf '%s\\0' \"$PWD\""].map(OsString::from));
        let _ = home.run(&words).ok();
        assert_eq!(wait(&home, &name), Some(0));
        let logs = verb(&home, "logs", &name, &[]).ok();
        assert_eq!(logs.stdout, nul_separated(&[directory.into()]));
    }
    assert!(!home.guest_home().join("no").exists());
}

#[test]
fn names_that_are_no_names_are_refused_and_made_up_names_never_collide() {
    let home = home();
    for name in ["", "Two", "a b", "-x", "a/b", "../x", "a\nb", "ä"] {
        let ran = home.run([
            "vm",
            "session",
            "start",
            HOST,
            &format!("--name={name}"),
            "--",
            "true",
        ]);
        assert_eq!(ran.code, Some(2), "{name:?}: {ran:?}");
    }
    for _ in 0..2 {
        let _ = home
            .run(["vm", "session", "start", HOST, "--", "true"])
            .ok();
    }
    assert_eq!(wait(&home, "true"), Some(0));
    assert_eq!(wait(&home, "true-2"), Some(0));
    let taken = home.run([
        "--json", "vm", "session", "start", HOST, "--name", "true", "--", "true",
    ]);
    assert_eq!(taken.failure(4)["kind"], "conflict");
}

#[test]
fn two_sessions_run_at_once_and_do_not_mix() {
    let home = home();
    for name in ["one", "two"] {
        start(
            &home,
            name,
            &format!("while read line; do echo \"{name} $line\"; done"),
        );
    }
    let mut one = home.spawn(["vm", "session", "logs", HOST, "one", "-f"]);
    let mut two = home.spawn(["vm", "session", "logs", HOST, "two", "-f"]);
    send(&home, "one", "a");
    send(&home, "two", "b");
    one.until("one a\n");
    two.until("two b\n");
    for name in ["one", "two"] {
        let _ = verb(&home, "stop", name, &[]).ok();
    }
    assert_eq!(one.wait().stdout, b"one a\n");
    assert_eq!(two.wait().stdout, b"two b\n");
}

#[test]
fn one_writes_many_observe_and_sending_needs_no_attach() {
    let home = home();
    start(
        &home,
        "chat",
        "while read line; do [[ $line == bye ]] && exit 7; echo \"got $line\"; done; echo closed",
    );
    let mut writer = home.spawn(["vm", "session", "attach", HOST, "chat"]);
    writer.until_error("attached");
    writer.write("one\n");
    writer.until("got one\n");

    let second = home.run(["--json", "vm", "session", "attach", HOST, "chat"]);
    let failure = second.failure(125);
    assert_eq!(failure["kind"], "conflict");
    assert!(
        failure["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--observe"))
    );

    let mut observer = home.spawn(["vm", "session", "attach", HOST, "chat", "--observe"]);
    observer.until_error("observing");
    // The stream is open once the daemon has answered a later request of it.
    send(&home, "chat", "two");
    writer.until("got two\n");
    observer.until("got two\n");
    writer.write("three\n");
    observer.until("got three\n");

    // Leaving closes nothing, and the next may write at once.
    writer.signal(Signal::INT);
    assert_eq!(writer.wait().code, Some(0));
    let mut next = home.spawn(["vm", "session", "attach", HOST, "chat"]);
    next.until_error("attached");
    next.write("four\n");
    next.until("got four\n");
    next.write("bye\n");
    assert_eq!(next.wait().code, Some(7));
    assert_eq!(observer.wait().code, Some(7));
}

#[test]
fn logs_follow_to_the_end_and_tails_are_lines() {
    let home = home();
    start(&home, "count", "printf 'l%s\\n' {1..5}; read; echo l6");
    let mut all = home.spawn(["vm", "session", "logs", HOST, "count", "--follow"]);
    all.until("l5\n");
    let tail = verb(&home, "logs", "count", &["--tail", "2"]).ok();
    assert_eq!(tail.text(), "l4\nl5\n");
    assert_eq!(
        verb(&home, "logs", "count", &["--tail", "0"]).ok().text(),
        ""
    );
    let mut follow = home.spawn([
        "vm", "session", "logs", HOST, "count", "--tail", "1", "--follow",
    ]);
    follow.until("l5\n");
    send(&home, "count", "");
    let (all, follow) = (all.wait().ok(), follow.wait().ok());
    assert_eq!(all.text(), "l1\nl2\nl3\nl4\nl5\nl6\n");
    assert_eq!(follow.text(), "l5\nl6\n");
}

#[test]
fn sessions_are_signalled_stopped_killed_and_deleted() {
    let home = home();
    let stubborn = "trap 'echo usr1' USR1; trap 'echo no' TERM; echo ready; \
                    while true; do read -t 600 || true; done";
    start(&home, "stubborn", stubborn);
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "stubborn", "-f"]);
    logs.until("ready\n");
    let _ = verb(&home, "kill", "stubborn", &["--signal", "USR1"]).ok();
    logs.until("usr1\n");
    let busy = home.run(["--json", "vm", "session", "delete", HOST, "stubborn"]);
    assert_eq!(busy.failure(4)["kind"], "conflict");
    let _ = verb(&home, "stop", "stubborn", &["--grace", "300ms"]).ok();
    let text = logs.wait().ok().text();
    assert!(text.contains("no\n"), "TERM came first: {text}");
    assert_eq!(wait(&home, "stubborn"), Some(137));

    start(
        &home,
        "polite",
        "trap 'exit 9' TERM; echo ready; while true; do read -t 600 || true; done",
    );
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "polite", "-f"]);
    logs.until("ready\n");
    let _ = verb(&home, "stop", "polite", &[]).ok();
    assert_eq!(wait(&home, "polite"), Some(9));

    start(&home, "victim", "sleep 600 & echo $!; wait");
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "victim", "-f"]);
    logs.until("\n");
    let _ = verb(&home, "kill", "victim", &[]).ok();
    assert_eq!(wait(&home, "victim"), Some(137));

    let directory = home.session("victim")["state_dir"]
        .as_str()
        .map(String::from);
    let directory = std::path::PathBuf::from(directory.expect("a directory"));
    assert!(directory.is_dir());
    let _ = verb(&home, "delete", "victim", &[]).ok();
    assert!(!directory.exists(), "its directory goes with it");
    let gone = home.run(["--json", "vm", "session", "show", HOST, "victim"]);
    gone.failure(3);
    let wrong = home.run([
        "--json", "vm", "session", "kill", HOST, "polite", "--signal", "NOSUCH",
    ]);
    assert_ne!(wrong.code, Some(0), "{wrong:?}");
}

#[test]
fn exec_passes_streams_bytes_and_exit_code() {
    let home = home();
    let exec = |script: &str, stdin: &[u8]| {
        home.run_with(["vm", "exec", HOST, "--", "bash", "-c", script], stdin)
    };
    let ran = exec("cat; printf 'e\\377\\0' >&2; exit 3", b"\0\xff\r\n\x04");
    assert_eq!(ran.code, Some(3));
    assert_eq!(ran.stdout, b"\0\xff\r\n\x04");
    assert_eq!(ran.stderr, b"e\xff\0");
    for code in [0, 1, 124, 255] {
        assert_eq!(exec(&format!("exit {code}"), b"").code, Some(code));
    }
    assert_eq!(exec("kill -TERM $$", b"").code, Some(143));

    let bytes: Vec<u8> = (0..32 * MIB as u32 / 4)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect();
    let echoed = exec("cat", &bytes).ok();
    assert!(
        echoed.stdout == bytes,
        "{} bytes came back",
        echoed.stdout.len()
    );
    let eager = exec("head -c 5", &bytes).ok();
    assert_eq!(eager.stdout, &bytes[..5], "a program need not read all");
}

#[test]
fn exec_exits_with_125_where_banger_itself_fails() {
    let mut home = home();
    let unknown = home.run(["--json", "vm", "exec", "nosuch", "--", "true"]);
    assert_eq!(unknown.failure(125)["kind"], "not-found");
    let missing = home.run(["vm", "exec", HOST, "--", "nosuchcommand"]);
    assert_eq!(
        missing.code,
        Some(127),
        "that is the guest's own code: {missing:?}"
    );
    assert_eq!(home.run(["vm", "exec", HOST]).code, Some(125), "no command");
    home.sshd.as_mut().expect("an sshd").stop();
    let unreachable = home.run(["--json", "vm", "exec", HOST, "--", "true"]);
    assert_eq!(unreachable.failure(125)["kind"], "unreachable");
}

#[test]
fn twenty_commands_run_at_once() {
    let home = home();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|n| {
                let home = &home;
                scope.spawn(move || {
                    let script = format!("read x; echo \"$x {n}\"; exit {n}");
                    let input = format!("in{n}\n");
                    home.run_with(
                        ["vm", "exec", HOST, "--", "bash", "-c", &script],
                        input.as_bytes(),
                    )
                })
            })
            .collect();
        for (n, run) in runs.into_iter().enumerate() {
            let ran = run.join().expect("no panic");
            assert_eq!(ran.text(), format!("in{n} {n}\n"), "{ran:?}");
            assert_eq!(ran.code, i32::try_from(n).ok());
        }
    });
}

const COUNTER: &str = "n=0; while read line; do n=$((n+1)); echo \"$n $line\"; \
                       [[ $line == bye ]] && exit 33; done; echo closed; exit 1";

#[test]
fn a_session_outlives_the_daemon_and_the_command_that_is_attached() {
    let home = home();
    start(&home, "agent", COUNTER);
    let mut attached = home.spawn(["vm", "session", "attach", HOST, "agent"]);
    attached.until_error("attached");
    attached.write("a\n");
    attached.until("1 a\n");

    let first = home.kill_daemon();
    // At once: nothing waits for the killed daemon to be gone.
    send(&home, "agent", "b");
    // It has gone on by itself.
    attached.until("2 b\n");
    let second = home.daemon_pid().expect("a daemon runs again");
    assert_ne!(first, second);
    attached.write("c\n");
    attached.until("3 c\n");
    attached.signal(Signal::KILL);
    assert_eq!(attached.wait().code, None);
    send(&home, "agent", "d");

    home.kill_daemon();
    send(&home, "agent", "bye");
    home.kill_daemon();
    assert_eq!(wait(&home, "agent"), Some(33));
    home.kill_daemon();
    let logs = verb(&home, "logs", "agent", &[]).ok();
    assert_eq!(logs.text(), "1 a\n2 b\n3 c\n4 d\n5 bye\n");
    assert_eq!(home.session("agent")["snapshot"]["exit_code"], 33);
}

#[test]
fn a_session_outlives_its_ssh_connection() {
    let home = home();
    start(&home, "agent", COUNTER);
    let mut attached = home.spawn(["vm", "session", "attach", HOST, "agent"]);
    attached.until_error("attached");
    attached.write("a\n");
    attached.until("1 a\n");
    let mut follower = home.spawn(["vm", "session", "logs", HOST, "agent", "-f"]);
    follower.until("1 a\n");

    home.sshd.as_ref().expect("an sshd").cut_connections();
    send(&home, "agent", "b");
    send(&home, "agent", "bye");
    assert_eq!(wait(&home, "agent"), Some(33));
    let (attached, follower) = (attached.wait(), follower.wait());
    assert_eq!(attached.code, Some(33), "{attached:?}");
    assert_eq!(attached.text(), "1 a\n2 b\n3 bye\n");
    assert_eq!(follower.code, Some(0), "{follower:?}");
    assert_eq!(follower.text(), "1 a\n2 b\n3 bye\n");
    let logs = verb(&home, "logs", "agent", &[]).ok();
    assert_eq!(logs.text(), "1 a\n2 b\n3 bye\n");
}

#[test]
fn a_session_that_ends_while_no_daemon_runs_is_found_with_its_exit_code() {
    let home = home();
    let gate = home.guest_home().join("gate");
    start(
        &home,
        "late",
        &format!(
            "mkfifo '{0}'; echo ready; read < '{0}'; echo end; exit 5",
            gate.display()
        ),
    );
    let mut logs = home.spawn(["vm", "session", "logs", HOST, "late", "-f"]);
    logs.until("ready\n");
    home.kill_daemon();
    home.sshd.as_ref().expect("an sshd").cut_connections();
    std::fs::write(&gate, "\n").expect("it reads");
    assert_eq!(wait(&home, "late"), Some(5));
    assert_eq!(logs.wait().ok().text(), "ready\nend\n");
    let logs = verb(&home, "logs", "late", &[]).ok();
    assert_eq!(logs.text(), "ready\nend\n");
}

#[test]
fn what_a_log_lost_after_the_end_is_known() {
    let home = home();
    let words = [
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        "big",
        "--log-limit",
        "1M",
        "--",
        "bash",
        "-c",
        "read -r _; seq 1 1000000",
    ];
    let _ = home.run(words).ok();
    send(&home, "big", "go");
    // Its end is known before the log keeper looks for the last time.
    assert_eq!(wait(&home, "big"), Some(0));
    let directory = home.session("big")["state_dir"].clone();
    let kept = std::path::Path::new(directory.as_str().expect("a path")).join(".logs-kept");
    banger_tests::until("the keeper's last look", || kept.exists());
    let session = home.session("big");
    let start = session["snapshot"]["stdout_start"]
        .as_u64()
        .expect("a number");
    assert!(start > 0, "{session}");
    let all: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    for follow in [&[][..], &["--follow"]] {
        let logs = verb(&home, "logs", "big", follow).ok();
        let start = usize::try_from(start).expect("fits");
        assert!(logs.stdout == all.as_bytes()[start..], "from {start}");
    }
}

#[test]
fn a_list_of_long_commands_is_shown_and_labels_have_a_limit() {
    let home = home();
    let mut rpc = home.rpc();
    for n in 0..75 {
        let mut parameters = serde_json::json!({
            "vm": HOST, "name": format!("n{n}"), "command": ["true", "x".repeat(120_000)],
        });
        let _ = rpc
            .call("guest.session.start", parameters.clone())
            .expect("started");
        if n == 0 {
            for tags in [
                serde_json::json!({ "": "x" }),
                serde_json::json!({ "k": "x".repeat(8200) }),
            ] {
                parameters["name"] = "tagged".into();
                parameters["tags"] = tags;
                let refused = rpc.call("guest.session.start", parameters.clone());
                assert!(refused.is_err(), "{refused:?}");
            }
        }
    }
    let list = home.run(["--json", "vm", "session", "list"]).ok().json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(75));
}
