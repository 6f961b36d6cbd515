//! Whatever ends a prepare half-way, the guest's tree is the old one or the new one.

use crate::world::{Options, World, git, join, put, start, tree};
use banger_host::repository::SnapshotError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

type Tree = BTreeMap<PathBuf, (char, Vec<u8>)>;

fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let since = Instant::now();
    while !ask() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "waited in vain: {what}"
        );
        std::thread::yield_now();
    }
}

fn kill(target: &str) {
    let status = Command::new("kill").args(["-KILL", "--", target]).status();
    status.expect("kill runs");
}

/// A copy, and a working tree that differs from it in many files.
fn world() -> (World, Tree) {
    let world = World::new();
    for n in 0..200 {
        put(
            world.user().join(format!("dir{}/file{n}", n % 7)),
            format!("{n}\n").repeat(50),
        );
    }
    world.commit("first");
    world.prepare(&Options::shallow()).ok();
    let old = tree(&world.copy());
    for n in 0..150 {
        put(
            world.user().join(format!("dir{}/file{n}", n % 7)),
            format!("new {n}\n").repeat(99),
        );
    }
    fs::remove_dir_all(world.user().join("dir3")).expect("removed");
    put(world.user().join("dir3"), "a file");
    git(&world.user(), &["add", "-A"]);
    (world, old)
}

fn applying(world: &World) -> PathBuf {
    world.copy().join(".git/banger/applying")
}

/// Waits until nothing goes on any more; then the tree is one of both.
fn assert_old_or_new(world: &World, old: &Tree) -> bool {
    eventually("it has settled", || !applying(world).exists());
    let now = tree(&world.copy());
    let new = now == tree(&world.user());
    assert!(new || now == *old, "it is half");
    new
}

fn started(world: &World) -> (Child, Child) {
    let options = Options::shallow();
    let (_, snapshot) = world.snapshot(&world.user(), &options).expect("read");
    let script = world.script(&world.user(), &snapshot, &options);
    let both = start(&script, &snapshot);
    // Only what serves it needs it, and that has it open.
    std::mem::forget(snapshot);
    both
}

#[test]
fn a_connection_that_is_cut_anywhere() {
    let (world, old) = world();
    let mut new = false;
    for limit in [0, 1, 100, 700, 1000, 3000, 9000, 20_000, u64::MAX - 1] {
        let (mut guest, mut served) = started(&world);
        join(&mut guest, &mut served, limit);
        let _ = served.kill();
        let _ = served.wait();
        let _ = guest.wait();
        new |= assert_old_or_new(&world, &old);
        assert!(new || limit < u64::MAX - 1);
    }
    world.prepare(&Options::shallow()).ok();
    world.assert_same();

    // Where nothing was, nothing is.
    fs::remove_dir_all(world.copy()).expect("removed");
    let (mut guest, mut served) = started(&world);
    join(&mut guest, &mut served, 3000);
    let _ = served.kill();
    let _ = (served.wait(), guest.wait());
    assert!(!world.copy().exists());
    let left = fs::read_dir(world.root.path()).expect("there").count();
    assert_eq!(left, 2, "the repository and the snapshots");
}

/// Kills the script when a file appears.
fn killed_at(world: &World, file: &Path) {
    let (mut guest, mut served) = started(world);
    let pid = guest.id().to_string();
    let file = file.to_owned();
    let watching = std::thread::spawn(move || {
        eventually("the moment", || file.exists());
        kill(&pid);
    });
    join(&mut guest, &mut served, u64::MAX);
    watching.join().expect("no panic");
    let _ = (guest.wait(), served.wait());
}

#[test]
fn a_script_that_is_killed_goes_on_to_its_end_once_it_has_begun() {
    let (world, old) = world();
    killed_at(&world, &applying(&world));
    assert!(assert_old_or_new(&world, &old));
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
}

#[test]
fn what_power_loss_has_left_half_is_made_whole_the_next_time() {
    let (world, _) = world();
    let mark = applying(&world);
    let (mut guest, mut served) = started(&world);
    let watching = {
        let mark = mark.clone();
        std::thread::spawn(move || {
            let mut group = String::new();
            eventually("the moment", || {
                let text = fs::read_to_string(&mark).unwrap_or_default();
                group = text
                    .split_whitespace()
                    .nth(1)
                    .unwrap_or_default()
                    .to_owned();
                !group.is_empty()
            });
            kill(&format!("-{group}"));
        })
    };
    join(&mut guest, &mut served, u64::MAX);
    watching.join().expect("no panic");
    let _ = (guest.wait(), served.wait());
    assert!(mark.exists());
    // Files of git's that were in use.
    let locks = ["banger/index.lock", "index.lock"];
    assert!(locks.iter().all(|lock| lock.ends_with("lock")));
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
    assert!(!mark.exists());
}

#[test]
fn what_changes_while_it_is_read_is_told() {
    let world = World::committed(&[("a", "a")]);
    let user = world.user();
    put(user.join("new"), "n");
    let options = Options::shallow();
    let (scan, snapshot) = world.snapshot(&user, &options).expect("read");
    drop(snapshot);
    fs::remove_file(user.join("new")).expect("removed");
    let make = || {
        let kept = world.root.path().join("kept/one");
        banger_host::repository::Snapshot::make(&scan, &kept, &false.into())
    };
    match make() {
        Err(SnapshotError::Changed(path)) => assert_eq!(path, b"new"),
        other => panic!("{other:?}"),
    }
    fs::create_dir(user.join("new")).expect("made");
    assert!(matches!(make(), Err(SnapshotError::Changed(_))));
    let left = fs::read_dir(world.root.path().join("kept")).expect("there");
    assert_eq!(left.count(), 0, "no half snapshot is left");
}

#[test]
fn an_editor_that_goes_on_saving_gives_one_version_or_a_sentence() {
    let world = World::committed(&[("a", "a"), ("b", "b")]);
    let user = world.user();
    let versions = ["x".repeat(300_000), "y".repeat(300_001)];
    put(user.join("a"), &versions[0]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let editing = {
        let (stop, versions, user) = (stop.clone(), versions.clone(), user.clone());
        std::thread::spawn(move || {
            for version in versions.iter().cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                put(user.join(".a.swp"), version);
                fs::rename(user.join(".a.swp"), user.join("a")).expect("renamed");
            }
        })
    };
    for _ in 0..8 {
        match world.try_prepare(&Options::shallow().tracked_only()) {
            Ok(done) => {
                done.ok();
                let content = fs::read_to_string(world.copy().join("a")).expect("there");
                assert!(versions.contains(&content), "a mixture");
            }
            Err(failure) => assert!(failure.message.contains("`a` changed"), "{failure:?}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    editing.join().expect("no panic");
}
