//! Does every byte arrive, once and in order, whatever is cut meanwhile: the daemon killed, SSH
//! connections cut, at random moments?

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use banger_tests::compared::{Compared, Expected, Told};
use banger_tests::home::{DEADLINE, HOST, Home};
use banger_tests::random::Random;

const MIB: usize = 1 << 20;
/// What the program prints for one byte of its gate.
const STDOUT_STEP: usize = 800_000;
const STDERR_STEP: usize = 200_000;
/// How far the program may be ahead of the slowest client.
const AHEAD: usize = 8 * MIB;
/// How many times something is cut.
const CUTS: usize = 20;
/// Before the output begins: from here on a client is attached.
const LEAD: u8 = b'.';

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A FIFO of a session's program, of which we hold both ends: opening it never waits.
fn gate(home: &Home) -> (PathBuf, File) {
    let path = home.guest_home().join("gate");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success());
    let file = File::options().read(true).write(true).open(&path);
    (path, file.expect("opened"))
}

/// A session that prints bytes which never repeat, a step for each byte of its gate.
fn print_with_cuts(steps: usize, cut: impl Fn(&Home, &mut Random)) {
    let home = home();
    let mut random = Random::announced();
    let begun = Instant::now();
    let mut stdout = random.bytes(steps * STDOUT_STEP);
    // The lead ends where the output begins.
    stdout[0] = LEAD ^ 0xff;
    let expected = Expected {
        stdout: Arc::new(stdout),
        stderr: Arc::new(random.bytes(steps * STDERR_STEP)),
        lead: Some(LEAD),
    };
    let source = home.guest_home();
    std::fs::write(source.join("out"), &*expected.stdout).expect("written");
    std::fs::write(source.join("err"), &*expected.stderr).expect("written");
    let (path, mut gate) = gate(&home);
    let script = format!(
        "cd '{}'; exec 3<out 4<err 5<'{}'\n\
         while read -r -N1 -u5 word && [[ $word == . ]]; do printf .; done\n\
         for ((n = 0; n < {steps}; n++)); do\n\
         ((n == 0)) || read -r -N1 -u5 _\n\
         dd bs={STDOUT_STEP} count=1 iflag=fullblock status=none <&3\n\
         dd bs={STDERR_STEP} count=1 iflag=fullblock status=none <&4 >&2\n\
         done; exit 7",
        source.display(),
        path.display()
    );
    let start = [
        "vm", "session", "start", HOST, "--name", "print", "--", "bash", "-c", &script,
    ];
    let _ = home.run(start).ok();

    let (progress, mut told) = Told::new(2);
    let mut clients: Vec<Compared> = [
        words(&[
            "--quiet",
            "vm",
            "session",
            "attach",
            HOST,
            "print",
            "--observe",
        ]),
        words(&[
            "--quiet", "vm", "session", "logs", HOST, "print", "--follow",
        ]),
    ]
    .iter()
    .enumerate()
    .map(|(number, words)| Compared::spawn(home.command(words), number, &expected, &progress))
    .collect();
    drop(progress);
    // Who has got something of the lead is there before the first byte that counts.
    banger_tests::until("both clients follow", || {
        gate.write_all(&[LEAD]).expect("open");
        told.all_heard()
    });

    let total = steps * (STDOUT_STEP + STDERR_STEP);
    let cuts = random.ascending(CUTS, 2 * total * 9 / 10);
    let mut cuts = cuts.into_iter().peekable();
    let (mut opened, mut cut_count) = (0, 0);
    loop {
        let ready = |totals: &[usize]| {
            let slowest = totals.iter().min().copied().unwrap_or_default();
            let sum: usize = totals.iter().sum();
            let may_print =
                opened < steps && slowest + AHEAD > opened * (STDOUT_STEP + STDERR_STEP);
            may_print || cuts.peek().is_some_and(|at| sum >= *at) || sum == 2 * total
        };
        let ready = told.wait(Instant::now() + DEADLINE, ready);
        let totals = told.totals().to_vec();
        if !ready {
            // Their own comparison tells more.
            for client in &mut clients {
                eprintln!("{:?}", client.finish());
            }
            panic!("the clients stand still at {totals:?} of {total}");
        }
        let sum: usize = totals.iter().sum();
        if cuts.next_if(|at| sum >= *at).is_some() {
            cut(&home, &mut random);
            cut_count += 1;
        } else if sum == 2 * total {
            break;
        } else if opened < steps {
            gate.write_all(b"x").expect("open");
            opened += 1;
        }
    }
    // Whoever is attached ends with the session's code.
    for (client, code) in clients.iter_mut().zip([7, 0]) {
        assert_eq!(client.finish(), Ok(Some(code)), "of {total} bytes");
    }
    assert_eq!(cut_count, CUTS);
    eprintln!(
        "{} MB to each of 2 clients, {CUTS} cuts: {:.1} s",
        total / 1_000_000,
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn output_is_exact_while_the_daemon_is_killed() {
    print_with_cuts(200, |home, random| {
        home.kill_next_daemon();
        // One time in four, the next one as well, which may not have done anything yet.
        if random.below(4) == 0 {
            home.kill_next_daemon();
        }
    });
}

#[test]
fn output_is_exact_while_ssh_connections_are_cut() {
    print_with_cuts(200, |home, _| {
        home.sshd.as_ref().expect("an sshd").cut_network();
    });
}

/// Input to a session through an attached client, while the daemon is killed and connections are cut
/// in turn.
#[test]
fn input_is_exact_while_the_daemon_is_killed_and_connections_are_cut() {
    const LINES: usize = 50_000;
    const CUTS: usize = 10;
    /// So much may be on its way.
    const ON_ITS_WAY: usize = 256 << 10;
    let home = home();
    let mut random = Random::announced();
    let begun = Instant::now();
    let mut input = Vec::new();
    for number in 0..LINES {
        let noise = "x".repeat(random.below(60));
        input.extend(format!("{number:06} {noise}\n").into_bytes());
    }
    let got = home.guest_home().join("got");
    let script = format!("head -c {} | tee '{}'; exit 9", input.len(), got.display());
    let start = [
        "vm", "session", "start", HOST, "--name", "type", "--", "bash", "-c", &script,
    ];
    let _ = home.run(start).ok();
    let expected = Expected {
        stdout: Arc::new(input.clone()),
        ..Expected::default()
    };
    let (progress, mut told) = Told::new(1);
    let mut command = home.command(["--quiet", "vm", "session", "attach", HOST, "type"]);
    command.stdin(Stdio::piped());
    let mut client = Compared::spawn(command, 0, &expected, &progress);
    drop(progress);
    let mut typed = client.stdin();

    let mut cuts = random
        .ascending(CUTS, input.len() * 9 / 10)
        .into_iter()
        .peekable();
    let (mut written, mut cut_count) = (0, 0);
    while written < input.len() || cuts.peek().is_some() {
        let ready = told.wait(Instant::now() + DEADLINE, |totals| {
            (written < input.len() && totals[0] + ON_ITS_WAY > written)
                || cuts.peek().is_some_and(|at| totals[0] >= *at)
        });
        let echoed = told.totals()[0];
        assert!(
            ready,
            "it stands still: {:?}, {echoed} of {written} came back",
            client.finish()
        );
        if cuts.next_if(|at| echoed >= *at).is_some() {
            match cut_count % 2 {
                0 => home.kill_next_daemon(),
                _ => home.sshd.as_ref().expect("an sshd").cut_network(),
            }
            cut_count += 1;
        } else if written < input.len() {
            // Lines, and also parts of lines.
            let more = (written + 1 + random.below(20_000)).min(input.len());
            typed.write_all(&input[written..more]).expect("it reads");
            written = more;
        }
    }
    drop(typed);
    assert_eq!(client.finish(), Ok(Some(9)));
    let got = std::fs::read(&got).expect("there");
    let same = got.iter().zip(&input).take_while(|(a, b)| a == b).count();
    assert!(
        got == input,
        "{} bytes, the first {same} are right",
        got.len()
    );
    assert_eq!(cut_count, CUTS);
    eprintln!(
        "{LINES} lines, {CUTS} cuts: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}
