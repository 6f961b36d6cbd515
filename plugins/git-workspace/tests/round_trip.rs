//! Whatever is done in the guest comes out exactly, in every format: random edits and commits, with
//! the scripts really run, applied at the base by plain git.
#![allow(missing_docs, clippy::unwrap_used)]

use banger_git_workspace::Plugin;
use banger_git_workspace::contract::{ExportFormat, ExportRequest, Guest as _, Output, Status};
use banger_plugin_testing::run;
use proptest::prelude::*;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAMES: &[&[u8]] = &[
    b"plain",
    b"two words",
    b"-leading",
    b"--",
    b"line\nfeed",
    b"tab\tquote\"'`",
    b"$(touch no)",
    "é😀".as_bytes(),
    b"raw\xff\xfe",
    b"back\\slash",
    b":(top)magic",
    b"trailing ",
    b"dir/one",
    b"dir/two words",
    b"dir/deep/er",
    b"\xff/raw below",
    b"a => b",
    b"{x => y}/z",
    b" b/file",
];

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u8),
    Delete(usize),
    Move(usize, usize),
    Mode(usize),
    Link(usize, usize),
    Stage(usize),
    StageAll,
    Commit,
    Merge,
    MoveSubmodule,
    Uncommit,
    Orphan,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        8 => (name.clone(), any::<u8>()).prop_map(|(at, what)| Op::Write(at, what)),
        3 => name.clone().prop_map(Op::Delete),
        3 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Move(from, to)),
        2 => name.clone().prop_map(Op::Mode),
        2 => (name.clone(), name.clone()).prop_map(|(at, to)| Op::Link(at, to)),
        2 => name.prop_map(Op::Stage),
        1 => Just(Op::StageAll),
        4 => Just(Op::Commit),
        1 => Just(Op::Merge),
        1 => Just(Op::MoveSubmodule),
        1 => Just(Op::Uncommit),
        1 => Just(Op::Orphan),
    ]
}

fn content(what: u8) -> Vec<u8> {
    match what % 6 {
        0 => Vec::new(),
        1 => (0..3000_u32)
            .map(|n| (n * 31 + u32::from(what)) as u8)
            .collect(),
        2 => format!("no line feed at the end {what}").into_bytes(),
        3 => format!("carriage\r\nreturns {what}\r\n").into_bytes(),
        4 => [b"latin \xe9 ", what.to_string().as_bytes(), b"\n"].concat(),
        _ => (0..40_u32)
            .map(|n| format!("line {n} {}\n", if n == 7 { u32::from(what) } else { 0 }))
            .collect::<String>()
            .into_bytes(),
    }
}

struct Guest {
    root: tempfile::TempDir,
    base: String,
}

impl Guest {
    fn new(before: &[Op]) -> Self {
        let root = tempfile::Builder::new()
            .prefix("r 'odd\":")
            .tempdir()
            .unwrap();
        let guest = root.path().join("guest\n");
        fs::create_dir(&guest).unwrap();
        git(&guest, ["init", "-q", "-b", "main"]);
        git(&guest, ["config", "user.name", "Ä Person"]);
        git(&guest, ["config", "user.email", "a@b"]);
        git(&guest, ["config", "protocol.file.allow", "always"]);
        fs::write(guest.join("always"), "there\n").unwrap();
        let made = Self {
            root,
            base: String::new(),
        };
        made.submodule();
        for op in before {
            if !matches!(op, Op::Orphan | Op::Uncommit | Op::Merge) {
                made.act(op);
            }
        }
        git(&guest, ["add", "-A"]);
        git(&guest, ["commit", "-q", "--allow-empty", "-m", "base"]);
        let base = line(&guest, ["rev-parse", "HEAD"]);
        git(
            made.root.path(),
            [
                OsStr::new("clone"),
                OsStr::new("-q"),
                OsStr::new("--bare"),
                guest.as_os_str(),
                OsStr::new("host.git"),
            ],
        );
        Self { base, ..made }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("guest\n")
    }

    fn at(&self, name: usize) -> PathBuf {
        self.path().join(OsStr::from_bytes(NAMES[name]))
    }

    fn submodule(&self) {
        let sub = self.path().join("sub module");
        fs::create_dir(&sub).unwrap();
        git(&sub, ["init", "-q", "-b", "main"]);
        self.move_submodule();
    }

    fn move_submodule(&self) {
        let sub = self.path().join("sub module");
        if sub.join(".git").exists() {
            git(&sub, ["commit", "-q", "--allow-empty", "-m", "moved"]);
        }
    }

    /// Makes room for a file.
    fn clear(&self, path: &Path) {
        let top = self.path();
        let mut parent = top.clone();
        for part in path.strip_prefix(&top).unwrap().parent().unwrap() {
            parent.push(part);
            if fs::symlink_metadata(&parent).is_ok_and(|there| !there.is_dir()) {
                fs::remove_file(&parent).unwrap();
            }
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
    }

    fn act(&self, op: &Op) {
        let top = self.path();
        match op {
            Op::Write(at, what) => {
                self.clear(&self.at(*at));
                fs::write(self.at(*at), content(*what)).unwrap();
            }
            Op::Delete(at) => match fs::symlink_metadata(self.at(*at)) {
                Ok(there) if !there.is_dir() => fs::remove_file(self.at(*at)).unwrap(),
                _ => {}
            },
            Op::Move(from, to) => {
                let from = self.at(*from);
                if fs::symlink_metadata(&from).is_ok_and(|there| !there.is_dir()) {
                    let kept = top.join(".git/kept");
                    fs::rename(&from, &kept).unwrap();
                    self.clear(&self.at(*to));
                    fs::rename(&kept, self.at(*to)).unwrap();
                }
            }
            Op::Mode(at) => {
                if fs::symlink_metadata(self.at(*at)).is_ok_and(|there| there.is_file()) {
                    let mode = fs::metadata(self.at(*at)).unwrap().permissions().mode();
                    let mode = fs::Permissions::from_mode(mode ^ 0o111);
                    fs::set_permissions(self.at(*at), mode).unwrap();
                }
            }
            Op::Link(at, to) => {
                self.clear(&self.at(*at));
                symlink(OsStr::from_bytes(NAMES[*to]), self.at(*at)).unwrap();
            }
            Op::Stage(at) => {
                let name = OsString::from_vec([b":(literal)", NAMES[*at]].concat());
                attempt(&top, [OsStr::new("add"), OsStr::new("--"), &name]);
            }
            Op::StageAll => attempt(&top, ["add", "-A"]),
            Op::Commit => {
                attempt(&top, ["add", "-u"]);
                attempt(
                    &top,
                    [
                        "-c",
                        "user.name=O'Agent",
                        "commit",
                        "-q",
                        "--date=2001-02-03T04:05:06+0700",
                        "-m",
                        "[x] a commit, ü\n\nwith a body\n",
                    ],
                );
            }
            Op::Merge => {
                attempt(&top, ["stash", "-q"]);
                attempt(&top, ["checkout", "-q", "-b", "side", "HEAD~1"]);
                fs::write(top.join("from the side"), "s\n").unwrap();
                attempt(&top, ["add", "from the side"]);
                attempt(&top, ["commit", "-q", "-m", "side"]);
                attempt(&top, ["checkout", "-q", "-"]);
                attempt(&top, ["merge", "-q", "--no-ff", "--no-edit", "side"]);
                attempt(&top, ["branch", "-q", "-D", "side"]);
                attempt(&top, ["stash", "pop", "-q"]);
            }
            Op::MoveSubmodule => self.move_submodule(),
            Op::Uncommit => attempt(&top, ["reset", "-q", "--soft", "HEAD~1"]),
            Op::Orphan => attempt(&top, ["checkout", "-q", "--orphan", "unborn"]),
        }
    }

    fn export(&self, format: ExportFormat) -> Result<(Status, Vec<u8>), String> {
        let script = Plugin::export_work(ExportRequest {
            path: self.path().to_str().unwrap().to_owned(),
            base: Some(self.base.clone()),
            format,
        })
        .unwrap();
        let output = run(&script.body, &script.args, &script.stdin);
        if output.status.code() == Some(6) {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        assert!(output.status.success(), "{output:?}");
        let end = output
            .stdout
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap();
        let length: usize = std::str::from_utf8(&output.stdout[..end])
            .unwrap()
            .parse()
            .unwrap();
        let (report, work) = output.stdout[end + 1..].split_at(length);
        let status = Plugin::read_inspect(Output {
            exit_code: 0,
            stdout: report.to_vec(),
            stderr: vec![],
        });
        Ok((status.unwrap(), work.to_vec()))
    }

    /// The tree that is to come out, made by git itself in a copy.
    fn expected(&self) -> String {
        let copy = self.root.path().join("copy");
        let copied = Command::new("cp")
            .args([OsStr::new("-a"), self.path().as_os_str(), copy.as_os_str()])
            .status();
        assert!(copied.unwrap().success());
        git(&copy, ["add", "-A"]);
        let tree = line(&copy, ["write-tree"]);
        fs::remove_dir_all(copy).unwrap();
        tree
    }

    /// A worktree of the user's repository at the base.
    fn host(&self) -> PathBuf {
        let host = self.root.path().join("host");
        if host.exists() {
            fs::remove_dir_all(&host).unwrap();
        }
        git(
            self.root.path(),
            ["clone", "-q", "--no-checkout", "host.git", "host"],
        );
        git(&host, ["config", "user.name", "User"]);
        git(&host, ["config", "user.email", "u@x"]);
        git(&host, ["checkout", "-q", "--detach", &self.base]);
        host
    }

    /// HEAD, index, refs and objects: what an export must leave alone.
    fn own(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut directories = vec![self.path().join(".git")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    found.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

fn command<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .args([
            "-c",
            "commit.gpgSign=false",
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@x",
        ])
        .args(arguments)
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn git<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
    let output = command(dir, arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What may fail, such as a merge that conflicts.
fn attempt<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) {
    command(dir, arguments).output().unwrap();
}

fn line<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    String::from_utf8(git(dir, arguments))
        .unwrap()
        .trim()
        .to_owned()
}

/// Author, date and message of the commits since the base, oldest first.
fn told(dir: &Path, base: &str, tip: &str) -> String {
    let range = format!("{base}..{tip}");
    line(
        dir,
        [
            "log",
            "--reverse",
            "--topo-order",
            "--format=%an|%ae|%ad|%s|%b",
            &range,
        ],
    )
}

fn check(before: &[Op], after: &[Op]) {
    let guest = Guest::new(before);
    for op in after {
        guest.act(op);
    }
    let expected = guest.expected();
    let own = guest.own();

    let (status, patch) = guest.export(ExportFormat::Patch).unwrap();
    assert_eq!(status.tree, expected);
    let host = guest.host();
    if patch.is_empty() {
        assert_eq!(line(&host, ["rev-parse", "HEAD^{tree}"]), expected);
    } else {
        fs::write(host.join(".git/work"), &patch).unwrap();
        git(
            &host,
            ["apply", "--index", "--whitespace=nowarn", ".git/work"],
        );
        assert_eq!(line(&host, ["write-tree"]), expected, "the patch");
    }

    let (status, bundle) = guest.export(ExportFormat::Bundle).unwrap();
    let tip = if bundle.is_empty() {
        guest.base.clone()
    } else {
        fs::write(host.join(".git/work"), &bundle).unwrap();
        git(
            &host,
            [
                "fetch",
                "-q",
                ".git/work",
                "refs/banger/work:refs/heads/work",
            ],
        );
        line(&host, ["rev-parse", "work"])
    };
    let tree = format!("{tip}^{{tree}}");
    assert_eq!(line(&host, ["rev-parse", &tree]), expected, "the bundle");
    if let Some(head) = &status.head {
        // The guest's commits as they are, merges and all.
        let behind = command(
            &guest.path(),
            ["merge-base", "--is-ancestor", head, &guest.base],
        );
        if !{ behind }.status().unwrap().success() {
            git(&host, ["merge-base", "--is-ancestor", head, &tip]);
        }
    }

    match guest.export(ExportFormat::Mbox) {
        Err(refused) => assert!(refused.contains("patches"), "{refused}"),
        Ok((_, mbox)) => {
            let host = guest.host();
            if !mbox.is_empty() {
                fs::write(host.join(".git/work"), &mbox).unwrap();
                git(
                    &host,
                    [
                        "am",
                        "-q",
                        "--keep-non-patch",
                        "--keep-cr",
                        "--empty=keep",
                        ".git/work",
                    ],
                );
            }
            assert_eq!(
                line(&host, ["rev-parse", "HEAD^{tree}"]),
                expected,
                "the mails"
            );
            if let Some(head) = &status.head {
                let commits = told(&guest.path(), &guest.base, head);
                let came = told(&host, &guest.base, "HEAD");
                assert!(came.starts_with(&commits), "{commits:?}\n{came:?}");
            }
        }
    }
    assert_eq!(guest.own(), own, "an export only reads");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_done_in_the_guest_comes_out_exactly(
        before in prop::collection::vec(op(), 0..12),
        after in prop::collection::vec(op(), 0..20),
    ) {
        check(&before, &after);
    }
}

#[test]
fn going_back_and_an_orphan_are_work_too() {
    let first = [Op::Write(0, 5), Op::StageAll, Op::Commit];
    check(&first, &[Op::Uncommit]);
    check(&first, &[Op::Orphan, Op::Write(1, 5)]);
    check(
        &first,
        &[Op::Orphan, Op::StageAll, Op::Commit, Op::Write(2, 1)],
    );
    check(
        &first,
        &[Op::Write(3, 1), Op::StageAll, Op::Commit, Op::Merge],
    );
    check(
        &first,
        &[
            Op::MoveSubmodule,
            Op::StageAll,
            Op::Commit,
            Op::MoveSubmodule,
        ],
    );
}
