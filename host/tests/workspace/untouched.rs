//! The user's repository: nothing of it runs, and not a byte of it changes.

use crate::world::{Options, World, git, put, set_mode};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Every file with its bytes and times; accessing may leave its mark.
fn whole(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let content = if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("readable")
                    .map(|entry| entry.expect("readable").path()),
            );
            Vec::new()
        } else if metadata.is_file() {
            fs::read(&path).expect("readable")
        } else {
            Vec::new()
        };
        let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
        found.insert(path, (content, times.0, times.1, times.2));
    }
    found
}

/// Everything in a repository's configuration that names a program.
fn set_traps(repository: &Path, program: &Path) {
    let program = program.to_str().expect("text");
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "core.askPass",
        "core.alternateRefsCommand",
        "core.gitProxy",
        "uploadpack.packObjectsHook",
        "diff.external",
        "diff.trap.command",
        "diff.trap.textconv",
        "merge.trap.driver",
        "filter.trap.clean",
        "filter.trap.smudge",
        "filter.trap.process",
        "filter.a=b.clean",
        "filter.a=b.process",
        "filter.hidden.clean",
        "credential.helper",
        "gpg.program",
        "interactive.diffFilter",
        "sequence.editor",
        "remote.origin.uploadpack",
        "remote.origin.vcs",
        "alias.status",
        "alias.upload-pack",
        "pager.status",
        "trailer.x.command",
    ] {
        git(
            repository,
            &[
                "config",
                "--add",
                key,
                &format!("!{program}")
                    .replace('!', if key.starts_with("alias") { "!" } else { "" }),
            ],
        );
    }
    for key in [
        "filter.trap.required",
        "filter.a=b.required",
        "core.untrackedCache",
        "log.showSignature",
    ] {
        git(repository, &["config", key, "true"]);
    }
    let git_dir = PathBuf::from(git(repository, &["rev-parse", "--absolute-git-dir"]));
    put(
        git_dir.join("included"),
        format!("[filter \"late\"]\n\tclean = {program}\n\tprocess = {program}\n"),
    );
    git(
        repository,
        &["config", "includeIf.onbranch:**.path", "included"],
    );
    for hook in [
        "pre-commit",
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "fsmonitor-watchman",
        "pre-auto-gc",
        "post-merge",
        "pre-push",
    ] {
        let hook = git_dir.join("hooks").join(hook);
        put(&hook, format!("#!/bin/sh\nexec '{program}'\n"));
        set_mode(&hook, 0o755);
    }
    put(
        git_dir.join("info/attributes"),
        "*.x filter=trap diff=trap merge=trap\n*.y filter=a=b\n*.z filter=late\n",
    );
}

#[test]
fn nothing_runs_and_nothing_changes() {
    // Where its own tests live in odd places, a shell in a trap would not find the mark.
    let traps = tempfile::tempdir().expect("made");
    let (program, mark) = (traps.path().join("trap"), traps.path().join("ran"));
    put(
        &program,
        format!("#!/bin/sh\necho \"$0 $@\" >>{}\ncat\n", mark.display()),
    );
    set_mode(&program, 0o755);

    let world = World::committed(&[
        ("a.x", "a"),
        ("b.y", "b"),
        ("c.z", "c"),
        ("gone", "g"),
        (".gitattributes", "d* filter=hidden\n"),
    ]);
    let user = world.user();
    let sub = world.root.path().join("sub");
    fs::create_dir(&sub).expect("made");
    git(&sub, &["init", "-q", "-b", "main"]);
    put(sub.join("s.x"), "s");
    git(&sub, &["add", "-A"]);
    git(&sub, &["commit", "-qm", "s"]);
    git(
        &user,
        &[
            "submodule",
            "--quiet",
            "add",
            sub.to_str().expect("text"),
            "module",
        ],
    );
    world.commit("second");
    put(user.join("staged.x"), "s");
    git(&user, &["add", "staged.x"]);
    set_traps(&user, &program);
    set_traps(&user.join("module"), &program);
    // Of the same size and another time: git must look into them.
    for (name, content) in [
        ("a.x", "A"),
        ("b.y", "B"),
        ("c.z", "C"),
        ("module/s.x", "S"),
        ("d", "d"),
        ("staged.x", "t"),
    ] {
        put(user.join(name), content);
    }
    fs::remove_file(user.join("gone")).expect("removed");
    assert!(!mark.exists(), "{:?}", fs::read_to_string(&mark));

    let before = whole(&user);
    for options in [
        Options::shallow(),
        Options::full(),
        Options::shallow().tracked_only(),
    ] {
        world.prepare(&options.clone().force()).ok();
        world.prepare(&options).ok();
    }
    let after = whole(&user);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert!(!mark.exists(), "it ran: {:?}", fs::read_to_string(&mark));
    // The trap does work: this test can fail.
    let _ = std::process::Command::new("git")
        .arg("-C")
        .arg(&user)
        .arg("status")
        .output();
    assert!(mark.exists());
}
