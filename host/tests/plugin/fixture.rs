//! Components written by hand, each wrong in one way.

use banger_core::{Failure, Kind};
use banger_host::plugin::{Preflight, PreflightRequest, Registry};
use std::path::Path;

/// A preflight plugin of which a test replaces some parts.
pub struct Fixture {
    pub name: &'static str,
    pub version: &'static str,
    /// Of `metadata` and `preflight`.
    pub contract: &'static str,
    /// Further items of the component, such as an import.
    pub items: &'static str,
    /// Further items of the core module.
    pub core: &'static str,
    /// The core body of `metadata.describe`, which returns a pointer.
    pub describe: &'static str,
    /// The core body of `preflight.checks`, which returns a pointer.
    pub checks: &'static str,
    /// The type of what `preflight.read-check` takes as `id`.
    pub id_type: &'static str,
}

/// `checks` returns an empty list: the memory at 1024 is zero.
pub const FIXTURE: Fixture = Fixture {
    name: "fixture",
    version: "1.2.3",
    contract: "0.1.0",
    items: "",
    core: "",
    describe: "(i32.const 256)",
    checks: "(i32.const 1024)",
    id_type: "string",
};

impl Fixture {
    pub fn text(&self) -> String {
        let Self {
            name,
            version,
            contract,
            items,
            core,
            describe,
            checks,
            id_type,
        } = self;
        // Two words for each string of `info`: name, version, summary, homepage.
        let words = [0, name.len(), 64, version.len(), 128, 9, 0, 0];
        let info: String = words
            .iter()
            .flat_map(|word| (*word as u32).to_le_bytes())
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(component
  {items}
  (core module $m
    (memory (export "memory") 2)
    (global $heap (mut i32) (i32.const 65536))
    (data (i32.const 0) "{name}")
    (data (i32.const 64) "{version}")
    (data (i32.const 128) "a fixture")
    (data (i32.const 256) "{info}")
    {core}
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $heap)
      (global.set $heap (i32.and
        (i32.add (global.get $heap) (i32.add (local.get 3) (i32.const 7))) (i32.const -8))))
    (func (export "describe") (result i32) {describe})
    (func (export "checks") (param i32 i32 i32 i32 i32 i32) (result i32) {checks})
    (func (export "read-check")
      (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
      (i32.const 1024)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "realloc" (core func $realloc))
  (type $bytes (list u8))
  (type $info (record (field "name" string) (field "version" string)
    (field "summary" string) (field "homepage" string)))
  (type $request (record (field "cwd" $bytes) (field "program" $bytes)
    (field "commands" (list string))))
  (type $script (record (field "body" string) (field "args" (list $bytes))
    (field "env" (list (tuple string $bytes))) (field "stdin" $bytes) (field "timeout-ms" u32)))
  (type $output (record (field "exit-code" s32) (field "stdout" $bytes) (field "stderr" $bytes)))
  (type $refusal (record (field "message" string) (field "hint" string)))
  (type $check (record (field "id" string) (field "summary" string) (field "script" $script)))
  (func $describe (result $info)
    (canon lift (core func $i "describe") (memory $memory)))
  (func $checks (param "request" $request) (result (result (list $check) (error $refusal)))
    (canon lift (core func $i "checks") (memory $memory) (realloc $realloc)))
  (func $read-check (param "id" {id_type}) (param "request" $request) (param "output" $output)
    (result (result (error $refusal)))
    (canon lift (core func $i "read-check") (memory $memory) (realloc $realloc)))
  (instance $metadata (export "info" (type $info)) (export "describe" (func $describe)))
  (instance $preflight
    (export "request" (type $request)) (export "script" (type $script))
    (export "output" (type $output)) (export "refusal" (type $refusal))
    (export "check" (type $check))
    (export "checks" (func $checks)) (export "read-check" (func $read-check)))
  (export "banger:plugin/metadata@{contract}" (instance $metadata))
  (export "banger:plugin/preflight@{contract}" (instance $preflight)))"#
        )
    }

    pub fn bytes(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("the fixture assembles")
    }
}

/// A directory of these files.
pub fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).expect("written");
    }
    directory
}

pub fn load(plugins: &Path) -> Registry {
    Registry::load(&[], Some(plugins), None).expect("the engine starts")
}

/// Why a single component can't be loaded.
pub fn load_error(bytes: Vec<u8>) -> Failure {
    let directory = directory(&[("bad.wasm", bytes), ("good.wasm", FIXTURE.bytes())]);
    let registry = load(directory.path());
    let [bad, good] = registry.list() else {
        panic!("two plugins, not {:?}", registry.list());
    };
    assert_eq!(
        (good.name.as_str(), &good.error),
        ("fixture", &None),
        "the others are loaded"
    );
    assert_eq!(registry.preflights().len(), 1);
    let failure = bad.error.clone().expect("an error");
    assert_sound(&failure);
    failure
}

/// The only preflight of a registry with this one plugin.
pub fn preflight(fixture: &Fixture) -> Preflight {
    let directory = directory(&[("fixture.wasm", fixture.bytes())]);
    let registry = load(directory.path());
    match registry.preflights() {
        [preflight] => preflight.clone(),
        _ => panic!("it loads: {:?}", registry.list()),
    }
}

pub fn request() -> PreflightRequest {
    PreflightRequest {
        cwd: "/root/repo".parse().expect("a path"),
        program: b"true".to_vec(),
        commands: vec!["git".into()],
    }
}

/// A failure that a person can read: one line, no dump of the engine's.
pub fn assert_sound(failure: &Failure) {
    let message = &failure.message;
    assert!(
        matches!(failure.kind, Kind::Plugin | Kind::Invalid),
        "{failure:?}"
    );
    assert!(!message.contains('\n') && message.len() < 400, "{message}");
    for dump in ["backtrace", "at offset", "error while", "wasm trap", "  "] {
        assert!(!message.contains(dump), "{message}");
    }
}
