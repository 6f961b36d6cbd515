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
