//! The whole path in one real VM, through the real binary: does a repository go in, does work go on
//! when everything on the host is killed, does all of it come back?
//!
//! The image is shared with the tests of machines; see there.

use banger_tests::home::Home;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn images() -> PathBuf {
    std::env::var_os("BANGER_TEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("banger-test-images"),
        PathBuf::from,
    )
}

/// Runs `banger` without a deadline of ours: a guest in software emulation, or the first build of the
/// image, takes what it takes.
fn banger(home: &Home, words: &[&str]) -> Output {
    home.command(words).output().expect("banger runs")
}

fn ok(home: &Home, words: &[&str]) -> Vec<u8> {
    let output = banger(home, words);
    assert!(
        output.status.success(),
        "{words:?}: {:?}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn git(top: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(top)
        .args(words)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What is left of the machines under this home: directories, and processes that work in one.
fn leftovers(home: &Home) -> Vec<PathBuf> {
    let vms = home.banger_home().join("state/vms");
    let directories = fs::read_dir(&vms).into_iter().flatten().flatten();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    directories
        .map(|entry| entry.path())
        .chain(processes.filter_map(|entry| {
            let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
            cwd.starts_with(&vms).then_some(cwd)
        }))
        .collect()
}

#[test]
fn vm_a_repository_goes_in_and_its_work_comes_back() {
    let home = Home::new().expect("a home");
    let data = home.banger_home().join("data");
    fs::create_dir_all(&data).expect("made");
    fs::create_dir_all(images()).expect("made");
    std::os::unix::fs::symlink(images(), data.join("images")).expect("linked");

    let host = home.scratch().join("src");
    fs::create_dir(&host).expect("made");
    git(&host, &["init", "-q", "-b", "main"]);
    git(&host, &["config", "user.name", "A"]);
    git(&host, &["config", "user.email", "a@example.org"]);
    fs::write(host.join("kept"), "one\n").expect("written");
    fs::write(host.join("gone"), "two\n").expect("written");
    git(&host, &["add", "-A"]);
    git(&host, &["commit", "-qm", "first"]);
    fs::write(host.join("un tracked\n"), "three\n").expect("written");
    let path = host.to_str().expect("UTF-8");

    // What can't work costs no machine.
    let refused = banger(&home, &["vm", "run", "/", "--name", "no"]);
    assert_eq!(refused.status.code(), Some(5));
    assert_eq!(leftovers(&home), Vec::<PathBuf>::new());

    ok(
        &home,
        &[
            "vm", "run", path, "--name", "one", "--memory", "512M", "--disk", "1G",
        ],
    );
    assert_eq!(
        ok(
            &home,
            &["vm", "exec", "one", "--", "cat", "/root/repo/un tracked\n"]
        ),
        b"three\n"
    );
    assert_eq!(
        banger(&home, &["vm", "exec", "one", "--", "bash", "-c", "exit 77"])
            .status
            .code(),
        Some(77)
    );
    // The same name again: refused, and nothing changes.
    let taken = banger(&home, &["vm", "run", path, "--name", "one"]);
    assert_eq!(taken.status.code(), Some(4));

    ok(
        &home,
        &["vm", "session", "start", "one", "--name", "s", "--", "bash"],
    );
    home.kill_daemon();
    let work = "cd /root/repo && rm gone && echo more >> kept && head -c 3000 /dev/urandom > binary \
                && git add -A && git commit -qm guest && echo staged > staged && git add staged \
                && echo again >> kept && echo last > last\n";
    ok(
        &home,
        &["vm", "session", "send", "one", "s", "--message", work],
    );
    ok(
        &home,
        &["vm", "session", "send", "one", "s", "--message", "exit 7\n"],
    );
    let ended = banger(&home, &["vm", "session", "wait", "one", "s"]);
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");

    let patch = home.scratch().join("work.patch");
    ok(
        &home,
        &[
            "vm",
            "workspace",
            "export",
            "one",
            "--output",
            patch.to_str().expect("UTF-8"),
        ],
    );
    git(&home.scratch(), &["clone", "-q", path, "clone"]);
    let clone = home.scratch().join("clone");
    assert_eq!(
        ok(
            &home,
            &[
                "vm",
                "exec",
                "one",
                "--",
                "git",
                "-C",
                "/root/repo",
                "log",
                "-1",
                "--format=%s"
            ]
        ),
        b"guest\n"
    );
    git(
        &clone,
        &["apply", "--index", patch.to_str().expect("UTF-8")],
    );
    let there = ok(
        &home,
        &[
            "vm",
            "exec",
            "one",
            "--",
            "bash",
            "-c",
            "cd /root/repo && export GIT_INDEX_FILE=/tmp/index && git add -A && git write-tree",
        ],
    );
    assert_eq!(
        git(&clone, &["write-tree"]),
        String::from_utf8_lossy(&there).trim()
    );

    // What runs at a graceful stop is told to end, and the guest records it.
    ok(
        &home,
        &["vm", "session", "start", "one", "--name", "t", "--", "cat"],
    );
    let late = "echo late > /root/repo/late";
    ok(&home, &["vm", "exec", "one", "--", "bash", "-c", late]);
    ok(&home, &["vm", "stop", "one"]);
    // It can't be asked any more, and had work that nobody else has.
    let kept = banger(&home, &["--json", "vm", "delete", "one"]);
    assert_eq!(kept.status.code(), Some(4), "{kept:?}");
    assert!(String::from_utf8_lossy(&kept.stderr).contains("--discard"));
    let stopped = banger(&home, &["vm", "exec", "one", "--", "true"]);
    assert_eq!(stopped.status.code(), Some(125));
    ok(&home, &["vm", "start", "one"]);
    let session = ok(&home, &["--json", "vm", "session", "show", "one", "t"]);
    let session: serde_json::Value = serde_json::from_slice(&session).expect("JSON");
    assert_eq!(session["snapshot"]["state"], "exited", "{session}");
    assert_eq!(
        ok(
            &home,
            &["vm", "exec", "one", "--", "cat", "/root/repo/last"]
        ),
        b"last\n"
    );

    // A machine whose record the database has lost is found again, and runs on.
    let id = ok(&home, &["--json", "vm", "show", "one"]);
    ok(&home, &["daemon", "stop"]);
    for name in ["banger.db", "banger.db-wal", "banger.db-shm"] {
        let _ = fs::remove_file(home.banger_home().join("state").join(name));
    }
    let found: serde_json::Value =
        serde_json::from_slice(&ok(&home, &["--json", "vm", "show", "one"])).expect("JSON");
    let before: serde_json::Value = serde_json::from_slice(&id).expect("JSON");
    assert_eq!(
        (&found["id"], &found["state"]),
        (&before["id"], &"running".into())
    );
    assert_eq!(
        ok(&home, &["vm", "exec", "one", "--", "echo", "here"]),
        b"here\n"
    );

    // A client that is killed while its machine boots leaves nothing.
    let mut killed = home
        .command(["vm", "run", path, "--name", "two", "--memory", "512M"].map(OsStr::new))
        .spawn()
        .expect("banger runs");
    let made = |home: &Home| leftovers(home).len() > 2;
    banger_tests::until("the second machine is being made", || made(&home));
    killed.kill().expect("killed");
    killed.wait().expect("ended");
    banger_tests::until("it is gone", || !made(&home));
    assert_eq!(banger(&home, &["vm", "show", "two"]).status.code(), Some(3));

    // What was not exported is saved before the machine goes.
    ok(
        &home,
        &["vm", "workspace", "prepare", "one", path, "--force"],
    );
    ok(&home, &["vm", "exec", "one", "--", "bash", "-c", late]);
    let deleted = ok(&home, &["--json", "vm", "delete", "one"]);
    let deleted: serde_json::Value = serde_json::from_slice(&deleted).expect("JSON");
    let saved = deleted["saved"][0]["file"].as_str().expect("a file");
    let name = "refs/banger/work:refs/heads/saved";
    git(&host, &["fetch", "-q", saved, name]);
    assert_eq!(git(&host, &["show", "saved:late"]), "late");
    assert_eq!(leftovers(&home), Vec::<PathBuf>::new());
}
