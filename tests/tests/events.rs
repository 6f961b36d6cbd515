//! Is what happens to sessions told to those who asked, and to nobody else?

use std::time::{Duration, Instant};

use banger_tests::home::{HOST, Home};
use banger_tests::rpc::Rpc;
use serde_json::{Value, json};

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// A connection that has subscribed, any number of times.
struct Listener {
    rpc: Rpc,
    heard: Vec<Value>,
}

impl Listener {
    fn new(home: &Home) -> Self {
        Self {
            rpc: home.rpc(),
            heard: Vec::new(),
        }
    }

    /// Subscribes; the subscription's number.
    #[track_caller]
    fn subscribe(&mut self, params: Value) -> u64 {
        let reply = self
            .rpc
            .call("events.subscribe", params)
            .expect("subscribed");
        reply["subscription"].as_u64().expect("a number")
    }

    /// Waits for the next event of a subscription and of one of these kinds; those of others are
    /// kept.
    #[track_caller]
    fn next(&mut self, subscription: u64, kinds: &[&str]) -> Value {
        let fits = |event: &Value| {
            event["subscription"] == subscription
                && event["event"]["kind"]
                    .as_str()
                    .is_some_and(|kind| kinds.contains(&kind))
        };
        loop {
            if let Some(place) = self.heard.iter().position(fits) {
                return self.heard.remove(place)["event"].take();
            }
            match self.rpc.next_message() {
                Ok(Some(mut message)) if message["method"] == "event" => {
                    self.heard.push(message["params"].take());
                }
                Ok(Some(_)) => {}
                other => panic!("no {kinds:?}: {other:?}; heard {:?}", self.heard),
            }
        }
    }

    /// What was heard and not asked for.
    fn rest(&mut self, subscription: u64) -> Vec<String> {
        let mine = self
            .heard
            .iter()
            .filter(|one| one["subscription"] == subscription);
        mine.map(|one| {
            format!(
                "{} {}",
                one["event"]["session"].as_str().unwrap_or_default(),
                one["event"]["kind"].as_str().unwrap_or_default()
            )
        })
        .collect()
    }
}

fn start(home: &Home, name: &str, tag: &str, script: &str) {
    let words = [
        "vm", "session", "start", HOST, "--name", name, "--tag", tag, "--", "bash", "-c", script,
    ];
    let _ = home.run(words).ok();
}

fn send(home: &Home, name: &str, line: &str) {
    let words = [
        "vm",
        "session",
        "send",
        HOST,
        name,
        "--newline",
        "--message",
        line,
    ];
    let _ = home.run(words).ok();
}

#[test]
fn a_sessions_life_is_told_as_it_happens() {
    let home = home();
    let mut listener = Listener::new(&home);
    let all = listener.subscribe(json!({"idle_ms": 1000}));
    start(
        &home,
        "life",
        "task=42",
        "while read -r line; do [[ $line == bye ]] && exit 7; echo \"$line\"; done",
    );
    let started = listener.next(all, &["started"]);
    assert_eq!(started["session"], "life");
    assert_eq!(
        (&started["vm"], &started["state"]),
        (&HOST.into(), &"running".into())
    );
    assert_eq!(started["tags"], json!({"task": "42"}));
    assert_eq!(started["exit_code"], Value::Null);
    let shown = home.session("life");
    assert_eq!(
        (&started["session_id"], &started["vm_id"]),
        (&shown["id"], &shown["vm_id"])
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = u64::try_from(now.expect("after 1970").as_millis()).expect("small");
    let at = started["at_ms"].as_u64().expect("a time");
    assert!(at <= now && now - at < 60_000, "{at} is not now, {now}");

    let idle = listener.next(all, &["output-idle"]);
    assert_eq!(
        (&idle["session"], &idle["state"]),
        (&"life".into(), &"running".into())
    );
    send(&home, "life", "hello");
    let resumed = listener.next(all, &["output-resumed"]);
    assert_eq!(resumed["stdout_bytes"], 6);
    // And again.
    listener.next(all, &["output-idle"]);
    send(&home, "life", "bye");
    let exited = listener.next(all, &["exited"]);
    assert_eq!(
        (&exited["exit_code"], &exited["state"]),
        (&7.into(), &"exited".into())
    );
    assert_eq!(exited["stdout_bytes"], 6);
    let _ = home.run(["vm", "session", "delete", HOST, "life"]).ok();
    assert_eq!(listener.next(all, &["deleted"])["session"], "life");

    let failed = home.run([
        "vm",
        "session",
        "start",
        HOST,
        "--name",
        "no",
        "--",
        "nosuchcommand",
    ]);
    assert_ne!(failed.code, Some(0));
    let failed = listener.next(all, &["failed"]);
    assert_eq!(
        (&failed["session"], &failed["state"]),
        (&"no".into(), &"failed".into())
    );

    start(&home, "victim", "task=43", "echo $PPID; exec sleep 600");
    listener.next(all, &["started"]);
    let words = ["vm", "session", "logs", HOST, "victim", "--follow"];
    let mut logs = home.spawn(words);
    logs.until("\n");
    home.kill_unseen("victim");
    let lost = listener.next(all, &["lost"]);
    assert_eq!(
        (&lost["session"], &lost["exit_code"]),
        (&"victim".into(), &Value::Null)
    );
    assert_eq!(
        listener.rest(all),
        Vec::<String>::new(),
        "each is told once"
    );
}

#[test]
fn filters_let_through_what_was_asked_for_and_subscriptions_do_not_mix() {
    let home = home();
    let adopted = home.run(home.adopt_arguments("other").expect("an sshd"));
    let _ = adopted.ok();
    start(&home, "one", "color=red", "read -r; exit 1");
    start(&home, "two", "color=blue", "read -r; exit 2");
    let mut listener = Listener::new(&home);
    let red = listener.subscribe(json!({"tags": {"color": "red"}}));
    let two = listener.subscribe(json!({"vm": HOST, "session": "two"}));
    let none = listener.subscribe(json!({"vm": "other"}));
    assert!(red != two && two != none);
    send(&home, "one", "");
    send(&home, "two", "");
    assert_eq!(listener.next(red, &["exited"])["session"], "one");
    assert_eq!(listener.next(two, &["exited"])["exit_code"], 2);
    start(&home, "three", "color=red", "read -r; exit 3");
    assert_eq!(listener.next(red, &["started"])["session"], "three");
    send(&home, "three", "");
    assert_eq!(listener.next(red, &["exited"])["session"], "three");
    // Whatever else was told is here by now.
    listener
        .rpc
        .call("daemon.info", json!({}))
        .expect("answered");
    for subscription in [red, two, none] {
        assert_eq!(listener.rest(subscription), Vec::<String>::new());
    }

    for (params, kind) in [
        (json!({"vm": "nosuch"}), "not-found"),
        (json!({"vm": HOST, "session": "nosuch"}), "not-found"),
        (json!({"session": "one"}), "usage"),
    ] {
        let answer = listener
            .rpc
            .ask("events.subscribe", params)
            .expect("an answer");
        assert_eq!(answer["error"]["data"]["kind"], kind, "{answer}");
    }
}

#[test]
fn a_subscriber_that_does_not_read_hurts_nobody() {
    let home = home();
    let mut listener = Listener::new(&home);
    let all = listener.subscribe(json!({}));
    let mut deaf = home.rpc();
    // Their answers are not read either. What is told below is more than a socket holds.
    for id in 100..150 {
        let request =
            json!({"jsonrpc": "2.0", "id": id, "method": "events.subscribe", "params": {}});
        deaf.send_line(request.to_string().as_bytes())
            .expect("sent");
    }
    let begun = Instant::now();
    for number in 0..20 {
        let name = format!("s{number}");
        start(&home, &name, "long=tag", "exit 5");
        let exited = listener.next(all, &["exited"]);
        assert_eq!(
            (&exited["session"], &exited["exit_code"]),
            (&name.into(), &5.into())
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    drop(deaf);
    assert_eq!(home.run(["vm", "list"]).code, Some(0));
}
