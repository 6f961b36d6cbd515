//! The whole life of sessions, with the scripts really run.
#![allow(missing_docs, clippy::unwrap_used)]

mod guest;

use banger_plugin_testing::{eventually, exit_code, lint, run};
use banger_ssh_session::Plugin;
use banger_ssh_session::contract::{Guest as _, Output, OutputStream, SessionState};
use guest::{Guest, children, follow, is_alive, kill};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Command;

#[test]
fn scripts_are_clean() {
    for scripts in ["scripts", "../guest-session/scripts"] {
        lint(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(scripts));
    }
}

#[test]
fn arguments_and_environment_arrive_byte_for_byte() {
    let guest = Guest::new();
    let hostile: [&[u8]; 6] = [
        b"",
        b"-n",
        b"$(id) `id` ' \"",
        b"a\nb\n",
        b"\xff\xfe",
        b"--",
    ];
    let mut words: Vec<&[u8]> = vec![b"sh", b"-c", b"env -0; printf '%s\\0' \"$@\"", b"x"];
    words.extend(hostile);
    let environment: [(&str, &[u8]); 6] = [
        ("UID", b"7"),
        ("IFS", b"x"),
        ("dir", b"mine\n"),
        ("SHELLOPTS", b"xtrace"),
        ("BASH_ENV", b"$(touch /tmp/banger-should-not-exist)"),
        ("LANG", b"\xff"),
    ];
    let output = guest.launch("a", &words, &environment);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(guest.ended("a").exit_code, Some(0));
    let stdout = guest.stdout("a");
    let expected = hostile.map(|word| [word, b"\0"].concat()).concat();
    assert!(stdout.ends_with(&expected), "{}", stdout.escape_ascii());
    let fields: Vec<&[u8]> = stdout.split(|byte| *byte == 0).collect();
    for (name, value) in environment.iter().filter(|(name, _)| *name != "IFS") {
        let pair = [name.as_bytes(), b"=", value].concat();
        assert!(
            fields.contains(&pair.as_slice()),
            "{name}: {}",
            stdout.escape_ascii()
        );
    }
}

#[test]
fn a_session_lives_is_fed_read_and_stopped() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let running = guest.one("a");
    assert_eq!(
        (running.state, running.alive),
        (SessionState::Running, true)
    );

    let mut reader = follow(&guest, "a", 2);
    let payload: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let sent = guest.send("a", 20_000, &payload);
    assert!(sent.status.success(), "{sent:?}");
    let more = guest.run(
        Plugin::attach_input(guest.session("a"), "w".to_owned()).unwrap(),
        b"more\0\n",
    );
    assert!(more.status.success(), "{more:?}");
    let expected = [payload.as_slice(), b"more\0\n"].concat();
    let mut seen = vec![0; expected.len() - 2];
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut seen)
        .unwrap();
    assert!(seen == expected[2..]);

    assert_eq!(
        exit_code(&guest.run(Plugin::remove(guest.session("a")).unwrap(), b"")),
        3
    );
    assert_eq!(exit_code(&guest.launch("a", &[b"true"], &[])), 3);
    for _ in 0..2 {
        let stopped = guest.run(Plugin::stop(guest.session("a"), 10_000).unwrap(), b"");
        assert!(stopped.status.success(), "{stopped:?}");
    }
    let mut rest = Vec::new();
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_to_end(&mut rest)
        .unwrap();
    assert!(rest.is_empty() && reader.wait().unwrap().success());
    let ended = guest.one("a");
    assert_eq!(
        (ended.state, ended.exit_code),
        (SessionState::Exited, Some(143))
    );
    assert_eq!(ended.stdout_bytes, expected.len() as u64);
    assert_eq!(exit_code(&guest.send("a", 100, b"x")), 3);
    assert!(
        guest
            .run(Plugin::remove(guest.session("a")).unwrap(), b"")
            .status
            .success()
    );
    assert!(guest.inspect().is_empty());
}

#[test]
fn a_program_that_does_not_read_is_told_of_exactly() {
    let guest = Guest::new();
    guest.launched("a", &[b"sleep", b"1000"]);
    let sent = guest.send("a", 200, &[b'x'; 100_001]);
    assert_eq!(exit_code(&sent), 4);
    let stderr = String::from_utf8(sent.stderr).unwrap();
    assert!(stderr.contains("65536 of 100001 bytes"), "{stderr}");
}

#[test]
fn term_is_ignored_but_kill_is_not() {
    let guest = Guest::new();
    guest.launched(
        "a",
        &[
            b"sh",
            b"-c",
            b"trap '' TERM; echo ready; while :; do sleep 1000; done",
        ],
    );
    eventually("the trap is set", || {
        (!guest.stdout("a").is_empty()).then_some(())
    });
    let stopped = guest.run(Plugin::stop(guest.session("a"), 50).unwrap(), b"");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(guest.one("a").exit_code, Some(137));
}

#[test]
fn signals_reach_the_group_and_exit_codes_are_kept() {
    let guest = Guest::new();
    guest.launched(
        "a",
        &[
            b"bash",
            b"-c",
            b"trap 'exit 9' USR1; echo ready; read -r line",
        ],
    );
    eventually("the trap is set", || {
        (!guest.stdout("a").is_empty()).then_some(())
    });
    let sent = guest.run(
        Plugin::signal(guest.session("a"), "SIGUSR1".into()).unwrap(),
        b"",
    );
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(guest.ended("a").exit_code, Some(9));
    let late = guest.run(
        Plugin::signal(guest.session("a"), "TERM".into()).unwrap(),
        b"",
    );
    assert_eq!(exit_code(&late), 3);
    guest.launched("b", &[b"sh", b"-c", b"exit 127"]);
    assert_eq!(guest.ended("b").exit_code, Some(127));
}

#[test]
fn what_cannot_run_fails_with_the_reason() {
    let guest = Guest::new();
    let bad = guest.root.path().join("bad");
    std::fs::write(&bad, b"\x7fELF\0\0").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&bad, mode).unwrap();
    let bad = bad.to_str().unwrap().to_owned();
    for (id, program, reason) in [
        ("a", "no-such-program", "not found in PATH"),
        ("b", "/no/such", "does not exist"),
        ("c", "/etc/passwd", "not executable"),
        ("d", "/tmp", "is a directory"),
        ("e", bad.as_str(), "cannot be executed"),
    ] {
        let output = guest.launch(id, &[program.as_bytes()], &[]);
        assert_eq!(exit_code(&output), 1, "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(reason),
            "{output:?}"
        );
        let failed = guest.one(id);
        assert_eq!(failed.state, SessionState::Failed);
        assert!(failed.last_error.unwrap().contains(reason));
    }
}

#[test]
fn a_launch_that_is_cut_short_leaves_nothing() {
    let guest = Guest::new();
    let script = Plugin::launch(guest.request("a", &[b"true"], &[])).unwrap();
    let cut = &script.stdin[..script.stdin.len() - 1];
    assert_eq!(exit_code(&run(&script.body, &script.args, cut)), 6);
    assert!(guest.inspect().is_empty());
}

#[test]
fn without_its_supervisor_a_session_runs_on_and_then_is_lost() {
    let guest = Guest::new();
    guest.launched("a", &[b"sleep", b"1000"]);
    let file = std::fs::read_to_string(Plugin::paths(guest.session("a")).monitor_pid).unwrap();
    let monitor = file.split(' ').next().unwrap();
    kill(monitor, "KILL");
    eventually("the supervisor is gone", || {
        (!is_alive(monitor)).then_some(())
    });
    let running = guest.one("a");
    assert_eq!(
        (running.state, running.alive),
        (SessionState::Running, true)
    );
    let mut reader = follow(&guest, "a", 0);
    let log = Plugin::paths(guest.session("a")).stdout;
    let mut log = std::fs::File::options().append(true).open(log).unwrap();
    log.write_all(b"still read").unwrap();
    let mut seen = vec![0; 10];
    let output = reader.stdout.as_mut().unwrap();
    output.read_exact(&mut seen).unwrap();
    assert_eq!(seen, b"still read");
    assert!(
        guest
            .run(Plugin::stop(guest.session("a"), 5000).unwrap(), b"")
            .status
            .success()
    );
    assert!(reader.wait().unwrap().success());
    assert_eq!(guest.one("a").state, SessionState::Lost);
}

#[test]
fn another_boot_or_a_damaged_directory_is_lost() {
    let guest = Guest::new();
    guest.launched("a", &[b"sleep", b"1000"]);
    let dir = Plugin::paths(guest.session("a")).state_dir;
    let boot = std::fs::read(format!("{dir}/boot-id")).unwrap();
    std::fs::write(format!("{dir}/boot-id"), "another\n").unwrap();
    assert_eq!(guest.one("a").state, SessionState::Lost);
    std::fs::write(format!("{dir}/boot-id"), boot).unwrap();
    std::fs::write(format!("{dir}/status"), b"\xff\0").unwrap();
    let damaged = guest.one("a");
    assert_eq!(damaged.state, SessionState::Lost);
    assert!(damaged.last_error.unwrap().contains("damaged"));
}

#[test]
fn a_payload_that_was_cut_short_is_not_written() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let cut = guest.send_stream("a", 5000, b"half of a mess");
    assert_eq!(exit_code(&cut), 6);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut short"));
    assert!(guest.send("a", 5000, b"whole\n").status.success());
    eventually("the whole message", || {
        Some(guest.stdout("a")).filter(|seen| !seen.is_empty())
    });
    assert_eq!(guest.stdout("a"), b"whole\n");
}

#[test]
fn a_reader_that_goes_away_leaves_nothing_behind() {
    let guest = Guest::new();
    guest.launched("a", &[b"sleep", b"1000"]);
    let mut reader = follow(&guest, "a", 0);
    let started = eventually("the reader", || {
        Some(children(reader.id())).filter(|all| all.len() == 3)
    });
    drop(reader.stdin.take());
    reader.wait().unwrap();
    for child in started {
        eventually("its processes end", || (!is_alive(&child)).then_some(()));
    }
}

#[test]
fn everything_is_followed_to_the_last_byte() {
    let guest = Guest::new();
    guest.launched(
        "a",
        &[b"bash", b"-c", b"read -r go; seq 100000; printf end"],
    );
    let mut reader = follow(&guest, "a", 0);
    guest.send("a", 5000, b"go\n");
    let mut seen = Vec::new();
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_to_end(&mut seen)
        .unwrap();
    reader.wait().unwrap();
    assert!(seen.ends_with(b"100000\nend") && seen == guest.stdout("a"));
    for (lines, length) in [(0, 0), (1, 3), (2, 10), (u64::MAX, seen.len())] {
        let script = Plugin::offset_of_lines(guest.session("a"), OutputStream::Stdout, lines);
        let offset = format!("{}\n", seen.len() - length);
        assert_eq!(guest.run(script.unwrap(), b"").stdout, offset.as_bytes());
    }
    let beyond =
        Plugin::attach_output(guest.session("a"), OutputStream::Stdout, u64::MAX, true).unwrap();
    assert_eq!(guest.run(beyond, b"").stdout, b"");
}

#[test]
fn any_bytes_are_read_or_refused() {
    use proptest::prelude::*;
    let read = |stdout: Vec<u8>| {
        drop(Plugin::read_inspect(Output {
            exit_code: 0,
            stdout,
            stderr: vec![],
        }));
    };
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200))| read(bytes));
    let good =
        b"banger-sessions-1\0a\0running\x001\0\x001\0\x000\x000\x000\x000\x00\0\0end\0".to_vec();
    assert_eq!(
        Plugin::read_inspect(Output {
            exit_code: 0,
            stdout: good.clone(),
            stderr: vec![]
        })
        .unwrap()
        .len(),
        1
    );
    proptest!(|(at in 0..good.len(), byte in any::<u8>())| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        read(bytes);
        let cut = Output { exit_code: 0, stdout: good[..at].to_vec(), stderr: vec![] };
        prop_assert!(Plugin::read_inspect(cut).is_err());
    });
}

#[test]
fn a_launch_tells_what_inspect_tells() {
    let guest = Guest::new();
    let output = guest.launch("a", &[b"sleep", b"1000"], &[]);
    let told = Plugin::read_inspect(Output {
        exit_code: exit_code(&output),
        stdout: output.stdout,
        stderr: output.stderr,
    });
    assert_eq!(told.unwrap(), [guest.one("a")]);
}

#[test]
fn host_records_are_found_again_and_the_oldest_give_way() {
    let guest = Guest::new();
    let records = || {
        let output = guest.run(Plugin::host_records(guest.root()), b"");
        assert!(output.stdout.len() < 1 << 20);
        Plugin::read_host_records(Output {
            exit_code: exit_code(&output),
            stdout: output.stdout,
            stderr: output.stderr,
        })
        .unwrap()
    };
    assert_eq!(records(), []);
    let mut expected: Vec<(String, Vec<u8>)> = vec![
        (
            "a".into(),
            b"==> \0\xff\n\n==> b/host-record <==\n".to_vec(),
        ),
        ("b".into(), vec![]),
        ("c".into(), vec![0; 16 * 1024]),
    ];
    for (id, record) in &expected {
        let mut request = guest.request(id, &[b"true"], &[]);
        request.host_record.clone_from(record);
        guest.run(Plugin::launch(request).unwrap(), b"");
    }
    let foreign = format!("{}/d", guest.root());
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(format!("{foreign}/backend"), "tmux\n").unwrap();
    std::fs::write(format!("{foreign}/host-record"), "theirs").unwrap();
    let mut found = records();
    found.sort();
    assert_eq!(found, expected);

    // Older than these, and with them too long.
    for index in 0..80 {
        let dir = format!("{}/old{index}", guest.root());
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(format!("{dir}/backend"), "ssh\n").unwrap();
        let file = std::fs::File::create(format!("{dir}/host-record")).unwrap();
        file.set_len(16 * 1024).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let mut found = records();
    assert!((50..80).contains(&found.len()), "{}", found.len());
    found.retain(|(id, _)| !id.starts_with("old"));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn whoever_watches_is_told_of_each_change() {
    let guest = Guest::new();
    let mut watcher = guest.spawn(Plugin::watch(guest.root()));
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert_eq!(next().unwrap(), "");
    guest.launched("a", &[b"cat"]);
    assert_eq!(next().unwrap(), "a");
    guest.launch("b", &[b"/no/such"], &[]);
    assert_eq!(next().unwrap(), "b");
    guest.run(Plugin::stop(guest.session("a"), 1000).unwrap(), b"");
    assert_eq!(next().unwrap(), "a");
    let started = children(watcher.id());
    drop(watcher.stdin.take());
    assert_eq!(next(), None);
    assert!(watcher.wait().unwrap().success());
    for child in started {
        eventually("its processes end", || (!is_alive(&child)).then_some(()));
    }
}

#[test]
fn a_program_that_detaches_a_child_ends_with_its_own_code() {
    let guest = Guest::new();
    let script = b"setsid bash -c 'echo ready; read -r go <\"$1\"; echo late' x \"$1\" & exit 5";
    let gate = guest.root.path().join("gate");
    assert!(
        Command::new("mkfifo")
            .arg(&gate)
            .status()
            .unwrap()
            .success()
    );
    let gate = gate.to_str().unwrap();
    guest.launched("a", &[b"bash", b"-c", script, b"x", gate.as_bytes()]);
    assert_eq!(guest.ended("a").exit_code, Some(5));
    let stopped = guest.run(Plugin::stop(guest.session("a"), 0).unwrap(), b"");
    assert!(stopped.status.success());
    std::fs::write(gate, "go\n").unwrap();
    eventually("the child writes", || {
        (guest.stdout("a") == b"ready\nlate\n").then_some(())
    });
    assert_eq!(guest.one("a").state, SessionState::Exited);
}

#[test]
fn a_program_is_looked_for_in_the_path_that_it_gets() {
    let guest = Guest::new();
    let environment: [(&str, &[u8]); 2] = [("PATH", b"/no/such"), ("UID", b"7")];
    let output = guest.launch("a", &[b"bash", b"-c", b"true"], &environment);
    assert_eq!(exit_code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("bash is not found in PATH"));
    let output = guest.launch("b", &[b"/bin/bash", b"-c", b"echo $PATH"], &environment);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(guest.ended("b").exit_code, Some(0));
    assert_eq!(guest.stdout("b"), b"/no/such\n");
}

#[test]
fn a_hundred_kilobytes_reach_the_program_unchanged() {
    let guest = Guest::new();
    let word = [b"-$(id)\n\xff".as_slice(), &[b'x'; 100_000]].concat();
    let output = guest.launch(
        "a",
        &[
            b"bash",
            b"-c",
            b"printf '%s\\0' \"$1\" \"$BIG\"",
            b"x",
            &word,
        ],
        &[("BIG", &word)],
    );
    assert!(output.status.success(), "{output:?}");
    guest.ended("a");
    let expected = [word.as_slice(), b"\0", &word, b"\0"].concat();
    assert!(guest.stdout("a") == expected);
}
