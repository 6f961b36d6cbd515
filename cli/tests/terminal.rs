//! Is a session drawn on a real terminal, and is the terminal given back on every way out?

mod fake;

use banger_core::frame::Frame;
use banger_core::protocol::session::{AttachTerminal, TerminalSize};
use banger_core::session::StdinKind;
use banger_core::{Failure, Kind};
use fake::pty::{Pty, contains, wait};
use fake::sessions::{Heard, Turn, playing, session, talk};
use fake::{Fake, Talk, kill};
use rustix::process::Signal;
use std::process::Child;

/// What puts a terminal right that a program was cut off from.
const ALTERNATE_OFF: &str = "\x1b[?1049l";
const RESETS: [&str; 7] = [
    "\x1b[0m",
    "\x1b[?25h",
    "\x1b[?1000l",
    "\x1b[?1006l",
    "\x1b[?2004l",
    "\x1b[?1l",
    "\x1b>",
];

const ATTACH: &[&str] = &["vm", "session", "attach", "x", "agent"];

fn shell(turns: Vec<Turn>) -> (Fake, Heard) {
    playing(session("agent", StdinKind::Tty), turns)
}

/// A program that fills the screen, and then goes on like this.
fn drawn(then: impl FnOnce(&mut Talk) + Send + 'static) -> Turn {
    talk(move |talk| {
        let screen = b"\x1b[?1049h\x1b[?25lDRAWN\xff\n";
        talk.write(Frame::Stdout(screen.to_vec()));
        then(talk);
    })
}

fn until_left(talk: &mut Talk) {
    while talk.read().is_some() {}
}

/// Starts an attach and waits for the program's screen; the modes before.
fn attached(fake: &Fake, pty: &Pty, arguments: &[&str]) -> (Child, String) {
    let before = pty.modes();
    let child = pty.spawn(fake.command(arguments));
    pty.wait_for("DRAWN");
    assert_ne!(pty.modes(), before, "the terminal is raw");
    (child, before)
}

fn assert_given_back(pty: &Pty, before: &str) {
    assert_eq!(pty.modes(), before);
    for reset in RESETS {
        pty.wait_for(reset);
    }
    pty.wait_for(ALTERNATE_OFF);
}

#[test]
fn a_program_draws_and_gets_every_key() {
    let (fake, heard) = shell(vec![drawn(|talk| {
        let keys = b"a\x03\x1a\x04\r\x1b[A\x7f";
        let mut typed = Vec::new();
        while typed.len() < keys.len() {
            match talk.read() {
                Some(Frame::Stdin(bytes)) => typed.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(typed, keys);
        talk.write(Frame::Stdout(b"\x1b[?1049l".to_vec()));
        talk.write(Frame::Exit(5));
    })]);
    let pty = Pty::open(101, 31);
    let (child, before) = attached(&fake, &pty, ATTACH);
    pty.wait_for("attached to agent; Ctrl-] detaches, it goes on");
    pty.type_keys(b"a\x03\x1a\x04\r\x1b[A\x7f");
    assert_eq!(wait(child).code(), Some(5));
    assert_eq!(pty.modes(), before);
    pty.wait_for("agent ended with exit code 5");
    // As it came, without an end of line of our own; and nothing that was typed is echoed.
    let shown = pty.shown();
    let raw = b"\x1b[?1049h\x1b[?25lDRAWN\xff\n\x1b[?1049l\x1b[0m";
    assert!(shown.windows(raw.len()).any(|window| window == raw));
    let times = shown.windows(8).filter(|w| *w == ALTERNATE_OFF.as_bytes());
    assert_eq!(
        times.count(),
        1,
        "the program left the other screen by itself"
    );
    let [attach] = &heard.attaches()[..] else {
        panic!("one request");
    };
    let size = TerminalSize {
        columns: 101,
        rows: 31,
    };
    let term = "xterm".into();
    assert_eq!(attach.terminal, Some(AttachTerminal { size, term }));
    assert_eq!((attach.stdout_offset, attach.stderr_offset), (None, None));
}

#[test]
fn the_detach_key_leaves_after_what_was_typed_before_it() {
    for (option, typed) in [("ctrl-]", &b"ls\x1dmore"[..]), ("ctrl-q", b"ls\x1b[113;5u")] {
        let (fake, _) = shell(vec![drawn(|talk| {
            assert_eq!(talk.read(), Some(Frame::Stdin(b"ls".to_vec())));
            assert_eq!(talk.read(), None);
        })]);
        let pty = Pty::open(80, 24);
        let mut arguments = ATTACH.to_vec();
        arguments.extend(["--detach-key", option]);
        let (child, before) = attached(&fake, &pty, &arguments);
        pty.type_keys(typed);
        assert_eq!(wait(child).code(), Some(0));
        assert_given_back(&pty, &before);
        pty.wait_for("detached; agent goes on");
    }
}

#[test]
fn the_terminal_is_given_back_after_every_signal() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        let (fake, _) = shell(vec![drawn(until_left)]);
        let pty = Pty::open(80, 24);
        let (child, before) = attached(&fake, &pty, ATTACH);
        kill(&child, signal);
        assert_eq!(wait(child).code(), Some(0), "{signal:?}");
        assert_given_back(&pty, &before);
    }
}

#[test]
fn the_terminal_is_given_back_after_an_error() {
    let (fake, _) = shell(vec![drawn(|talk| {
        let failure = Failure::new(Kind::Conflict, "another client writes now");
        talk.write(Frame::Error(failure));
    })]);
    let pty = Pty::open(80, 24);
    let before = pty.modes();
    let child = pty.spawn(fake.command(ATTACH));
    assert_eq!(wait(child).code(), Some(125));
    assert_given_back(&pty, &before);
    pty.wait_for("another client writes now");
}

#[test]
fn the_terminal_is_given_back_where_the_daemon_is_gone_for_good() {
    let (gone, is_gone) = std::sync::mpsc::channel::<()>();
    let (fake, _) = shell(vec![drawn(move |_| {
        let _ = is_gone.recv();
    })]);
    let pty = Pty::open(80, 24);
    let (child, before) = attached(&fake, &pty, ATTACH);
    fake.die();
    gone.send(()).expect("it waits");
    // The real daemon that is started knows of no such machine.
    assert_eq!(wait(child).code(), Some(125));
    assert_given_back(&pty, &before);
    pty.wait_for("there is no VM `x`");
    let mut stop = fake.command(&["daemon", "stop", "-q"]);
    assert!(stop.status().expect("runs").success());
}

#[test]
fn a_detach_key_is_heard_while_the_daemon_does_not_answer() {
    let (replaced, is_replaced) = std::sync::mpsc::channel::<()>();
    let (fake, _) = shell(vec![drawn(move |_| {
        let _ = is_replaced.recv();
    })]);
    let pty = Pty::open(80, 24);
    let (child, before) = attached(&fake, &pty, ATTACH);
    fake.replace(|asked| asked.wait_for_end());
    replaced.send(()).expect("it waits");
    pty.wait_for("connection lost; reconnecting…");
    // Refused, and heard to be.
    pty.type_keys(b"x");
    pty.wait_for("\x07");
    pty.type_keys(b"\x1d");
    assert_eq!(wait(child).code(), Some(0));
    assert_given_back(&pty, &before);
}

#[test]
fn sizes_are_passed_on_also_to_the_next_connection() {
    let (resized, is_resized) = std::sync::mpsc::channel::<()>();
    let (fake, heard) = shell(vec![
        drawn(move |talk| {
            let frame = Frame::Resize {
                columns: 120,
                rows: 40,
            };
            assert_eq!(talk.read(), Some(frame));
            drop(resized);
        }),
        talk(|talk| {
            talk.write(Frame::Stdout(b"again".to_vec()));
            talk.write(Frame::Exit(0));
        }),
    ]);
    let pty = Pty::open(80, 24);
    let (child, before) = attached(&fake, &pty, ATTACH);
    pty.resize(120, 40);
    kill(&child, Signal::WINCH);
    assert!(is_resized.recv().is_err());
    assert_eq!(wait(child).code(), Some(0));
    assert_given_back(&pty, &before);
    pty.wait_for("reconnected");
    let second = heard.attaches().pop().and_then(|attach| attach.terminal);
    let size = TerminalSize {
        columns: 120,
        rows: 40,
    };
    assert_eq!(second.map(|terminal| terminal.size), Some(size));
}

#[test]
fn an_observer_leaves_by_either_key_and_sends_none() {
    for key in [b"x\x03", b"y\x1d"] {
        let (fake, heard) = shell(vec![drawn(|talk| assert_eq!(talk.read(), None))]);
        let pty = Pty::open(80, 24);
        let mut arguments = ATTACH.to_vec();
        arguments.push("--observe");
        let (child, before) = attached(&fake, &pty, &arguments);
        pty.type_keys(key);
        assert_eq!(wait(child).code(), Some(0));
        assert_given_back(&pty, &before);
        let attach = heard.attaches().pop().expect("a request");
        assert!(attach.observe && attach.terminal.is_some());
    }
}

#[test]
fn without_a_terminal_or_where_asked_bytes_are_passed_on() {
    let turn = || {
        talk(|talk| {
            talk.write(Frame::Stdout(b"\x1b[2Jbytes\n".to_vec()));
            talk.write(Frame::Exit(0));
        })
    };
    let (fake, heard) = shell(vec![turn()]);
    fake.banger(ATTACH)
        .assert()
        .code(0)
        .stdout("\x1b[2Jbytes\n");
    assert_eq!(heard.attaches()[0].terminal, None);

    let (fake, heard) = shell(vec![turn()]);
    let pty = Pty::open(80, 24);
    let mut arguments = ATTACH.to_vec();
    arguments.push("--no-tty");
    let child = pty.spawn(fake.command(&arguments));
    assert_eq!(wait(child).code(), Some(0));
    pty.wait_for("\\x1b[2Jbytes");
    assert!(!contains(&pty.shown(), "\x1b[2J"));
    assert_eq!(heard.attaches()[0].terminal, None);
}

#[test]
fn a_pipe_session_on_a_terminal_stays_line_by_line() {
    let (fake, _) = playing(
        session("agent", StdinKind::Pipe),
        vec![talk(|talk| {
            assert_eq!(talk.read(), Some(Frame::Stdin(b"line\n".to_vec())));
            talk.write(Frame::Exit(0));
        })],
    );
    let pty = Pty::open(80, 24);
    let before = pty.modes();
    let child = pty.spawn(fake.command(ATTACH));
    pty.wait_for("attached to agent; Ctrl-C detaches, it goes on");
    assert_eq!(pty.modes(), before);
    pty.type_keys(b"line\r");
    assert_eq!(wait(child).code(), Some(0));
}

#[test]
fn a_session_starts_with_the_size_of_our_terminal_and_is_attached_to() {
    let (fake, heard) = shell(vec![drawn(|talk| talk.write(Frame::Exit(0)))]);
    let pty = Pty::open(99, 33);
    let start = ["vm", "session", "start", "x", "-t", "--attach", "--", "sh"];
    let child = pty.spawn(fake.command(&start));
    assert_eq!(wait(child).code(), Some(0));
    let calls = heard.calls();
    let Some(banger_core::protocol::Call::SessionStart(start)) = calls.first() else {
        panic!("{calls:?}");
    };
    assert_eq!(start.stdin, StdinKind::Tty);
    let size = TerminalSize {
        columns: 99,
        rows: 33,
    };
    assert_eq!(start.terminal, Some(size));
    assert!(heard.attaches()[0].terminal.is_some());
}
