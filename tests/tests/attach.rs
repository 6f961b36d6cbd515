//! Who may write to a session, what does each attached client get, and what is told of what is no
//! longer kept?

use banger_core::frame::Frame;
use banger_tests::home::{HOST, Home};
use banger_tests::random::Random;
use banger_tests::rpc::Rpc;
use banger_tests::stream::{Brought, Stream};
use rustix::process::Signal;
use serde_json::{Value, json};

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

fn start(home: &Home, name: &str, more: &[&str], script: &str) {
    let first = ["vm", "session", "start", HOST, "--name", name];
    let last = ["--", "bash", "-c", script];
    let _ = home.run(first.iter().chain(more).chain(&last)).ok();
}

const ECHO: &str = "while read -r line; do [[ $line == bye ]] && exit 7; echo \"got $line\"; done";

#[track_caller]
fn attach(rpc: &mut Rpc, more: Value) -> (Stream, Value) {
    let mut params = json!({"vm": HOST, "session": "s"});
    for (name, value) in more.as_object().expect("an object") {
        params[name] = value.clone();
    }
    let reply = rpc.call("guest.session.attach", params).expect("attached");
    (Stream::open(&reply).expect("opened"), reply)
}

#[track_caller]
fn type_line(stream: &mut Stream, line: &str) {
    stream
        .write(&Frame::Stdin(line.as_bytes().to_vec()))
        .expect("written");
}

/// Reads on until the output ends so.
#[track_caller]
fn until(stream: &mut Stream, brought: &mut Brought, text: &str) {
    stream
        .until(brought, |brought| brought.stdout.ends_with(text.as_bytes()))
        .expect("it comes");
    assert!(brought.stdout.ends_with(text.as_bytes()), "{brought:?}");
}

#[test]
fn a_takeover_ends_the_first_writer_and_leaves_observers_alone() {
    let home = home();
    start(&home, "chat", &[], ECHO);
    let mut first = home.spawn(["vm", "session", "attach", HOST, "chat"]);
    first.until_error("attached");
    first.write("one\n");
    first.until("got one\n");
    let mut observer = home.spawn(["vm", "session", "attach", HOST, "chat", "--observe"]);
    observer.until_error("observing");

    let refused = home
        .run(["--json", "vm", "session", "attach", HOST, "chat"])
        .failure(125);
    let hint = refused["hint"].as_str().unwrap_or_default();
    assert!(
        hint.contains("--takeover") && hint.contains("--observe"),
        "{refused}"
    );
    let mut second = home.spawn(["vm", "session", "attach", HOST, "chat", "--takeover"]);
    second.until_error("attached");
    // It does not come back by itself, and says what happened.
    let ended = first.wait();
    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(ended.errors().contains("taken over"), "{ended:?}");
    assert_eq!(ended.stdout, b"got one\n");
    second.write("two\n");
    second.until("got two\n");
    observer.until("got two\n");

    // An observer has no input that could reach the session.
    observer.write("three\n");
    second.write("four\n");
    observer.until("got four\n");
    second.write("bye\n");
    let second = second.wait();
    assert_eq!(
        (second.code, second.stdout),
        (Some(7), b"got two\ngot four\n".to_vec())
    );
    assert_eq!(observer.wait().stdout, b"got two\ngot four\n");
}

#[test]
fn a_writer_that_comes_back_takes_its_own_place_and_learns_what_was_taken() {
    let home = home();
    start(&home, "s", &[], ECHO);
    let mut rpc = home.rpc();
    let (mut first, _) = attach(&mut rpc, json!({"writer": "me"}));
    let mut brought = Brought::default();
    type_line(&mut first, "one\n");
    until(&mut first, &mut brought, "got one\n");
    first
        .until(&mut brought, |brought| brought.taken == Some(4))
        .expect("counted");

    // Another is refused, the same is not, though its old stream is still open.
    let params = json!({"vm": HOST, "session": "s", "writer": "other"});
    let refused = rpc.ask("guest.session.attach", params).expect("an answer");
    assert_eq!(refused["error"]["data"]["kind"], "conflict");
    let (mut second, _) = attach(&mut rpc, json!({"writer": "me"}));
    let mut again = Brought::default();
    second
        .until(&mut again, |brought| brought.taken.is_some())
        .expect("counted");
    assert_eq!(again.taken, Some(4), "from its first connection");
    let replaced = first.finish().expect("it is told").end.expect("an end");
    assert_eq!(replaced.expect_err("no exit code")["kind"], "conflict");
    type_line(&mut second, "two\n");
    until(&mut second, &mut again, "got two\n");
    second
        .until(&mut again, |brought| brought.taken == Some(8))
        .expect("counted");

    // A writer of another name counts from 0.
    let (mut third, _) = attach(&mut rpc, json!({"writer": "other", "takeover": true}));
    let mut other = Brought::default();
    third
        .until(&mut other, |brought| brought.taken.is_some())
        .expect("counted");
    assert_eq!(other.taken, Some(0));
    for bad in ["", "A", "a-b", &"x".repeat(33)] {
        let params = json!({"vm": HOST, "session": "s", "writer": bad});
        let refused = rpc.ask("guest.session.attach", params).expect("an answer");
        assert_eq!(refused["error"]["data"]["kind"], "invalid", "{bad}");
    }
}

#[test]
fn offsets_say_exactly_where_a_client_goes_on() {
    let home = home();
    start(
        &home,
        "s",
        &[],
        "printf 0123456789; printf abc >&2; read -r; printf x; exit 3",
    );
    banger_tests::until("it has written", || {
        let snapshot = home.session("s")["snapshot"].take();
        (&snapshot["stdout_bytes"], &snapshot["stderr_bytes"]) == (&10.into(), &3.into())
    });
    let mut rpc = home.rpc();
    let cases = [
        (json!({}), 10, 3, "x", ""),
        (
            json!({"stdout_offset": 0, "stderr_offset": 0}),
            0,
            0,
            "0123456789x",
            "abc",
        ),
        (
            json!({"stdout_offset": 4, "stderr_offset": 1}),
            4,
            1,
            "456789x",
            "bc",
        ),
        (json!({"stdout_offset": 9}), 9, 3, "9x", ""),
        (json!({"stderr_offset": 0}), 10, 0, "x", "abc"),
    ];
    let mut streams = Vec::new();
    for (offsets, stdout, stderr, ..) in &cases {
        let mut more = offsets.clone();
        more["observe"] = json!(true);
        let (stream, reply) = attach(&mut rpc, more);
        assert_eq!(
            (&reply["stdout_offset"], &reply["stderr_offset"]),
            (&json!(stdout), &json!(stderr))
        );
        streams.push(stream);
    }
    let words = [
        "vm",
        "session",
        "send",
        HOST,
        "s",
        "--newline",
        "--message",
        "",
    ];
    let _ = home.run(words).ok();
    for (mut stream, (offsets, _, _, stdout, stderr)) in streams.into_iter().zip(&cases) {
        let brought = stream.finish().expect("an end");
        assert_eq!(brought.end, Some(Ok(3)));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let got = (text(&brought.stdout), text(&brought.stderr));
        assert_eq!(got, ((*stdout).into(), (*stderr).into()), "{offsets}");
    }
    // Of an ended session, and the same by `logs`.
    let (mut stream, _) = attach(&mut rpc, json!({"stdout_offset": 8, "stderr_offset": 3}));
    let brought = stream.finish().expect("an end");
    assert_eq!(
        (brought.stdout, brought.stderr),
        (b"89x".to_vec(), b"".to_vec())
    );
    let params = json!({"vm": HOST, "session": "s", "stdout_offset": 8, "stderr_offset": 2});
    let reply = rpc.call("guest.session.logs", params).expect("a stream");
    let brought = Stream::open(&reply)
        .expect("opened")
        .finish()
        .expect("an end");
    assert_eq!(
        (brought.stdout, brought.stderr),
        (b"89x".to_vec(), b"c".to_vec())
    );
    let both = json!({"vm": HOST, "session": "s", "stdout_offset": 8, "tail": 1});
    let refused = rpc.ask("guest.session.logs", both).expect("an answer");
    assert_eq!(refused["error"]["data"]["kind"], "usage");
}

/// Prints what it is told to: a line "COUNT" is answered with so many bytes of a file.
fn printer(home: &Home, bytes: &[u8], limit: &str) {
    let source = home.guest_home().join("source");
    std::fs::write(&source, bytes).expect("written");
    let script = format!(
        "exec 3<'{}'; while read -r count; do ((count > 0)) || exit 7; head -c \"$count\" <&3; done",
        source.display()
    );
    start(home, "s", &["--log-limit", limit], &script);
}

fn print(home: &Home, count: usize) {
    let count = count.to_string();
    let words = [
        "vm",
        "session",
        "send",
        HOST,
        "s",
        "--newline",
        "--message",
        &count,
    ];
    let _ = home.run(words).ok();
}

fn start_of_log(home: &Home) -> usize {
    let start = home.session("s")["snapshot"]["stdout_start"].as_u64();
    usize::try_from(start.expect("a number")).expect("small")
}

#[test]
fn what_a_limited_log_no_longer_has_is_told_and_what_it_has_is_right() {
    const LIMIT: usize = 1 << 20;
    const TOTAL: usize = 8 << 20;
    let home = home();
    let bytes = Random::from_seed(3).bytes(TOTAL);
    printer(&home, &bytes, "1M");
    print(&home, TOTAL);
    banger_tests::until("the beginning is freed", || {
        start_of_log(&home) >= TOTAL - 2 * LIMIT
    });
    let begins = start_of_log(&home);
    assert!(begins <= TOTAL - LIMIT, "so much is kept: {begins}");

    let mut rpc = home.rpc();
    for method in ["guest.session.attach", "guest.session.logs"] {
        let params = json!({"vm": HOST, "session": "s", "stdout_offset": begins - 1});
        let refused = rpc.ask(method, params).expect("an answer");
        assert_eq!(refused["error"]["data"]["kind"], "gone", "{refused}");
    }
    let (mut stream, _) = attach(&mut rpc, json!({"stdout_offset": begins, "observe": true}));
    let mut brought = Brought::default();
    stream
        .until(&mut brought, |brought| {
            brought.stdout.len() >= TOTAL - begins
        })
        .expect("it comes");
    assert!(
        brought.stdout == bytes[begins..],
        "{} bytes",
        brought.stdout.len()
    );
    let logs = home.run(["vm", "session", "logs", HOST, "s"]).ok();
    let kept = &bytes[TOTAL - logs.stdout.len()..];
    assert!(
        logs.stdout == kept && kept.len() >= LIMIT,
        "{} bytes",
        kept.len()
    );
    print(&home, 0);
    let waited = home.run(["vm", "session", "wait", HOST, "s", "--timeout", "50s"]);
    assert_eq!(waited.code, Some(7));
}

#[test]
fn a_follower_misses_nothing_while_the_log_is_cut_behind_it() {
    const STEP: usize = 1_000_000;
    const STEPS: usize = 20;
    let home = home();
    let bytes = Random::from_seed(4).bytes(STEP * STEPS);
    printer(&home, &bytes, "1M");
    let mut rpc = home.rpc();
    let (mut stream, _) = attach(&mut rpc, json!({"observe": true}));
    let mut brought = Brought::default();
    let mut begins = 0;
    for step in 1..=STEPS {
        print(&home, STEP);
        stream
            .until(&mut brought, |brought| brought.stdout.len() >= step * STEP)
            .expect("it comes");
        if step % 5 == 0 {
            banger_tests::until("the beginning is freed", || start_of_log(&home) > begins);
            begins = start_of_log(&home);
        }
    }
    print(&home, 0);
    stream.until(&mut brought, |_| false).expect("an end");
    assert_eq!(brought.end, Some(Ok(7)));
    assert!(
        brought.stdout == bytes,
        "{} of {} bytes",
        brought.stdout.len(),
        bytes.len()
    );
}

#[test]
fn a_client_that_was_away_too_long_says_what_is_missing_and_goes_on() {
    const STEP: usize = 3_000_000;
    let home = home();
    let bytes = Random::from_seed(5).bytes(2 * STEP + 100);
    printer(&home, &bytes, "1M");
    let mut follower = home.spawn(["vm", "session", "logs", HOST, "s", "--follow"]);
    print(&home, 100);
    follower.until_bytes(100);
    // It sleeps while its connection is cut and the log goes on.
    follower.signal(Signal::STOP);
    home.sshd.as_ref().expect("an sshd").cut_connections();
    home.kill_next_daemon();
    print(&home, STEP);
    banger_tests::until("the beginning is freed", || start_of_log(&home) > 100);
    follower.signal(Signal::CONT);
    follower.until_error("no longer kept");
    print(&home, STEP);
    print(&home, 0);
    let ran = follower.wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let errors = ran.errors();
    let missing: usize = errors
        .split_whitespace()
        .skip_while(|word| *word != "warning:")
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("how much is missing: {errors}"));
    let expected = [&bytes[..100], &bytes[100 + missing..]].concat();
    assert!(
        ran.stdout == expected,
        "{} bytes, {missing} missing",
        ran.stdout.len()
    );
}

#[test]
fn a_reader_that_fell_far_behind_is_told_while_the_session_goes_on() {
    const STEP: usize = 32 << 20;
    let home = home();
    let bytes = Random::from_seed(6).bytes(STEP);
    printer(&home, &bytes, "1M");
    let mut rpc = home.rpc();
    let (mut stream, _) = attach(&mut rpc, json!({"observe": true}));
    print(&home, STEP);
    // Nobody reads meanwhile, and there is more than lies on the way.
    banger_tests::until("the beginning is freed", || start_of_log(&home) > STEP / 2);
    let mut brought = Brought::default();
    stream.until(&mut brought, |_| false).expect("an end");
    let failure = match &brought.end {
        Some(Err(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert!(
        format!("{failure:?}").to_lowercase().contains("gone"),
        "{failure:?}"
    );
    assert!(bytes.starts_with(&brought.stdout) && brought.stdout.len() < STEP);
    assert_eq!(home.session("s")["snapshot"]["state"], "running");
    print(&home, 0);
}
