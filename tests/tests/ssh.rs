//! Does SSH carry commands and bytes faithfully, against a real OpenSSH server?

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_core::{Failure, Kind, Output, Script};
use banger_host::ssh::{
    Bytes, Connectivity, Exit, HostKeyPolicy, KeyPair, ProcessEvent, ProcessOutput, Remote,
    SshError, scan_host_key,
};
use banger_tests::sshd::{Options, Sshd};
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(60);
const LIMIT: usize = 1024 * 1024;
const MIB: usize = 1024 * 1024;

fn server() -> Sshd {
    Sshd::start().expect("sshd starts")
}

fn remote(server: &Sshd) -> Remote {
    Remote::new(server.target().expect("a target"))
}

fn script(body: &str) -> Script {
    Script {
        body: body.into(),
        timeout: Some(DEADLINE),
        ..Script::default()
    }
}

async fn run(remote: &Remote, body: &str) -> Output {
    remote.run(&script(body), LIMIT).await.expect("runs")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("in time")
}

/// Everything until the exit.
async fn drain(output: &mut ProcessOutput) -> (Vec<u8>, Vec<u8>, Exit) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match within(output.next()).await.expect("an exit comes") {
            ProcessEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ProcessEvent::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            ProcessEvent::Exit(exit) => {
                assert!(output.next().await.is_none(), "the exit is the last");
                return (stdout, stderr, exit);
            }
        }
    }
}

/// Bytes without a pattern that a lost or doubled packet could hide in.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(bytes).expect("takes all");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_arrive() {
    let server = server();
    let remote = remote(&server);
    for code in [0, 1, 42, 255] {
        let output = run(&remote, &format!("exit {code}")).await;
        assert_eq!(output.exit_code, code);
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert_eq!(run(&remote, "kill -KILL $$").await.exit_code, 137);
    assert_eq!(run(&remote, "kill -USR2 $$").await.exit_code, 140);

    let mut process = remote.start(b"kill -TERM $$").await.expect("starts");
    let (_, _, exit) = drain(process.output()).await;
    assert!(
        matches!(&exit, Exit::Signal { name, core_dumped: false, .. } if name == "TERM"),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_passes_unchanged_and_streams_stay_apart() {
    let server = server();
    let remote = remote(&server);
    let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let output = remote
        .run(
            &Script {
                body: "cat; cat \"$HOME/none\" || printf '\\377\\001' >&2".into(),
                stdin: all.clone(),
                timeout: Some(DEADLINE),
                ..Script::default()
            },
            LIMIT,
        )
        .await
        .expect("runs");
    assert_eq!(output.stdout, all);
    assert!(output.stderr.ends_with(b"\xff\x01"));

    let argument: Vec<u8> = (1..=255).collect();
    let output = remote
        .run(
            &Script {
                body: "printf %s \"$1\"".into(),
                args: vec![argument.clone()],
                ..Script::default()
            },
            LIMIT,
        )
        .await
        .expect("runs");
    assert_eq!(output.stdout, argument);
    let home = run(&remote, "printf %s \"$HOME\"").await.stdout;
    assert_eq!(
        String::from_utf8_lossy(&home),
        server.home().display().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn output_beyond_the_limit_is_cut_and_the_script_still_ends() {
    let server = server();
    let output = remote(&server)
        .run(
            &script("head -c 3000000 /dev/zero; echo end >&2; exit 3"),
            1000,
        )
        .await
        .expect("runs");
    assert_eq!(output.exit_code, 3);
    assert_eq!(output.stdout, vec![0; 1000]);
    assert_eq!(output.stderr, b"end\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_each_way() {
    let server = server();
    let remote = remote(&server);
    let blob = noise(64 * MIB);
    let up = remote
        .run(
            &Script {
                body: "tee \"$HOME/blob\" | sha256sum".into(),
                stdin: blob.to_vec(),
                timeout: Some(DEADLINE),
                ..Script::default()
            },
            LIMIT,
        )
        .await
        .expect("uploads");
    assert_eq!(String::from_utf8_lossy(&up.stdout), sha256(&blob));
    let down = remote
        .run(&script("cat \"$HOME/blob\""), 65 * MIB)
        .await
        .expect("downloads");
    assert!(down.stdout == blob, "what came back differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_at_once_survive_new_keys() {
    let server = Sshd::start_with(&Options::default().line("RekeyLimit 8M")).expect("sshd starts");
    let blob = noise(64 * MIB);
    let process = remote(&server).start(b"cat").await.expect("starts");
    let (mut input, mut output) = process.into_split();
    let sent = blob.clone();
    let feeding = tokio::spawn(async move {
        input.write_all(sent).await.expect("writes");
        input.close().await.expect("closes");
    });
    let (stdout, stderr, exit) = drain(&mut output).await;
    feeding.await.expect("feeds");
    assert!(stdout == blob, "what came back differs");
    assert!(stderr.is_empty());
    assert!(matches!(exit, Exit::Code(0)), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_read_its_input_is_no_error() {
    let server = server();
    let output = remote(&server)
        .run(
            &Script {
                body: "exec 0<&-; echo done".into(),
                stdin: vec![7; 32 * MIB],
                timeout: Some(DEADLINE),
                ..Script::default()
            },
            LIMIT,
        )
        .await
        .expect("runs");
    assert_eq!(output.stdout, b"done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_to_a_process_that_has_ended_ends_with_an_error() {
    let server = server();
    let process = remote(&server).start(b"exit 5").await.expect("starts");
    let (mut input, mut output) = process.into_split();
    // More than a window: without noticing the end, this would wait for ever.
    let written = within(input.write_all(noise(64 * MIB))).await;
    assert!(matches!(written, Err(SshError::InputClosed)), "{written:?}");
    let (_, _, exit) = drain(&mut output).await;
    assert!(matches!(exit, Exit::Code(5)), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_commands_use_one_connection() {
    let server = server();
    let remote = remote(&server);
    for number in 0..301 {
        let output = run(&remote, &format!("echo {number}")).await;
        assert_eq!(output.stdout, format!("{number}\n").into_bytes());
    }
    assert_eq!(server.logins(), 1);
}

async fn fifty_at_once(server: &Sshd) {
    let remote = remote(server);
    let mut running = JoinSet::new();
    for number in 0..50 {
        let remote = remote.clone();
        running.spawn(async move { run(&remote, &format!("echo {number}")).await.stdout });
    }
    let answers: BTreeSet<_> = within(running.join_all()).await.into_iter().collect();
    assert_eq!(answers.len(), 50);
    assert!(answers.contains(&b"49\n"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_commands_at_once_on_one_connection() {
    let server = Sshd::start_with(&Options::default().max_sessions(100)).expect("sshd starts");
    fifty_at_once(&server).await;
    assert_eq!(server.logins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_commands_at_once_with_ten_sessions_a_connection() {
    let server = server();
    fifty_at_once(&server).await;
    assert!(server.logins() <= 8, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_hold_every_session_do_not_hold_up_others() {
    let server = Sshd::start_with(&Options::default().max_sessions(3)).expect("sshd starts");
    let remote = remote(&server);
    let made = run(&remote, "mkfifo \"$HOME/up\" \"$HOME/gate\"").await;
    assert_eq!(made.exit_code, 0, "{made:?}");
    let open = |name: &str| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(server.home().join(name))
            .expect("opens")
    };
    let (up, mut gate) = (open("up"), open("gate"));
    let mut running = JoinSet::new();
    for _ in 0..8 {
        let remote = remote.clone();
        running.spawn(async move {
            run(
                &remote,
                "echo up >\"$HOME/up\"; read -r _ <\"$HOME/gate\"; echo through",
            )
            .await
        });
    }
    let arrived = tokio::task::spawn_blocking(move || BufReader::new(up).lines().take(8).count());
    assert_eq!(within(arrived).await.expect("reads"), 8);
    assert_eq!(run(&remote, "echo hello").await.stdout, b"hello\n");
    gate.write_all(&[b'\n'; 8]).expect("opens the gate");
    for output in within(running.join_all()).await {
        assert_eq!(output.stdout, b"through\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_replaced_once_for_all() {
    let server = Sshd::start_with(&Options::default().max_sessions(200)).expect("sshd starts");
    let remote = remote(&server);
    let mut connectivity = remote.connectivity();
    assert_eq!(*connectivity.borrow(), Connectivity::Idle);
    run(&remote, "true").await;
    assert_eq!(*connectivity.borrow(), Connectivity::Connected);
    server.cut_connections();
    within(connectivity.wait_for(|now| matches!(now, Connectivity::Lost { .. })))
        .await
        .expect("the loss is told");
    let mut running = JoinSet::new();
    for number in 0..100 {
        let remote = remote.clone();
        running.spawn(async move { run(&remote, &format!("echo {number}")).await.stdout });
    }
    let answers: BTreeSet<_> = within(running.join_all()).await.into_iter().collect();
    assert_eq!(answers.len(), 100);
    assert_eq!(server.logins(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_stream_is_an_error() {
    let server = server();
    let remote = remote(&server);
    let mut process = remote
        .start(b"echo ready; exec sleep 600")
        .await
        .expect("starts");
    let first = within(process.output().next()).await;
    assert!(matches!(&first, Some(ProcessEvent::Stdout(bytes)) if bytes == "ready\n"));
    server.cut_connections();
    let (_, _, exit) = drain(process.output()).await;
    assert!(
        matches!(exit, Exit::Failed(SshError::Lost { .. })),
        "{exit:?}"
    );
    let written = within(process.stdin().write_all(noise(64 * MIB))).await;
    assert!(matches!(written, Err(SshError::Lost { .. })), "{written:?}");

    let running = {
        let remote = remote.clone();
        tokio::spawn(async move {
            remote
                .run(
                    &script("mkfifo \"$HOME/f\"; echo >\"$HOME/up\"; cat \"$HOME/f\""),
                    LIMIT,
                )
                .await
        })
    };
    let mut fresh = remote
        .start(b"mkfifo \"$HOME/up\" 2>/dev/null; cat \"$HOME/up\"")
        .await
        .expect("starts");
    let (line, _, _) = drain(fresh.output()).await;
    assert_eq!(line, b"\n");
    server.cut_connections();
    let error = within(running).await.expect("no panic").expect_err("lost");
    assert!(matches!(error, SshError::Lost { .. }), "{error:?}");
    assert_eq!(Failure::from(error).kind, Kind::Unreachable);
    assert_eq!(run(&remote, "echo again").await.stdout, b"again\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_host_key_is_refused_and_both_are_named() {
    let server = server();
    let other = KeyPair::generate("other").expect("generates");
    let mut target = server.target().expect("a target");
    target.host_key = HostKeyPolicy::Pinned(other.host_key);
    let error = Remote::new(target)
        .run(&script("true"), LIMIT)
        .await
        .expect_err("refused");
    let failure = Failure::from(error);
    assert_eq!(failure.kind, Kind::HostKey);
    assert!(failure.message.contains(&other.fingerprint), "{failure}");
    assert!(
        failure.message.contains(&server.host_key().fingerprint()),
        "{failure}"
    );
    assert_eq!(server.logins(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_is_scanned_without_a_login_and_then_trusted() {
    let server = server();
    let key = scan_host_key("127.0.0.1", server.port())
        .await
        .expect("scans");
    assert_eq!(key, server.host_key());
    assert_eq!(server.logins(), 0);
    let mut target = server.target().expect("a target");
    target.host_key = HostKeyPolicy::TrustFirst;
    let remote = Remote::new(target);
    assert_eq!(remote.host_key(), None);
    run(&remote, "true").await;
    assert_eq!(remote.host_key(), Some(server.host_key()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_is_refused() {
    let server = server();
    let mut target = server.target().expect("a target");
    let other = KeyPair::generate("other").expect("generates");
    target.identity = other.identity;
    let remote = Remote::new(target);
    let error = remote
        .run(&script("true"), LIMIT)
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, SshError::Authentication { fingerprint, .. } if *fingerprint == other.fingerprint),
        "{error:?}"
    );
    let error = remote
        .wait_ready(DEADLINE, || Ok(()))
        .await
        .expect_err("final");
    assert!(
        matches!(error, SshError::Authentication { .. }),
        "{error:?}"
    );
}

/// Bytes that a process of the guest has written so far.
async fn written(remote: &Remote, pid: &str) -> usize {
    let output = run(remote, &format!("grep ^wchar /proc/{pid}/io")).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_holds_back_its_process_and_nobody_else() {
    let server = server();
    let remote = remote(&server);
    let process = remote
        .start(b"echo $$ >&2; exec head -c 314572800 /dev/zero")
        .await
        .expect("starts");
    let (_input, mut output) = process.into_split();
    let Some(ProcessEvent::Stderr(pid)) = within(output.next()).await else {
        panic!("the process tells its id first");
    };
    let pid = String::from_utf8_lossy(&pid).trim().to_owned();
    // Nobody reads now. The process stands still once every buffer on the way is full.
    let held = within(async {
        let (mut last, mut same) = (usize::MAX, 0);
        while same < 20 {
            let now = written(&remote, &pid).await;
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await;
    assert!(held < 48 * MIB, "{held} bytes were taken");
    let mut other = remote.start(b"echo hello").await.expect("starts");
    assert_eq!(drain(other.output()).await.0, b"hello\n");

    let mut length = 0;
    let exit = loop {
        match within(output.next()).await.expect("an exit comes") {
            ProcessEvent::Stdout(bytes) => length += bytes.len(),
            ProcessEvent::Stderr(_) => {}
            ProcessEvent::Exit(exit) => break exit,
        }
    };
    assert_eq!(length, 314_572_800);
    assert!(matches!(exit, Exit::Code(0)), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_takes_too_long_ends_as_timed_out() {
    let server = server();
    let remote = remote(&server);
    for _ in 0..12 {
        let error = remote
            .run(
                &Script {
                    body: "exec sleep 600".into(),
                    timeout: Some(Duration::from_millis(50)),
                    ..Script::default()
                },
                LIMIT,
            )
            .await
            .expect_err("times out");
        assert!(matches!(error, SshError::TimedOut { .. }), "{error:?}");
        assert_eq!(Failure::from(error).kind, Kind::TimedOut);
    }
    // The dead sessions may fill the connection; commands go on.
    assert_eq!(run(&remote, "echo on").await.stdout, b"on\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_process_or_its_input_ends_its_input() {
    let server = server();
    let remote = remote(&server);
    run(&remote, "mkfifo \"$HOME/end\"").await;
    let process = remote
        .start(b"cat >/dev/null; echo dropped >\"$HOME/end\"")
        .await
        .expect("starts");
    drop(process);
    assert_eq!(run(&remote, "cat \"$HOME/end\"").await.stdout, b"dropped\n");

    let (input, mut output) = remote
        .start(b"cat; echo end")
        .await
        .expect("starts")
        .into_split();
    drop(input);
    assert_eq!(drain(&mut output).await.0, b"end\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_processes_leave_their_connection_to_the_next() {
    let server = server();
    let remote = remote(&server);
    for _ in 0..20 {
        let mut process = remote.start(b"echo x").await.expect("starts");
        assert_eq!(drain(process.output()).await.0, b"x\n");
    }
    assert_eq!(server.logins(), 2, "one shared and one for processes");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_everything() {
    let server = server();
    let remote = remote(&server);
    let mut process = remote.start(b"exec sleep 600").await.expect("starts");
    remote.close().await;
    let (_, _, exit) = drain(process.output()).await;
    assert!(
        matches!(exit, Exit::Failed(SshError::Closed { .. })),
        "{exit:?}"
    );
    let error = remote
        .run(&script("true"), LIMIT)
        .await
        .expect_err("closed");
    assert!(matches!(error, SshError::Closed { .. }), "{error:?}");
    assert_eq!(*remote.connectivity().borrow(), Connectivity::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unreachable() {
    let mut server = server();
    server.stop();
    let remote = remote(&server);
    let mut running = JoinSet::new();
    for _ in 0..20 {
        let remote = remote.clone();
        running.spawn(async move { remote.run(&script("true"), LIMIT).await });
    }
    for result in within(running.join_all()).await {
        let error = result.expect_err("nobody is there");
        assert!(matches!(error, SshError::Connect { .. }), "{error:?}");
    }
    server.resume().expect("starts again");
    assert_eq!(run(&remote, "echo back").await.stdout, b"back\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_seen_behind_attempts_that_hang() {
    let mut server = Sshd::prepare(&Options::default()).expect("prepares");
    let remote = remote(&server);
    let error = remote
        .wait_ready(Duration::from_millis(300), || Ok(()))
        .await
        .expect_err("nobody is there");
    assert!(
        matches!(
            &error,
            SshError::NotReady {
                source: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
    // As QEMU's user network: connections are accepted long before the guest listens, and hang.
    let hanging = std::net::TcpListener::bind(("127.0.0.1", server.port())).expect("binds");
    let waiting = {
        let remote = remote.clone();
        tokio::spawn(async move { remote.wait_ready(DEADLINE, || Ok(())).await })
    };
    let hanging = tokio::task::spawn_blocking(move || {
        let kept: Vec<_> = (0..3).map(|_| hanging.accept().expect("accepts")).collect();
        drop(hanging);
        kept
    });
    let kept = within(hanging).await.expect("accepts");
    server.spawn().expect("starts");
    // The attempts that hang are still open: one of those that came later succeeds.
    within(waiting).await.expect("no panic").expect("ready");
    drop(kept);
    assert_eq!(run(&remote, "echo up").await.stdout, b"up\n");
    assert_eq!(server.logins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_machine() {
    let server = Sshd::prepare(&Options::default()).expect("prepares");
    let error = remote(&server)
        .wait_ready(DEADLINE, || Err("it was killed".into()))
        .await
        .expect_err("ended");
    assert!(matches!(error, SshError::MachineEnded { .. }), "{error:?}");
}

/// Not a test: prints figures beside those of `ssh` with a control master. Run it with
/// `cargo test --release -p banger-tests --test ssh -- --ignored --nocapture measure`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn measure() {
    const SIZE: usize = 256 * MIB;
    let server = server();
    let remote = remote(&server);
    let begun = Instant::now();
    run(&remote, "true").await;
    println!("connect and first command: {:?}", begun.elapsed());
    let begun = Instant::now();
    drain(remote.start(b"true").await.expect("starts").output()).await;
    println!("first process on its own connection: {:?}", begun.elapsed());

    let control = server.home().join("control");
    let key = server.client_key_path();
    let ssh = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60"])
            .arg("-o")
            .arg(format!("ControlPath={}", control.display()))
            .arg("-i")
            .arg(&key)
            .args(["-p", &server.port().to_string()])
            .arg(format!("{}@127.0.0.1", Sshd::user().expect("a user")))
            .arg(command);
        ssh
    };
    let begun = Instant::now();
    assert!(ssh("true").status().expect("runs").success());
    println!("ssh: connect and first command: {:?}", begun.elapsed());

    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut warm, mut bare, mut theirs) = (vec![], vec![], vec![]);
    for _ in 0..100 {
        let begun = Instant::now();
        drain(remote.start(b"true").await.expect("starts").output()).await;
        bare.push(begun.elapsed());
        let begun = Instant::now();
        run(&remote, "true").await;
        warm.push(begun.elapsed());
    }
    for _ in 0..50 {
        let begun = Instant::now();
        assert!(ssh("true").status().expect("runs").success());
        theirs.push(begun.elapsed());
    }
    println!(
        "warm `true`: start {:?}, run (with bash) {:?}, ssh {:?}",
        median(bare),
        median(warm),
        median(theirs)
    );

    let rate = |begun: Instant| (SIZE / MIB) as f64 / begun.elapsed().as_secs_f64();
    let blob = noise(SIZE);
    for _ in 0..3 {
        let begun = Instant::now();
        let mut process = remote
            .start(format!("head -c {SIZE} /dev/zero").as_bytes())
            .await
            .expect("starts");
        let mut length = 0;
        while let Some(event) = process.output().next().await {
            if let ProcessEvent::Stdout(bytes) = event {
                length += bytes.len();
            }
        }
        assert_eq!(length, SIZE);
        let down = rate(begun);

        let begun = Instant::now();
        let mut process = remote.start(b"cat >/dev/null").await.expect("starts");
        process
            .stdin()
            .write_all(blob.clone())
            .await
            .expect("writes");
        process.stdin().close().await.expect("closes");
        drain(process.output()).await;
        let up = rate(begun);

        let begun = Instant::now();
        let mut child = ssh(&format!("head -c {SIZE} /dev/zero"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        std::io::copy(&mut stdout, &mut std::io::sink()).expect("reads");
        child.wait().expect("ends");
        let their_down = rate(begun);

        let begun = Instant::now();
        let mut child = ssh("cat >/dev/null")
            .stdin(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(&blob).expect("writes");
        drop(stdin);
        child.wait().expect("ends");
        let their_up = rate(begun);
        println!(
            "MiB/s: down {down:.0}, up {up:.0}; ssh: down {their_down:.0}, up {their_up:.0}; \
             ratio {:.2} and {:.2}",
            down / their_down,
            up / their_up
        );
    }
    let _ = ssh("true").args(["-O", "exit"]).status();
}
