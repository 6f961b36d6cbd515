//! The checks, with their scripts really run.
#![allow(missing_docs, clippy::unwrap_used)]

use banger_plugin_testing::{exit_code, lint, run};
use banger_preflight::Plugin;
use banger_preflight::contract::{Guest as _, Output, Refusal, Request};

fn check(request: &Request, id: &str) -> Result<(), Refusal> {
    let checks = Plugin::checks(request.clone()).unwrap();
    let check = checks.into_iter().find(|check| check.id == id).unwrap();
    let output = run(&check.script.body, &check.script.args, &check.script.stdin);
    Plugin::read_check(
        id.to_owned(),
        request.clone(),
        Output {
            exit_code: exit_code(&output),
            stdout: output.stdout,
            stderr: output.stderr,
        },
    )
}

fn request(cwd: &str, program: &[u8], commands: &[&str]) -> Request {
    Request {
        cwd: cwd.into(),
        program: program.to_vec(),
        commands: commands.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[test]
fn scripts_are_clean() {
    lint(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts"
    )));
}

#[test]
fn the_working_directory_is_looked_at() {
    let root = tempfile::Builder::new()
        .prefix("-a 'b' $(c)\n")
        .tempdir()
        .unwrap();
    let there = root.path().to_str().unwrap();
    assert!(check(&request(there, b"bash", &[]), "cwd").is_ok());
    for (cwd, said) in [
        ("/no/such", "does not exist"),
        ("/etc/passwd", "not a directory"),
    ] {
        let refusal = check(&request(cwd, b"bash", &[]), "cwd").unwrap_err();
        assert!(refusal.message.contains(said), "{refusal:?}");
    }
}

#[test]
fn all_missing_commands_are_named_at_once() {
    assert!(check(&request("/", b"bash", &["git", "/bin/sh"]), "commands").is_ok());
    let hostile = request(
        "/",
        b"no\x1b[31m\xff",
        &["git", "-n", "$(id)", "a b\n0", "", "/tmp"],
    );
    let refusal = check(&hostile, "commands").unwrap_err();
    assert_eq!(
        refusal.message,
        r"`no\u{1b}[31m\xff`, `-n`, `$(id)`, `a b\n0`, ``, `/tmp` are missing in the guest, or cannot be executed"
    );
}

#[test]
fn any_output_is_read_or_refused() {
    use proptest::prelude::*;
    proptest!(|(code in -1..20, stdout in prop::collection::vec(any::<u8>(), 0..50))| {
        let output = Output { exit_code: code, stdout, stderr: vec![0xff] };
        for id in ["cwd", "commands", "other\n"] {
            let read = Plugin::read_check(id.to_owned(), request("/", b"a", &["b"]), output.clone());
            prop_assert_eq!(read.is_ok(), code == 0 && id != "other\n");
        }
    });
}
