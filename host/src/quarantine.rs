//! Commits of a guest, examined before any repository of the user's gets them.
//!
//! A quarantine is a repository of its own that borrows the user's objects and has no
//! configuration: what the user's says about drivers, filters, hooks and programs does not count
//! here, and nothing is ever checked out. What a guest made becomes objects here, is checked as
//! `git fsck --strict` does (no `.git` in any spelling, no path that leaves the tree, no crafted
//! `.gitmodules`), is merged as objects, and only then handed over: objects first, then one ref.

use crate::repository::Repository;
use banger_core::{Failure, Kind, escape};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The ref under which a guest's bundle has the work.
const WORK_REF: &str = "refs/banger/work";
/// Bytes of a bundle's header. A prerequisite is a line in it.
const HEADER_LIMIT: u64 = 1 << 20;
/// The largest single piece of memory that git may ask for while it reads what a guest made.
const ALLOCATION_LIMIT: &str = "1g";
/// Paths that conflict and are named.
const CONFLICTS_NAMED: usize = 10;

/// A repository that is removed when this is dropped.
#[derive(Debug)]
pub struct Quarantine {
    dir: tempfile::TempDir,
    /// The user's objects, as git's variable wants them.
    borrowed: OsString,
    object_format: String,
}

/// What names begin with that are only there while something is made.
pub const DRAFT_PREFIXES: [&str; 2] = ["apply-", ".part-"];

/// Removes what a daemon that was killed left half-made in these directories.
pub fn clear(directories: &[&Path]) {
    for entry in directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        if DRAFT_PREFIXES
            .iter()
            .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
        {
            // What can't be removed is in nobody's way.
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
                _ => std::fs::remove_file(entry.path()),
            };
        }
    }
}

/// What became of a merge.
#[derive(Debug, PartialEq, Eq)]
pub enum Merge {
    /// Theirs contains ours already, or is merged as this commit.
    Commit(String),
    /// These paths conflict.
    Conflicts(Vec<Vec<u8>>),
}

impl Quarantine {
    /// An empty one in a directory, beside a repository.
    ///
    /// # Errors
    /// Where git fails.
    pub async fn open(repository: &Repository, directory: &Path) -> Result<Self, Failure> {
        let path = async |name: &str| -> Result<PathBuf, Failure> {
            let arguments = ["rev-parse", "--path-format=absolute", "--git-path", name];
            let line = repository.git_line(&arguments).await?;
            Ok(PathBuf::from(OsString::from_vec(line)))
        };
        let objects = path("objects").await?;
        let shallow = path("shallow").await?;
        let format = repository
            .git_line(&["rev-parse", "--show-object-format"])
            .await?;
        let object_format = String::from_utf8_lossy(&format).into_owned();
        let dir = tempfile::Builder::new()
            .prefix("apply-")
            .tempdir_in(directory)
            .map_err(|error| {
                let shown = escape::text(directory.as_os_str().as_bytes());
                Failure::new(
                    Kind::Host,
                    format!("can't make a directory in {shown}: {error}"),
                )
            })?;
        let quarantine = Self {
            dir,
            borrowed: c_quoted(objects.as_os_str()),
            object_format,
        };
        let mut init = Command::new("git");
        clear_environment(&mut init);
        init.args(["init", "--quiet", "--bare", "--template="])
            .arg(format!("--object-format={}", quarantine.object_format))
            .arg("--")
            .arg(quarantine.repository());
        run(&mut init, "init").await?;
        // Else git would look for the parents of the oldest commits.
        match std::fs::copy(&shallow, quarantine.repository().join("shallow")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let shown = escape::text(shallow.as_os_str().as_bytes());
                Err(Failure::new(
                    Kind::Host,
                    format!("can't read {shown}: {error}"),
                ))
            }
            _ => Ok(quarantine),
        }
    }

    /// Where a bundle may be put that goes away with this.
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("work.bundle")
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Takes the commits of a bundle in, checked; the commit that it is of.
    ///
    /// # Errors
    /// A bundle that is none, whose objects are not sound, or that builds on commits which the
    /// user's repository does not have.
    pub async fn receive(&self, bundle: &Path, limit: u64) -> Result<String, Failure> {
        let (bundle, format) = (bundle.to_owned(), self.object_format.clone());
        let opened = tokio::task::spawn_blocking(move || open_bundle(&bundle, &format)).await;
        let (work, pack) =
            opened.map_err(|error| Failure::from_error(Kind::Internal, &error))??;
        let mut index = self.git();
        index
            .args(["index-pack", "--stdin", "--fix-thin", "--strict"])
            .arg(format!("--max-input-size={limit}"))
            .stdin(pack);
        run(&mut index, "index-pack").await.map_err(|failure| {
            let detail = failure.detail.clone();
            Failure {
                kind: Kind::Guest,
                message: "git refuses what the guest made".into(),
                ..failure
            }
            .hint(
                if detail.contains("did not receive expected object") || detail.contains("missing")
                {
                    "it builds on a commit that the repository here does not have"
                } else {
                    "`banger vm workspace export` brings it as a patch"
                },
            )
        })?;
        let commit = format!("{work}^{{commit}}");
        let found = self
            .line(&[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &commit,
            ])
            .await;
        if found.ok().as_deref() != Some(work.as_str()) {
            return Err(damaged("its ref is no commit"));
        }
        Ok(work)
    }

    /// The id of what a revision leads to.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn resolve(&self, revision: &str) -> Result<String, Failure> {
        self.line(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            revision,
        ])
        .await
    }

    /// Whether a commit is among those that another builds on.
    ///
    /// # Errors
    /// Where git fails.
    pub async fn is_ancestor(&self, older: &str, newer: &str) -> Result<bool, Failure> {
        let mut command = self.git();
        command.args(["merge-base", "--is-ancestor", older, newer]);
        let output = outputs(&mut command).await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(failed("merge-base", &output.stderr)),
        }
    }

    /// Merges work into a commit, as objects; `who` is the author of the merge.
    ///
    /// # Errors
    /// Where git fails, such as for histories that have nothing in common.
    pub async fn merge(
        &self,
        ours: &str,
        work: &str,
        who: (&str, &str),
        message: &str,
    ) -> Result<Merge, Failure> {
        if self.is_ancestor(ours, work).await? {
            return Ok(Merge::Commit(work.to_owned()));
        }
        let mut merge = self.git();
        merge
            .args([
                "merge-tree",
                "--write-tree",
                "-z",
                "--name-only",
                "--no-messages",
            ])
            .args([ours, work]);
        let output = outputs(&mut merge).await?;
        let mut fields = output.stdout.split(|byte| *byte == 0);
        let tree = fields.next().unwrap_or_default();
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                let mut paths: Vec<Vec<u8>> = fields
                    .filter(|path| !path.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect();
                paths.sort();
                paths.dedup();
                return Ok(Merge::Conflicts(paths));
            }
            _ => return Err(failed("merge-tree", &output.stderr)),
        }
        let tree = String::from_utf8_lossy(tree).into_owned();
        let mut commit = self.git();
        commit
            .env("GIT_AUTHOR_NAME", who.0)
            .env("GIT_AUTHOR_EMAIL", who.1)
            .env("GIT_COMMITTER_NAME", who.0)
            .env("GIT_COMMITTER_EMAIL", who.1)
            .args(["commit-tree", "-p", ours, "-p", work, "-m", message, &tree]);
        let made = run(&mut commit, "commit-tree").await?;
        Ok(Merge::Commit(
            String::from_utf8_lossy(&made).trim().to_owned(),
        ))
    }

    /// Gives the user's repository a commit with all that it lacks, without the history of the
    /// commits in `has`. No ref changes: until one is made, nobody sees the objects.
    ///
    /// # Errors
    /// Where git fails; then there are objects at most that `git gc` removes.
    pub async fn hand_over(
        &self,
        repository: &Repository,
        commit: &str,
        has: &[&str],
    ) -> Result<(), Failure> {
        let mut pack = self
            .git()
            .args(["pack-objects", "--quiet", "--revs", "--local", "--stdout"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| no_git(&error))?;
        let (Some(mut revisions), Some(packed)) = (pack.stdin.take(), pack.stdout.take()) else {
            return Err(Failure::new(Kind::Internal, "git has no pipes"));
        };
        let packed: Stdio = packed
            .try_into()
            .map_err(|error| Failure::from_error(Kind::Internal, &error))?;
        let mut wanted = format!("{commit}\n");
        for has in has {
            wanted += &format!("^{has}\n");
        }
        let mut index = repository.command();
        index
            .args(["index-pack", "--stdin", "--strict"])
            .stdin(packed);
        let write = async {
            let written = revisions.write_all(wanted.as_bytes()).await;
            drop(revisions);
            written.map_err(|error| Failure::from_error(Kind::Host, &error))
        };
        let (written, packed, indexed) = tokio::join!(
            write,
            pack.wait_with_output(),
            run(&mut index, "index-pack")
        );
        let packed = packed.map_err(|error| no_git(&error))?;
        if !packed.status.success() {
            return Err(failed("pack-objects", &packed.stderr));
        }
        written?;
        indexed.map(drop)
    }

    /// git in the quarantine.
    fn git(&self) -> Command {
        let mut command = Command::new("git");
        clear_environment(&mut command);
        command
            .env("GIT_DIR", self.repository())
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.borrowed)
            .env("GIT_ALLOC_LIMIT", ALLOCATION_LIMIT)
            .current_dir(self.dir.path())
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.attributesFile=/dev/null"])
            .args(["-c", "core.bigFileThreshold=64m"])
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn line(&self, arguments: &[&str]) -> Result<String, Failure> {
        let what = arguments.first().copied().unwrap_or_default();
        let output = run(self.git().args(arguments), what).await?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }
}

/// The failure of work that does not merge.
pub fn conflict(paths: &[Vec<u8>], into: &str) -> Failure {
    let mut named: Vec<String> = paths
        .iter()
        .take(CONFLICTS_NAMED)
        .map(|path| format!("`{}`", escape::text(path)))
        .collect();
    if let Some(more) = paths.len().checked_sub(CONFLICTS_NAMED)
        && more > 0
    {
        named.push(format!("and {more} more"));
    }
    let all: Vec<String> = paths.iter().map(|path| escape::text(path)).collect();
    let mut failure = Failure::new(
        Kind::Conflict,
        format!(
            "the work conflicts with {}: {}",
            into.get(..12).unwrap_or(into),
            named.join(", ")
        ),
    )
    .hint("nothing was changed; without --three-way the branch begins at the commit that was put in, and `git merge` takes it from there");
    failure.detail = all.join("\n");
    failure
}

fn clear_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C.UTF-8")
        .kill_on_drop(true);
}

/// A path as git's list of alternates wants it: in quotes it may hold anything.
fn c_quoted(path: &OsStr) -> OsString {
    let mut quoted = vec![b'"'];
    for byte in path.as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            b' '..=b'~' => quoted.push(*byte),
            byte => quoted.extend(format!("\\{byte:03o}").into_bytes()),
        }
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// Reads a bundle's header: the work's commit, and the file where the pack begins.
fn open_bundle(path: &Path, object_format: &str) -> Result<(String, std::fs::File), Failure> {
    let unreadable = |error: std::io::Error| {
        let shown = escape::text(path.as_os_str().as_bytes());
        Failure::new(Kind::Host, format!("can't read {shown}: {error}"))
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut reader = BufReader::new(file).take(HEADER_LIMIT);
    let mut at = 0_u64;
    let mut work = None;
    let mut format = "sha1".to_owned();
    for number in 0_usize.. {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
        at += read as u64;
        if line.pop() != Some(b'\n') {
            return Err(damaged("its header does not end"));
        }
        if number == 0 {
            if line != b"# v2 git bundle" && line != b"# v3 git bundle" {
                return Err(damaged("it does not begin as one"));
            }
            continue;
        }
        match line.first() {
            None => break,
            Some(b'@') => match line.strip_prefix(b"@object-format=") {
                Some(named) => format = String::from_utf8_lossy(named).into_owned(),
                None => return Err(damaged("it wants what banger does not know")),
            },
            // A commit that it builds on; index-pack sees whether it is there.
            Some(b'-') => {}
            Some(_) => {
                let text = String::from_utf8_lossy(&line);
                let named = text.split_once(' ').filter(|(id, name)| {
                    *name == WORK_REF && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                });
                match (named, &work) {
                    (Some((id, _)), None) => work = Some(id.to_owned()),
                    _ => return Err(damaged("it has other refs than it may")),
                }
            }
        }
    }
    let digits = if object_format == "sha256" { 64 } else { 40 };
    let work = work
        .filter(|id| id.len() == digits && format == object_format)
        .ok_or_else(|| damaged("it is of another object format, or of no commit"))?;
    let mut file = reader.into_inner().into_inner();
    file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
    Ok((work, file))
}

fn damaged(why: &str) -> Failure {
    Failure::new(Kind::Guest, format!("the guest's bundle is damaged: {why}"))
}

fn no_git(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Host, format!("can't run git: {error}"))
        .hint("`banger doctor` names the missing packages")
}

fn failed(what: &str, stderr: &[u8]) -> Failure {
    Failure::new(Kind::Host, format!("`git {what}` failed")).detail(stderr)
}

async fn outputs(command: &mut Command) -> Result<std::process::Output, Failure> {
    command.output().await.map_err(|error| no_git(&error))
}

async fn run(command: &mut Command, what: &str) -> Result<Vec<u8>, Failure> {
    let output = outputs(command).await?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(what, &output.stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    /// A user's repository with one commit, and a guest's that borrows its objects.
    struct World {
        root: tempfile::TempDir,
        base: String,
        made: std::cell::RefCell<Vec<String>>,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::Builder::new()
                .prefix("q '\"\\:\n")
                .tempdir()
                .expect("a directory");
            let user = root.path().join("user");
            for name in ["user", "guest"] {
                let top = root.path().join(name);
                std::fs::create_dir(&top).expect("made");
                git(&top, &["init", "-q", "-b", "main"], b"");
            }
            std::fs::write(user.join("file"), "one\ntwo\nthree\n").expect("written");
            git(&user, &["add", "-A"], b"");
            git(&user, &["commit", "-q", "-m", "base"], b"");
            let base = line(&user, &["rev-parse", "HEAD"]);
            let guest = root.path().join("guest");
            let from = user.to_str().expect("UTF-8");
            git(&guest, &["fetch", "-q", from, "main"], b"");
            Self {
                root,
                base,
                made: std::cell::RefCell::default(),
            }
        }

        fn user(&self) -> PathBuf {
            self.root.path().join("user")
        }

        fn guest(&self) -> PathBuf {
            self.root.path().join("guest")
        }

        fn blob(&self, content: &[u8]) -> String {
            self.object(&["hash-object", "-w", "--stdin"], content)
        }

        fn object(&self, arguments: &[&str], stdin: &[u8]) -> String {
            let made = text(&git(&self.guest(), arguments, stdin));
            self.made.borrow_mut().push(made.clone());
            made
        }

        /// A tree that git itself would not make.
        fn tree(&self, mode: &str, name: &[u8], id: &str) -> String {
            let mut raw = [mode.as_bytes(), b" ", name, b"\0"].concat();
            raw.extend(
                data_encoding::HEXLOWER
                    .decode(id.as_bytes())
                    .expect("an id"),
            );
            let arguments = ["hash-object", "-w", "-t", "tree", "--literally", "--stdin"];
            self.object(&arguments, &raw)
        }

        /// A bundle of a commit of this tree on the base, with all that was made so far: git
        /// itself would not walk some of it.
        fn bundle(&self, tree: &str) -> Vec<u8> {
            let arguments = ["commit-tree", "-p", &self.base, "-m", "work", tree];
            let commit = self.object(&arguments, b"");
            let mut made = self.made.borrow().clone();
            made.sort();
            made.dedup();
            let list = made.join("\n") + "\n";
            let arguments = ["pack-objects", "-q", "--stdout"];
            let pack = git(&self.guest(), &arguments, list.as_bytes());
            let base = &self.base;
            let header = format!("# v2 git bundle\n-{base} base\n{commit} {WORK_REF}\n\n");
            [header.as_bytes(), &pack].concat()
        }

        async fn examine(
            &self,
            bundle: &[u8],
        ) -> Result<(Quarantine, Repository, String), Failure> {
            let repository = Repository::find(&self.user()).await?;
            let quarantine = Quarantine::open(&repository, self.root.path()).await?;
            std::fs::write(quarantine.bundle(), bundle).expect("written");
            let work = quarantine.receive(&quarantine.bundle(), 1 << 20).await?;
            Ok((quarantine, repository, work))
        }

        /// Every file of the user's, and its content.
        fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
            let mut found = Vec::new();
            let mut directories = vec![self.user()];
            while let Some(directory) = directories.pop() {
                for entry in std::fs::read_dir(directory).expect("read").flatten() {
                    if entry.path().is_dir() {
                        directories.push(entry.path());
                    } else {
                        found.push((entry.path(), std::fs::read(entry.path()).expect("read")));
                    }
                }
            }
            found.sort();
            found
        }
    }

    fn git(top: &Path, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        let mut child = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-C"])
            .arg(top)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git runs");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(stdin)
            .expect("written");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).trim().to_owned()
    }

    fn line(top: &Path, arguments: &[&str]) -> String {
        text(&git(top, arguments, b""))
    }

    #[tokio::test]
    async fn sound_work_arrives_and_nothing_else_changes() {
        let world = World::new();
        let blob = world.blob(b"new\n");
        let tree = world.tree("100644", b"a b\xff\n", &blob);
        let bundle = world.bundle(&tree);
        let before = world.everything();
        let (quarantine, repository, work) = world.examine(&bundle).await.expect("sound");
        assert_eq!(world.everything(), before, "examining only reads");
        quarantine
            .hand_over(&repository, &work, &[&world.base])
            .await
            .expect("handed over");
        let user = world.user();
        assert_eq!(
            line(&user, &["rev-parse", &format!("{work}^{{tree}}")]),
            tree
        );
        assert_eq!(line(&user, &["status", "--porcelain"]), "");
        let dir = quarantine.dir.path().to_owned();
        drop(quarantine);
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn crafted_trees_are_refused() {
        let world = World::new();
        let before = world.everything();
        let blob = world.blob(b"[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n");
        let inner = world.tree("100644", b"config", &blob);
        let names: [&[u8]; 9] = [
            b".git",
            b".GIT",
            b".gIt",
            b"git~1",
            b".g\xe2\x80\x8cit",
            b"..",
            b".",
            b"",
            b"../outside",
        ];
        for name in names {
            for (mode, id) in [("40000", &inner), ("100644", &blob), ("120000", &blob)] {
                // Each is refused for its own sake.
                *world.made.borrow_mut() = vec![blob.clone(), inner.clone()];
                let bundle = world.bundle(&world.tree(mode, name, id));
                let refused = world.examine(&bundle).await.expect_err("refused");
                assert_eq!(
                    refused.kind,
                    Kind::Guest,
                    "{}: {refused:?}",
                    name.escape_ascii()
                );
            }
        }
        // A link in the place of git's own files, an option in the place of an address.
        for (mode, name) in [("120000", b".gitmodules"), ("100644", b".gitmodules")] {
            *world.made.borrow_mut() = vec![blob.clone(), inner.clone()];
            let bundle = world.bundle(&world.tree(mode, name, &blob));
            assert!(world.examine(&bundle).await.is_err(), "{mode}");
        }
        let deep = world.tree("40000", b"deep", &world.tree("40000", b".git", &inner));
        assert!(world.examine(&world.bundle(&deep)).await.is_err());
        assert_eq!(world.everything(), before);
    }

    #[tokio::test]
    async fn a_bundle_is_bounded_and_must_be_whole() {
        let world = World::new();
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let big = world.bundle(&world.tree("100644", b"big", &world.blob(&noise)));
        assert!(world.examine(&big).await.is_err(), "larger than allowed");
        let tree = world.tree("100644", b"a", &world.blob(b"x"));
        let bundle = world.bundle(&tree);
        for cut in [0, 10, bundle.len() / 2, bundle.len() - 1] {
            assert!(world.examine(&bundle[..cut]).await.is_err(), "{cut}");
        }
        // An object that nobody has.
        let lacking = world.tree("100644", b"a", &"1".repeat(40));
        let bundle = world.bundle(&lacking);
        assert!(
            world.examine(&bundle).await.is_err(),
            "an object is missing"
        );
    }

    #[tokio::test]
    async fn merges_are_made_of_objects_and_conflicts_are_named() {
        let world = World::new();
        let user = world.user();
        for marker in ["merge.x.driver", "core.fsmonitor", "filter.x.smudge"] {
            git(&user, &["config", marker, "touch ran; false"], b"");
        }
        std::fs::write(user.join(".gitattributes"), "* merge=x filter=x\n").expect("written");
        std::fs::write(user.join("file"), "ONE\ntwo\nthree\n").expect("written");
        git(
            &user,
            &[
                "-c",
                "core.fsmonitor=false",
                "-c",
                "filter.x.smudge=",
                "add",
                "-A",
            ],
            b"",
        );
        git(
            &user,
            &["-c", "core.fsmonitor=false", "commit", "-q", "-m", "ours"],
            b"",
        );
        let ours = line(&user, &["rev-parse", "HEAD"]);
        let _ = std::fs::remove_file(user.join("ran"));
        let (before, me) = (world.everything(), ("me", "me@x"));
        let theirs = |content: &[u8]| {
            let tree = world.tree("100644", b"file", &world.blob(content));
            world.bundle(&tree)
        };
        let (quarantine, _, work) = world
            .examine(&theirs(b"one\ntwo\nTHREE\n"))
            .await
            .expect("sound");
        let merged = quarantine.merge(&ours, &work, me, "m").await;
        let Ok(Merge::Commit(merged)) = merged else {
            panic!("{merged:?}");
        };
        let found = quarantine
            .git()
            .args(["show", &format!("{merged}:file")])
            .output()
            .await;
        assert_eq!(found.expect("runs").stdout, b"ONE\ntwo\nTHREE\n");
        let (quarantine, _, work) = world
            .examine(&theirs(b"1\ntwo\nthree\n"))
            .await
            .expect("sound");
        let merged = quarantine.merge(&ours, &work, me, "m").await.expect("told");
        assert_eq!(merged, Merge::Conflicts(vec![b"file".to_vec()]));
        assert_eq!(world.everything(), before);
        let failure = conflict(&[b"a\x1b[2J".to_vec()], &ours);
        assert!(failure.message.contains("a\\x1b[2J"), "{failure}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_bundle_changes_the_users_repository(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            name in prop::collection::vec(any::<u8>(), 1..12),
            mode in prop::sample::select(vec!["100644", "100755", "120000", "160000", "40000", "1", "777777"]),
        ) {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let world = World::new();
                let before = world.everything();
                let name: Vec<u8> = name.into_iter().filter(|byte| *byte != 0).collect();
                let crafted = world.bundle(&world.tree(mode, &name, &world.blob(b"x")));
                drop(world.examine(&crafted).await);
                let mut damaged = crafted;
                for (at, byte) in edits {
                    let at = at.index(damaged.len());
                    damaged[at] = byte;
                }
                drop(world.examine(&damaged).await);
                assert_eq!(world.everything(), before);
            });
        }
    }

    #[test]
    fn a_path_is_quoted_for_the_list_of_alternates() {
        let path = OsString::from_vec(b"/a b\"\\:\n\xff".to_vec());
        assert_eq!(c_quoted(&path), OsStr::new("\"/a b\\\"\\\\:\\012\\377\""));
    }
}
