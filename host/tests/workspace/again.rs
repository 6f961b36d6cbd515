//! A copy that is there already.

use crate::world::{Options, World, git, put, tree};
use std::fs;

#[test]
fn only_what_changed_is_sent() {
    let world = World::new();
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        (0..200_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            })
            .collect()
    };
    for n in 0..5 {
        put(world.user().join(format!("committed{n}")), noise(n));
        put(world.user().join(format!("dir/sub{n}/one")), noise(n + 50));
    }
    world.commit("first");
    for options in [Options::shallow(), Options::full()] {
        only_what_changed(&world, &options, &noise);
        fs::remove_dir_all(world.copy()).expect("removed");
        fs::remove_dir_all(world.root.path().join("kept")).expect("removed");
    }
}

fn only_what_changed(world: &World, options: &Options, noise: &dyn Fn(u32) -> Vec<u8>) {
    put(world.user().join("untracked"), noise(100));
    let first = world.prepare(options).ok().bytes;
    assert!(first > 2_200_000, "{first}");
    let nothing = world.prepare(options).ok().bytes;
    assert!(nothing < 2_000, "{nothing}");
    put(world.user().join("small"), "s");
    put(world.user().join("dir/sub1/two"), "s");
    let little = world.prepare(options).ok().bytes;
    assert!(little < 4_000, "{little}");
    // What went in untracked is known when it is committed.
    world.commit("second");
    let committed = world.prepare(options).ok().bytes;
    assert!(committed < 5_000, "{committed}");
    put(
        world.user().join("committed0"),
        noise(world.root.path().as_os_str().len() as u32 + 7),
    );
    let one = world.prepare(options).ok().bytes;
    assert!((200_000..220_000).contains(&one), "{one}");
    world.assert_same();
    git(&world.user(), &["reset", "-q", "--hard", "HEAD~1"]);
}

#[test]
fn what_was_not_exported_is_named_and_kept() {
    let world = World::committed(&[("a", "a\n"), ("b", "b\n"), (".gitignore", "ignored\n")]);
    let (user, copy) = (world.user(), world.copy());
    put(user.join("dirty"), "d\n");
    git(&user, &["add", "dirty"]);
    put(user.join("dirty"), "dd\n");
    let options = Options::shallow();
    world.prepare(&options).ok();
    // Looking does no harm.
    git(&copy, &["status"]);
    put(copy.join("ignored"), "built");
    put(user.join("b"), "b2\n");
    world.prepare(&options).ok();
    assert_eq!(
        fs::read_to_string(copy.join("ignored")).expect("kept"),
        "built"
    );

    let refused = |what: &str| {
        let before = (
            tree(&copy),
            fs::read(copy.join(".git/index")).expect("read"),
        );
        let message = world.prepare(&options).refused();
        assert!(message.contains(what), "{message}");
        assert!(
            before
                == (
                    tree(&copy),
                    fs::read(copy.join(".git/index")).expect("read")
                )
        );
        world.prepare(&options.clone().force()).ok();
        let _ = fs::remove_file(copy.join("ignored"));
        world.assert_same();
    };
    put(copy.join("new\n"), "n");
    refused("1 changed file (\"new\\n\")");
    put(copy.join("a"), "changed");
    fs::remove_file(copy.join("b")).expect("removed");
    refused("2 changed files (a, b)");
    put(copy.join("a"), "staged, then put back");
    git(&copy, &["add", "a"]);
    put(copy.join("a"), "a\n");
    refused("1 changed file (a)");
    put(copy.join("c"), "c");
    git(&copy, &["add", "c"]);
    git(&copy, &["commit", "-qm", "c"]);
    git(&copy, &["rm", "-q", "c"]);
    git(&copy, &["commit", "-qm", "not c"]);
    refused("2 commits");
    for n in 0..9 {
        put(copy.join(format!("n{n}")), "n");
    }
    refused("9 changed files (n0, n1, n2, n3, n4 and 4 more)");
}

#[test]
fn an_edit_of_the_same_size_at_the_same_moment_is_seen() {
    let world = World::committed(&[("a", "a\n")]);
    world.prepare(&Options::shallow()).ok();
    for n in 0..8 {
        put(world.user().join("b"), n.to_string());
        world.prepare(&Options::shallow().force()).ok();
        put(world.copy().join("b"), (n + 1).to_string());
        assert!(world.prepare(&Options::shallow()).refused().contains("(b)"));
    }
}

#[test]
fn what_was_exported_may_go() {
    let world = World::committed(&[("a", "a\n")]);
    let copy = world.copy();
    world.prepare(&Options::shallow()).ok();
    put(copy.join("a"), "changed\n");
    put(copy.join("new"), "n\n");
    git(&copy, &["commit", "-qam", "work"]);
    let tree = {
        git(&copy, &["add", "-A"]);
        git(&copy, &["write-tree"])
    };
    let exported = Options {
        exported: Some(tree),
        ..Options::shallow()
    };
    world.prepare(&Options::shallow()).refused();
    put(copy.join("since"), "s");
    world.prepare(&exported).refused();
    fs::remove_file(copy.join("since")).expect("removed");
    world.prepare(&exported).ok();
    world.assert_same();
}

#[test]
fn other_places_are_not_overwritten() {
    let world = World::committed(&[("a", "a\n")]);
    let copy = world.copy();
    put(copy.join(".precious"), "p");
    assert!(
        world
            .prepare(&Options::shallow())
            .refused()
            .contains("not empty")
    );
    world.prepare(&Options::shallow().force()).ok();
    world.assert_same();
    // Another mode or repository replaces it whole, unless commits would be lost.
    git(&copy, &["checkout", "-qb", "side"]);
    put(copy.join("s"), "s");
    git(&copy, &["add", "-A"]);
    git(&copy, &["commit", "-qm", "side"]);
    git(&copy, &["checkout", "-q", "main"]);
    world.prepare(&Options::shallow()).ok();
    assert!(
        world
            .prepare(&Options::full())
            .refused()
            .contains("commits")
    );
    git(&copy, &["branch", "-qD", "side"]);
    world.prepare(&Options::full()).ok();
    world.assert_same();
    // A link is not followed.
    fs::rename(&copy, world.root.path().join("elsewhere")).expect("renamed");
    std::os::unix::fs::symlink("elsewhere", &copy).expect("linked");
    world.prepare(&Options::full()).refused();
}

#[test]
fn history_that_was_rewritten_and_an_operation_under_way() {
    let world = World::committed(&[("a", "1\n")]);
    let (user, copy) = (world.user(), world.copy());
    world.prepare(&Options::shallow()).ok();
    put(user.join("a"), "2\n");
    git(&user, &["commit", "-qa", "--amend", "-m", "other"]);
    git(&user, &["checkout", "-q", "--orphan", "fresh"]);
    git(&user, &["commit", "-qm", "orphan"]);
    put(copy.join(".git/index.lock"), "");
    put(copy.join(".git/MERGE_HEAD"), "");
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
    assert!(!copy.join(".git/MERGE_HEAD").exists());
}
