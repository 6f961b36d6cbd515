//! Is what a live daemon says what the committed schema says? The harness checks each message
//! ([`banger_tests::rpc`]); here every method is asked for that a host without virtual machines has.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use banger_core::frame::Frame;
use banger_tests::home::{HOST, Home};
use banger_tests::rpc::{Frames, Rpc};
use banger_tests::schema::Schema;
use serde_json::{Value, json};

/// Methods that only a machine of banger's own answers with a result.
const OF_MACHINES: [&str; 6] = [
    "image.build",
    "image.delete",
    "image.get",
    "vm.create",
    "vm.run",
    "guest.session.resize",
];

/// Asks, and remembers what was answered with a result and what with an error.
struct Asked {
    rpc: Rpc,
    answered: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Asked {
    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        let result = self.rpc.call(method, params).expect("a result");
        self.answered.insert(method.to_owned());
        result
    }

    #[track_caller]
    fn refused(&mut self, method: &str, params: Value) -> Value {
        let mut message = self.rpc.ask(method, params).expect("an answer");
        assert!(message["error"].is_object(), "{message}");
        self.refused.insert(method.to_owned());
        message["error"]["data"].take()
    }
}

#[track_caller]
fn repository(at: &Path) {
    std::fs::create_dir(at).expect("made");
    std::fs::write(at.join("file"), "one\n").expect("written");
    for words in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message", "first"],
    ] {
        let status = Command::new("git")
            .arg("-C")
            .arg(at)
            .args(["-c", "user.name=Test", "-c", "user.email=t@example.org"])
            .args(["-c", "commit.gpgSign=false"])
            .args(words)
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .status()
            .expect("git runs");
        assert!(status.success(), "git {words:?}");
    }
}

#[test]
fn what_a_live_daemon_says_is_what_the_schema_says() {
    let home = Home::with_host().expect("a home with a host");
    let mut asked = Asked {
        rpc: Rpc::greet(&home.socket()).expect("greeted"),
        answered: BTreeSet::from(["daemon.hello".into()]),
        refused: BTreeSet::new(),
    };

    asked.call("daemon.info", json!({}));
    asked.call("doctor.run", json!({}));
    asked.call("plugin.list", json!({}));
    asked.call("plugin.get", json!({"name": "preflight"}));
    asked.refused("plugin.get", json!({"name": "nosuch"}));
    asked.call("image.list", json!({}));
    for method in ["image.get", "image.delete"] {
        asked.refused(method, json!({"name": "nosuch"}));
    }
    asked.refused("image.build", json!({"name": "NO"}));
    asked.refused("vm.create", json!({"cpus": 1000}));
    asked.refused(
        "vm.run",
        json!({"create": {}, "prepare": {"path": "/nosuch"}}),
    );

    let sshd = home.sshd.as_ref().expect("an sshd");
    let vm = json!({"vm": HOST});
    asked.call("vm.list", json!({}));
    asked.call("vm.get", vm.clone());
    asked.call("vm.ssh", vm.clone());
    asked.refused("vm.get", json!({"vm": "\u{1b}[2J"}));
    for method in ["vm.start", "vm.stop", "vm.logs"] {
        // Of a host that banger did not start: a result or an error, both are checked.
        let answer = asked.rpc.ask(method, vm.clone()).expect("an answer");
        assert!(answer["result"].is_object() || answer["error"].is_object());
        asked.answered.insert(method.into());
    }
    let second = json!({
        "name": "second", "host": "127.0.0.1", "port": sshd.port(),
        "user": banger_tests::sshd::Sshd::user().expect("a user"),
        "identity": sshd.client_key_path(),
    });
    asked.call("vm.adopt", second);
    asked.call("vm.delete", json!({"vm": "second"}));
    let exec = asked.call("vm.exec", json!({"vm": HOST, "command": ["echo", "here"]}));
    let frames = Frames::open(&exec)
        .and_then(Frames::finish)
        .expect("frames");
    assert_eq!(frames, [Frame::Stdout(b"here\n".into()), Frame::Exit(0)]);

    let path = home.scratch().join("repository");
    repository(&path);
    asked.call("vm.workspace.prepare", json!({"vm": HOST, "path": path}));
    std::fs::write(home.guest_home().join("repo/file"), "two\n").expect("written");
    let status = asked.call("vm.workspace.status", vm.clone());
    assert_eq!(status["unexported"], true);
    let diff = asked.call("vm.workspace.diff", vm.clone());
    let frames = Frames::open(&diff["patch"]).and_then(Frames::finish);
    assert_eq!(frames.expect("frames").last(), Some(&Frame::Exit(0)));
    asked.call("vm.workspace.apply", vm.clone());
    asked.refused("vm.workspace.apply", vm.clone());
    let export = asked.call("vm.workspace.export", vm.clone());
    let frames = Frames::open(&export["patch"]).and_then(Frames::finish);
    assert_eq!(frames.expect("frames").last(), Some(&Frame::Exit(0)));

    asked.call(
        "events.subscribe",
        json!({"vm": HOST, "tags": {"of": "test"}}),
    );
    let name = |name: &str| json!({"vm": HOST, "session": name});
    let started = asked.call(
        "guest.session.start",
        json!({
            "vm": HOST, "name": "talk", "tags": {"of": "test"},
            "env": [["A", "b"], ["C", {"base64": "/w=="}]],
            "command": ["bash", "-c", "read -r l; echo \"$l\"; read -r l; exit 7"],
        }),
    );
    assert_eq!(started["tags"]["of"], "test");
    let failed = asked.refused(
        "guest.session.start",
        json!({"vm": HOST, "name": "never", "command": ["nosuchprogram"]}),
    );
    assert_eq!(failed["stage"], "preflight-commands");
    asked.call("guest.session.get", name("never"));
    asked.call(
        "guest.session.list",
        json!({"tags": {"of": "test"}, "states": ["running"]}),
    );
    let attach = json!({"vm": HOST, "session": "talk", "stdout_offset": 0, "writer": "test1"});
    let attach = asked.call("guest.session.attach", attach);
    let mut attached = Frames::open(&attach).expect("a stream");
    let conflict = asked.refused("guest.session.attach", name("talk"));
    assert_eq!(conflict["kind"], "conflict");
    asked.call(
        "guest.session.send",
        json!({"vm": HOST, "session": "talk", "message": "hello\n"}),
    );
    loop {
        match attached.receive().expect("a frame") {
            Frame::InputTaken(_) => {}
            frame => {
                assert_eq!(frame, Frame::Stdout(b"hello\n".into()));
                break;
            }
        }
    }
    let send = asked.call("guest.session.send", name("talk"));
    let mut sending = Frames::open(&send).expect("a stream");
    sending.send(&Frame::Stdin(b"bye\n".into())).expect("sent");
    sending.send(&Frame::StdinEnd).expect("sent");
    assert_eq!(sending.finish().expect("frames"), [Frame::Exit(0)]);
    let waited = asked.call("guest.session.wait", name("talk"));
    assert_eq!(waited["snapshot"]["exit_code"], 7);
    let last = attached.finish().expect("frames").pop();
    assert_eq!(last, Some(Frame::Exit(7)));
    let logs = asked.call("guest.session.logs", name("talk"));
    let frames = Frames::open(&logs)
        .and_then(Frames::finish)
        .expect("frames");
    assert_eq!(frames, [Frame::Stdout(b"hello\n".into()), Frame::Exit(0)]);
    asked.refused(
        "guest.session.logs",
        json!({"vm": HOST, "session": "talk", "tail": 1, "since_ms": 1}),
    );
    asked.refused(
        "guest.session.resize",
        json!({"vm": HOST, "session": "talk", "size": {"columns": 1, "rows": 1}}),
    );
    asked.call("guest.session.delete", name("talk"));

    for (method, more) in [
        ("guest.session.signal", json!({"signal": "CONT"})),
        ("guest.session.stop", json!({"grace_ms": 100})),
        ("guest.session.kill", json!({})),
    ] {
        let command = json!({"vm": HOST, "name": "sleep", "command": ["sleep", "600"]});
        asked.call("guest.session.start", command);
        let mut params = name("sleep");
        let object = params.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        asked.call(method, params);
        asked.call("guest.session.kill", name("sleep"));
        asked.call("guest.session.delete", name("sleep"));
    }
    let events: Vec<&str> = asked
        .rpc
        .told
        .iter()
        .filter(|message| message["method"] == "event")
        .map(|message| &message["params"]["event"])
        .filter(|event| event["session"] == "talk")
        .filter_map(|event| event["kind"].as_str())
        .collect();
    assert_eq!(events, ["started", "exited", "deleted"]);
    asked.call("daemon.stop", json!({}));

    let all: BTreeSet<String> = Schema::read()
        .expect("a schema")
        .methods()
        .into_iter()
        .map(String::from)
        .collect();
    let of_machines = BTreeSet::from(OF_MACHINES.map(String::from));
    assert!(asked.refused.is_superset(&of_machines));
    let missing: Vec<&String> = all
        .difference(&asked.answered)
        .filter(|method| !of_machines.contains(*method))
        .collect();
    assert!(missing.is_empty(), "never asked for: {missing:?}");
}
