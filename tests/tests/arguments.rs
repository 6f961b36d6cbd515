//! Do arguments, environment and names reach a session's program byte for byte, on every backend?

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use banger_tests::home::{HOST, Home};

/// A backend, and what its sessions have for standard input.
const BACKENDS: [(&str, &str); 3] = [("ssh", "pipe"), ("ssh", "none"), ("tmux", "tty")];
/// Nearly what Linux lets one word have: 128 KiB.
const LONG: usize = 100_000;

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// What a shell, an option parser, a decoder or a terminal would like to eat.
fn hostile() -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "",
        " ",
        "-",
        "--",
        "-n",
        "-c",
        "--help",
        "'",
        "\"",
        "it's \"so\"",
        "$(touch no)",
        "`touch no`",
        "$HOME",
        "${IFS}",
        "\\",
        "\\n",
        "\\'",
        "a\nb\n",
        "\n",
        "\r\n",
        "\t",
        "*",
        "~",
        "!x",
        "#",
        ";touch no",
        "&& touch no",
        "|",
        ">no",
        "{a,b}",
        "ä€😀",
        "\u{1b}[2J\u{1b}]0;x\u{7}",
        "\u{3}\u{4}\u{1a}\u{1c}",
        "%s%n",
        "=",
        "a=b",
        "#{pane_id}",
        "%1",
        "\u{feff}",
        "\u{202e}x",
    ]
    .map(OsString::from)
    .into();
    words.push(OsString::from_vec(vec![0xff, 0xfe, b'x', 0x80]));
    words.push(OsString::from_vec((1..=255).collect()));
    words.push(OsString::from_vec((1..=255).cycle().take(LONG).collect()));
    words.push("'".repeat(LONG).into());
    words
}

fn nul_separated(words: &[OsString]) -> Vec<u8> {
    words
        .iter()
        .flat_map(|word| word.as_bytes().iter().copied().chain([0]))
        .collect()
}

fn first_words(name: &str, backend: &str, stdin: &str) -> Vec<OsString> {
    [
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        name,
        "--backend",
        backend,
        "--stdin",
        stdin,
    ]
    .map(OsString::from)
    .into()
}

/// Starts it, waits for its end, and compares what its program wrote into a file.
#[track_caller]
fn leaves(home: &Home, name: &str, words: &[OsString], file: &Path, expected: &[u8]) {
    let _ = home.run(words).ok();
    let waited = home.run(["vm", "session", "wait", HOST, name, "--timeout", "50s"]);
    assert_eq!(waited.code, Some(3), "{waited:?}");
    let got = fs::read(file).expect("written");
    let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    assert!(
        got == expected,
        "{name}: {} of {} bytes, the first {same} are right; then {:?}",
        got.len(),
        expected.len(),
        String::from_utf8_lossy(&got[same..got.len().min(same + 40)])
    );
}

#[test]
fn arguments_reach_the_program_unchanged() {
    let home = home();
    for (backend, stdin) in BACKENDS {
        let name = format!("{backend}-{stdin}");
        let file = home.guest_home().join(&name);
        let mut words = first_words(&name, backend, stdin);
        let script = format!("printf '%s\\0' \"$@\" >'{}'; exit 3", file.display());
        words.extend(["--", "bash", "-c", &script, "zero"].map(OsString::from));
        words.extend(hostile());
        leaves(&home, &name, &words, &file, &nul_separated(&hostile()));
    }
    assert!(!home.guest_home().join("no").exists());
}

#[test]
fn the_environment_reaches_the_program_unchanged() {
    let home = home();
    // Also under names that the shells on the way use themselves.
    let mut variables: Vec<(String, OsString)> = (0..)
        .zip(hostile())
        .map(|(number, value)| (format!("V{number}"), value))
        .collect();
    for name in [
        "dir", "kind", "code", "mask", "cwd", "IFS", "PS4", "BASH_ENV", "ENV", "TMOUT",
    ] {
        variables.push((name.into(), "x y".into()));
    }
    for (backend, stdin) in BACKENDS {
        let name = format!("{backend}-{stdin}");
        let file = home.guest_home().join(&name);
        let mut words = first_words(&name, backend, stdin);
        for (name, value) in &variables {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            words.extend(["--env".into(), pair]);
        }
        words.extend(["--", "cp", "/proc/self/environ"].map(OsString::from));
        words.push(file.clone().into());
        let _ = home.run(&words).ok();
        let waited = home.run(["vm", "session", "wait", HOST, &name, "--timeout", "50s"]);
        assert_eq!(waited.code, Some(0), "{waited:?}");
        let environment = fs::read(&file).expect("written");
        for (name, value) in &variables {
            let prefix = format!("{name}=").into_bytes();
            let mut found = environment
                .split(|byte| *byte == 0)
                .filter_map(|variable| variable.strip_prefix(&prefix[..]));
            assert_eq!(
                found.next(),
                Some(value.as_bytes()),
                "{backend} {stdin} {name}"
            );
            assert_eq!(found.next(), None, "{backend} {stdin} {name} comes once");
        }
    }
    assert!(!home.guest_home().join("no").exists());
}

#[test]
fn the_program_and_its_directory_may_have_any_name() {
    let home = home();
    let names: [&[u8]; 5] = [
        b"-n",
        b"it's \"a\" $(touch no)",
        b"line\nfeed\n",
        b"\xff\xfe",
        b"#{x} %d",
    ];
    for (backend, stdin) in BACKENDS {
        for (number, hostile) in names.iter().enumerate() {
            let name = format!("{backend}-{stdin}-{number}");
            let directory = home.guest_home().join(OsStr::from_bytes(hostile));
            fs::create_dir_all(&directory).expect("made");
            let program = directory.join(OsStr::from_bytes(hostile));
            fs::write(
                &program,
                "#!/bin/bash\nprintf '%s\\0' \"$PWD\" \"$0\" >\"$1\"; exit 3\n",
            )
            .expect("written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
            let file = home.guest_home().join(&name);
            let mut words = first_words(&name, backend, stdin);
            words.extend(["--cwd".into(), directory.clone().into(), "--".into()]);
            words.extend([program.clone().into(), file.clone().into()]);
            let expected = nul_separated(&[directory.into(), program.into()]);
            leaves(&home, &name, &words, &file, &expected);
        }
    }
    assert!(!home.guest_home().join("no").exists());
}

#[test]
fn what_no_program_can_get_is_refused_and_leaves_nothing() {
    let home = home();
    let too_long = "x".repeat(200_000);
    for (backend, stdin) in BACKENDS {
        // The command line itself could not be called with it either: it is asked over the socket.
        let params = serde_json::json!({
            "vm": HOST, "name": format!("long-{backend}-{stdin}"), "backend": backend,
            "stdin": stdin, "command": ["true", too_long],
        });
        let answer = home
            .rpc()
            .ask("guest.session.start", params)
            .expect("an answer");
        let kind = answer["error"]["data"]["kind"].as_str().unwrap_or_default();
        let shown = answer.to_string();
        let shown = shown.get(..300).unwrap_or(&shown);
        assert!(
            ["launch", "invalid"].contains(&kind),
            "{backend} {stdin}: {shown}"
        );
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.len() < 1000, "{} bytes", message.len());
    }
    for pair in ["=x", "A B=x", "1A=x", "A"] {
        let words = ["vm", "session", "start", HOST, "--env", pair, "--", "true"];
        assert_ne!(home.run(words).code, Some(0), "{pair}");
    }
}
