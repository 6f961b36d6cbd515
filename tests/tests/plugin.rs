//! Does a plugin that misbehaves cost one sentence and nothing else, as a user meets it?

#[allow(dead_code, reason = "the engine's own tests use the rest")]
#[path = "../../host/tests/plugin/fixture.rs"]
mod fixture;

use banger_tests::home::{HOST, Home};
use fixture::{FIXTURE, Fixture};
use std::fs;

#[test]
fn a_plugin_that_misbehaves_is_named_and_changes_nothing() {
    let home = Home::with_host().expect("a home with a host");
    let file = home.banger_home().join("data/plugins/fixture.wasm");
    for (checks, sentence) in [
        ("(loop $l (br $l)) (unreachable)", "was stopped"),
        (
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
            "more than 64 MiB of memory",
        ),
        (
            "(drop (memory.grow (i32.const 200)))
             (i32.store (i32.const 1028) (i32.const 131072))
             (i32.store (i32.const 1032) (i32.const 200000)) (i32.const 1024)",
            "returned more than 8 MiB",
        ),
        ("(i32.const -16)", "no value of the promised type"),
    ] {
        let plugin = Fixture { checks, ..FIXTURE };
        fs::write(&file, plugin.bytes()).expect("written");
        let _ = home.run(["daemon", "stop"]).ok();
        let words = ["--json", "vm", "session", "start", HOST, "--", "true"];
        let failure = home.run(words).failure(9);
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("plugin fixture 1.2.3") && message.contains(sentence),
            "{failure}"
        );
        assert_eq!(failure["kind"], "plugin", "{failure}");
        let list = home.run(["--json", "vm", "session", "list"]).ok().json();
        assert_eq!(list["sessions"].as_array().map(Vec::len), Some(0), "{list}");
        // The daemon goes on.
        let ran = home.run(["vm", "exec", HOST, "--", "echo", "on"]).ok();
        assert_eq!(ran.text(), "on\n");
    }
    fs::remove_file(file).expect("removed");
    let _ = home.run(["daemon", "stop"]).ok();
    let words = ["vm", "session", "start", HOST, "--", "true"];
    let _ = home.run(words).ok();
}
