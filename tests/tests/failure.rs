//! Is bad input told in one clear sentence, with a hint and the documented exit code, and does
//! it change nothing?

use std::fs;

use banger_tests::home::{HOST, Home, Ran, files};
use banger_tests::sshd::Sshd;
use serde_json::Value;

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

fn start(home: &Home, more: &[&str]) -> Ran {
    let words = ["--json", "vm", "session", "start", HOST];
    home.run(words.iter().chain(more))
}

fn no_session(home: &Home) {
    let list = home.run(["--json", "vm", "session", "list"]).ok().json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(0), "{list}");
    assert!(files(&home.guest_home()).is_empty(), "nothing in the guest");
}

fn names(home: &Home) -> Vec<String> {
    let list = home.run(["--json", "vm", "list"]).ok().json();
    list["vms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|vm| vm["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn message(failure: &Value) -> &str {
    failure["message"].as_str().unwrap_or_default()
}

#[test]
fn an_unknown_machine_is_said_by_every_command() {
    let home = home();
    let scratch = home.scratch();
    let commands: [(&[&str], i32); 12] = [
        (&["vm", "show", "nosuch"], 3),
        (&["vm", "start", "nosuch"], 3),
        (&["vm", "stop", "nosuch"], 3),
        (&["vm", "logs", "nosuch"], 3),
        (&["vm", "exec", "nosuch", "--", "true"], 125),
        (&["vm", "session", "list", "nosuch"], 3),
        (&["vm", "session", "start", "nosuch", "--", "true"], 3),
        (&["vm", "session", "show", "nosuch", "x"], 3),
        (&["vm", "session", "attach", "nosuch", "x"], 125),
        (&["vm", "session", "wait", "nosuch", "x"], 125),
        (&["vm", "workspace", "export", "nosuch", "--stat"], 3),
        (&["vm", "show", "$(x)\n\u{1b}[2J"], 3),
    ];
    for (command, code) in commands {
        let ran = home.run(["--json"].iter().chain(command));
        let failure = ran.failure(code);
        assert_eq!(failure["kind"], "not-found", "{command:?}: {ran:?}");
        assert!(
            !message(&failure).contains('\u{1b}'),
            "{command:?}: {ran:?}"
        );
    }
    // It deletes several, and so tells which it did.
    let deleted = home.run(["--json", "vm", "delete", "nosuch"]);
    assert_eq!(deleted.code, Some(3), "{deleted:?}");
    assert_eq!(deleted.json()["deleted"], serde_json::json!([]));
    assert_eq!(names(&home), [HOST]);
    assert!(files(&scratch).is_empty());
    no_session(&home);
}

#[test]
fn an_unknown_session_is_said_by_every_command() {
    let home = home();
    for (verb, more, code) in [
        ("show", &[][..], 3),
        ("logs", &[], 3),
        ("send", &["--message", "x"], 3),
        ("attach", &[], 125),
        ("stop", &[], 3),
        ("kill", &[], 3),
        ("kill", &["--signal", "INT"], 3),
        ("delete", &[], 3),
        ("wait", &[], 125),
    ] {
        let words = ["--json", "vm", "session", verb, HOST, "nosuch"];
        let ran = home.run(words.iter().chain(more));
        let failure = ran.failure(code);
        assert_eq!(failure["kind"], "not-found", "{verb}: {ran:?}");
        assert!(message(&failure).contains("nosuch"), "{verb}: {ran:?}");
    }
    no_session(&home);
}

/// Nothing but sessions that never ran.
fn only_failed(home: &Home) {
    let list = home.run(["--json", "vm", "session", "list"]).ok().json();
    for session in list["sessions"].as_array().expect("a list") {
        assert_eq!(session["snapshot"]["state"], "failed", "{session}");
        assert_ne!(session["failure"]["stage"], "", "{session}");
    }
    assert!(files(&home.guest_home()).is_empty(), "nothing in the guest");
}

#[test]
fn a_launch_that_can_not_work_is_refused_and_tells_why_later_too() {
    let home = home();
    let refused = start(&home, &["--", "nosuch"]).failure(6);
    assert_eq!(refused["kind"], "launch");
    assert_eq!(refused["stage"], "preflight-commands");
    assert!(message(&refused).contains("nosuch"), "{refused}");
    only_failed(&home);

    let refused = start(&home, &["--require", "nosuch1", "--", "true"]).failure(6);
    assert_eq!(refused["stage"], "preflight-commands");
    assert!(message(&refused).contains("nosuch1"), "{refused}");
    only_failed(&home);

    let refused = start(&home, &["--cwd", "/no/such dir", "--", "true"]).failure(6);
    assert_eq!(refused["stage"], "preflight-cwd");
    assert!(message(&refused).contains("/no/such dir"), "{refused}");
    only_failed(&home);

    // A file is no directory, and a directory no program.
    let refused = start(&home, &["--cwd", "/etc/passwd", "--", "true"]).failure(6);
    assert_eq!(refused["stage"], "preflight-cwd");
    let refused = start(&home, &["--", "/etc"]).failure(6);
    assert_eq!(refused["stage"], "preflight-commands");
    only_failed(&home);

    for bad in [
        &["--cwd", "relative", "--", "true"][..],
        &["--env", "1X=y", "--", "true"],
        &["--env", "X", "--", "true"],
        &["--"],
        &[],
    ] {
        let ran = start(&home, bad);
        assert_eq!(ran.code, Some(2), "{bad:?}: {ran:?}");
    }
    for bad in [
        &["--backend", "nosuch", "--", "true"][..],
        &["--require", "a b", "--", "true"],
        &["--", ""],
    ] {
        let ran = start(&home, bad);
        let code = ran.code.expect("a code");
        assert!(![0, 1].contains(&code), "{bad:?}: {ran:?}");
        ran.failure(code);
    }
    only_failed(&home);
}

#[test]
fn a_wrong_host_key_adopts_nothing() {
    let home = home();
    let other = Sshd::start().expect("another sshd");
    let mut words = home.adopt_arguments("second").expect("words");
    words.insert(0, "--json".into());
    words.extend(["--host-key".into(), other.host_key().to_string().into()]);
    let ran = home.run(&words);
    let failure = ran.failure(8);
    let ours = home.sshd.as_ref().expect("an sshd").host_key();
    for fingerprint in [ours.fingerprint(), other.host_key().fingerprint()] {
        assert!(message(&failure).contains(&fingerprint), "{failure}");
    }
    assert_eq!(names(&home), [HOST]);

    // The right one is taken; a name that is taken, a key that is none and a key file that is
    // none are not.
    let mut words = home.adopt_arguments("second").expect("words");
    words.extend(["--host-key".into(), ours.to_string().into()]);
    let _ = home.run(&words).ok();
    let mut words = home.adopt_arguments(HOST).expect("words");
    words.insert(0, "--json".into());
    assert_eq!(home.run(&words).failure(4)["kind"], "conflict");
    let mut words = home.adopt_arguments("third").expect("words");
    words.insert(0, "--json".into());
    let last = words.len() - 1;
    words[last] = "/etc/passwd".into();
    home.run(&words).failure(5);
    let mut words = home.adopt_arguments("third").expect("words");
    words.insert(0, "--json".into());
    words.extend(["--host-key".into(), "ssh-ed25519 nonsense".into()]);
    home.run(&words).failure(5);
    assert_eq!(names(&home), [HOST, "second"]);
}

#[test]
fn a_host_key_that_changes_later_is_refused() {
    let mut home = home();
    let _ = home.run(["vm", "exec", HOST, "--", "true"]).ok();
    let sshd = home.sshd.as_mut().expect("an sshd");
    let before = sshd.host_key().fingerprint();
    sshd.stop();
    sshd.change_host_key().expect("changed");
    sshd.resume().expect("starts again");
    let after = sshd.host_key().fingerprint();
    let failures = [
        start(&home, &["--", "true"]).failure(8),
        home.run(["--json", "vm", "exec", HOST, "--", "touch", "no"])
            .failure(125),
    ];
    for failure in failures {
        assert_eq!(failure["kind"], "host-key");
        let message = message(&failure);
        assert!(
            message.contains(&before) && message.contains(&after),
            "{message}"
        );
    }
    // Also by a daemon that has never talked to it.
    home.kill_daemon();
    start(&home, &["--", "true"]).failure(8);
    assert!(files(&home.guest_home()).is_empty());
}

#[test]
fn a_machine_that_does_not_answer_is_said_and_comes_back() {
    let mut home = home();
    home.sshd.as_mut().expect("an sshd").stop();
    assert_eq!(
        start(&home, &["--", "true"]).failure(7)["kind"],
        "unreachable"
    );
    home.sshd
        .as_mut()
        .expect("an sshd")
        .resume()
        .expect("resumes");
    let _ = home.run(["vm", "exec", HOST, "--", "true"]).ok();
    no_session(&home);
}

/// A component of the user's as text: this is all that the engine needs to refuse it.
const IMPORTS_WASI: &str = r#"(component
  (import "wasi:cli/environment@0.2.0" (instance
    (export "get-environment" (func (result (list (tuple string string))))))))"#;

#[test]
fn a_plugin_that_can_not_be_used_is_shown_and_the_others_work() {
    let home = home();
    let plugins = home.banger_home().join("data/plugins");
    let module = wat::parse_str("(module)").expect("assembles");
    let wasi = wat::parse_str(IMPORTS_WASI).expect("assembles");
    let nothing = wat::parse_str("(component)").expect("assembles");
    let cases: [(&str, &[u8]); 6] = [
        ("text", b"I am no component\n"),
        ("empty", b""),
        ("module", &module),
        ("wasi", &wasi),
        ("nothing", &nothing),
        ("cut", wasi.get(..wasi.len() / 2).unwrap_or_default()),
    ];
    for (name, bytes) in cases {
        fs::write(plugins.join(format!("{name}.wasm")), bytes).expect("written");
    }
    fs::create_dir(plugins.join("directory.wasm")).expect("made");
    std::os::unix::fs::symlink("nowhere", plugins.join("dangling.wasm")).expect("linked");
    let _ = home.run(["daemon", "stop"]).ok();

    let list = home.run(["--json", "plugin", "list"]).ok().json();
    let list = list["plugins"].as_array().expect("a list");
    let find = |name: &str| {
        list.iter()
            .find(|plugin| plugin["name"] == name)
            .unwrap_or_else(|| panic!("{name} is listed"))
    };
    for (name, _) in cases {
        let plugin = find(name);
        let error = &plugin["error"];
        let sentence = message(error);
        assert!(
            !sentence.is_empty() && !sentence.contains('\n') && sentence.len() < 400,
            "{name}: {error}"
        );
        assert!(
            !error["hint"].as_str().unwrap_or_default().is_empty(),
            "{name}: {error}"
        );
        let shown = home.run(["--json", "plugin", "show", name]).ok().json();
        assert_eq!(shown["error"], *error);
    }
    let wasi = message(&find("wasi")["error"]);
    assert!(wasi.contains("wasi:cli/environment"), "{wasi}");
    for name in ["ssh", "preflight", "git"] {
        assert!(find(name)["error"].is_null(), "{name}");
    }
    let text = home.run(["plugin", "list"]).ok().text();
    assert!(text.contains("wasi"), "{text}");
    let _ = home
        .run([
            "vm", "session", "start", HOST, "--name", "works", "--", "true",
        ])
        .ok();
    let waited = home.run(["vm", "session", "wait", HOST, "works"]);
    assert_eq!(waited.code, Some(0));
    home.run(["--json", "plugin", "show", "nosuch"]).failure(3);
}

#[test]
fn what_can_not_be_done_to_an_adopted_host_is_said() {
    let home = home();
    for verb in ["stop", "start"] {
        let ran = home.run(["--json", "vm", verb, HOST]);
        if ran.code != Some(0) {
            ran.failure(ran.code.expect("a code"));
            assert_ne!(ran.code, Some(1), "{ran:?}");
        }
    }
    let _ = home.run(["vm", "exec", HOST, "--", "true"]).ok();
    let _ = home.run(["vm", "delete", HOST]).ok();
    assert!(names(&home).is_empty());
    home.run(["--json", "vm", "exec", HOST, "--", "true"])
        .failure(125);
}
