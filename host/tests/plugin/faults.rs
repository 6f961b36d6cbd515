//! What a plugin can do wrong, and that it costs one call only.

use crate::fixture::{FIXTURE, Fixture, assert_sound, load_error, preflight, request};
use banger_core::{Failure, Kind};
use std::time::{Duration, Instant};

/// Calls `checks` of a plugin with this body; then a sound plugin on the same thread.
fn checks_error(core: &'static str, checks: &'static str) -> Failure {
    let bad = preflight(&Fixture {
        core,
        checks,
        ..FIXTURE
    });
    let good = preflight(&FIXTURE);
    for _ in 0..2 {
        let failure = Failure::from(bad.checks(&request()).expect_err("a fault"));
        assert_sound(&failure);
        assert_eq!(
            good.checks(&request()).expect("the engine still serves"),
            vec![]
        );
    }
    Failure::from(bad.checks(&request()).expect_err("the same fault again"))
}

fn assert_plugin(failure: &Failure, message: &str) {
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (Kind::Plugin, message)
    );
    assert!(!failure.hint.is_empty());
}

#[test]
fn a_loop_is_stopped() {
    let start = Instant::now();
    let failure = checks_error("", "(loop $l (br $l)) (unreachable)");
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 was stopped in preflight.checks after 1 s",
    );
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn memory_is_limited() {
    let failure = checks_error(
        "",
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
    );
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 needs more than 64 MiB of memory in preflight.checks",
    );
}

#[test]
fn a_large_memory_from_the_start_is_refused() {
    let failure = load_error(
        Fixture {
            core: "(memory 4096)",
            ..FIXTURE
        }
        .bytes(),
    );
    assert_plugin(
        &failure,
        "plugin bad.wasm needs more than 64 MiB of memory in metadata.describe",
    );
}

#[test]
fn the_stack_is_limited() {
    let failure = checks_error(
        "(func $f (param i32) (result i32) (i32.add (i32.const 1) (call $f (local.get 0))))",
        "(call $f (i32.const 0))",
    );
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 needs more than 512 KiB of stack in preflight.checks",
    );
}

#[test]
fn a_panic_is_an_error() {
    let failure = checks_error("", "(unreachable)");
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 failed in preflight.checks: it panicked",
    );
    let failure = checks_error("", "(i32.div_u (i32.const 1) (i32.const 0))");
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 failed in preflight.checks: integer divide by zero",
    );
}

#[test]
fn what_cannot_be_read_is_malformed() {
    const MALFORMED: &str = "plugin fixture 1.2.3 returned something from preflight.checks that \
        is no value of the promised type";
    for (case, checks) in [
        (
            "no case of `result`",
            "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)",
        ),
        ("a pointer outside", "(i32.const -16)"),
        ("an odd pointer", "(i32.const 1025)"),
        (
            "a list outside",
            "(i32.store (i32.const 1028) (i32.const 131064))
             (i32.store (i32.const 1032) (i32.const 1000)) (i32.const 1024)",
        ),
        (
            "a list whose size overflows",
            "(i32.store (i32.const 1032) (i32.const -1)) (i32.const 1024)",
        ),
        (
            "a message that is not UTF-8",
            "(i32.store8 (i32.const 1024) (i32.const 1))
             (i32.store8 (i32.const 4096) (i32.const 255))
             (i32.store (i32.const 1028) (i32.const 4096))
             (i32.store (i32.const 1032) (i32.const 1)) (i32.const 1024)",
        ),
    ] {
        let failure = checks_error("", checks);
        assert_eq!(failure.message, MALFORMED, "{case}");
    }
}

#[test]
fn output_is_limited() {
    // 200,000 checks of 52 bytes each, all of them in one and the same 10 MiB of zeros.
    let failure = checks_error(
        "",
        "(drop (memory.grow (i32.const 200)))
         (i32.store (i32.const 1028) (i32.const 131072))
         (i32.store (i32.const 1032) (i32.const 200000)) (i32.const 1024)",
    );
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 returned more than 8 MiB from preflight.checks",
    );
}

/// `checks` returns one check with this id (at 2048) and script body, and no else.
fn one_check(id: &'static str) -> Fixture {
    let core = format!("(data (i32.const 2048) \"{id}\")").leak();
    let checks = format!(
        "(i32.store (i32.const 1028) (i32.const 3072))
         (i32.store (i32.const 1032) (i32.const 1))
         (i32.store (i32.const 3072) (i32.const 2048))
         (i32.store (i32.const 3076) (i32.const {})) (i32.const 1024)",
        id.len()
    )
    .leak();
    Fixture {
        core,
        checks,
        ..FIXTURE
    }
}

#[test]
fn what_the_contract_forbids_is_refused() {
    assert_eq!(
        preflight(&one_check("cwd"))
            .checks(&request())
            .expect("valid")[0]
            .id,
        "cwd"
    );
    let failure = preflight(&one_check("../x"))
        .checks(&request())
        .expect_err("no id");
    let failure = Failure::from(failure);
    assert_sound(&failure);
    assert!(
        failure
            .message
            .contains("that the contract forbids: `../x` is no valid"),
        "{failure}"
    );
}

#[test]
fn a_refusal_is_passed_on_escaped() {
    let bad = preflight(&Fixture {
        core: "(data (i32.const 4096) \"no\\1b[2J.\")",
        checks: "(i32.store8 (i32.const 1024) (i32.const 1))
             (i32.store (i32.const 1028) (i32.const 4096))
             (i32.store (i32.const 1032) (i32.const 7)) (i32.const 1024)",
        ..FIXTURE
    });
    let failure = Failure::from(bad.checks(&request()).expect_err("a refusal"));
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (Kind::Invalid, "no\\x1b[2J")
    );
}

#[test]
fn input_is_limited() {
    let mut request = request();
    request.program = vec![b'x'; 5 << 20];
    let error = preflight(&FIXTURE).checks(&request).expect_err("too large");
    assert_eq!(Failure::from(error).kind, Kind::Invalid);
}

#[test]
fn imports_are_named() {
    let failure = load_error(
        Fixture {
            items: r#"(import "wasi:cli/environment@0.2.3" (instance
                (export "get-arguments" (func (result (list string))))))"#,
            ..FIXTURE
        }
        .bytes(),
    );
    assert_plugin(
        &failure,
        "plugin bad.wasm imports `wasi:cli/environment@0.2.3`, and plugins may import nothing",
    );
    let failure = load_error(
        Fixture {
            items: r#"(import "run" (func (param "x" string)))"#,
            ..FIXTURE
        }
        .bytes(),
    );
    assert!(failure.message.contains("imports `run`"), "{failure}");
}

#[test]
fn an_import_of_types_alone_gives_nothing_and_is_fine() {
    preflight(&Fixture {
        items: r#"(import "banger:plugin/types@0.1.0" (instance
            (type $r (record (field "message" string)))
            (export "refusal" (type (eq $r)))))"#,
        ..FIXTURE
    });
}

#[test]
fn another_version_of_an_interface_is_named() {
    let failure = load_error(
        Fixture {
            contract: "0.3.0",
            ..FIXTURE
        }
        .bytes(),
    );
    assert_eq!(
        failure.message,
        "plugin bad.wasm speaks metadata@0.3.0; this banger speaks 0.1.0: upgrade banger"
    );
}

#[test]
fn other_types_in_an_interface_are_found_at_load() {
    let mut fixture = FIXTURE;
    fixture.id_type = "(list u8)";
    let failure = load_error(fixture.bytes());
    assert_plugin(
        &failure,
        "plugin fixture 1.2.3 exports preflight@0.1.0 with functions or types that are not the \
         contract's",
    );
}

#[test]
fn who_does_not_say_who_it_is_is_refused() {
    let failure = load_error(wat::parse_str("(component)").expect("assembles"));
    assert_plugin(
        &failure,
        "plugin bad.wasm does not export banger:plugin/metadata",
    );
    for (name, version) in [("Bad Name", "1.2.3"), ("ok", "latest")] {
        let failure = load_error(
            Fixture {
                name,
                version,
                ..FIXTURE
            }
            .bytes(),
        );
        assert!(
            failure.message.contains("from metadata.describe that"),
            "{failure}"
        );
    }
    let failure = load_error(
        Fixture {
            describe: "(unreachable)",
            ..FIXTURE
        }
        .bytes(),
    );
    assert_plugin(
        &failure,
        "plugin bad.wasm failed in metadata.describe: it panicked",
    );
}

#[test]
fn a_loop_at_instantiation_is_stopped() {
    let failure = load_error(
        Fixture {
            core: "(func $s (loop $l (br $l))) (start $s)",
            ..FIXTURE
        }
        .bytes(),
    );
    assert_plugin(
        &failure,
        "plugin bad.wasm was stopped in metadata.describe after 1 s",
    );
}

#[test]
fn what_is_no_component_is_told_apart() {
    let engine = wasmtime::Engine::default();
    let precompiled = engine
        .precompile_component(&FIXTURE.bytes())
        .expect("compiles");
    let module = wat::parse_str("(module)").expect("assembles");
    let mut cut = FIXTURE.bytes();
    cut.truncate(cut.len() / 2);
    for (bytes, part) in [
        (vec![], "it is empty"),
        (
            precompiled,
            "it is precompiled code, which banger never loads",
        ),
        (module, "it is a core module"),
        (b"  (component)".to_vec(), "it is WebAssembly text"),
        (b"#!/bin/sh\n".to_vec(), "it does not begin like one"),
        (cut, "is a damaged component"),
    ] {
        let failure = load_error(bytes);
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
}

#[test]
fn random_damage_never_panics() {
    let sound = FIXTURE.bytes();
    let runtime = banger_host::plugin::Runtime::new().expect("the engine starts");
    // Each byte in turn gets another value: one damaged component a byte.
    for (index, step) in (8..sound.len()).step_by(7).zip(1u8..=255) {
        let mut bytes = sound.clone();
        bytes[index] ^= step;
        let directory = crate::fixture::directory(&[("x.wasm", bytes)]);
        let registry = banger_host::plugin::Registry::load_on(
            runtime.clone(),
            &[],
            Some(directory.path()),
            None,
        );
        for failure in registry
            .list()
            .iter()
            .filter_map(|info| info.error.as_ref())
        {
            assert_sound(failure);
        }
    }
}
