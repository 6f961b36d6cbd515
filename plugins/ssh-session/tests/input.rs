//! Input: what is taken of it, by whom, and how it ends.
#![allow(missing_docs, clippy::unwrap_used)]

mod guest;

use banger_plugin_testing::{eventually, exit_code};
use banger_ssh_session::Plugin;
use banger_ssh_session::contract::Guest as _;
use guest::{Guest, kill};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command};

/// A client's connection to a session's input.
struct Writer {
    script: Child,
    stdin: Option<ChildStdin>,
    counts: BufReader<ChildStdout>,
}

impl Writer {
    fn new(guest: &Guest, id: &str, name: &str) -> Self {
        let script = Plugin::attach_input(guest.session(id), name.to_owned()).unwrap();
        let mut script = guest.spawn(script);
        Self {
            stdin: script.stdin.take(),
            counts: BufReader::new(script.stdout.take().unwrap()),
            script,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The next number, or none at the end.
    fn count(&mut self) -> Option<u64> {
        let mut line = String::new();
        self.counts.read_line(&mut line).unwrap();
        line.strip_suffix('\n')
            .map(|number| number.parse().unwrap())
    }

    fn until(&mut self, count: u64) {
        while self.count().unwrap() < count {}
    }

    /// Ends its input; the exit code and what it told.
    fn end(mut self) -> (i32, String) {
        drop(self.stdin.take());
        while self.count().is_some() {}
        let output = self.script.wait_with_output().unwrap();
        (
            exit_code(&output),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

/// A program that reads nothing until it is let.
const LATE: [&[u8]; 3] = [b"bash", b"-c", b"kill -STOP $$; exec cat"];

fn let_read(guest: &Guest, id: &str) {
    let pid = guest.one(id).pid.unwrap().to_string();
    eventually("the program has stopped itself", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ").then_some(())
    });
    kill(&pid, "CONT");
}

/// Waits until somebody holds the writers' lock.
fn await_lock(guest: &Guest, id: &str) {
    let lock = format!("{}/input-lock", guest.dir(id));
    eventually("a sender writes", || {
        let free = Command::new("flock").args(["-n", &lock, "true"]).status();
        (!free.unwrap().success()).then_some(())
    });
}

#[test]
fn a_writer_is_told_what_was_taken_over_all_its_connections() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let mut writer = Writer::new(&guest, "a", "w1");
    assert_eq!(writer.count(), Some(0));
    let pieces: [&[u8]; 6] = [
        b"x",
        b"\0",
        b"line\n",
        b"two\nlines\n\0\0",
        b"\xff\n",
        &[b'y'; 300_000],
    ];
    let mut all = Vec::new();
    for piece in pieces {
        writer.write(piece);
        all.extend_from_slice(piece);
        writer.until(all.len() as u64);
    }
    assert_eq!(writer.end(), (0, String::new()));
    let mut again = Writer::new(&guest, "a", "w1");
    assert_eq!(again.count(), Some(all.len() as u64));
    let mut other = Writer::new(&guest, "a", "w2");
    assert_eq!(other.count(), Some(0));
    eventually("all has arrived", || {
        (guest.stdout("a") == all).then_some(())
    });
}

#[test]
fn a_lost_connection_loses_and_repeats_no_byte() {
    let guest = Guest::new();
    guest.launched("a", &LATE);
    let payload: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    // The first one stays connected, blocked in a program that does not read.
    let mut first = Writer::new(&guest, "a", "w");
    assert_eq!(first.count(), Some(0));
    let mut stdin = first.stdin.take().unwrap();
    let sent = payload.clone();
    let stuck = std::thread::spawn(move || drop(stdin.write_all(&sent)));
    await_lock(&guest, "a");
    let mut second = Writer::new(&guest, "a", "w");
    let taken = second.count().unwrap();
    stuck.join().unwrap();
    let (code, told) = first.end();
    assert!(code == 3 && told.contains("took over"), "{code} {told}");
    assert!(taken <= 65_536, "{taken}");
    // Once more, as a short piece, with the pipe full.
    let rest = &payload[usize::try_from(taken).unwrap()..];
    let mut at = taken;
    let sent = guest.send("a", 100, rest);
    assert_eq!(exit_code(&sent), 4);
    at += number_before(&sent.stderr, " of ");
    second.write(b"short\n");
    await_lock(&guest, "a");
    let mut third = Writer::new(&guest, "a", "w");
    assert_eq!(third.count(), Some(taken));
    assert_eq!(second.end().0, 3);
    let_read(&guest, "a");
    let rest = &payload[usize::try_from(at).unwrap()..];
    third.write(rest);
    third.until(taken + rest.len() as u64);
    assert_eq!(third.end().0, 0);
    eventually("all has arrived", || {
        (guest.stdout("a") == payload).then_some(())
    });
}

/// The number that stands before some text.
fn number_before(text: &[u8], after: &str) -> u64 {
    let text = String::from_utf8_lossy(text);
    let (before, _) = text.split_once(after).unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_counts_of_few_writers_are_kept() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    for index in 0..40 {
        let mut writer = Writer::new(&guest, "a", &format!("w{index}"));
        assert_eq!(writer.count(), Some(0));
        assert_eq!(writer.end().0, 0);
    }
    let kept = std::fs::read_dir(format!("{}/writers", guest.dir("a"))).unwrap();
    assert!((32..=64).contains(&kept.count()));
    for name in ["", "A", "a/b", "..", "a b", &"x".repeat(33)] {
        assert!(Plugin::attach_input(guest.session("a"), name.to_owned()).is_err());
    }
}

#[test]
fn a_closed_input_ends_and_takes_no_more() {
    let guest = Guest::new();
    for (id, end, code) in [
        ("a", "exit 138", 138),
        ("b", "exit 127", 127),
        ("c", "kill -USR1 $$", 138),
    ] {
        let script = format!("cat; {end}");
        guest.launched(id, &[b"bash", b"-c", script.as_bytes()]);
        let mut writer = Writer::new(&guest, id, "w");
        assert_eq!(writer.count(), Some(0));
        assert!(guest.send(id, 5000, b"last").status.success());
        let closed = guest.run(Plugin::close_input(guest.session(id), 5000).unwrap(), b"");
        assert!(closed.status.success(), "{closed:?}");
        assert_eq!(guest.ended(id).exit_code, Some(code));
        assert_eq!(guest.stdout(id), b"last");
        writer.write(b"more\n");
        let (code, _) = writer.end();
        assert_eq!(code, 3);
        let again = guest.run(Plugin::close_input(guest.session(id), 5000).unwrap(), b"");
        assert!(again.status.success(), "{again:?}");
    }
    guest.launched("d", &[b"sleep", b"1000"]);
    let close = || guest.run(Plugin::close_input(guest.session("d"), 5000).unwrap(), b"");
    for closed in [close(), close()] {
        assert!(closed.status.success(), "{closed:?}");
    }
    for refused in [guest.send("d", 5000, b"x"), {
        let script = Plugin::attach_input(guest.session("d"), "w".into()).unwrap();
        guest.run(script, b"x")
    }] {
        assert_eq!(exit_code(&refused), 3);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("input was closed"));
    }
}

#[test]
fn an_input_is_not_closed_in_the_midst_of_a_payload() {
    let guest = Guest::new();
    guest.launched("a", &LATE);
    let mut writer = Writer::new(&guest, "a", "w");
    let mut stdin = writer.stdin.take().unwrap();
    let busy = std::thread::spawn(move || drop(stdin.write_all(&[b'x'; 200_000])));
    await_lock(&guest, "a");
    let refused = guest.run(Plugin::close_input(guest.session("a"), 50).unwrap(), b"");
    assert_eq!(exit_code(&refused), 4);
    let_read(&guest, "a");
    writer.until(200_000);
    busy.join().unwrap();
    let closed = guest.run(Plugin::close_input(guest.session("a"), 5000).unwrap(), b"");
    assert!(closed.status.success(), "{closed:?}");
    assert_eq!(guest.ended("a").stdout_bytes, 200_000);
}

#[test]
fn a_program_that_closed_its_input_is_told_of() {
    let guest = Guest::new();
    guest.launched(
        "a",
        &[b"bash", b"-c", b"exec <&-; echo ready; exec sleep 1000"],
    );
    eventually("it is closed", || {
        (!guest.stdout("a").is_empty()).then_some(())
    });
    let sent = guest.send("a", 5000, b"x");
    let script = Plugin::attach_input(guest.session("a"), "w".into()).unwrap();
    for refused in [sent, guest.run(script, &[b'x'; 100_000])] {
        assert_eq!(exit_code(&refused), 3, "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(told.contains("closed its input: 0 "), "{told}");
    }
}

#[test]
fn a_pipe_that_was_deleted_is_told_of_and_the_session_goes_on() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let fifo = Plugin::paths(guest.session("a")).stdin;
    std::fs::remove_file(&fifo).unwrap();
    let sent = guest.send("a", 5000, b"x");
    assert_eq!(exit_code(&sent), 3);
    assert!(
        String::from_utf8_lossy(&sent.stderr).contains("is no pipe"),
        "{sent:?}"
    );
    assert!(!std::path::Path::new(&fifo).exists());
    assert!(guest.one("a").alive);
}

#[test]
fn what_many_send_at_once_arrives_whole_and_once() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let line = |sender: usize, index: usize| {
        let length = [10, 100, 5000, 70_000, 100_000][(sender + index) % 5];
        let mut line = format!("{sender} {index} ").into_bytes();
        line.resize(length, b'x');
        line.push(b'\n');
        line
    };
    let guest = &guest;
    std::thread::scope(|scope| {
        for sender in 0..8 {
            scope.spawn(move || {
                for index in 0..6 {
                    let sent = guest.send("a", 20_000, &line(sender, index));
                    assert!(sent.status.success(), "{sent:?}");
                }
            });
        }
    });
    let mut expected: Vec<Vec<u8>> = (0..8)
        .flat_map(|sender| (0..6).map(move |index| line(sender, index)))
        .collect();
    expected.sort();
    let bytes: usize = expected.iter().map(Vec::len).sum();
    let seen = eventually("all has arrived", || {
        Some(guest.stdout("a")).filter(|seen| seen.len() >= bytes)
    });
    let mut lines: Vec<&[u8]> = seen.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    assert!(lines == expected);
}
