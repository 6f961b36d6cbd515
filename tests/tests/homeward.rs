//! Does the work come home into the user's repository, exactly, and does nothing else there change?

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_core::frame::Frame;
use banger_tests::home::{HOST, Home, Ran, files};
use banger_tests::rpc::{Frames, Rpc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::Signal;
use serde_json::json;

struct World {
    home: Home,
    user: PathBuf,
    guest: PathBuf,
    base: String,
}

impl World {
    /// A repository, put into the machine.
    fn new() -> Self {
        let world = Self::bare();
        let _ = world.prepare(&[]).ok();
        world
    }

    fn bare() -> Self {
        let home = Home::with_host().expect("a home with a host");
        let user = home.scratch().join("src");
        fs::create_dir(&user).expect("made");
        git(&user, ["init", "--quiet", "--initial-branch=main"]);
        git(&user, ["config", "user.name", "A Person"]);
        git(&user, ["config", "user.email", "person@example.org"]);
        put(&user.join("file"), b"one\ntwo\nthree\n");
        put(&user.join("other"), b"other\n");
        commit(&user, "base");
        let guest = home.guest_home().join("repo");
        let base = line(&user, &["rev-parse", "HEAD"]);
        Self {
            home,
            user,
            guest,
            base,
        }
    }

    fn prepare(&self, more: &[&str]) -> Ran {
        let user = self.user.to_str().expect("UTF-8");
        let words = ["vm", "workspace", "prepare", HOST, user];
        self.home.run(words.iter().chain(more))
    }

    fn run(&self, verb: &str, more: &[&str]) -> Ran {
        let words = ["--json", "vm", "workspace", verb, HOST];
        self.home.run(words.iter().chain(more))
    }

    fn unexported(&self) -> bool {
        let status = self.run("status", &[]).ok().json();
        status["unexported"].as_bool().expect("a truth")
    }

    fn tree(&self, revision: &str) -> String {
        line(&self.user, &["rev-parse", &format!("{revision}^{{tree}}")])
    }

    /// The tree that everything in the guest would commit to; the guest's index stays.
    fn guest_tree(&self) -> String {
        let index = self.home.scratch().join("an index");
        fs::copy(self.guest.join(".git/index"), &index).expect("copied");
        let run = |arguments: &[&str]| {
            let mut command = command(&self.guest, arguments);
            let output = command.env("GIT_INDEX_FILE", &index).output();
            let output = output.expect("git runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout)
                .expect("text")
                .trim()
                .to_owned()
        };
        // So that nothing is taken for unchanged.
        run(&["read-tree", "--empty"]);
        run(&["add", "--all"]);
        run(&["write-tree"])
    }

    /// Everything of the user's but objects and what belongs to the branches `banger/…`.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let git = self.user.join(".git");
        files(&self.user)
            .into_iter()
            .filter(|(path, _)| {
                let ours = ["objects", "refs/heads/banger", "logs/refs/heads/banger"];
                !ours.iter().any(|below| path.starts_with(git.join(below)))
            })
            .collect()
    }

    fn branches(&self) -> String {
        line(&self.user, &["for-each-ref", "--format=%(refname)"])
    }

    /// That nothing is left of an apply that was not to be.
    fn assert_nothing_left(&self, before: &BTreeMap<PathBuf, Vec<u8>>) {
        assert_eq!(&self.everything(), before);
        assert_eq!(self.branches(), "refs/heads/main");
        let state = self.home.banger_home().join("state/quarantine");
        assert_eq!(fs::read_dir(state).expect("there").count(), 0);
    }
}

fn command<A: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(repository)
        .args(["-c", "user.name=Agent", "-c", "user.email=agent@x"])
        .args(["-c", "commit.gpgSign=false"])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0");
    command
}

#[track_caller]
fn git<A: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
    let output = command(repository, arguments).output().expect("git runs");
    assert!(
        output.status.success(),
        "git: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[track_caller]
fn line(repository: &Path, arguments: &[&str]) -> String {
    let output = git(repository, arguments);
    String::from_utf8(output).expect("text").trim().to_owned()
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

fn commit(repository: &Path, message: &str) {
    git(repository, ["add", "--all"]);
    git(repository, ["commit", "--quiet", "--message", message]);
}

#[test]
fn a_branch_has_the_guests_commits_and_what_was_not_committed() {
    let world = World::new();
    let (user, guest) = (&world.user, &world.guest);
    assert!(!world.unexported());
    let nothing = world.run("apply", &[]).ok().json();
    assert_eq!(nothing["commit"], json!(null));

    put(&guest.join("file"), b"one\n2\nthree\n");
    commit(guest, "in the guest");
    git(guest, ["checkout", "-q", "-b", "side", "HEAD~1"]);
    put(&guest.join("side"), b"side\n");
    commit(guest, "on the side");
    git(guest, ["checkout", "-q", "main"]);
    git(guest, ["merge", "-q", "--no-edit", "side"]);
    let head = line(guest, &["rev-parse", "HEAD"]);
    put(&guest.join("un\ntracked"), b"x");
    // The user goes on, and has something staged.
    put(&user.join("other"), b"the user's\n");
    put(&user.join("staged"), b"staged\n");
    git(user, ["add", "staged"]);
    let before = world.everything();
    let status = git(user, ["status", "--porcelain=v2", "--branch"]);
    let reflog = git(user, ["reflog"]);

    let told = world.run("status", &[]).ok().json();
    assert_eq!(
        (&told["commits"], &told["unexported"]),
        (&json!(3), &json!(true))
    );
    let diff = world.home.run(["vm", "workspace", "diff", HOST]).ok();
    let patch = world
        .home
        .run(["vm", "workspace", "export", HOST, "--base-commit", "HEAD~1"]);
    assert!(diff.text().contains("+2\n") && patch.ok().text().contains("diff --git"));
    assert!(world.unexported(), "looking is no export, nor is a part");
    let checked = world.run("apply", &["--check"]).ok().json();
    assert_eq!(checked["branch"], json!(null));
    world.assert_nothing_left(&before);

    let applied = world.run("apply", &[]).ok().json();
    assert_eq!(applied["branch"], format!("banger/{HOST}"));
    assert_eq!(applied["commits"], 3);
    assert_eq!(applied["uncommitted"], true);
    assert_eq!(checked["commit"].as_str().map(str::len), Some(40));
    let branch = format!("banger/{HOST}");
    assert_eq!(world.tree(&branch), world.guest_tree());
    assert_eq!(
        line(user, &["rev-parse", &format!("{branch}~1")]),
        head,
        "as they are"
    );
    git(user, ["fsck", "--strict", "--no-dangling"]);
    assert_eq!(world.everything(), before);
    assert_eq!(git(user, ["status", "--porcelain=v2", "--branch"]), status);
    assert_eq!(git(user, ["reflog"]), reflog);
    assert!(!world.unexported());

    let again = world.run("apply", &[]);
    assert_eq!(again.failure(4)["kind"], "conflict");
    let _ = world.run("apply", &["--branch", "elsewhere"]).ok();
    assert_eq!(world.tree("elsewhere"), world.guest_tree());
    for name in ["-x", "a..b", "a b", "main/", "@{-1}", ""] {
        let name = format!("--branch={name}");
        world.run("apply", &[&name]).failure(5);
    }
    let own = world.run("apply", &["--branch", "main"]);
    assert_eq!(own.failure(4)["kind"], "conflict");
    assert_eq!(
        world.everything().get(&user.join(".git/HEAD")),
        before.get(&user.join(".git/HEAD"))
    );
}

#[test]
fn a_merge_with_what_the_user_did_meanwhile_or_the_names_of_conflicts() {
    let world = World::new();
    put(&world.guest.join("file"), b"one\ntwo\nTHREE\n");
    put(&world.user.join("file"), b"ONE\ntwo\nthree\n");
    commit(&world.user, "meanwhile");
    let ours = line(&world.user, &["rev-parse", "HEAD"]);
    let before = world.everything();
    let applied = world
        .run("apply", &["--three-way", "--branch", "banger/merged"])
        .ok()
        .json();
    assert_eq!(applied["merged_into"], ours.as_str());
    let merged = git(&world.user, ["show", "banger/merged:file"]);
    assert_eq!(merged, b"ONE\ntwo\nTHREE\n");
    assert_eq!(
        line(
            &world.user,
            &["show", "--no-patch", "--format=%an %P", "banger/merged"]
        ),
        format!(
            "A Person {ours} {}",
            line(&world.user, &["rev-parse", "banger/merged^2"])
        )
    );
    assert_eq!(world.everything(), before);
    git(&world.user, ["branch", "-D", "banger/merged"]);

    put(&world.guest.join("file"), b"1\ntwo\nthree\n");
    fs::remove_file(world.guest.join("other")).expect("removed");
    put(&world.user.join("other"), b"changed\n");
    commit(&world.user, "more");
    let before = world.everything();
    let objects = files(&world.user.join(".git/objects"));
    for check in [&["--three-way"][..], &["--three-way", "--check"]] {
        let refused = world.run("apply", check);
        let failure = refused.failure(4);
        let message = failure["message"].as_str().expect("a sentence");
        assert!(message.contains("`file`, `other`"), "{message}");
        world.assert_nothing_left(&before);
        assert_eq!(files(&world.user.join(".git/objects")), objects);
    }
    assert!(world.unexported());
    // Without, it always goes.
    let applied = world.run("apply", &[]).ok().json();
    assert_eq!(world.tree(&format!("banger/{HOST}")), world.guest_tree());
    let notes = applied["notes"].to_string();
    assert!(notes.contains("HEAD here is another commit"), "{notes}");
}

/// The ancestor lost a commit that was made in the guest where no base was given.
#[test]
fn a_commit_made_in_the_guest_is_exported_without_a_base() {
    let world = World::new();
    put(&world.guest.join("committed"), b"here\n");
    commit(&world.guest, "all of it");
    let _ = world
        .home
        .run(["vm", "workspace", "export", HOST, "--output", "work"])
        .ok();
    let patch = fs::read_to_string(world.home.scratch().join("work")).expect("there");
    assert!(patch.contains("+here"), "{patch}");
    assert!(!world.unexported(), "a whole export counts");
    put(&world.guest.join("committed"), b"more\n");
    assert!(world.unexported());
}

/// The ancestor took a path with a line feed for two, and a relative one for another place.
#[test]
fn a_path_that_is_relative_or_has_a_line_feed_is_that_path() {
    let world = World::bare();
    let odd = world.home.scratch().join("a\n\"odd\" one\n");
    fs::rename(&world.user, &odd).expect("renamed");
    let guest = world.home.guest_home().join("in\nit");
    let mut at = OsString::from("--guest-path=");
    at.push(&guest);
    let relative = OsString::from("a\n\"odd\" one\n/../a\n\"odd\" one\n");
    let words = ["vm", "workspace", "prepare", HOST].map(OsString::from);
    let words = words.into_iter().chain([at.clone(), relative.clone()]);
    let _ = world.home.run(words).ok();
    put(&guest.join("made\nhere"), b"x\n");
    for (verb, more) in [("apply", Some(relative)), ("apply", None)] {
        let words = ["vm", "workspace", verb, HOST].map(OsString::from);
        let branch = format!("--branch=b{}", more.is_some());
        let words = words
            .into_iter()
            .chain([at.clone(), branch.clone().into()])
            .chain(more);
        let _ = world.home.run(words).ok();
        let names = git(&odd, ["ls-tree", "-z", "--name-only", &branch[9..]]);
        assert!(
            names
                .split(|byte| *byte == 0)
                .any(|name| name == b"made\nhere")
        );
    }
    let words = ["vm", "workspace", "apply", HOST, "--guest-path=repo"];
    assert_ne!(
        world.home.run(words).code,
        Some(0),
        "a guest's path is absolute"
    );
}

#[test]
fn each_format_arrives_and_what_does_not_fit_is_refused() {
    let world = World::new();
    put(&world.guest.join("a"), b"a\n");
    commit(&world.guest, "[x] first");
    put(&world.guest.join("b"), &[0, 255, 0]);
    let clone = |name: &str| {
        let source = world.user.to_str().expect("UTF-8");
        git(&world.home.scratch(), ["clone", "-q", source, name]);
        let clone = world.home.scratch().join(name);
        git(&clone, ["config", "user.name", "n"]);
        git(&clone, ["config", "user.email", "e"]);
        clone
    };
    let _ = world
        .run("export", &["--format", "mbox", "--output", "mbox"])
        .ok();
    let mails = clone("mails");
    git(
        &mails,
        [
            "am",
            "-q",
            "--keep-non-patch",
            "--keep-cr",
            "--empty=keep",
            "../mbox",
        ],
    );
    assert_eq!(
        line(&mails, &["rev-parse", "HEAD^{tree}"]),
        world.guest_tree()
    );
    assert_eq!(
        line(&mails, &["log", "-1", "--format=%an %s", "HEAD~1"]),
        "Agent [x] first"
    );
    let bundle = world
        .run("export", &["--format", "bundle", "--output", "bundle"])
        .ok()
        .json();
    assert_eq!(bundle["tree"], world.guest_tree().as_str());
    let other = clone("other");
    git(
        &other,
        [
            "fetch",
            "-q",
            "../bundle",
            "refs/banger/work:refs/heads/work",
        ],
    );
    assert_eq!(
        line(&other, &["rev-parse", "work^{tree}"]),
        world.guest_tree()
    );

    git(&world.guest, ["checkout", "-q", "-b", "side", "HEAD~1"]);
    git(
        &world.guest,
        ["commit", "-q", "--allow-empty", "-m", "side"],
    );
    git(&world.guest, ["merge", "-q", "--no-edit", "main"]);
    let refused = world.run("export", &["--format", "mbox", "--output", "no"]);
    let message = refused.failure(4)["message"].to_string();
    assert!(message.contains("merges among the commits"), "{message}");
    assert!(!world.home.scratch().join("no").exists());

    // A bound on what the guest may send.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..2 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    put(&world.guest.join("big"), &noise);
    let before = world.everything();
    for words in [&["export", "--output", "no"][..], &["apply"]] {
        let refused = world.run(words[0], &[&words[1..], &["--limit", "1M"]].concat());
        let message = refused.failure(5)["message"].to_string();
        assert!(message.contains("larger than 1048576 bytes"), "{message}");
    }
    assert!(!world.home.scratch().join("no").exists());
    world.assert_nothing_left(&before);
}

#[test]
fn nothing_of_the_users_repository_or_of_the_guests_runs_on_the_host() {
    let world = World::bare();
    let ran = world.home.scratch().join("ran");
    let evil = format!("touch '{}'; cat", ran.display());
    put(
        &world.user.join(".gitattributes"),
        b"* filter=evil diff=evil merge=evil\n",
    );
    commit(&world.user, "attributes");
    for key in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.evil.command",
        "merge.evil.driver",
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.alternateRefsCommand",
        "diff.external",
        "gpg.program",
        "credential.helper",
        "uploadpack.packObjectsHook",
        "core.askPass",
    ] {
        git(&world.user, ["config", key, &evil]);
    }
    git(&world.user, ["config", "commit.gpgSign", "true"]);
    let hooks = [
        "reference-transaction",
        "post-checkout",
        "post-commit",
        "pre-commit",
        "post-index-change",
        "post-merge",
        "pre-auto-gc",
        "post-rewrite",
        "fsmonitor-watchman",
        "commit-msg",
    ];
    for hook in hooks {
        let path = world.user.join(".git/hooks").join(hook);
        put(&path, format!("#!/bin/sh\n{evil}\n").as_bytes());
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    let _ = world.prepare(&[]).ok();
    put(&world.guest.join("file"), b"1\n");
    put(
        &world.guest.join(".gitattributes"),
        b"* merge=evil text=auto ident\n",
    );
    put(
        &world.guest.join(".gitmodules"),
        b"[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c id\n\tupdate = none\n",
    );
    commit(&world.guest, "in the guest");
    let before = world.everything();
    let _ = world.run("status", &[]).ok();
    let _ = world.home.run(["vm", "workspace", "diff", HOST]).ok();
    let _ = world.run("export", &["--output", "work"]).ok();
    let _ = world.run("apply", &["--three-way", "--check"]).ok();
    let _ = world.run("apply", &[]).ok();
    assert_eq!(world.tree(&format!("banger/{HOST}")), world.guest_tree());
    assert!(!ran.exists(), "something ran");
    assert_eq!(world.everything(), before);
}

#[test]
fn crafted_commits_are_refused_and_crafted_names_are_escaped() {
    let world = World::new();
    let guest = &world.guest;
    let before = world.everything();
    put(&guest.join("x\x1b[2J\u{202e}"), b"x");
    let status = world
        .home
        .run(["vm", "workspace", "status", HOST])
        .ok()
        .text();
    assert!(status.contains("A  x\\x1b[2J\\u{202e}\n"), "{status}");
    fs::remove_file(guest.join("x\x1b[2J\u{202e}")).expect("removed");

    let blob = line(guest, &["hash-object", "-w", "file"]);
    for (mode, name) in [
        ("40000", ".git"),
        ("100644", ".GIT"),
        ("40000", "git~1"),
        ("120000", ".gitmodules"),
        ("40000", ".."),
    ] {
        // git itself would not make it.
        let inner = [b"100644 config\0".to_vec(), bytes(&blob)].concat();
        let id = if mode == "40000" {
            object(guest, &inner)
        } else {
            blob.clone()
        };
        let crafted = [format!("{mode} {name}\0").into_bytes(), bytes(&id)].concat();
        let tree = object(guest, &crafted);
        let made = line(guest, &["commit-tree", "-p", &world.base, "-m", "x", &tree]);
        git(guest, ["update-ref", "refs/heads/main", &made]);
        let refused = world.run("apply", &[]);
        assert_ne!(refused.code, Some(0), "{name}: {refused:?}");
        world.assert_nothing_left(&before);
    }
    git(guest, ["update-ref", "refs/heads/main", &world.base]);
    // Links that lead out are content like any other.
    symlink("../../../../etc", guest.join("link")).expect("linked");
    let _ = world.run("apply", &[]).ok();
    assert_eq!(world.tree(&format!("banger/{HOST}")), world.guest_tree());
    assert_eq!(world.everything(), before);
}

fn bytes(id: &str) -> Vec<u8> {
    (0..id.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn object(repository: &Path, content: &[u8]) -> String {
    let file = repository.join(".git/crafted");
    fs::write(&file, content).expect("written");
    let id = line(
        repository,
        &[
            "hash-object",
            "-w",
            "-t",
            "tree",
            "--literally",
            ".git/crafted",
        ],
    );
    fs::remove_file(file).expect("removed");
    id
}

#[test]
fn force_saves_what_was_not_exported_and_discard_does_not() {
    let world = World::new();
    let saved = world.home.banger_home().join("state/saved");
    let count = || fs::read_dir(&saved).expect("there").count();
    // Nothing was done, though not all that went in was committed: nothing is saved.
    put(&world.user.join("untracked"), b"x\n");
    put(&world.user.join("file"), b"uncommitted\n");
    let _ = world.prepare(&["--force"]).ok();
    assert!(!world.unexported());
    let _ = world.prepare(&["--force"]).ok();
    assert_eq!(count(), 0);

    put(&world.guest.join("file"), b"work\n");
    commit(&world.guest, "worth keeping");
    put(&world.guest.join("loose"), b"this too\n");
    let tree = world.guest_tree();
    let text = world.prepare(&["--force"]).ok().text();
    assert!(text.contains("git fetch"), "{text}");
    assert_eq!(count(), 1);
    let file = fs::read_dir(&saved)
        .expect("there")
        .flatten()
        .next()
        .expect("one");
    let mut words: Vec<OsString> = vec!["fetch".into(), "-q".into(), file.path().into()];
    words.push("refs/banger/work:refs/heads/back".into());
    git(&world.user, words);
    assert_eq!(world.tree("back"), tree);
    assert_eq!(
        line(&world.user, &["log", "-1", "--format=%s", "back~1"]),
        "worth keeping"
    );

    put(&world.guest.join("file"), b"exported\n");
    let _ = world.run("export", &["--output", "work"]).ok();
    let _ = world.prepare(&["--force"]).ok();
    assert_eq!(count(), 1, "it was exported");
    put(&world.guest.join("file"), b"given up\n");
    let _ = world.prepare(&["--force", "--discard"]).ok();
    assert_eq!(count(), 1);

    // What can't be saved is not overwritten.
    put(&world.guest.join("file"), b"stuck\n");
    fs::rename(world.guest.join(".git"), world.guest.join("git")).expect("renamed");
    let refused = world.prepare(&["--force"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert_eq!(
        fs::read(world.guest.join("file")).expect("there"),
        b"stuck\n"
    );
}

/// No export of the superproject has what was done in a submodule: it is said, and saved by itself.
#[test]
fn work_in_a_submodule_is_told_and_saved() {
    let world = World::new();
    let sub = world.guest.join("sub module");
    fs::create_dir(&sub).expect("made");
    git(&sub, ["init", "-q", "-b", "main"]);
    put(&sub.join("a"), b"a\n");
    commit(&sub, "first");
    git(&world.guest, ["add", "sub module"]);
    git(&world.guest, ["commit", "-q", "-m", "a submodule"]);
    put(&sub.join("loose"), b"loose\n");
    let told = world
        .home
        .run(["vm", "workspace", "status", HOST])
        .ok()
        .text();
    let told = told.lines().last().expect("a line");
    let base = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    assert!(
        told.contains("the submodule sub module has work of its own"),
        "{told}"
    );
    assert!(
        told.contains(&format!(
            "--guest-path '{}' --base-commit {base}",
            sub.display()
        )),
        "{told}"
    );
    let _ = world.run("export", &["--output", "top"]).ok();
    let applied = world.run("apply", &[]).ok().json();
    assert!(
        applied["notes"].to_string().contains("sub module"),
        "{applied}"
    );
    assert!(world.unexported());
    // What it says works.
    let at = format!("--guest-path={}", sub.display());
    let more = [
        &at,
        "--base-commit",
        base,
        "--format",
        "bundle",
        "--output",
        "sub.bundle",
    ];
    let _ = world.run("export", &more).ok();

    let _ = world.prepare(&["--force"]).ok();
    let saved = world.home.banger_home().join("state/saved");
    let mut found = 0;
    for file in fs::read_dir(saved).expect("there").flatten() {
        let branch = format!("refs/banger/work:refs/heads/saved{found}");
        let words: [OsString; 4] = [
            "fetch".into(),
            "-q".into(),
            file.path().into(),
            branch.into(),
        ];
        git(&world.user, words);
        found += 1;
    }
    assert_eq!(found, 2);
    let all = git(&world.user, ["log", "--all", "--format=", "--name-only"]);
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains("loose") && all.contains("sub module"), "{all}");
}

#[test]
fn work_counts_as_exported_once_the_client_says_that_it_has_it() {
    let world = World::new();
    put(&world.guest.join("file"), b"work\n");
    let mut rpc = Rpc::greet(&world.home.socket()).expect("greets");
    let mut ask = || {
        let params = json!({"vm": HOST, "base_commit": world.base});
        rpc.call("vm.workspace.export", params).expect("exports")["patch"].clone()
    };
    let mut read = |receipt: bool| {
        let mut frames = Frames::open(&ask()).expect("opens");
        while !matches!(frames.receive().expect("a frame"), Frame::Exit(0)) {}
        if receipt {
            frames.send(&Frame::StdinEnd).expect("sent");
            // Until the daemon has closed it.
            while frames.receive().is_ok() {}
        }
    };
    read(false);
    assert!(world.unexported());
    read(true);
    // The daemon notes it before it closes, and closes its half before: ask until it has.
    let deadline = std::time::Instant::now() + banger_tests::home::DEADLINE;
    while world.unexported() {
        assert!(std::time::Instant::now() < deadline);
    }
}

/// Entries at which the user's git does not look came along; what becomes of them comes home.
#[test]
fn files_that_git_does_not_look_at_come_home() {
    let world = World::bare();
    for name in ["skipped", "assumed", "kept", "gone"] {
        put(&world.user.join(name), b"stored\n");
    }
    put(&world.user.join(".gitattributes"), b"*.crlf eol=crlf\n");
    put(&world.user.join("x.crlf"), b"a\r\nb\r\n");
    commit(&world.user, "flagged");
    let flag = ["update-index", "--skip-worktree", "skipped", "kept", "gone"];
    git(&world.user, flag);
    git(
        &world.user,
        ["update-index", "--assume-unchanged", "assumed"],
    );
    for name in ["skipped", "assumed", "kept", "gone"] {
        put(&world.user.join(name), b"local\n");
    }
    let before = world.everything();
    let _ = world.prepare(&[]).ok();
    assert!(!world.unexported(), "nothing was done");
    put(&world.guest.join("skipped"), b"work\n");
    put(&world.guest.join("assumed"), b"work\n");
    fs::remove_file(world.guest.join("gone")).expect("removed");
    assert!(world.unexported());
    let index = fs::read(world.guest.join(".git/index")).expect("there");
    let _ = world.run("apply", &[]).ok();
    let branch = format!("banger/{HOST}");
    let show = |name: &str| line(&world.user, &["show", &format!("{branch}:{name}")]);
    assert_eq!(show("skipped"), "work");
    assert_eq!(show("assumed"), "work");
    assert_eq!(show("kept"), "stored");
    let names = line(&world.user, &["ls-tree", "--name-only", &branch]);
    assert!(!names.lines().any(|name| name == "gone"), "{names}");
    assert!(!world.unexported());
    let now = fs::read(world.guest.join(".git/index")).expect("there");
    assert_eq!(now, index);
    assert_eq!(world.everything(), before);
}

/// Git does not add a repository without a commit; the rest of the work comes home all the same.
#[test]
fn a_repository_without_a_commit_is_in_nobodys_way() {
    let world = World::new();
    for name in ["empty", "deep/er :(x) *"] {
        let inner = world.guest.join(name);
        fs::create_dir_all(&inner).expect("made");
        git(&inner, ["init", "-q"]);
    }
    put(&world.guest.join("work"), b"work\n");
    // Nor are settings of the agent's, which would hide modes and write beside the index.
    let link = world.guest.join("other");
    fs::remove_file(&link).expect("removed");
    symlink("file", &link).expect("linked");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.guest.join("file"), executable).expect("set");
    for (key, value) in [
        ("core.fileMode", "false"),
        ("core.symlinks", "false"),
        ("core.ignoreCase", "true"),
        ("core.splitIndex", "true"),
        ("core.untrackedCache", "true"),
    ] {
        git(&world.guest, ["config", key, value]);
    }
    let before = files(&world.guest);
    let _ = world.run("apply", &[]).ok();
    assert_eq!(files(&world.guest), before);
    let listing = ["ls-tree", &format!("banger/{HOST}"), "file", "other"];
    let modes = line(&world.user, &listing);
    let modes: Vec<&str> = modes.lines().filter_map(|line| line.get(..6)).collect();
    assert_eq!(modes, ["100755", "120000"]);
    let branch = format!("banger/{HOST}:work");
    assert_eq!(line(&world.user, &["show", &branch]), "work");
    assert!(!world.unexported());
}

#[test]
fn ctrl_c_leaves_nothing() {
    let world = World::new();
    put(&world.guest.join(".gitattributes"), b"slow filter=slow\n");
    put(&world.guest.join("slow"), b"x");
    let before = world.everything();
    for words in [&["apply"][..], &["export", "--output", "no"]] {
        // The guest's git does not end: it reads a pipe that nobody writes.
        let pipe = world.home.scratch().join(words[0]);
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let slow = format!("cat '{}'", pipe.display());
        git(&world.guest, ["config", "filter.slow.clean", &slow]);
        let mut all = vec!["vm", "workspace", words[0], HOST];
        all.extend(&words[1..]);
        let running = world.home.spawn(&all);
        // Once the filter has opened the pipe, the guest is at work.
        let writer = fs::OpenOptions::new()
            .write(true)
            .open(&pipe)
            .expect("opened");
        running.signal(Signal::INT);
        let ended = running.wait();
        assert_eq!(ended.code, Some(130), "{ended:?}");
        drop(writer);
        world.assert_nothing_left(&before);
        assert!(!world.home.scratch().join("no").exists());
    }
}

const NAMES: &[&[u8]] = &[
    b"plain",
    b"two words",
    b"-leading",
    b"line\nfeed",
    b"quote\"'`",
    "é😀".as_bytes(),
    b"raw\xff\xfe",
    b"dir/one",
    b"dir/two words",
    b"dir/deep/er",
];

/// Random work in the guest, over a real sshd: on a branch of the user's the tree is the guest's.
#[test]
fn random_work_comes_home_exactly() {
    let world = World::new();
    let before = world.everything();
    let number = std::cell::Cell::new(0);
    let edit = (0..NAMES.len(), any::<u8>(), 0..8_u8);
    let config = Config {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|cases| cases.parse().ok())
            .unwrap_or(12),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&prop::collection::vec(edit, 1..12), |edits| {
        for (name, what, kind) in edits {
            let path = world.guest.join(OsString::from_vec(NAMES[name].to_vec()));
            if path.parent().is_some_and(Path::is_symlink) || path.is_dir() {
                continue;
            }
            match kind {
                0 => drop(fs::remove_file(&path)),
                1 => {
                    drop(fs::remove_file(&path));
                    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
                    symlink(format!("to {what}\n"), &path).expect("linked");
                }
                2 if path.is_file() => {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
                }
                3 => {
                    git(&world.guest, ["add", "--all"]);
                    git(
                        &world.guest,
                        ["commit", "-q", "--allow-empty", "-m", "some of it"],
                    );
                }
                _ => {
                    drop(fs::remove_file(&path));
                    put(&path, &vec![what; usize::from(what)]);
                }
            }
        }
        number.set(number.get() + 1);
        let branch = format!("banger/{}", number.get());
        let applied = world.run("apply", &["--branch", &branch]).ok().json();
        if !applied["branch"].is_null() {
            prop_assert_eq!(world.tree(&branch), world.guest_tree());
        }
        prop_assert!(!world.unexported());
        Ok(())
    });
    result.expect("all came home");
    git(&world.user, ["fsck", "--strict", "--no-dangling"]);
    assert_eq!(world.everything(), before);
}
