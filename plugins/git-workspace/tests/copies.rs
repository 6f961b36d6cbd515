//! Working copies from a real repository, with the scripts really run.
#![allow(missing_docs, clippy::unwrap_used)]

use banger_git_workspace::Plugin;
use banger_git_workspace::contract::{
    ChangeKind, ExportFormat, ExportRequest, Guest as _, Output, ReceiveRequest, Script, Status,
};
use banger_plugin_testing::{command, exit_code, lint, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

struct World {
    root: tempfile::TempDir,
    head: String,
}

impl World {
    fn new(format: &str) -> Self {
        let root = tempfile::Builder::new()
            .prefix("b 'odd':\"$(x)")
            .tempdir()
            .unwrap();
        let user = root.path().join("user");
        fs::create_dir_all(user.join("dir")).unwrap();
        git(
            &user,
            &["init", "-q", "-b", "topic/x", "--object-format", format],
        );
        git(&user, &["config", "user.name", "n"]);
        git(&user, &["config", "user.email", "e"]);
        for (name, content) in [
            ("dir/file", "1\n2\n3\n4\n5\n"),
            ("becomes-dir", "x"),
            ("gone", "g\n"),
            ("-dash", "d\n"),
            ("new\nline", "n\n"),
        ] {
            fs::write(user.join(name), content).unwrap();
        }
        fs::write(user.join("binary"), [0, 1, 2, 255]).unwrap();
        symlink("gone", user.join("link")).unwrap();
        git(&user, &["add", "-A"]);
        git(&user, &["commit", "-qm", "one"]);
        fs::write(user.join("gone"), "g2\n").unwrap();
        git(&user, &["commit", "-qam", "two"]);
        let head = git(&user, &["rev-parse", "HEAD"]);
        Self { root, head }
    }

    fn user(&self) -> PathBuf {
        self.root.path().join("user")
    }

    fn copy(&self) -> PathBuf {
        self.root.path().join("copy of it\n")
    }

    fn path(&self) -> String {
        self.copy().to_str().unwrap().to_owned()
    }

    fn request(&self) -> ReceiveRequest {
        ReceiveRequest {
            path: self.path(),
            snapshot: self.snapshot(),
            object_format: if self.head.len() == 40 {
                "sha1"
            } else {
                "sha256"
            }
            .into(),
            depth: None,
            branch: None,
            origin: "one".into(),
            overwrite: false,
            exported: None,
        }
    }

    /// A snapshot of the head with nothing on top, as the contract describes it.
    fn snapshot(&self) -> String {
        let user = self.user();
        let blob = |content: &str| {
            fs::write(self.root.path().join("blob"), content).unwrap();
            git(&user, &["hash-object", "-w", "../blob"])
        };
        let branch = blob("topic/x");
        let settings = blob("user.name\0-n $(id) '\"\0user.email\0e@x\0");
        fs::remove_file(self.root.path().join("blob")).unwrap();
        let make = |entries: String| {
            let mut child = Command::new("git")
                .arg("-C")
                .arg(&user)
                .arg("mktree")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), entries.as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let tree = git(&user, &["rev-parse", &format!("{}^{{tree}}", self.head)]);
        let meta = make(format!(
            "100644 blob {branch}\tbranch\n100644 blob {settings}\tsettings\n"
        ));
        let root = make(format!(
            "040000 tree {tree}\tindex\n040000 tree {meta}\tmeta\n040000 tree {tree}\tworktree\n"
        ));
        let id = git(&user, &["commit-tree", "-p", &self.head, "-m", "", &root]);
        git(&user, &["update-ref", "refs/snapshot/top", &id]);
        id
    }

    /// Joins the script to `git upload-pack`, as the host does.
    fn receive(&self, request: ReceiveRequest) -> i32 {
        let script = Plugin::receive(request).unwrap();
        let mut guest = command(&script.body, &script.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let served = Command::new("git")
            .arg("upload-pack")
            .arg(self.user())
            .env_remove("GIT_PROTOCOL")
            .stdin(guest.stdout.take().unwrap())
            .stdout(guest.stdin.take().unwrap())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let code = guest.wait().unwrap().code().unwrap();
        assert!(served.success() || code != 0);
        code
    }

    fn received(&self) {
        assert_eq!(self.receive(self.request()), 0);
    }

    fn inspect(&self, base: Option<&str>) -> Result<Status, String> {
        let output = go(Plugin::inspect(self.path(), base.map(str::to_owned)).unwrap());
        Plugin::read_inspect(Output {
            exit_code: exit_code(&output),
            stdout: output.stdout,
            stderr: output.stderr,
        })
        .map_err(|refusal| refusal.message)
    }

    fn patch(&self) -> Vec<u8> {
        self.export(ExportFormat::Patch).unwrap().1
    }

    /// The report and the work since the head that was received.
    fn export(&self, format: ExportFormat) -> Result<(Status, Vec<u8>), String> {
        export(&self.path(), Some(&self.head), format)
    }

    /// Applies the patch at the base, on the user's side, and compares the trees.
    fn assert_patch_brings_everything(&self) {
        let patch = self.root.path().join("patch");
        fs::write(&patch, self.patch()).unwrap();
        let user = self.user();
        git(&user, &["reset", "-q", "--hard"]);
        git(&user, &["clean", "-qfdx"]);
        git(&user, &["apply", "--index", patch.to_str().unwrap()]);
        self.assert_same_files();
    }

    fn assert_same_files(&self) {
        let output = Command::new("diff")
            .args(["-r", "--no-dereference", "--exclude=.git"])
            .args([self.user(), self.copy()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// The report and the work, taken apart as the host does.
fn export(
    path: &str,
    base: Option<&str>,
    format: ExportFormat,
) -> Result<(Status, Vec<u8>), String> {
    let request = ExportRequest {
        path: path.to_owned(),
        base: base.map(str::to_owned),
        format,
    };
    let output = go(Plugin::export_work(request).unwrap());
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let line = output
        .stdout
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap();
    let (length, rest) = output.stdout.split_at(line);
    let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
    let (report, work) = rest[1..].split_at(length);
    let status = Plugin::read_inspect(Output {
        exit_code: 0,
        stdout: report.to_vec(),
        stderr: vec![],
    });
    Ok((status.unwrap(), work.to_vec()))
}

fn go(script: Script) -> std::process::Output {
    run(&script.body, &script.args, &script.stdin)
}

#[test]
fn scripts_are_clean() {
    lint(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts")));
}

#[test]
fn a_repository_comes_over_in_either_format() {
    for format in ["sha1", "sha256"] {
        let world = World::new(format);
        world.received();
        world.assert_same_files();
        let copy = world.copy();
        assert_eq!(git(&copy, &["symbolic-ref", "HEAD"]), "refs/heads/topic/x");
        assert_eq!(git(&copy, &["rev-parse", "refs/banger/base"]), world.head);
        assert_eq!(git(&copy, &["config", "user.name"]), "-n $(id) '\"");
        assert_eq!(git(&copy, &["status", "--short"]), "");
        assert_eq!(git(&copy, &["rev-list", "--count", "HEAD"]), "2");
    }
}

#[test]
fn what_is_there_is_kept_unless_it_may_be_overwritten() {
    let world = World::new("sha1");
    fs::create_dir(world.copy()).unwrap();
    fs::write(world.copy().join(".precious"), "p").unwrap();
    assert_eq!(world.receive(world.request()), 3);
    let wrong = ReceiveRequest {
        snapshot: "1".repeat(40),
        overwrite: true,
        ..world.request()
    };
    assert_eq!(world.receive(wrong), 1);
    assert_eq!(fs::read(world.copy().join(".precious")).unwrap(), b"p");
    let shallow = ReceiveRequest {
        depth: Some(1),
        overwrite: true,
        ..world.request()
    };
    assert_eq!(world.receive(shallow), 0);
    assert_eq!(git(&world.copy(), &["rev-list", "--count", "HEAD"]), "1");
    assert!(!world.copy().join(".precious").exists());
    assert_eq!(
        fs::read_dir(world.root.path()).unwrap().count(),
        2,
        "nothing is left beside it"
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let world = World::new("sha1");
    let good = world.request();
    assert!(Plugin::receive(good.clone()).is_ok());
    for bad in [
        ReceiveRequest {
            path: "relative".into(),
            ..good.clone()
        },
        ReceiveRequest {
            path: "/".into(),
            ..good.clone()
        },
        ReceiveRequest {
            snapshot: "--upload-pack=x".into(),
            ..good.clone()
        },
        ReceiveRequest {
            object_format: "sha256".into(),
            ..good.clone()
        },
        ReceiveRequest {
            object_format: "md5".into(),
            ..good.clone()
        },
        ReceiveRequest {
            depth: Some(0),
            ..good.clone()
        },
        ReceiveRequest {
            branch: Some("a\nb".into()),
            ..good.clone()
        },
        ReceiveRequest {
            exported: Some("HEAD".into()),
            ..good.clone()
        },
    ] {
        assert!(Plugin::receive(bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn everything_comes_back_whatever_the_agent_has_configured() {
    let world = World::new("sha1");
    world.received();
    let copy = world.copy();
    for (key, value) in [
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("color.ui", "always"),
        ("diff.external", "false"),
        ("diff.submodule", "log"),
        ("diff.context", "0"),
        ("diff.relative", "true"),
        ("diff.x.textconv", "false"),
        ("core.hooksPath", "/dev/null/x"),
    ] {
        git(&copy, &["config", key, value]);
    }
    fs::write(copy.join(".gitattributes"), "dir/* diff=x\n").unwrap();
    fs::write(copy.join(".gitignore"), "ignored\n").unwrap();
    fs::write(copy.join("dir/file"), "1\n2\n3!\n4\n5\n").unwrap();
    git(&copy, &["add", "-A"]);
    git(&copy, &["commit", "-qm", "three"]);
    fs::write(copy.join("staged"), "s").unwrap();
    git(&copy, &["add", "staged"]);
    fs::write(copy.join("staged"), "s, then more").unwrap();
    git(&copy, &["mv", "gone", "moved $(x)"]);
    fs::remove_file(copy.join("becomes-dir")).unwrap();
    fs::write(copy.join("binary"), [9, 0, 9]).unwrap();
    fs::create_dir(copy.join("nested")).unwrap();
    git(&copy.join("nested"), &["init", "-q"]);
    fs::write(copy.join("nested/file"), "in a repository of its own").unwrap();
    // Another git has crashed, or is at work.
    fs::write(copy.join(".git/index.lock"), "").unwrap();
    let index = fs::read(copy.join(".git/index")).unwrap();

    let status = world.inspect(Some("refs/banger/base")).unwrap();
    assert_eq!(
        (status.commits, status.base.as_str()),
        (1, world.head.as_str())
    );
    assert_eq!(status.branch.as_deref(), Some("topic/x"));
    let moved = status
        .changes
        .iter()
        .find(|one| one.kind == ChangeKind::Renamed)
        .unwrap();
    assert_eq!(moved.path, b"moved $(x)");
    assert_eq!(moved.old_path.as_deref(), Some(b"gone".as_slice()));
    assert_eq!(status.changes.len(), 8, "{:?}", status.changes);
    let since_head = world.inspect(None).unwrap();
    assert_eq!((since_head.commits, since_head.changes.len()), (0, 5));

    assert_eq!(fs::read(copy.join(".git/index")).unwrap(), index);
    fs::remove_dir_all(copy.join("nested/.git")).unwrap();
    world.assert_patch_brings_everything();
}

/// Git compares times in whole seconds: a change that leaves size and time is seen only because the
/// file is as young as the index.
#[test]
fn a_change_within_the_second_of_the_last_commit_is_not_missed() {
    let world = World::new("sha1");
    world.received();
    let copy = world.copy();
    git(&copy, &["config", "core.trustctime", "false"]);
    let set_time = |path: &Path| {
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(then).unwrap();
    };
    let file = copy.join("gone");
    fs::write(&file, "before\n").unwrap();
    set_time(&file);
    git(&copy, &["commit", "-qam", "three"]);
    fs::write(&file, "after!\n").unwrap();
    set_time(&file);
    set_time(&copy.join(".git/index"));
    let changed = world.inspect(Some("HEAD")).unwrap().changes;
    assert_eq!(changed.len(), 1, "{changed:?}");
    world.assert_patch_brings_everything();
}

#[test]
fn a_merge_that_is_under_way_is_exported() {
    let world = World::new("sha1");
    world.received();
    let copy = world.copy();
    git(&copy, &["checkout", "-qb", "other"]);
    fs::write(copy.join("gone"), "theirs\n").unwrap();
    git(&copy, &["commit", "-qam", "theirs"]);
    git(&copy, &["checkout", "-q", "topic/x"]);
    fs::write(copy.join("gone"), "ours\n").unwrap();
    git(&copy, &["commit", "-qam", "ours"]);
    let merge = Command::new("git")
        .arg("-C")
        .arg(&copy)
        .args(["merge", "other"])
        .output();
    assert!(!merge.unwrap().status.success());
    world.assert_patch_brings_everything();
    assert!(git(&copy, &["status"]).contains("unmerged"));
}

#[test]
fn an_unborn_head_and_an_unknown_base_are_told() {
    let world = World::new("sha1");
    world.received();
    let refusal = world.inspect(Some("--no-such")).unwrap_err();
    assert!(
        refusal.starts_with("`--no-such` is no commit in "),
        "{refusal}"
    );
    git(&world.copy(), &["checkout", "-q", "--orphan", "empty"]);
    let status = world.inspect(None).unwrap();
    assert_eq!((status.head, status.changes.len()), (None, 7));
    assert!(world.patch().is_empty(), "the files are as in the base");
}

#[test]
fn any_bytes_are_read_or_refused() {
    use proptest::prelude::*;
    let read = |stdout: Vec<u8>| {
        Plugin::read_inspect(Output {
            exit_code: 0,
            stdout,
            stderr: vec![],
        })
    };
    let good = format!(
        "banger-git-2\0{0}\0b\0{0}\0{0}\x003\0all\0M\0a\0R100\0x\0y\0submodules\0s\0\0end\0",
        "a".repeat(40)
    );
    assert_eq!(read(good.clone().into_bytes()).unwrap().changes.len(), 2);
    proptest!(|(at in 0..good.len(), byte in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..99))| {
        let mut changed = good.clone().into_bytes();
        changed[at] = byte;
        drop(read(changed));
        drop(read(bytes));
        prop_assert!(read(good.as_bytes()[..at].to_vec()).is_err());
    });
}
