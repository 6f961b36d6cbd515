//! Does the daemon start by itself, stop, keep its sockets private, and bear rude clients?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use banger_tests::home::{HOST, Home};
use banger_tests::rpc::Rpc;
use serde_json::{Value, json};

fn home() -> Home {
    Home::new().expect("a home")
}

#[track_caller]
fn started(home: &Home) {
    let _ = home.run(["daemon", "start"]).ok();
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn it_starts_by_itself_and_stops_and_looking_starts_none() {
    let home = home();
    let status = home.run(["--json", "daemon", "status"]);
    assert_eq!(status.code, Some(11));
    assert_eq!(status.json(), json!({"running": false}));
    assert!(!home.socket().exists());

    let _ = home.run(["vm", "list"]).ok();
    let first = home.daemon_pid().expect("it runs");
    let _ = home.run(["vm", "list"]).ok();
    assert_eq!(home.daemon_pid(), Some(first), "it stays");
    let _ = home.run(["daemon", "stop"]).ok();
    assert_eq!(home.daemon_pid(), None);
    assert!(!home.socket().exists());
    let _ = home.run(["daemon", "stop"]).ok();
    assert_eq!(home.daemon_pid(), None, "stopping starts none");
    let _ = home.run(["vm", "list"]).ok();
    assert_ne!(home.daemon_pid(), Some(first));
}

#[test]
fn its_files_are_the_users_alone() {
    let home = home();
    started(&home);
    let base = home.banger_home();
    for directory in ["config", "data", "state", "runtime", "cache", "state/vms"] {
        assert_eq!(mode(&base.join(directory)), 0o700, "{directory}");
    }
    for file in [
        "runtime/daemon.sock",
        "runtime/stream.sock",
        "state/daemon.log",
        "state/daemon.lock",
        "state/banger.db",
    ] {
        assert_eq!(mode(&base.join(file)), 0o600, "{file}");
    }
}

#[test]
fn one_daemon_runs_however_many_start_it() {
    let home = home();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| home.run(["vm", "list"])))
            .collect();
        for run in runs {
            let _ = run.join().expect("no panic").ok();
        }
    });
    let log = fs::read_to_string(home.banger_home().join("state/daemon.log")).expect("a log");
    assert_eq!(log.matches("the daemon starts").count(), 1, "{log}");

    // The same over what a killed daemon left, at once.
    for _ in 0..5 {
        home.kill_daemon();
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| home.run(["vm", "list"])))
                .collect();
            for run in runs {
                let _ = run.join().expect("no panic").ok();
            }
        });
    }
}

#[test]
fn a_killed_daemon_is_replaced_by_the_next_command_at_once() {
    let home = Home::with_host().expect("a home with a host");
    for _ in 0..5 {
        home.kill_daemon();
        let ran = home.run(["vm", "exec", HOST, "--", "echo", "here"]);
        assert_eq!(ran.ok().text(), "here\n");
    }
}

#[test]
fn a_daemon_whose_socket_is_gone_is_ended_or_replaced() {
    let home = home();
    started(&home);
    fs::remove_file(home.socket()).expect("removed");
    assert!(
        home.run(["daemon", "stop"])
            .ok()
            .errors()
            .contains("has ended")
    );

    started(&home);
    fs::remove_file(home.socket()).expect("removed");
    // It notices by itself, and the command's own daemon takes over.
    let _ = home.run(["vm", "list"]).ok();
    assert!(home.daemon_pid().is_some());
}

#[test]
fn a_daemon_is_found_under_another_runtime_directory() {
    let home = home();
    let with_runtime = |runtime: &str, words: &[&str]| {
        let runtime = home.scratch().join(runtime);
        fs::create_dir_all(&runtime).expect("made");
        let output = home
            .command(words)
            .env_remove("BANGER_HOME")
            .env("XDG_RUNTIME_DIR", runtime)
            .output()
            .expect("banger runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let _ = with_runtime("one", &["daemon", "start"]);
    let pid = |runtime: &str| {
        let status = with_runtime(runtime, &["--json", "daemon", "status"]);
        let status: Value = serde_json::from_str(&status).expect("JSON");
        status["pid"].as_u64().expect("a pid")
    };
    assert_eq!(pid("one"), pid("two"));
    let _ = with_runtime("two", &["vm", "list"]);
    let _ = with_runtime("two", &["daemon", "stop"]);
}

#[test]
fn nothing_is_answered_before_the_greeting() {
    let home = home();
    started(&home);
    let mut rpc = Rpc::connect(&home.socket()).expect("connects");
    let refused = rpc.ask("vm.list", json!({})).expect("an answer");
    assert_eq!(refused["error"]["code"], -32002, "{refused}");
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("daemon.hello"), "{message}");

    let other = rpc
        .ask("daemon.hello", json!({"protocol": 999, "client": "test"}))
        .expect("an answer");
    assert_eq!(other["error"]["data"]["kind"], "daemon", "{other}");
    let refused = rpc.ask("vm.list", json!({})).expect("an answer");
    assert_eq!(refused["error"]["code"], -32002, "a wrong greeting is none");
    rpc.call("daemon.hello", json!({"protocol": 1, "client": "test"}))
        .expect("greets");
    let list = rpc.call("vm.list", json!({})).expect("answers");
    assert_eq!(list, json!({"vms": []}));
}

#[test]
fn malformed_messages_are_answered_and_the_connection_goes_on() {
    let home = home();
    started(&home);
    let mut rpc = Rpc::greet(&home.socket()).expect("greets");
    let cases: [(&[u8], Value); 12] = [
        (b"", Value::Null),
        (b"{", Value::Null),
        (b"\xff\xfe", Value::Null),
        (b"[]", Value::Null),
        (b"null", Value::Null),
        (b"\"x\"", Value::Null),
        (br#"{"id":7}"#, json!(7)),
        (
            br#"{"jsonrpc":"2.0","id":-1,"method":"vm.list"}"#,
            Value::Null,
        ),
        (br#"{"jsonrpc":"1.0","id":8,"method":"vm.list"}"#, json!(8)),
        (br#"{"jsonrpc":"2.0","id":9,"method":"no.such"}"#, json!(9)),
        (
            br#"{"jsonrpc":"2.0","id":10,"method":"vm.get","params":{"vm":1}}"#,
            json!(10),
        ),
        (
            br#"{"jsonrpc":"2.0","id":11,"method":"vm.get","params":{"vm":"x","more":1}}"#,
            json!(11),
        ),
    ];
    for (line, id) in cases {
        let shown = String::from_utf8_lossy(line);
        rpc.send_line(line).expect("sent");
        let answer = rpc.next_message().expect("an answer").expect("no hang-up");
        assert_eq!(answer["id"], id, "{shown}: {answer}");
        assert_eq!(answer["error"]["code"], -32002, "{shown}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            !message.is_empty() && !message.contains('\n'),
            "{shown}: {answer}"
        );
    }
    // Deeply nested: the parser has a limit, and a stack that is not exhausted.
    rpc.send_line("[".repeat(1 << 20).as_bytes()).expect("sent");
    let answer = rpc.next_message().expect("an answer").expect("no hang-up");
    assert_eq!(answer["error"]["code"], -32002);

    let list = rpc.call("vm.list", json!({})).expect("still answers");
    assert_eq!(list, json!({"vms": []}));
    assert_eq!(
        rpc.ask("vm.get", json!({"vm": "x"})).expect("an answer")["error"]["code"],
        -32003
    );
}

#[test]
fn a_message_over_the_limit_ends_its_connection_and_no_other() {
    const LIMIT: usize = 8 << 20;
    let home = home();
    started(&home);
    let pid = home.daemon_pid();
    let mut other = Rpc::greet(&home.socket()).expect("greets");
    let request = |length: usize| {
        let head = r#"{"jsonrpc":"2.0","id":5,"method":"vm.get","params":{"vm":""#;
        let tail = r#""}}"#;
        let fill = "x".repeat(length - head.len() - tail.len());
        format!("{head}{fill}{tail}").into_bytes()
    };
    // The longest that may be is read and answered.
    let mut rpc = Rpc::greet(&home.socket()).expect("greets");
    rpc.send_line(&request(LIMIT)).expect("sent");
    let answer = rpc.next_message().expect("an answer").expect("no hang-up");
    assert_eq!(answer["id"], 5);
    assert_eq!(answer["error"]["data"]["kind"], "not-found");

    // One more is refused. The daemon hangs up, so the rest may not be taken.
    let _ = rpc.send_line(&request(LIMIT + 2));
    let mut refused = false;
    while let Ok(Some(message)) = rpc.next_message() {
        refused |= message["error"]["code"] == -32002;
    }
    assert!(refused, "the client is told why");
    let list = other.call("vm.list", json!({})).expect("answers");
    assert_eq!(list, json!({"vms": []}));
    assert_eq!(home.daemon_pid(), pid);
}

#[test]
fn a_stream_is_given_to_the_token_once_and_to_no_guess() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let home = Home::with_host().expect("a home with a host");
    let mut rpc = Rpc::greet(&home.socket()).expect("greets");
    let stream = rpc
        .call(
            "vm.exec",
            json!({"vm": HOST, "command": ["echo", "only once"]}),
        )
        .expect("runs");
    let holds = |answer: &[u8]| answer.windows(9).any(|bytes| bytes == b"only once");
    let connect = |token: &str| {
        let path = stream["socket"].as_str().expect("a path");
        let mut socket = UnixStream::connect(path).expect("connects");
        socket
            .set_read_timeout(Some(banger_tests::home::DEADLINE))
            .expect("set");
        // A long guess is not read to its end.
        let _ = socket.write_all(format!("{token}\n").as_bytes());
        if token.len() < 32 {
            // Without more to come it is refused at once, not when its time is up.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes);
        bytes
    };
    let token = stream["token"].as_str().expect("a token");
    for guess in ["", "0", &token[1..], &"x".repeat(1 << 20)] {
        let answer = connect(guess);
        assert!(!holds(&answer));
    }
    let answer = connect(token);
    assert!(holds(&answer), "{answer:?}");
    assert!(!holds(&connect(token)), "once");
}
