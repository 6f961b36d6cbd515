//! Does an attach lose or repeat nothing, whatever breaks?

mod fake;

use banger_core::frame::{Frame, HEADER_LENGTH};
use banger_core::protocol::Call;
use banger_core::protocol::session::Session;
use banger_core::session::{OutputStream, StdinKind};
use banger_core::{Failure, Kind};
use fake::sessions::{Turn, player, playing, session, talk, talk_from};
use fake::{Fake, Talk, kill, read_until};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::process::Child;

const ATTACH: &[&str] = &["vm", "session", "attach", "x", "agent"];
const FOLLOW: &[&str] = &["vm", "session", "logs", "x", "agent", "--follow"];

fn agent() -> Session {
    session("agent", StdinKind::Pipe)
}

fn stdout(talk: &mut Talk, text: &str) {
    talk.write(Frame::Stdout(text.into()));
}

/// Reads what the client sends up to so many bytes.
fn input(talk: &mut Talk, length: usize) -> Vec<u8> {
    let mut input = Vec::new();
    while input.len() < length {
        match talk.read() {
            Some(Frame::Stdin(bytes)) => input.extend(bytes),
            other => panic!("{other:?} after {input:?}"),
        }
    }
    input
}

/// What a child wrote, and its exit code.
fn outcome(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn count(text: &str, word: &str) -> usize {
    text.matches(word).count()
}

#[test]
fn output_goes_on_at_the_very_byte_whatever_breaks() {
    let (fake, heard) = playing(
        agent(),
        vec![
            talk_from(100, 0, |talk| {
                stdout(talk, "abc");
                talk.write(Frame::Stderr(b"!".to_vec()));
                // Cut in the middle of a frame, then in the middle of a header.
                let frame: Frame = Frame::Stdout(b"defghij".to_vec());
                talk.raw(&frame.encode()[..HEADER_LENGTH + 4]);
            }),
            talk_from(107, 1, |talk| {
                let frame: Frame = Frame::Stdout(b"hij".to_vec());
                talk.raw(&frame.encode()[..3]);
            }),
            talk_from(107, 1, |talk| {
                stdout(talk, "hij");
                let failure = Failure::new(Kind::Unreachable, "the guest is gone");
                talk.write(Frame::Error(failure));
            }),
            Turn::Fail(Failure::new(Kind::Unreachable, "still gone")),
            Turn::Fail(Failure::new(Kind::Unreachable, "still gone")),
            Turn::Fail(Failure::new(Kind::Daemon, "ending")),
            // The token was given by a daemon that has ended since.
            talk_from(110, 1, |talk| {
                talk.write(Frame::Error(Failure::new(Kind::NotFound, "no such stream")));
            }),
            // What comes twice is shown once.
            talk_from(108, 0, |talk| {
                stdout(talk, "ijk");
                talk.write(Frame::Stderr(b"!?".to_vec()));
                talk.write(Frame::Exit(3));
            }),
        ],
    );
    let (code, out, err) = outcome(fake.spawn(ATTACH));
    assert_eq!((code, &out[..]), (Some(3), "abcdefghijk"), "{err}");
    assert_eq!(count(&err, "connection lost; reconnecting…\n"), 2, "{err}");
    assert_eq!(count(&err, "reconnected\n"), 2, "{err}");
    assert_eq!(count(&err, "not yet: still gone\n"), 1, "{err}");
    assert_eq!((count(&err, "!"), count(&err, "?")), (1, 1), "{err}");
    let at = |stdout, stderr| (Some(stdout), Some(stderr));
    let again = at(110, 1);
    assert_eq!(
        heard.offsets(),
        [
            (None, None),
            at(107, 1),
            at(107, 1),
            again,
            again,
            again,
            again,
            again
        ]
    );
    let writers: Vec<_> = heard.attaches().into_iter().map(|a| a.writer).collect();
    assert_eq!(writers[0].as_ref().map(String::len), Some(16));
    assert!(writers.iter().all(|writer| *writer == writers[0]));
}

#[test]
fn a_daemon_that_another_follows_is_not_noticed_in_the_output() {
    let (done, was_seen) = std::sync::mpsc::channel::<()>();
    let (fake, _) = playing(
        agent(),
        vec![talk(move |talk| {
            stdout(talk, "one ");
            let _ = was_seen.recv();
        })],
    );
    let mut child = fake.spawn(ATTACH);
    let mut start = [0; 4];
    let mut pipe = child.stdout.take().expect("a pipe");
    pipe.read_exact(&mut start).expect("bytes");
    let (answer, heard) = player(
        agent(),
        vec![talk_from(4, 0, |talk| {
            stdout(talk, "two");
            talk.write(Frame::Exit(0));
        })],
    );
    fake.replace(answer);
    done.send(()).expect("it waits");
    let mut rest = String::new();
    pipe.read_to_string(&mut rest).expect("text");
    assert_eq!((&start, &rest[..]), (b"one ", "two"));
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert_eq!(heard.offsets(), [(Some(4), Some(0))]);
}

#[test]
fn where_no_daemon_is_left_one_is_started_and_another_failure_ends_it() {
    let (done, was_seen) = std::sync::mpsc::channel::<()>();
    let (fake, _) = playing(
        agent(),
        vec![talk(move |talk| {
            talk.write(Frame::Stderr(b"ready\n".to_vec()));
            let _ = was_seen.recv();
        })],
    );
    let mut child = fake.spawn(ATTACH);
    let _stdin = child.stdin.take();
    let mut stderr = read_until(&mut child, "ready");
    fake.die();
    done.send(()).expect("it waits");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    // The real daemon knows of no such machine.
    assert!(rest.contains("error: there is no VM `x`"), "{rest}");
    assert_eq!(child.wait().expect("ends").code(), Some(125));
    let mut stop = fake.command(&["daemon", "stop", "-q"]);
    assert!(stop.status().expect("runs").success());
}

#[test]
fn input_arrives_once_where_a_part_was_taken() {
    let (fake, _) = playing(
        agent(),
        vec![
            talk(|talk| {
                talk.write(Frame::InputTaken(0));
                assert_eq!(input(talk, 6), b"abcdef");
                talk.write(Frame::InputTaken(2));
            }),
            // It took one more, and that was not heard of.
            talk(|talk| {
                talk.write(Frame::InputTaken(3));
                assert_eq!(input(talk, 3), b"def");
                talk.write(Frame::InputTaken(5));
                talk.write(Frame::Error(Failure::new(Kind::Unreachable, "gone")));
            }),
            talk(|talk| {
                talk.write(Frame::InputTaken(6));
                assert_eq!(talk.read(), Some(Frame::StdinEnd));
            }),
            // Each connection learns of the end.
            talk(|talk| {
                talk.write(Frame::InputTaken(6));
                assert_eq!(talk.read(), Some(Frame::StdinEnd));
                talk.write(Frame::Exit(0));
            }),
        ],
    );
    let mut child = fake.spawn(ATTACH);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"abcdef").expect("writes");
    drop(stdin);
    let (code, _, err) = outcome(child);
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn what_is_typed_meanwhile_is_kept() {
    let (typed, was_typed) = std::sync::mpsc::channel::<()>();
    let (fake, _) = playing(
        agent(),
        vec![
            talk(|talk| {
                assert_eq!(input(talk, 4), b"one\n");
                talk.write(Frame::InputTaken(4));
                talk.write(Frame::Stderr(b"taken\n".to_vec()));
            }),
            talk(move |talk| {
                was_typed.recv().expect("typed");
                talk.write(Frame::InputTaken(4));
                assert_eq!(input(talk, 4), b"two\n");
                talk.write(Frame::InputTaken(8));
                talk.write(Frame::Exit(0));
            }),
        ],
    );
    let mut child = fake.spawn(ATTACH);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"one\n").expect("writes");
    let mut stderr = read_until(&mut child, "connection lost");
    stdin.write_all(b"two\n").expect("writes");
    typed.send(()).expect("it waits");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{rest}");
}

#[test]
fn much_input_passes_over_many_connections() {
    const LENGTH: usize = 3 << 20;
    let bytes: Vec<u8> = (0..LENGTH as u32)
        .map(|n| (n.wrapping_mul(n) >> 5).to_le_bytes()[0])
        .collect();
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let turn = |_| {
        let got = got.clone();
        talk(move |talk| {
            let mut got = got.lock().expect("a lock");
            talk.write(Frame::InputTaken(got.len() as u64));
            let mut here = 0;
            while here < 700_000 && got.len() < LENGTH {
                let Some(Frame::Stdin(bytes)) = talk.read() else {
                    panic!("no input");
                };
                here += bytes.len();
                got.extend(bytes);
                if here < 500_000 {
                    talk.write(Frame::InputTaken(got.len() as u64));
                }
            }
            if got.len() == LENGTH {
                talk.write(Frame::InputTaken(got.len() as u64));
                assert_eq!(talk.read(), Some(Frame::StdinEnd));
                talk.write(Frame::Exit(0));
            }
        })
    };
    let (fake, _) = playing(agent(), (0..8).map(turn).collect());
    fake.banger(ATTACH)
        .write_stdin(bytes.clone())
        .assert()
        .code(0);
    assert!(*got.lock().expect("a lock") == bytes);
}

#[test]
fn a_number_that_cannot_be_ends_it() {
    let (fake, _) = playing(
        agent(),
        vec![talk(|talk| {
            talk.write(Frame::InputTaken(1));
            let _ = talk.read();
        })],
    );
    let (code, _, err) = outcome(fake.spawn(ATTACH));
    assert_eq!(code, Some(125));
    assert!(err.contains("says it took 1 bytes"), "{err}");
}

#[test]
fn bytes_that_are_gone_are_told_of_loudly() {
    let mut rolled = agent();
    rolled.snapshot.stdout_start = 50;
    let turns = || {
        let (cut, end) = (
            talk(|talk| stdout(talk, "0123456789")),
            talk_from(50, 0, |talk| {
                stdout(talk, "late");
                talk.write(Frame::Exit(0));
            }),
        );
        (cut, end)
    };
    let gone = || Failure::new(Kind::Gone, "no longer kept");
    let (cut, end) = turns();
    let refused = vec![cut, Turn::Fail(gone()), end];
    let (cut, end) = turns();
    let told = vec![
        cut,
        talk_from(10, 0, move |talk| talk.write(Frame::Error(gone()))),
        end,
    ];
    for turns in [refused, told] {
        let (fake, heard) = playing(rolled.clone(), turns);
        let mut quiet = ATTACH.to_vec();
        quiet.push("--quiet");
        let (code, out, err) = outcome(fake.spawn(&quiet));
        assert_eq!((code, &out[..]), (Some(0), "0123456789late"), "{err}");
        assert_eq!(
            err,
            "warning: 40 bytes of stdout are no longer kept: they are missing here\n"
        );
        let last = heard.attaches().pop().expect("requests");
        assert_eq!(
            (last.stdout_offset, last.stderr_offset),
            (Some(50), Some(0))
        );
        let calls = heard.calls();
        let asked = |call: &&Call| matches!(call, Call::SessionGet(_));
        assert_eq!(calls.iter().filter(asked).count(), 1);
    }
    // A daemon that says so while nothing is missing is not asked for ever.
    let gone = Failure::new(Kind::Gone, "no longer kept");
    let cut = talk(|talk| stdout(talk, "0123456789"));
    let (fake, _) = playing(agent(), vec![cut, Turn::Fail(gone)]);
    let (code, _, err) = outcome(fake.spawn(ATTACH));
    assert_eq!(code, Some(125));
    assert!(err.contains("error: no longer kept"), "{err}");
}

#[test]
fn who_takes_over_does_so_once_and_who_is_taken_over_is_told() {
    let (fake, heard) = playing(
        agent(),
        vec![
            talk(|_| {}),
            talk(|talk| {
                let failure = Failure::new(Kind::Conflict, "another client writes now")
                    .hint("look on, or take it back");
                talk.write(Frame::Error(failure));
            }),
        ],
    );
    let mut takeover = ATTACH.to_vec();
    takeover.push("--takeover");
    let (code, _, err) = outcome(fake.spawn(&takeover));
    assert_eq!(code, Some(125));
    assert!(
        err.contains("error: another client writes now\nhint: look on, or take it back\n"),
        "{err}"
    );
    let takeovers: Vec<bool> = heard.attaches().iter().map(|a| a.takeover).collect();
    assert_eq!(takeovers, [true, false]);
}

#[test]
fn an_observer_sends_nothing_and_goes_on_as_well() {
    let (fake, heard) = playing(
        agent(),
        vec![
            talk(|talk| stdout(talk, "a")),
            talk_from(1, 0, |talk| {
                stdout(talk, "b");
                talk.write(Frame::Exit(4));
            }),
        ],
    );
    let mut observe = ATTACH.to_vec();
    observe.push("--observe");
    let mut child = fake.spawn(&observe);
    let mut stdin = child.stdin.take().expect("a pipe");
    let _ = stdin.write_all(b"ignored");
    let (code, out, _) = outcome(child);
    assert_eq!((code, &out[..]), (Some(4), "ab"));
    let attaches = heard.attaches();
    assert!(attaches.iter().all(|a| a.observe && a.writer.is_none()));
}

#[test]
fn detaching_leaves_the_session_alone() {
    let (fake, _) = playing(
        agent(),
        vec![talk(|talk| {
            stdout(talk, "hello\n");
            assert_eq!(talk.read(), Some(Frame::Stdin(b"typed\n".to_vec())));
            talk.write(Frame::Stderr(b"got it\n".to_vec()));
            assert_eq!(talk.read(), None);
        })],
    );
    let mut child = fake.spawn(ATTACH);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"typed\n").expect("writes");
    let mut stderr = read_until(&mut child, "got it");
    kill(&child, Signal::INT);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("detached; agent goes on"), "{rest}");
    assert!(
        rest.contains("6 bytes of input had not been taken"),
        "{rest}"
    );
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_signal_ends_the_wait_for_a_connection() {
    let (done, was_replaced) = std::sync::mpsc::channel::<()>();
    let (fake, _) = playing(
        agent(),
        vec![talk(move |talk| {
            talk.write(Frame::Stderr(b"ready\n".to_vec()));
            let _ = was_replaced.recv();
        })],
    );
    let mut child = fake.spawn(ATTACH);
    let _stdin = child.stdin.take();
    let stderr = read_until(&mut child, "ready");
    // From here on the daemon never answers.
    fake.replace(|asked| asked.wait_for_end());
    done.send(()).expect("it waits");
    child.stderr = Some(stderr.into_inner());
    let _stderr = read_until(&mut child, "connection lost");
    kill(&child, Signal::TERM);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn what_fails_at_once_is_not_tried_again() {
    let failure = Failure::new(Kind::Unreachable, "the guest is gone");
    let (fake, heard) = playing(agent(), vec![Turn::Fail(failure)]);
    let (code, _, err) = outcome(fake.spawn(ATTACH));
    assert_eq!((code, &err[..]), (Some(125), "error: the guest is gone\n"));
    assert_eq!(heard.attaches().len(), 1);
}

#[test]
fn logs_that_are_followed_go_on_and_others_fail() {
    let turns = || {
        vec![
            talk_from(1000, 0, |talk| stdout(talk, "abc")),
            talk_from(1003, 7, |talk| {
                stdout(talk, "def");
                talk.write(Frame::Exit(0));
            }),
        ]
    };
    let (fake, heard) = playing(agent(), turns());
    let mut follow = FOLLOW.to_vec();
    follow.extend(["--tail", "5", "--since", "1h30m", "--stream", "stdout"]);
    let (code, out, err) = outcome(fake.spawn(&follow));
    assert_eq!((code, &out[..]), (Some(0), "abcdef"));
    assert!(!err.contains("warning"), "{err}");
    let [first, second] = &heard.logs()[..] else {
        panic!("two requests");
    };
    assert_eq!((first.tail, first.since_ms), (Some(5), Some(5_400_000)));
    assert_eq!((first.stdout_offset, first.stderr_offset), (None, None));
    assert_eq!((second.tail, second.since_ms), (None, None));
    assert_eq!(
        (second.stdout_offset, second.stderr_offset),
        (Some(1003), None)
    );
    assert_eq!(second.stream, Some(OutputStream::Stdout));

    let (fake, _) = playing(agent(), turns());
    let (code, out, _) = outcome(fake.spawn(&FOLLOW[..5]));
    assert_eq!((code, &out[..]), (Some(11), "abc"));
}

#[test]
fn a_reader_that_stops_reading_can_be_left() {
    let (fake, _) = playing(
        agent(),
        vec![talk(|talk| {
            talk.write(Frame::Stderr(b"ready\n".to_vec()));
            while talk.raw(&Frame::<Vec<u8>>::Stdout(vec![b'x'; 65536]).encode()) {}
        })],
    );
    let mut child = fake.spawn(ATTACH);
    let _stderr = read_until(&mut child, "ready");
    kill(&child, Signal::INT);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn starting_and_attaching_shows_all_from_the_start() {
    let (fake, heard) = playing(
        agent(),
        vec![talk(|talk| {
            stdout(talk, "first");
            talk.write(Frame::Exit(9));
        })],
    );
    let start = ["vm", "session", "start", "x", "--attach", "--", "sh"];
    let (code, out, _) = outcome(fake.spawn(&start));
    assert_eq!((code, &out[..]), (Some(9), "first"));
    assert_eq!(heard.offsets(), [(Some(0), Some(0))]);
    let fake = Fake::new(|asked| asked.fail(fake::gone()));
    fake.banger(&start).assert().code(125);
}
