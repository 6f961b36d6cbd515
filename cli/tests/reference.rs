//! Do the documents say what the program does?

use banger_core::Kind;
use std::path::Path;
use std::process::Command;

fn document(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

fn reference() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
    let output = command.env_clear().arg("reference").output().expect("runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_commands_page_is_the_help_of_every_command() {
    let (path, made) = (document("cli.md"), reference());
    if std::env::var_os("BANGER_BLESS").is_some() {
        std::fs::write(&path, &made).expect("writes");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept
        .lines()
        .zip(made.lines())
        .find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "docs/cli.md is not what --help says: run `BANGER_BLESS=1 cargo test -p banger --test \
         reference`; first difference: {differs:?}"
    );
}

#[test]
fn every_command_shows_an_example() {
    let made = reference();
    let mut sections = made.split("\n## ").skip(1);
    assert!(sections.clone().count() > 30);
    let without: Vec<&str> = sections
        .by_ref()
        .filter(|section| !section.contains("\nExample"))
        .filter_map(|section| section.lines().next())
        .collect();
    assert_eq!(without, Vec::<&str>::new());
}

#[test]
fn the_exit_codes_page_has_every_kind() {
    let page = std::fs::read_to_string(document("exit-codes.md")).expect("a page");
    for kind in Kind::ALL {
        let word = serde_json::to_value(kind).expect("a word");
        let row = format!(
            "| {} | `{}` |",
            kind.exit_code(),
            word.as_str().expect("text")
        );
        assert!(page.contains(&row), "no row {row}");
    }
}
