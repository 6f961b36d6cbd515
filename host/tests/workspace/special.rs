//! Repositories of every kind.

use crate::world::{Options, World, assert_same, git, git_command, put, set_mode, tree};
use std::fs;
use std::os::unix::fs::symlink;

fn modes() -> [Options; 2] {
    [Options::shallow(), Options::full()]
}

/// Everything that can differ, at once.
pub fn dirty(world: &World) {
    let user = world.user();
    put(user.join("staged"), "staged\n");
    put(user.join("dir/both"), "one\n");
    git(&user, &["add", "staged", "dir/both"]);
    put(user.join("dir/both"), "two\n");
    put(user.join("untracked"), "");
    put(user.join("later"), "announced\n");
    git(&user, &["add", "-N", "later"]);
    git(&user, &["rm", "-q", "--cached", "removed"]);
    fs::remove_file(user.join("gone")).expect("removed");
    git(&user, &["mv", "moved", "dir/here"]);
    set_mode(user.join("script"), 0o755);
    fs::remove_file(user.join("to-link")).expect("removed");
    symlink("../outside", user.join("to-link")).expect("linked");
    fs::remove_file(user.join("to-dir")).expect("removed");
    put(user.join("to-dir/in"), "i");
    fs::remove_dir_all(user.join("to-file")).expect("removed");
    put(user.join("to-file"), "f");
    put(user.join("line\nfeed \"\\"), "odd");
}

const FILES: &[(&str, &str)] = &[
    ("kept", "k\n"),
    ("removed", "r\n"),
    ("gone", "g\n"),
    ("moved", "m\n"),
    ("script", "#!/bin/sh\n"),
    ("to-link", "t\n"),
    ("to-dir", "t\n"),
    ("to-file/x", "t\n"),
    ("dir/both", "zero\n"),
];

#[test]
fn tree_and_index_are_the_hosts() {
    for options in modes() {
        let world = World::committed(FILES);
        world.prepare(&options).ok();
        world.assert_same();
        dirty(&world);
        let done = world.prepare(&options).ok();
        world.assert_same();
        assert_eq!(done.scan.notes, Vec::<String>::new());
        git(&world.copy(), &["fsck", "--strict"]);
        let beside = fs::read_dir(world.root.path()).expect("there").count();
        assert_eq!(beside, 3, "nothing is left beside it");
    }
}

#[test]
fn from_the_start_it_may_be_dirty_in_either_format() {
    for format in ["sha1", "sha256"] {
        let world = World::with(&["--object-format", format]);
        for (name, content) in FILES {
            put(world.user().join(name), content);
        }
        world.commit("first");
        dirty(&world);
        put(world.user().join("git~1"), "no such file on NTFS");
        world.prepare(&Options::shallow()).ok();
        world.assert_same();
    }
}

#[test]
fn a_conflict_comes_along() {
    let world = World::committed(&[("a", "1\n"), ("b", "1\n"), ("c", "1\n")]);
    let user = world.user();
    git(&user, &["checkout", "-qb", "other"]);
    put(user.join("a"), "theirs\n");
    fs::remove_file(user.join("b")).expect("removed");
    world.commit("theirs");
    git(&user, &["checkout", "-q", "main"]);
    put(user.join("a"), "ours\n");
    put(user.join("b"), "ours\n");
    world.commit("ours");
    let merge = git_command(&user).args(["merge", "-q", "other"]).output();
    assert!(!merge.expect("git runs").status.success());
    for options in modes() {
        let done = world.prepare(&options).ok();
        world.assert_same();
        assert!(done.scan.notes.iter().any(|note| note.contains("merge")));
        fs::remove_dir_all(world.copy()).expect("removed");
    }
}

#[test]
fn untracked_and_ignored_files_as_asked() {
    let world = World::committed(&[(".gitignore", "*.local\nbuild/\n.env\n")]);
    let user = world.user();
    for name in [
        "new",
        ".env",
        "a.local",
        "x/b.local",
        "build/out",
        "build/deep/out",
    ] {
        put(user.join(name), name);
    }
    let names = |world: &World| -> Vec<String> {
        tree(&world.copy())
            .keys()
            .map(|path| path.display().to_string())
            .collect()
    };
    world.prepare(&Options::shallow().tracked_only()).ok();
    assert_eq!(names(&world), [".gitignore"]);
    world.prepare(&Options::shallow()).ok();
    assert_eq!(names(&world), [".gitignore", "new"]);
    let mut some = Options::shallow();
    some.scan.include_ignored = [".env", "**/*.local", "build"].map(str::to_owned).into();
    world.prepare(&some).ok();
    assert_eq!(names(&world).len(), 7, "{:?}", names(&world));
    world.prepare(&some).ok();
    some.scan.include_ignored = vec!["*.local".into(), "nothing".into()];
    let done = world.prepare(&some).ok();
    assert_eq!(names(&world), [".gitignore", "a.local", "new"]);
    assert_eq!(done.scan.notes, ["no ignored file matches `nothing`"]);
}

#[test]
fn line_ends_and_encodings_are_the_hosts_bytes() {
    let world = World::new();
    let user = world.user();
    put(
        user.join(".gitattributes"),
        "*.txt text eol=crlf\n*.id ident\n*.u16 working-tree-encoding=UTF-16LE\n",
    );
    put(user.join("a.txt"), "one\r\ntwo\r\n");
    put(user.join("b.txt"), "one\r\ntwo\r\n");
    put(user.join("c.id"), "$Id$\n");
    put(user.join("d.u16"), "h\0i\0\n\0");
    put(user.join("e"), "mixed\r\n\n");
    world.commit("first");
    fs::remove_file(user.join("c.id")).expect("removed");
    git(&user, &["checkout", "c.id"]);
    put(user.join("b.txt"), "one\r\ntwo, and a \n lone one\r\n");
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
    git(&user, &["config", "core.autocrlf", "true"]);
    fs::remove_file(user.join("e")).expect("removed");
    put(user.join("f"), "one\r\n");
    git(&user, &["add", "f"]);
    git(&user, &["checkout", "e"]);
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
}

#[test]
fn pointers_of_lfs_stay_pointers() {
    let world = World::new();
    let user = world.user();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0\nsize 3\n";
    put(user.join(".gitattributes"), "*.bin filter=lfs -text\n");
    put(user.join("a.bin"), pointer);
    put(user.join("b.bin"), pointer);
    world.commit("first");
    // As git-lfs leaves it: smudged. For git alone it is modified.
    put(user.join("a.bin"), "aaa");
    let done = world.prepare(&Options::shallow()).ok();
    assert_eq!(
        fs::read_to_string(world.copy().join("a.bin")).expect("there"),
        pointer
    );
    assert_eq!(git(&world.copy(), &["status", "--short"]), "");
    assert!(done.scan.notes[0].contains("LFS"), "{:?}", done.scan.notes);
    // What really differs comes as it is.
    put(user.join("b.bin"), "new content");
    world.prepare(&Options::shallow()).ok();
    assert_eq!(
        fs::read_to_string(world.copy().join("b.bin")).expect("there"),
        "new content"
    );
}

/// A repository with a submodule, one in it, and one that is not initialised.
fn with_submodules() -> World {
    let world = World::committed(&[("top", "t\n")]);
    let root = world.root.path();
    for name in ["inner", "outer", "absent"] {
        let at = root.join(name);
        fs::create_dir(&at).expect("made");
        git(&at, &["init", "-q", "-b", "main"]);
        put(at.join("file"), name);
        git(&at, &["add", "-A"]);
        git(&at, &["commit", "-qm", name]);
    }
    let add = |dir: &str, from: &str, to: &str| {
        let url = root.join(from).display().to_string();
        git(&root.join(dir), &["submodule", "--quiet", "add", &url, to]);
    };
    add("outer", "inner", "in side");
    git(&root.join("outer"), &["commit", "-qam", "with inner"]);
    add("user", "outer", "sub/outer");
    add("user", "absent", "absent");
    let user = world.user();
    git(
        &user,
        &["submodule", "--quiet", "update", "--init", "--recursive"],
    );
    world.commit("with submodules");
    git(&user, &["submodule", "--quiet", "deinit", "-f", "absent"]);
    world
}

#[test]
fn submodules_come_along_with_their_own_dirt() {
    for options in modes() {
        let world = with_submodules();
        let (user, copy) = (world.user(), world.copy());
        let compare = || {
            world.assert_same();
            for at in ["sub/outer", "sub/outer/in side"] {
                assert_same(&user.join(at), &copy.join(at));
            }
            assert!(copy.join("absent").is_dir());
        };
        let done = world.prepare(&options).ok();
        assert_eq!(done.scan.parts.len(), 3);
        compare();
        let (outer, inner) = (user.join("sub/outer"), user.join("sub/outer/in side"));
        put(inner.join("file"), "changed");
        put(inner.join("new"), "n");
        git(&inner, &["add", "new"]);
        put(outer.join("more"), "m");
        git(&outer, &["add", "more"]);
        git(&outer, &["commit", "-qm", "moved on"]);
        put(outer.join("untracked"), "u");
        world.prepare(&options).ok();
        compare();

        // An agent's work in one is seen.
        put(copy.join("sub/outer/in side/file"), "by the agent");
        let refusal = world.prepare(&options).refused();
        assert!(refusal.contains("in\\ side: file"), "{refusal}");
        world.prepare(&options.clone().force()).ok();
        compare();

        git(&user, &["rm", "-qf", "sub/outer"]);
        world.prepare(&options).ok();
        world.assert_same();
        assert!(!copy.join("sub/outer").exists());
    }
}

#[test]
fn a_linked_worktree_and_a_detached_head_and_alternates() {
    let world = World::committed(FILES);
    let user = world.user();
    let linked = world.root.path().join("linked");
    git(
        &user,
        &[
            "worktree",
            "add",
            "-q",
            "--detach",
            linked.to_str().expect("text"),
        ],
    );
    put(linked.join("here"), "h");
    git(&linked, &["add", "here"]);
    let from = user.display().to_string();
    let borrowing = world.root.path().join("borrowing");
    git(
        world.root.path(),
        &[
            "clone",
            "-q",
            "--shared",
            &from,
            borrowing.to_str().expect("text"),
        ],
    );
    put(borrowing.join("kept"), "else");
    for options in modes() {
        for source in [&linked, &borrowing] {
            world.try_prepare_from(source, &options).expect("read").ok();
            assert_same(source, &world.copy());
        }
    }
    // Full copies have the other branches too.
    git(&user, &["branch", "another"]);
    git(&user, &["tag", "-a", "-m", "t", "v1"]);
    world.prepare(&Options::full()).ok();
    assert_eq!(
        git(&world.copy(), &["rev-parse", "another", "v1"]),
        git(&user, &["rev-parse", "another", "v1"])
    );
    git(&user, &["branch", "-D", "-q", "another"]);
    git(&world.copy(), &["branch", "mine"]);
    world.prepare(&Options::full()).ok();
    assert_eq!(
        git(
            &world.copy(),
            &["for-each-ref", "--format=%(refname)", "refs/heads"]
        ),
        "refs/heads/main\nrefs/heads/mine"
    );
}

#[test]
fn a_shallow_clone_and_a_bounded_history() {
    let world = World::committed(&[("a", "1")]);
    let user = world.user();
    for n in 0..5 {
        put(user.join("a"), n.to_string());
        world.commit("more");
    }
    let source = format!("file://{}", user.display());
    let clone = world.root.path().join("clone");
    git(
        world.root.path(),
        &[
            "clone",
            "-q",
            "--depth",
            "3",
            &source,
            clone.to_str().expect("text"),
        ],
    );
    put(clone.join("new"), "n");
    for (options, count) in [
        (Options::full(), "3"),
        (Options::shallow(), "3"),
        (
            Options {
                depth: Some(2),
                ..Options::default()
            },
            "2",
        ),
    ] {
        world.try_prepare_from(&clone, &options).expect("read").ok();
        assert_same(&clone, &world.copy());
        assert_eq!(git(&world.copy(), &["rev-list", "--count", "HEAD"]), count);
        git(&world.copy(), &["fsck", "--strict"]);
    }
}

#[test]
fn a_sparse_checkout_stays_sparse() {
    for cone in ["--cone", "--no-cone"] {
        let world =
            World::committed(&[("top", "t"), ("in/a", "a"), ("out/b", "b"), ("out/c", "c")]);
        let user = world.user();
        git(&user, &["sparse-checkout", "set", cone, "in"]);
        put(user.join("in/a"), "changed");
        for options in modes() {
            world.prepare(&options).ok();
            world.assert_same();
            world.prepare(&options).ok();
            world.assert_same();
            assert!(!world.copy().join("out/b").exists());
        }
    }
}

#[test]
fn what_git_was_told_not_to_look_at() {
    let world = World::committed(&[("assumed", "a"), ("skipped", "s"), ("gone", "g")]);
    let user = world.user();
    git(&user, &["update-index", "--assume-unchanged", "assumed"]);
    git(
        &user,
        &["update-index", "--skip-worktree", "skipped", "gone"],
    );
    put(user.join("assumed"), "changed in secret");
    put(user.join("skipped"), "changed in secret");
    fs::remove_file(user.join("gone")).expect("removed");
    world.prepare(&Options::shallow()).ok();
    world.assert_same();
}

#[test]
fn a_repository_inside_is_named_and_left_out() {
    let world = World::committed(&[("a", "a")]);
    let nested = world.user().join("nested");
    fs::create_dir(&nested).expect("made");
    git(&nested, &["init", "-q"]);
    put(nested.join("file"), "f");
    let done = world.prepare(&Options::shallow()).ok();
    assert!(done.scan.notes[0].contains("`nested` is a repository of its own"));
    assert!(!world.copy().join("nested").exists());
}

#[test]
fn a_partial_clone_is_not_completed_from_elsewhere() {
    let world = World::committed(&[("a", "1\n")]);
    put(world.user().join("a"), "2\n");
    world.commit("second");
    git(&world.user(), &["config", "uploadpack.allowFilter", "true"]);
    let source = format!("file://{}", world.user().display());
    let clone = world.root.path().join("clone");
    git(
        world.root.path(),
        &[
            "clone",
            "-q",
            "--filter=blob:none",
            &source,
            clone.to_str().expect("text"),
        ],
    );
    // What is checked out is there; the history's files are not.
    let done = world
        .try_prepare_from(&clone, &Options::shallow())
        .expect("read");
    assert_ne!(done.code, 0);
    assert!(!world.copy().exists());
}

#[test]
fn a_new_branch_is_started() {
    let world = World::committed(&[("a", "a")]);
    let options = Options {
        branch: Some("agent/x".into()),
        ..Options::shallow()
    };
    world.prepare(&options).ok();
    let copy = world.copy();
    assert_eq!(git(&copy, &["symbolic-ref", "HEAD"]), "refs/heads/agent/x");
    world.prepare(&options).ok();
    git(&copy, &["checkout", "-q", "-b", "theirs"]);
    assert!(world.prepare(&options).refused().contains("agent/x"));
}

#[test]
fn an_object_that_is_missing_is_told() {
    let world = World::committed(&[("a", "a")]);
    let id = git(&world.user(), &["rev-parse", "HEAD:a"]);
    let object = world
        .user()
        .join(".git/objects")
        .join(&id[..2])
        .join(&id[2..]);
    fs::remove_file(object).expect("removed");
    let done = world.prepare(&Options::shallow());
    assert_ne!(done.code, 0);
    assert!(!world.copy().exists());
}
