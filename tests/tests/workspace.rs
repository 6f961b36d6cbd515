//! Does a repository arrive whole, does all work come back, and is the user's repository left
//! alone?

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_tests::home::{HOST, Home, Ran, files};
use banger_tests::rpc::Rpc;
use serde_json::json;

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// git in a repository, with nothing of the user's.
#[track_caller]
fn git<A: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
        .args(["-c", "commit.gpgSign=false", "-c", "core.quotePath=false"])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn git_line(repository: &Path, arguments: &[&str]) -> String {
    String::from_utf8(git(repository, arguments))
        .expect("text")
        .trim()
        .to_owned()
}

fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        "two words",
        "-leading",
        "--",
        "line\nfeed",
        "tab\t",
        "$(touch no)",
        "quote'\"`",
        "*",
        "é😀",
        "back\\slash",
        ":(top)magic",
        "#",
        "trailing ",
    ]
    .map(OsString::from)
    .into();
    names.push(OsString::from_vec(b"raw\xff\xfe".to_vec()));
    names
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

/// Bytes that are no text.
fn binary(seed: u8) -> Vec<u8> {
    (0..5000_u32)
        .map(|n| (n * 31 + u32::from(seed)) as u8)
        .collect()
}

/// A repository with two commits and a working tree that differs in every way.
fn repository(at: &Path) -> PathBuf {
    fs::create_dir_all(at).expect("made");
    git(at, ["init", "--quiet", "--initial-branch=main"]);
    git(at, ["config", "user.name", "A Person"]);
    git(at, ["config", "user.email", "person@example.org"]);
    put(&at.join("kept"), b"kept\n");
    put(&at.join("modified"), b"before\n");
    put(&at.join("deleted"), b"deleted\n");
    put(&at.join("directory/deleted"), b"deleted\n");
    put(&at.join("becomes-link"), b"a file\n");
    put(&at.join("becomes-executable"), b"#!/bin/sh\n");
    put(&at.join("binary"), &binary(1));
    put(&at.join("crlf"), b"a\r\nb\r\n");
    put(&at.join(".gitignore"), b"ignored\n");
    symlink("kept", at.join("link")).expect("linked");
    symlink("kept", at.join("link-becomes-file")).expect("linked");
    for name in odd_names() {
        put(&at.join("odd").join(&name), name.as_bytes());
    }
    git(at, ["add", "--all"]);
    git(at, ["commit", "--quiet", "--message", "first"]);
    put(&at.join("kept"), b"kept, twice\n");
    git(at, ["commit", "--quiet", "--all", "--message", "second"]);

    put(&at.join("modified"), b"after\n");
    fs::remove_file(at.join("deleted")).expect("removed");
    fs::remove_dir_all(at.join("directory")).expect("removed");
    fs::remove_file(at.join("becomes-link")).expect("removed");
    symlink("../outside", at.join("becomes-link")).expect("linked");
    fs::remove_file(at.join("link-becomes-file")).expect("removed");
    put(&at.join("link-becomes-file"), b"now a file\n");
    set_mode(&at.join("becomes-executable"), 0o755);
    put(&at.join("binary"), &binary(2));
    put(&at.join("staged"), b"staged\n");
    git(at, ["add", "staged"]);
    put(&at.join("new/executable"), b"#!/bin/sh\n");
    set_mode(&at.join("new/executable"), 0o755);
    put(&at.join("ignored"), b"stays here\n");
    symlink("nowhere\n", at.join("dangling")).expect("linked");
    for name in odd_names() {
        put(&at.join("untracked odd").join(&name), b"new");
    }
    for name in odd_names().iter().take(3) {
        put(&at.join("odd").join(name), b"changed");
    }
    at.to_owned()
}

/// Files outside `.git` as git sees them: path, kind and content.
fn tree(root: &Path) -> Vec<(PathBuf, char, Vec<u8>)> {
    files(root)
        .into_iter()
        .filter_map(|(path, content)| {
            let relative = path.strip_prefix(root).expect("below").to_owned();
            if relative.iter().any(|part| part == ".git") || relative == Path::new("ignored") {
                return None;
            }
            let metadata = fs::symlink_metadata(&path).expect("there");
            let kind = match metadata.permissions().mode() {
                _ if metadata.is_symlink() => 'l',
                mode if mode & 0o100 != 0 => 'x',
                _ => 'f',
            };
            Some((relative, kind, content))
        })
        .collect()
}

/// Everything of a repository, `.git` byte for byte, and times of change.
fn whole(root: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    files(root)
        .into_iter()
        .map(|(path, content)| {
            let metadata = fs::symlink_metadata(&path).expect("there");
            (path, content, metadata.modified().expect("a time"))
        })
        .collect()
}

/// Names what differs.
#[track_caller]
fn assert_unchanged(root: &Path, before: &[(PathBuf, Vec<u8>, std::time::SystemTime)]) {
    let after = whole(root);
    let differing = |a: &[(PathBuf, Vec<u8>, std::time::SystemTime)],
                     b: &[(PathBuf, Vec<u8>, std::time::SystemTime)]| {
        a.iter()
            .filter(|entry| !b.contains(entry))
            .map(|entry| entry.0.clone())
            .collect::<Vec<_>>()
    };
    let (was, is) = (differing(before, &after), differing(&after, before));
    assert!(
        was.is_empty() && is.is_empty(),
        "changed or gone: {was:?}; changed or new: {is:?}"
    );
}

#[track_caller]
fn prepare(home: &Home, path: &Path, more: &[&str]) -> Ran {
    let mut words: Vec<OsString> = ["--json", "vm", "workspace", "prepare", HOST]
        .map(OsString::from)
        .into();
    words.extend(more.iter().map(OsString::from));
    words.push("--".into());
    words.push(path.into());
    home.run(&words)
}

#[track_caller]
fn export(home: &Home, more: &[&str]) -> Ran {
    let words = ["vm", "workspace", "export", HOST];
    home.run(words.iter().chain(more))
}

#[test]
fn the_guests_tree_is_the_hosts_and_the_hosts_repository_is_untouched() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let before = whole(&host);
    let prepared = prepare(&home, &host, &[]).ok().json();
    assert_unchanged(&host, &before);
    let guest = home.guest_home().join("repo");
    assert_eq!(prepared["guest_path"], guest.display().to_string());
    let (expected, arrived) = (tree(&host), tree(&guest));
    assert_eq!(
        arrived
            .iter()
            .map(|(path, kind, _)| (path, kind))
            .collect::<Vec<_>>(),
        expected
            .iter()
            .map(|(path, kind, _)| (path, kind))
            .collect::<Vec<_>>()
    );
    assert!(arrived == expected, "contents");
    assert!(!guest.join("ignored").exists(), "what is ignored stays");

    let head = git_line(&host, &["rev-parse", "HEAD"]);
    assert_eq!(prepared["head_commit"], head.as_str());
    assert_eq!(prepared["branch"], "main");
    assert_eq!(git_line(&guest, &["rev-parse", "HEAD"]), head);
    assert_eq!(git_line(&guest, &["branch", "--show-current"]), "main");
    assert_eq!(
        git_line(&guest, &["config", "--local", "user.name"]),
        "A Person"
    );
    git(&guest, ["fsck", "--strict"]);
    assert_eq!(git_line(&guest, &["rev-list", "--count", "HEAD"]), "2");
    assert!(!home.scratch().join("no").exists() && !guest.join("no").exists());
}

/// Commits in the guest, and changes things on top in every way.
fn work(guest: &Path) {
    put(&guest.join("committed"), b"committed\n");
    put(&guest.join("binary"), &binary(3));
    git(guest, ["add", "committed", "binary"]);
    git(guest, ["commit", "--quiet", "--message", "in the guest"]);
    put(&guest.join("committed"), b"committed, then changed\n");
    put(&guest.join("staged here"), &binary(4));
    git(guest, ["add", "staged here"]);
    put(&guest.join("staged here"), &binary(5));
    put(&guest.join("untracked\nhere"), &binary(6));
    put(&guest.join("crlf"), b"a\r\nc\r\n");
    fs::remove_file(guest.join("kept")).expect("removed");
    git(guest, ["mv", "modified", "renamed"]);
    symlink("renamed", guest.join("new link")).expect("linked");
    put(&guest.join("script"), b"#!/bin/sh\n");
    set_mode(&guest.join("script"), 0o755);
    put(&guest.join("ignored"), b"not wanted\n");
}

/// The tree that a repository's working tree would commit to.
fn written_tree(repository: &Path) -> String {
    git(repository, ["add", "--all"]);
    git_line(repository, &["write-tree"])
}

#[test]
fn commits_and_all_that_lies_on_top_come_back_in_one_patch() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let head = git_line(&host, &["rev-parse", "HEAD"]);
    let guest = home.guest_home().join("repo");
    let _ = prepare(&home, &host, &[]).ok();
    work(&guest);
    let (host_before, guest_before) = (whole(&host), files(&guest));

    // The default base is the recorded head.
    let patch = export(&home, &[]).ok();
    assert!(whole(&host) == host_before, "export reads only on the host");
    // Bytes only: git sets the times of objects that it would have written again.
    assert!(
        files(&guest) == guest_before,
        "export reads only in the guest"
    );

    let clone = home.scratch().join("clone");
    let source = format!("file://{}", host.display());
    git(&home.scratch(), ["clone", "--quiet", &source, "clone"]);
    let file = home.scratch().join("work.patch");
    fs::write(&file, &patch.stdout).expect("written");
    git(
        &clone,
        [OsStr::new("apply"), OsStr::new("--index"), file.as_os_str()],
    );
    let applied = git_line(&clone, &["write-tree"]);

    // The same through a file, and with the base named.
    let _ = export(&home, &["--output", "other.patch", "--base-commit", &head]).ok();
    assert!(fs::read(home.scratch().join("other.patch")).expect("there") == patch.stdout);

    let stat = export(&home, &["--stat"]).ok().text();
    assert!(
        stat.contains("A  committed\n") && stat.contains("D  kept\n"),
        "{stat}"
    );
    assert!(!stat.contains("ignored"), "{stat}");

    assert_eq!(applied, written_tree(&guest), "the trees are equal");
    assert!(tree(&clone) == tree(&guest));
}

#[test]
fn an_export_writes_through_links_and_into_pipes() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let _ = prepare(&home, &host, &[]).ok();
    work(&home.guest_home().join("repo"));
    let patch = export(&home, &[]).ok().stdout;

    symlink("target", home.scratch().join("link")).expect("linked");
    fs::write(home.scratch().join("target"), "old").expect("written");
    let _ = export(&home, &["--output", "link"]).ok();
    assert!(fs::read(home.scratch().join("target")).expect("there") == patch);
    assert!(home.scratch().join("link").is_symlink());

    let pipe = home.scratch().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(pipe))
    };
    let _ = export(&home, &["--output", "pipe"]).ok();
    assert!(reader.join().expect("no panic").expect("read") == patch);
    use std::os::unix::fs::FileTypeExt as _;
    let kind = fs::symlink_metadata(pipe).expect("there").file_type();
    assert!(kind.is_fifo(), "it is still a pipe");
}

#[test]
fn without_a_base_the_request_falls_back_to_the_guests_head_and_says_so() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let guest = home.guest_home().join("repo");
    let _ = prepare(&home, &host, &[]).ok();
    work(&guest);
    let recorded = git_line(&host, &["rev-parse", "HEAD"]);
    let head = git_line(&guest, &["rev-parse", "HEAD"]);
    assert_ne!(recorded, head);

    let mut rpc = Rpc::greet(&home.socket()).expect("greets");
    let mut ask = |base: Option<&str>| {
        let mut params = json!({"vm": HOST});
        if let Some(base) = base {
            params["base_commit"] = base.into();
        }
        rpc.call("vm.workspace.export", params).expect("exports")
    };
    let reply = ask(None);
    assert_eq!(reply["base_ref"], "HEAD");
    assert_eq!(reply["base_commit"], head.as_str());
    assert_eq!(reply["commits"], 0);
    let has = |reply: &serde_json::Value, path: &str, kind: &str| {
        let changes = reply["changes"].as_array().expect("a list");
        changes
            .iter()
            .any(|change| change["path"] == path && change["kind"] == kind)
    };
    assert!(has(&reply, "committed", "modified"));

    let reply = ask(Some("HEAD~1"));
    assert_eq!(reply["base_ref"], "HEAD~1");
    assert_eq!(reply["base_commit"], recorded.as_str());
    assert_eq!(reply["head_commit"], head.as_str());
    assert_eq!(reply["branch"], "main");
    assert_eq!(reply["commits"], 1);
    assert!(has(&reply, "committed", "added"));

    for base in ["nosuch", "--output=/tmp/no", "", "HEAD:kept"] {
        let base = format!("--base-commit={base}");
        let refused = home.run(["--json", "vm", "workspace", "export", HOST, "--stat", &base]);
        assert_ne!(refused.code, Some(0), "{base}: {refused:?}");
        assert_ne!(refused.code, Some(1), "{base}: {refused:?}");
        refused.failure(refused.code.expect("an exit code"));
    }
}

#[test]
fn an_occupied_place_is_refused_and_left_alone_and_force_replaces_it() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let guest = home.guest_home().join("repo");
    let _ = prepare(&home, &host, &[]).ok();
    work(&guest);
    let before = whole(&guest);
    let refused = prepare(&home, &host, &[]);
    let failure = refused.failure(4);
    assert_eq!(failure["kind"], "conflict");
    assert!(
        failure["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--force"))
    );
    assert_unchanged(&guest, &before);

    // Also where it is no working copy of ours.
    let other = home.guest_home().join("other");
    put(&other.join("precious"), b"precious");
    let at = other.display().to_string();
    prepare(&home, &host, &["--guest-path", &at]).failure(4);
    assert_eq!(
        fs::read(other.join("precious")).expect("there"),
        b"precious"
    );

    let _ = prepare(&home, &host, &["--force"]).ok();
    assert!(tree(&guest) == tree(&host));
    assert_eq!(git_line(&guest, &["rev-list", "--count", "HEAD"]), "2");
    let parent: Vec<_> = fs::read_dir(home.guest_home())
        .expect("there")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.as_bytes().starts_with(b".local"))
        .collect();
    assert_eq!(parent.len(), 2, "nothing half-made is left: {parent:?}");
}

/// What git says of a working copy: the index with its flags, and how the tree differs.
fn seen(repository: &Path) -> [String; 2] {
    let git_text =
        |arguments: &[&str]| String::from_utf8_lossy(&git(repository, arguments)).into_owned();
    [
        git_text(&["ls-files", "-v", "--stage"]),
        git_text(&["status", "--porcelain=v2", "--untracked-files=all"]),
    ]
}

#[track_caller]
fn assert_same(host: &Path, guest: &Path) {
    assert!(tree(guest) == tree(host), "files");
    assert_eq!(seen(guest), seen(host));
}

#[test]
fn again_and_again_in_every_mode_the_guest_is_as_the_host() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let module = home.scratch().join("module");
    fs::create_dir(&module).expect("made");
    git(&module, ["init", "--quiet", "--initial-branch=main"]);
    put(&module.join("in"), b"in a module\n");
    git(&module, ["add", "--all"]);
    git(&module, ["commit", "--quiet", "--message", "module"]);
    let url = module.display().to_string();
    git(
        &host,
        [
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            &url,
            "sub module",
        ],
    );
    let guest = home.guest_home().join("repo");

    let first = prepare(&home, &host, &[]).ok().json();
    assert_same(&host, &guest);
    assert_eq!(first["submodules"], 1);
    let again = prepare(&home, &host, &[]).ok().json();
    let sent = |reply: &serde_json::Value| reply["bytes_sent"].as_u64().expect("a number");
    assert!(
        sent(&again) < 3000 && sent(&again) < sent(&first),
        "{again}"
    );

    let mut state = 0_u32;
    for (round, mode) in ["shallow-overlay", "full-copy"]
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
    {
        // Of the names there, some get other contents, modes and states.
        for (path, _) in files(&host) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let relative = path.strip_prefix(&host).expect("below");
            if relative.starts_with(".git") || path.is_symlink() || relative.ends_with(".git") {
                continue;
            }
            match state >> 28 {
                0 => fs::remove_file(&path).expect("removed"),
                1 => put(&path, &binary(round as u8)),
                2 => set_mode(&path, 0o755),
                3 | 4
                    if !relative.starts_with("sub module") && relative != Path::new("ignored") =>
                {
                    let words = ["--literal-pathspecs", "add", "--"].map(OsStr::new);
                    git(&host, words.into_iter().chain([relative.as_os_str()]));
                }
                _ => {}
            }
        }
        put(&host.join(format!("new {round}")), b"new\n");
        if round == 5 {
            git(&host, ["add", "--all"]);
            git(&host, ["commit", "--quiet", "--message", "more"]);
        }
        let before = whole(&host);
        let prepared = prepare(&home, &host, &["--mode", mode]).ok().json();
        assert_unchanged(&host, &before);
        assert_eq!(prepared["mode"], mode.replace('-', "_"));
        assert_same(&host, &guest);
        assert_same(&host.join("sub module"), &guest.join("sub module"));
    }
}

#[test]
fn what_goes_in_can_be_chosen() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let guest = home.guest_home().join("repo");
    let chosen = [
        "--untracked=exclude",
        "--include-ignored=ignored",
        "--branch=agent/one",
    ];
    let prepared = prepare(&home, &host, &chosen).ok().json();
    assert_eq!(prepared["branch"], "agent/one");
    assert!(guest.join("ignored").exists() && !guest.join("new").exists());
    assert_eq!(git_line(&guest, &["branch", "--show-current"]), "agent/one");
    for branch in ["main", "a..b", "-x", ""] {
        let branch = format!("--branch={branch}");
        let refused = prepare(&home, &host, &["--force", &branch]);
        assert_eq!(refused.failure(5)["kind"], "invalid", "{branch}");
    }
}

#[test]
fn a_partial_clone_goes_in_without_its_history() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    git(&host, ["config", "uploadpack.allowFilter", "true"]);
    let source = format!("file://{}", host.display());
    git(
        &home.scratch(),
        ["clone", "--quiet", "--filter=blob:none", &source, "partial"],
    );
    let partial = home.scratch().join("partial");
    let failure = prepare(&home, &partial, &["--mode=full-copy"]).failure(5);
    let hint = failure["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("--refetch"), "{failure}");
    assert!(!home.guest_home().join("repo").exists());
    put(&partial.join("new"), b"new");
    let prepared = prepare(&home, &partial, &[]).ok().json();
    let note = prepared["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("partial clone"), "{prepared}");
    assert_same(&partial, &home.guest_home().join("repo"));
}

#[test]
fn ctrl_c_and_a_lost_connection_leave_the_guest_as_it_was() {
    let home = home();
    let host = repository(&home.scratch().join("src"));
    let guest = home.guest_home().join("repo");
    let _ = prepare(&home, &host, &[]).ok();
    let before = tree(&guest);
    // So much that it takes a while.
    for n in 0..24_u32 {
        let noise: Vec<u8> = (0..1_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(n * at) >> 13) as u8)
            .collect();
        put(&host.join(format!("large{n}")), &noise);
    }
    let words = ["vm", "workspace", "prepare", HOST, "--"].map(OsString::from);
    let words: Vec<OsString> = words.into_iter().chain([host.clone().into()]).collect();
    let mut running = home.spawn(&words);
    running.until_error("sending the repository");
    running.signal(rustix::process::Signal::INT);
    let ran = running.wait();
    assert!(
        tree(&guest) == before || tree(&guest) == tree(&host),
        "{ran:?}"
    );

    let mut running = home.spawn(&words);
    running.until_error("sending the repository");
    home.sshd.as_ref().expect("a server").cut_connections();
    let ran = running.wait();
    if ran.code != Some(0) {
        banger_tests::until("it has settled", || {
            !guest.join(".git/banger/applying").exists()
        });
    }
    assert!(
        tree(&guest) == before || tree(&guest) == tree(&host),
        "{ran:?}"
    );

    let _ = prepare(&home, &host, &[]).ok();
    assert_same(&host, &guest);
}

#[test]
fn paths_with_odd_names_and_relative_ones_work() {
    let home = home();
    for (number, name) in ["two words", "line\nfeed\n", "-leading", "$(touch no)'"]
        .iter()
        .enumerate()
    {
        let host = repository(&home.scratch().join(name));
        let guest = home.guest_home().join(format!("{name}{number}\nx"));
        let mut at = OsString::from("--guest-path=");
        at.push(&guest);
        let mut words: Vec<OsString> = ["vm", "workspace", "prepare", HOST]
            .map(OsString::from)
            .into();
        words.extend([at.clone(), "--".into(), name.into()]);
        let _ = home.run(&words).ok();
        assert!(tree(&guest) == tree(&host), "{name:?}");
        put(&guest.join("made"), b"here\n");
        let mut words: Vec<OsString> = ["vm", "workspace", "export", HOST]
            .map(OsString::from)
            .into();
        words.push(at);
        let patch = home.run(&words).ok();
        assert!(patch.text().contains("+here"), "{name:?}");
    }
    assert!(!home.scratch().join("no").exists());
    // A directory inside is as good as the top.
    let inside = home.scratch().join("two words/odd");
    let prepared = prepare(&home, &inside, &[]).ok().json();
    assert_eq!(
        prepared["path"],
        home.scratch().join("two words").display().to_string()
    );
}

#[test]
fn what_is_no_repository_is_refused_and_nothing_is_made() {
    let home = home();
    let empty = home.scratch().join("empty");
    fs::create_dir(&empty).expect("made");
    let fresh = home.scratch().join("fresh");
    fs::create_dir(&fresh).expect("made");
    git(&fresh, ["init", "--quiet"]);
    let bare = home.scratch().join("bare");
    fs::create_dir(&bare).expect("made");
    git(&bare, ["init", "--quiet", "--bare"]);
    let file = home.scratch().join("file");
    put(&file, b"x");
    let before = files(&home.guest_home());
    for path in [&empty, &fresh, &bare, &file, &home.scratch().join("nosuch")] {
        let refused = prepare(&home, path, &[]);
        let failure = refused.failure(5);
        assert_eq!(failure["kind"], "invalid", "{refused:?}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
    assert!(files(&home.guest_home()) == before);
    // `vm run` looks at it before any machine is made.
    let run = home.run([
        OsStr::new("--json"),
        OsStr::new("vm"),
        OsStr::new("run"),
        empty.as_os_str(),
    ]);
    run.failure(5);
    let list = home.run(["--json", "vm", "list"]).ok().json();
    assert_eq!(list["vms"].as_array().map(Vec::len), Some(1), "{list}");

    let nothing = home.run(["--json", "vm", "workspace", "export", HOST, "--stat"]);
    nothing.failure(3);
    let file = home.scratch().join("out.patch");
    let _ = export(&home, &["--output", "out.patch"]);
    assert!(!file.exists(), "no patch, no file");
}
