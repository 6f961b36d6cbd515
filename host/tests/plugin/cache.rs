//! Compiled code is used again, and never once it is damaged or others could have written it.

use crate::fixture::{FIXTURE, directory, request};
use banger_host::plugin::Registry;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn load(plugins: &Path, cache: &Path) -> Registry {
    let registry = Registry::load(&[], Some(plugins), Some(cache)).expect("the engine starts");
    let [preflight] = registry.preflights() else {
        panic!("it loads: {:?}", registry.list());
    };
    preflight.checks(&request()).expect("it works");
    registry
}

fn only_file(cache: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(cache)
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [file] = files.as_slice() else {
        panic!("one file, not {files:?}");
    };
    file.clone()
}

#[test]
fn the_second_start_compiles_nothing_and_damage_is_noticed() {
    let plugins = directory(&[("a.wasm", FIXTURE.bytes())]);
    let home = tempfile::tempdir().expect("a directory");
    let cache = home.path().join("new/cache");
    assert_eq!(load(plugins.path(), &cache).compiled(), 1);
    assert_eq!(load(plugins.path(), &cache).compiled(), 0);

    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let file = only_file(&cache);
    assert_eq!((mode(&cache), mode(&file)), (0o700, 0o600));

    let sound = std::fs::read(&file).expect("readable");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damaged in [
        &sound[..sound.len() - 1],
        &sound[..sound.len() / 2],
        &[],
        &flipped,
    ] {
        std::fs::write(&file, damaged).expect("written");
        assert_eq!(
            load(plugins.path(), &cache).compiled(),
            1,
            "{} bytes",
            damaged.len()
        );
        assert_eq!(
            std::fs::read(&file).expect("readable").len(),
            sound.len(),
            "it is repaired"
        );
    }

    // The code of another component under this one's name.
    let other = crate::fixture::Fixture {
        name: "other",
        ..FIXTURE
    };
    let others = directory(&[("b.wasm", other.bytes())]);
    std::fs::remove_file(&file).expect("removed");
    load(others.path(), &cache);
    std::fs::rename(only_file(&cache), &file).expect("renamed");
    let registry = load(plugins.path(), &cache);
    assert_eq!(
        (registry.compiled(), registry.list()[0].name.as_str()),
        (1, "fixture")
    );
}

#[test]
fn a_file_or_directory_that_others_may_write_is_not_used() {
    let plugins = directory(&[("a.wasm", FIXTURE.bytes())]);
    let home = tempfile::tempdir().expect("a directory");
    let cache = home.path().join("cache");
    load(plugins.path(), &cache);
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };

    chmod(&only_file(&cache), 0o666);
    assert_eq!(load(plugins.path(), &cache).compiled(), 1);
    assert_eq!(
        load(plugins.path(), &cache).compiled(),
        0,
        "it was written anew"
    );

    chmod(&cache, 0o777);
    let registry = load(plugins.path(), &cache);
    assert_eq!(registry.compiled(), 1);
    assert!(
        registry
            .cache_problem()
            .is_some_and(|text| text.contains("other users"))
    );

    chmod(&cache, 0o755);
    assert_eq!(
        load(plugins.path(), &cache).compiled(),
        0,
        "reading is no danger"
    );
    assert_eq!(
        cache.metadata().expect("there").permissions().mode() & 0o777,
        0o700
    );

    let link = home.path().join("link");
    std::os::unix::fs::symlink(&cache, &link).expect("linked");
    assert_eq!(
        load(plugins.path(), &link).compiled(),
        1,
        "a link is not followed"
    );
}
