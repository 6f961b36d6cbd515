//! Do the verbs about sessions ask for what they say, and tell what they get?

mod fake;

use banger_core::protocol::event::{EventKind, Subscribe, Subscribed};
use banger_core::protocol::session::{
    SessionList, SessionListCall, SessionResize, SessionSend, SessionSent, SessionSignal,
    SessionStart, TerminalSize,
};
use banger_core::protocol::{Call, Empty};
use banger_core::session::{SessionState, StdinKind};
use banger_core::{ByteString, Failure, Kind};
use fake::sessions::{ended, event, session};
use fake::{Asked, Fake, Later, kill, read_until};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex};

/// A fake that keeps what it is asked.
fn keeping(answer: impl Fn(&mut Asked) + Send + Sync + 'static) -> (Fake, Arc<Mutex<Vec<Call>>>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let kept = calls.clone();
    let fake = Fake::new(move |asked| {
        kept.lock().expect("a lock").push(asked.call.clone());
        answer(asked);
    });
    (fake, calls)
}

fn last(calls: &Mutex<Vec<Call>>) -> Call {
    calls
        .lock()
        .expect("a lock")
        .last()
        .cloned()
        .expect("a call")
}

/// A fake in which sessions end in this order, once all are waited for.
fn ending(count: usize, order: &'static [(&'static str, i32)]) -> Fake {
    let waiting: Mutex<Vec<(String, Later)>> = Mutex::default();
    Fake::new(move |asked| match &asked.call {
        Call::SessionListCall(list) => {
            assert_eq!(list.vm.as_deref(), Some("x"));
            assert_eq!(list.states, [SessionState::Starting, SessionState::Running]);
            let sessions = vec![session("a", StdinKind::Pipe)];
            asked.reply(&SessionList { sessions });
        }
        Call::SessionWait(wait) => {
            let mut waiting = waiting.lock().expect("a lock");
            waiting.push((wait.session.clone(), asked.later()));
            if waiting.len() < count {
                return;
            }
            for (name, code) in order {
                let place = waiting.iter().position(|(of, _)| of == name);
                let (_, later) = &mut waiting[place.expect("it is waited for")];
                if *code < 0 {
                    later.fail(Failure::new(Kind::TimedOut, format!("{name} goes on")));
                } else {
                    later.reply(&ended(name, *code));
                }
            }
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn several_are_waited_for_at_once() {
    let wait = ["vm", "session", "wait", "x", "a", "b", "c"];
    ending(3, &[("c", 7), ("a", 0), ("b", 5)])
        .banger(&wait)
        .assert()
        .code(5)
        .stdout(
            "x c: exited with exit code 7\nx a: exited with exit code 0\n\
             x b: exited with exit code 5\n",
        );
    ending(3, &[("c", 0), ("b", 0), ("a", 0)])
        .banger(&wait)
        .assert()
        .code(0);
    // One that has no code does not hide the others.
    ending(3, &[("b", -1), ("c", 1), ("a", 0)])
        .banger(&wait)
        .assert()
        .code(125)
        .stdout("x c: exited with exit code 1\nx a: exited with exit code 0\n")
        .stderr("error: b goes on\n");
    ending(1, &[("b", -1)])
        .banger(&["vm", "session", "wait", "x", "b"])
        .assert()
        .code(125)
        .stderr("error: b goes on\n");
}

#[test]
fn the_first_of_several_is_enough_where_asked() {
    ending(2, &[("b", 4)])
        .banger(&["vm", "session", "wait", "x", "--any", "a", "b"])
        .assert()
        .code(4)
        .stdout("x b: exited with exit code 4\n");
}

#[test]
fn all_are_those_that_have_not_ended() {
    // By its id: another may have its name by the time of the request. (A fake's is a name too.)
    ending(1, &[("0123456789ab", 2)])
        .banger(&["vm", "session", "wait", "x", "--all", "--json"])
        .assert()
        .code(2);
    let fake = Fake::new(|asked| {
        let sessions = Vec::new();
        asked.reply(&SessionList { sessions });
    });
    fake.banger(&["vm", "session", "wait", "x", "--all"])
        .assert()
        .code(0)
        .stdout("");
    let none = ["vm", "session", "wait", "x"];
    fake.banger(&none).assert().code(125);
}

#[test]
fn each_that_ends_is_a_line_of_json() {
    let output = ending(2, &[("b", 0), ("a", 0)])
        .banger(&["--json", "vm", "session", "wait", "x", "a", "b"])
        .assert()
        .code(0)
        .get_output()
        .clone();
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&lines[0]["name"], &lines[1]["name"]),
        (&"b".into(), &"a".into())
    );
}

#[test]
fn events_are_lines_and_go_on_with_another_daemon() {
    let subscribed = |kinds: &'static [EventKind]| {
        move |asked: &mut Asked| {
            let wanted = Subscribe {
                vm: Some("x".into()),
                session: None,
                tags: [("k".to_owned(), "v".to_owned())].into(),
                idle_ms: Some(90_000),
            };
            assert_eq!(asked.call, Call::Subscribe(wanted));
            asked.reply(&Subscribed { subscription: 1 });
            let mut later = asked.later();
            for kind in kinds {
                later.event(event("agent", *kind));
            }
        }
    };
    for json in [false, true] {
        let fake = Fake::new(subscribed(&[EventKind::Started, EventKind::Exited]));
        let mut arguments = vec!["vm", "session", "events", "x", "--tag", "k=v"];
        arguments.extend(["--idle", "1m30s"]);
        arguments.extend(json.then_some("--json"));
        let mut child = fake.spawn(&arguments);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut next = || lines.next().expect("a line").expect("text");
        let (first, second) = (next(), next());
        fake.replace(subscribed(&[EventKind::Deleted]));
        let third = next();
        if json {
            let kind = |line: &str| {
                let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
                event["kind"].clone()
            };
            assert_eq!(
                (kind(&first), kind(&second)),
                ("started".into(), "exited".into())
            );
            assert_eq!(
                (kind(&third), kind(&next())),
                ("lagged".into(), "deleted".into())
            );
        } else {
            assert_eq!(first, "2000-02-29T00:00:00Z  x agent  started");
            assert_eq!(
                second,
                "2000-02-29T00:00:00Z  x agent  exited with exit code 3"
            );
            assert_eq!(third, "2000-02-29T00:00:00Z  x agent  was deleted");
            let stderr = read_until(&mut child, "connection lost; reconnecting…");
            child.stderr = Some(stderr.into_inner());
        }
        kill(&child, Signal::INT);
        assert_eq!(child.wait().expect("ends").code(), Some(0));
    }
    let fake = Fake::new(|asked| asked.fail(fake::gone()));
    fake.banger(&["vm", "session", "events", "x"])
        .assert()
        .code(3);
}

#[test]
fn a_list_is_filtered_and_shows_labels_where_there_are_any() {
    let (fake, calls) = keeping(|asked| {
        let mut labelled = ended("b", 0);
        labelled.tags.insert("task".into(), "4\x1b2".into());
        let sessions = match &asked.call {
            Call::SessionListCall(list) if list.tags.is_empty() => vec![ended("a", 0)],
            _ => vec![ended("a", 0), labelled],
        };
        asked.reply(&SessionList { sessions });
    });
    let text = |arguments: &[&str]| {
        let output = fake
            .banger(arguments)
            .assert()
            .success()
            .get_output()
            .clone();
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let plain = text(&["vm", "session", "list"]);
    assert!(
        plain.starts_with("VM  NAME  STATE   EXIT  BACKEND  AGE"),
        "{plain}"
    );
    assert!(!plain.contains("TAGS"), "{plain}");
    let list = [
        "vm",
        "session",
        "list",
        "x",
        "--tag",
        "task=4",
        "--state",
        "exited,lost",
    ];
    let labelled = text(&list);
    assert!(labelled.contains("TAGS"), "{labelled}");
    assert!(labelled.contains("task=4\\x1b2  sh"), "{labelled}");
    let wanted = SessionListCall {
        vm: Some("x".into()),
        tags: [("task".to_owned(), "4".to_owned())].into(),
        states: vec![SessionState::Exited, SessionState::Lost],
    };
    assert_eq!(last(&calls), Call::SessionListCall(wanted));
}

#[test]
fn a_failed_launch_is_shown_with_all_that_is_known() {
    let fake = Fake::new(|asked| {
        let mut failed = session("a", StdinKind::Tty);
        failed.snapshot.state = SessionState::Failed;
        failed.snapshot.stdout_bytes = 2048;
        failed.snapshot.stdout_start = 1024;
        failed.tags.insert("k".into(), "v".into());
        let failure = Failure::new(Kind::Launch, "node is missing").hint("install it");
        failed.failure = Some(
            failure
                .stage("preflight-commands")
                .detail(b"one\n\x1btwo\n"),
        );
        asked.reply(&failed);
    });
    let output = fake.banger(&["vm", "session", "show", "x", "a"]);
    let output = { output }.assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "state      failed\n",
        "error      node is missing\n",
        "stage      preflight-commands\n",
        "hint       install it\n",
        "stdin      tty\n",
        "stdout     2.0 KiB, of which the last 1.0 KiB are kept (from byte 1024 on)\n",
        "tags       k=v\n",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(text.ends_with("\n  | one\n  | \\x1btwo\n"), "{text}");
}

#[test]
fn kill_sends_any_signal() {
    let (fake, calls) = keeping(|asked| asked.reply(&ended("a", 137)));
    let kill = ["vm", "session", "kill", "x", "a"];
    fake.banger(&kill).assert().success();
    assert!(matches!(last(&calls), Call::SessionKill(_)));
    let signal = |name: &str| {
        Call::SessionSignal(SessionSignal {
            vm: "x".into(),
            session: "a".into(),
            signal: name.into(),
        })
    };
    for (given, meant) in [("SIGINT", "INT"), ("usr1", "USR1")] {
        let mut arguments = kill.to_vec();
        arguments.extend(["--signal", given]);
        fake.banger(&arguments).assert().success();
        assert_eq!(last(&calls), signal(meant));
    }
    fake.banger(&["vm", "session", "signal", "x", "a", "INT"])
        .assert()
        .code(2);
}

#[test]
fn an_input_is_closed_after_what_is_sent() {
    let (fake, calls) = keeping(|asked| match &asked.call {
        Call::SessionSend(send) if send.message.is_none() => {
            let stream = asked.stream(|talk| {
                use banger_core::frame::Frame;
                assert_eq!(talk.read(), Some(Frame::Stdin(b"lines".to_vec())));
                assert_eq!(talk.read(), Some(Frame::StdinEnd));
                talk.write(Frame::Exit(0));
            });
            asked.reply(&stream);
        }
        _ => asked.reply(&SessionSent { bytes: 0 }),
    });
    let send = |message: Option<&str>, close| {
        Call::SessionSend(SessionSend {
            vm: "x".into(),
            session: "a".into(),
            message: message.map(ByteString::from),
            close,
            timeout_ms: None,
        })
    };
    let arguments = ["vm", "session", "send", "x", "a", "--eof"];
    fake.banger(&arguments)
        .write_stdin("lines")
        .assert()
        .success();
    assert_eq!(*calls.lock().expect("a lock"), [send(None, true)]);
    let mut message = arguments.to_vec();
    message.extend(["--message", "hi"]);
    fake.banger(&message).assert().success();
    assert_eq!(last(&calls), send(Some("hi"), true));
    // A terminal is not read from: nothing is written before.
    calls.lock().expect("a lock").clear();
    let pty = fake::pty::Pty::open(80, 24);
    let child = pty.spawn(fake.command(&arguments));
    assert_eq!(fake::pty::wait(child).code(), Some(0));
    assert_eq!(*calls.lock().expect("a lock"), [send(Some(""), true)]);
}

#[test]
fn sizes_and_limits_reach_the_daemon() {
    let (fake, calls) = keeping(|asked| match asked.call {
        Call::SessionStart(_) => asked.reply(&session("a", StdinKind::Tty)),
        _ => asked.reply(&Empty {}),
    });
    fake.banger(&["vm", "session", "resize", "x", "a", "120x40"])
        .assert()
        .success()
        .stdout("a is 120x40\n");
    let size = TerminalSize {
        columns: 120,
        rows: 40,
    };
    let resize = SessionResize {
        vm: "x".into(),
        session: "a".into(),
        size,
    };
    assert_eq!(last(&calls), Call::SessionResize(resize));
    let start = |options: &[&str]| -> SessionStart {
        let mut arguments = vec!["vm", "session", "start", "x"];
        arguments.extend(options);
        arguments.extend(["--", "sh"]);
        fake.banger(&arguments).assert().success();
        match last(&calls) {
            Call::SessionStart(start) => start,
            other => panic!("{other:?}"),
        }
    };
    let drawn = start(&["--stdin", "tty", "--size", "120x40", "--log-limit", "64M"]);
    assert_eq!(
        (drawn.stdin, drawn.terminal, drawn.log_limit_bytes),
        (StdinKind::Tty, Some(size), Some(64 << 20))
    );
    let plain = start(&["--log-limit", "none"]);
    assert_eq!(
        (plain.stdin, plain.terminal, plain.log_limit_bytes),
        (StdinKind::Pipe, None, Some(0))
    );
    assert_eq!(start(&["-t"]).terminal, None, "there is no terminal here");
    fake.banger(&["vm", "session", "start", "x", "--size", "1x1", "--", "sh"])
        .assert()
        .code(2);
}
