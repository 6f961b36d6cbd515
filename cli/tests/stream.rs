//! Do bytes, exit codes and signals pass through streams unchanged?

mod fake;

use banger_core::frame::Frame;
use banger_core::protocol::Call;
use banger_core::protocol::machine::VmExec;
use banger_core::{ByteString, Failure, Kind};
use fake::{Fake, Talk};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

const EXEC: &[&str] = &["vm", "exec", "x", "--", "cmd"];

/// A fake whose streams go like this.
fn streaming(talk: impl Fn(&mut Talk) + Clone + Send + Sync + 'static) -> Fake {
    Fake::new(move |asked| {
        let stream = asked.stream(talk.clone());
        asked.reply(&stream);
    })
}

/// What `cat` does, then exit 7.
fn echo(talk: &mut Talk) {
    while let Some(frame) = talk.read() {
        match frame {
            Frame::Stdin(bytes) => talk.write(Frame::Stdout(bytes)),
            Frame::StdinEnd => talk.write(Frame::Exit(7)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bytes_and_the_exit_code_pass_unchanged() {
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0])
        .collect();
    let fake = streaming(echo);
    fake.banger(EXEC)
        .write_stdin(bytes.clone())
        .assert()
        .code(7)
        .stdout(bytes)
        .stderr("");
}

#[test]
fn both_outputs_are_kept_apart() {
    let fake = streaming(|talk| {
        talk.write(Frame::Stderr(b"\xff\x1b[2J".to_vec()));
        talk.write(Frame::Stdout(b"\x00\x1b[0m".to_vec()));
        talk.write(Frame::Exit(255));
    });
    fake.banger(EXEC)
        .assert()
        .code(255)
        .stdout(&b"\x00\x1b[0m"[..])
        .stderr(&b"\xff\x1b[2J"[..]);
}

#[test]
fn arguments_are_bytes() {
    let fake = Fake::new(|asked| {
        let wanted = VmExec {
            vm: "x".into(),
            command: [&b"-a"[..], b"--", b"", b"\xff\n $()"]
                .map(|word| ByteString(word.to_vec()))
                .into(),
        };
        let code = u8::from(asked.call != Call::VmExec(wanted));
        let stream = asked.stream(move |talk| talk.write(Frame::Exit(code)));
        asked.reply(&stream);
    });
    let mut command = fake.banger(&["vm", "exec", "x", "--", "-a", "--", ""]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff\n $()"));
    command.assert().success();
}

#[test]
fn a_stream_that_breaks_is_a_failure_and_not_an_exit() {
    let fake = streaming(|talk| talk.write(Frame::Stdout(b"half".to_vec())));
    let output = fake
        .banger(EXEC)
        .assert()
        .code(125)
        .stdout("half")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.starts_with("error: the daemon closed the stream before its end\n"),
        "{text}"
    );
    let fake = streaming(|talk| {
        talk.write(Frame::Error(Failure::new(
            Kind::Unreachable,
            "the guest is gone",
        )));
    });
    fake.banger(EXEC)
        .assert()
        .code(125)
        .stderr("error: the guest is gone\n");
    let fake = streaming(|talk| {
        talk.raw(&[99, 0, 0, 0, 0]);
    });
    fake.banger(EXEC).assert().code(125);
}

#[test]
fn the_end_does_not_wait_for_standard_input() {
    let fake = streaming(|talk| talk.write(Frame::Exit(0)));
    let mut child = fake.spawn(EXEC);
    let stdin = child.stdin.take();
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    drop(stdin);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let fake = streaming(
        |talk| {
            while talk.raw(&Frame::Stdout(vec![b'x'; 65536]).encode()) {}
        },
    );
    let mut child = fake.spawn(EXEC);
    let mut start = [0; 10];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut start).expect("bytes");
    drop(stdout);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn signals_go_to_the_program_and_a_second_one_to_banger() {
    let ready = |talk: &mut Talk| {
        talk.write(Frame::Stderr(b"ready\n".to_vec()));
    };
    let fake = streaming(move |talk| {
        ready(talk);
        assert_eq!(talk.read(), Some(Frame::Signal("TERM".into())));
        talk.write(Frame::Exit(143));
    });
    let mut child = fake.spawn(EXEC);
    let _stdin = child.stdin.take();
    let _stderr = fake::read_until(&mut child, "ready");
    fake::kill(&child, Signal::TERM);
    assert_eq!(child.wait().expect("ends").code(), Some(143));

    let fake = streaming(move |talk| {
        ready(talk);
        assert_eq!(talk.read(), Some(Frame::Signal("INT".into())));
        talk.write(Frame::Stderr(b"ignored\n".to_vec()));
        assert_eq!(talk.read(), None);
    });
    let mut child = fake.spawn(EXEC);
    let _stdin = child.stdin.take();
    let stderr = fake::read_until(&mut child, "ready");
    fake::kill(&child, Signal::INT);
    child.stderr = Some(stderr.into_inner());
    let _stderr = fake::read_until(&mut child, "ignored");
    fake::kill(&child, Signal::INT);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn a_signal_passes_a_program_that_reads_nothing() {
    let fake = streaming(|talk| {
        talk.write(Frame::Stdout(b"output\n".to_vec()));
        talk.write(Frame::Stderr(b"ready\n".to_vec()));
        // The client's input is stuck until here; its output must not be.
        std::thread::park();
    });
    let mut child = fake.spawn(EXEC);
    let mut stdin = child.stdin.take().expect("a pipe");
    let feed = std::thread::spawn(move || while stdin.write_all(&[0; 65536]).is_ok() {});
    let stderr = fake::read_until(&mut child, "ready");
    fake::kill(&child, Signal::INT);
    fake::kill(&child, Signal::TERM);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    drop(stderr);
    feed.join().expect("ends");
}

#[test]
fn what_is_sent_ends_where_standard_input_ends() {
    let fake = streaming(|talk| {
        assert_eq!(talk.read(), Some(Frame::Stdin(b"prompt".to_vec())));
        assert_eq!(talk.read(), Some(Frame::StdinEnd));
        talk.write(Frame::Exit(0));
    });
    fake.banger(&["vm", "session", "send", "x", "agent"])
        .write_stdin("prompt")
        .assert()
        .success()
        .stdout("");
}
