//! Which plugin is used, and what the list says.

use crate::fixture::{FIXTURE, Fixture, directory, load};
use banger_core::Kind;
use banger_host::plugin::{Embedded, Origin, Registry};

#[test]
fn a_users_plugin_takes_the_place_of_a_first_party_one() {
    let embedded: &'static [Embedded] = Box::leak(Box::new([
        Embedded {
            name: "fixture",
            bytes: FIXTURE.bytes().leak(),
        },
        Embedded {
            name: "other",
            bytes: Fixture {
                name: "other",
                ..FIXTURE
            }
            .bytes()
            .leak(),
        },
    ]));
    let newer = Fixture {
        version: "9.0.0",
        ..FIXTURE
    };
    let plugins = directory(&[
        ("mine.wasm", newer.bytes()),
        ("zz.wasm", FIXTURE.bytes()),
        ("notes.txt", b"no plugin".to_vec()),
    ]);
    let registry = Registry::load(embedded, Some(plugins.path()), None).expect("the engine starts");
    let seen: Vec<_> = registry
        .list()
        .iter()
        .map(|info| {
            (
                info.name.as_str(),
                info.version.as_str(),
                info.overrides,
                info.error.is_some(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("fixture", "9.0.0", true, false),
            ("other", "1.2.3", false, false),
            ("zz", "", false, true),
        ]
    );
    assert_eq!(registry.list()[1].origin, Origin::Embedded);
    assert_eq!(
        registry.list()[0].interfaces,
        ["metadata@0.1.0", "preflight@0.1.0"]
    );
    assert_eq!(registry.list()[0].sha256.len(), 64);
    assert_eq!(registry.preflights().len(), 2);

    let broken = directory(&[("fixture.wasm", b"broken".to_vec())]);
    let registry = Registry::load(embedded, Some(broken.path()), None).expect("the engine starts");
    assert_eq!(
        registry.preflights().len(),
        2,
        "a broken file takes nobody's place"
    );
}

#[test]
fn what_nobody_provides_is_named() {
    let plugins = directory(&[]);
    let registry = load(plugins.path());
    let failure = registry.session_backend("x").err().expect("there is none");
    assert_eq!(failure.kind, Kind::Plugin);
    assert_eq!(
        failure.message,
        "no plugin provides the session backend `x`"
    );
    assert!(failure.hint.contains("banger plugin list"));
    let failure = registry.workspace("hg\x1b").err().expect("there is none");
    assert_eq!(
        failure.message,
        "no plugin provides the workspace kind `hg\\x1b`"
    );
}

#[test]
fn a_directory_that_is_not_there_has_no_plugins() {
    assert!(load("/nonexistent".as_ref()).list().is_empty());
}

#[test]
fn a_fifo_does_not_stop_the_start() {
    let plugins = directory(&[]);
    let fifo = plugins.path().join("a.wasm");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("made");
    let registry = load(plugins.path());
    assert!(registry.list()[0].error.is_some());
}
