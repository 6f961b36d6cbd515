//! Does every message reach a session whole and once, with many senders at once, and is what was
//! not read told exactly?

use std::path::Path;
use std::time::Instant;

use banger_core::frame::Frame;
use banger_tests::home::{HOST, Home};
use banger_tests::random::Random;
use banger_tests::rpc::Rpc;
use banger_tests::stream::Stream;
use serde_json::{Value, json};

const SENDERS: usize = 8;
/// Of the senders, those that use the command line. The others share connections.
const BY_COMMAND: usize = 2;
const ON_ONE_CONNECTION: usize = 3;

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

fn start(home: &Home, name: &str, script: &str) {
    let words = [
        "vm", "session", "start", HOST, "--name", name, "--", "bash", "-c", script,
    ];
    let _ = home.run(words).ok();
}

/// A line of JSON, 10 bytes to 100 kB, short ones more often: every size of ten times another is as
/// likely.
fn line(random: &mut Random, sender: usize, number: usize) -> Vec<u8> {
    let magnitude = 1 + random.below(4);
    let length = 10_usize.pow(u32::try_from(magnitude).expect("small"));
    let length = length + random.below(9 * length) - 10;
    let text: String = (0..length)
        .map(|_| char::from(b'!' + u8::try_from(random.below(90)).expect("small")))
        .collect();
    let mut line = match length {
        // No room for more than this.
        0..40 => json!([sender, number]).to_string().into_bytes(),
        _ => json!({"sender": sender, "number": number, "text": text})
            .to_string()
            .into_bytes(),
    };
    line.push(b'\n');
    line
}

/// Sends each sender's lines one after the other, all senders at the same time over one connection.
fn send_over_one_connection(socket: &Path, senders: &[Vec<Vec<u8>>]) {
    let mut rpc = Rpc::greet(socket).expect("a daemon");
    let request = |sender: usize, number: usize| {
        let message = String::from_utf8_lossy(&senders[sender][number]);
        let params =
            json!({"vm": HOST, "session": "reader", "message": message, "timeout_ms": 120_000});
        let id = 1000 + sender * 100_000 + number;
        json!({"jsonrpc": "2.0", "id": id, "method": "guest.session.send", "params": params})
            .to_string()
            .into_bytes()
    };
    for sender in 0..senders.len() {
        rpc.send_line(&request(sender, 0)).expect("sent");
    }
    let mut left: usize = senders.iter().map(Vec::len).sum();
    while left > 0 {
        let message = rpc.next_message().expect("an answer").expect("no hang-up");
        let Some(id) = message["id"].as_u64() else {
            continue;
        };
        let id = usize::try_from(id).expect("small") - 1000;
        let (sender, number) = (id / 100_000, id % 100_000);
        let length = senders[sender][number].len();
        assert_eq!(message["result"]["bytes"], length, "{}", message["error"]);
        left -= 1;
        if number + 1 < senders[sender].len() {
            rpc.send_line(&request(sender, number + 1)).expect("sent");
        }
    }
}

#[test]
fn lines_of_many_senders_arrive_whole_once_and_in_order() {
    lines_arrive(150);
}

#[test]
#[ignore = "minutes in a debug build: each line is a script in the guest"]
fn ten_thousand_lines_of_many_senders_arrive_whole_once_and_in_order() {
    lines_arrive(1250);
}

fn lines_arrive(count: usize) {
    let home = home();
    let mut random = Random::announced();
    let senders: Vec<Vec<Vec<u8>>> = (0..SENDERS)
        .map(|sender| {
            (0..count)
                .map(|number| line(&mut random, sender, number))
                .collect()
        })
        .collect();
    let total: usize = senders.iter().flatten().map(Vec::len).sum();
    let got = home.guest_home().join("got");
    start(
        &home,
        "reader",
        &format!("exec head -c {total} >'{}'", got.display()),
    );

    let begun = Instant::now();
    let (by_command, by_socket) = senders.split_at(BY_COMMAND);
    std::thread::scope(|scope| {
        for group in by_socket.chunks(ON_ONE_CONNECTION) {
            let socket = home.socket();
            scope.spawn(move || send_over_one_connection(&socket, group));
        }
        for lines in by_command {
            let home = &home;
            scope.spawn(move || {
                // Some lines at a time, as a program that pipes its output into `send`.
                for lines in lines.chunks(50) {
                    let words = ["vm", "session", "send", HOST, "reader", "--timeout", "2m"];
                    let _ = home.run_with(words, &lines.concat()).ok();
                }
            });
        }
    });
    let waited = home.run(["vm", "session", "wait", HOST, "reader", "--timeout", "50s"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    eprintln!(
        "{SENDERS} senders, {count} lines each, {:.1} MB: {:.1} s",
        total as f64 / 1e6,
        begun.elapsed().as_secs_f64()
    );

    let got = std::fs::read(&got).expect("there");
    assert_eq!(got.len(), total);
    let mut next = [0; SENDERS];
    for line in got.split_inclusive(|byte| *byte == b'\n') {
        let value: Value = serde_json::from_slice(line).unwrap_or_else(|error| {
            panic!("a line is torn: {error}: {}", String::from_utf8_lossy(line))
        });
        let sender = value["sender"]
            .as_u64()
            .or(value[0].as_u64())
            .expect("whose it is");
        let sender = usize::try_from(sender).expect("small");
        assert!(
            senders[sender][next[sender]] == line,
            "line {} of sender {sender} is another",
            next[sender]
        );
        next[sender] += 1;
    }
    assert_eq!(next, [count; SENDERS]);
}

#[test]
fn what_nobody_reads_times_out_and_a_later_reader_gets_exactly_what_was_written() {
    let home = home();
    let mark = home.guest_home().join("go");
    let got = home.guest_home().join("got");
    // It reads nothing before it is told to, and then all that has been written.
    start(
        &home,
        "deaf",
        &format!(
            "until [[ -e '{}' ]]; do sleep 0.05; done; exec cat >'{}'",
            mark.display(),
            got.display()
        ),
    );
    let message: Vec<u8> = Random::from_seed(7).bytes(300_000);
    let begun = Instant::now();
    let words = [
        "--json",
        "vm",
        "session",
        "send",
        HOST,
        "deaf",
        "--timeout",
        "1s",
    ];
    let failure = home.run_with(words, &message).failure(12);
    assert!(begun.elapsed().as_secs() < 20, "a timeout, not a hang");
    assert_eq!(failure["kind"], "timed-out");
    let text = failure["message"].as_str().unwrap_or_default();
    // "… 65536 of 300000 bytes were written"
    let written: usize = text
        .split(" of 300000 bytes")
        .next()
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("it says how much was written: {text}"));
    assert!((4096..300_000).contains(&written), "{text}");

    // Another finds the pipe full and has written nothing.
    let words = [
        "--json",
        "vm",
        "session",
        "send",
        HOST,
        "deaf",
        "--message",
        "late",
        "--timeout",
        "500ms",
    ];
    let failure = home.run(words).failure(12);
    let text = failure["message"].as_str().unwrap_or_default();
    assert!(text.contains("0 of 4 bytes were written"), "{text}");

    std::fs::write(&mark, "").expect("written");
    let sent = home.run([
        "vm",
        "session",
        "send",
        HOST,
        "deaf",
        "--eof",
        "--message",
        "end",
    ]);
    let _ = sent.ok();
    let waited = home.run(["vm", "session", "wait", HOST, "deaf", "--timeout", "50s"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    let expected = [&message[..written], b"end"].concat();
    let got = std::fs::read(&got).expect("there");
    assert!(
        got == expected,
        "{} bytes instead of {}",
        got.len(),
        expected.len()
    );
}

#[test]
fn the_end_of_the_input_comes_after_what_was_sent_and_nothing_after_it() {
    let home = home();
    for (name, words, stdin, expected) in [
        (
            "message",
            &["--eof", "--message", "a\nb"][..],
            &b""[..],
            &b"a\nb"[..],
        ),
        ("stream", &["--eof"], b"one\ntwo\n", b"one\ntwo\n"),
        ("empty", &["--eof", "--message", ""], b"", b""),
    ] {
        start(&home, name, "cat; echo end; exec sleep 600");
        let mut logs = home.spawn(["vm", "session", "logs", HOST, name, "--follow"]);
        let send = ["vm", "session", "send", HOST, name];
        let _ = home.run_with(send.iter().chain(words), stdin).ok();
        logs.until("end\n");
        // The program goes on; its input does not.
        let late = [
            "--json",
            "vm",
            "session",
            "send",
            HOST,
            name,
            "--message",
            "late",
        ];
        assert_eq!(home.run(late).failure(4)["kind"], "conflict");
        let attach = home.run(["--json", "vm", "session", "attach", HOST, name]);
        assert_ne!(attach.code, Some(0), "no input, no writer: {attach:?}");
        let _ = home.run(["vm", "session", "kill", HOST, name]).ok();
        assert_eq!(logs.wait().stdout, [expected, b"end\n"].concat(), "{name}");
    }
}

#[test]
fn a_streamed_message_that_is_cut_short_is_not_written() {
    let home = home();
    start(&home, "echo", "read -r line; echo \"got $line\"");
    let mut rpc = home.rpc();
    let params = json!({"vm": HOST, "session": "echo"});
    for _ in 0..3 {
        let reply = rpc
            .call("guest.session.send", params.clone())
            .expect("a stream");
        let mut stream = Stream::open(&reply).expect("opened");
        stream
            .write(&Frame::Stdin(b"torn\n".to_vec()))
            .expect("written");
        stream.leave().expect("open");
    }
    let reply = rpc.call("guest.session.send", params).expect("a stream");
    let mut stream = Stream::open(&reply).expect("opened");
    stream
        .write(&Frame::Stdin(b"whole\n".to_vec()))
        .expect("written");
    stream.write(&Frame::StdinEnd).expect("written");
    assert_eq!(stream.finish().expect("an end").end, Some(Ok(0)));
    let waited = home.run(["vm", "session", "wait", HOST, "echo", "--timeout", "50s"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    let logs = home.run(["vm", "session", "logs", HOST, "echo"]).ok();
    assert_eq!(logs.text(), "got whole\n");
}
