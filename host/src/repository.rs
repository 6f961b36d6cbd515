//! The user's repository, read by git and by nothing else.
//!
//! It is never changed, and nothing of it runs: hooks, filters, file system monitors, pagers and
//! external programs are switched off for every call, no lock is taken and no object written.

use banger_core::workspace::Source;
use banger_core::{Failure, Kind, escape};
use cap_std::fs::Dir;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// A repository with a working tree and at least one commit.
#[derive(Debug, Clone)]
pub struct Repository {
    top: PathBuf,
    git_dir: PathBuf,
    /// Names of the filter drivers that its configuration defines.
    filters: Vec<OsString>,
}

/// How the working tree differs from HEAD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Files and symlinks to lay over the commit, relative to the top.
    pub present: Vec<Vec<u8>>,
    /// Paths that the commit has and the tree has not.
    pub deleted: Vec<Vec<u8>>,
    /// What does not come along, for a person.
    pub notes: Vec<String>,
}

impl Repository {
    /// Finds the repository that holds a path.
    ///
    /// # Errors
    /// A path that does not exist, is in no repository, or in one without a working tree.
    pub async fn find(path: &Path) -> Result<Self, Failure> {
        let shown = escape::text(path.as_os_str().as_bytes());
        if path.is_relative() {
            return Err(Failure::new(
                Kind::Invalid,
                format!("the path of a repository must be absolute, not `{shown}`"),
            ));
        }
        match tokio::fs::metadata(path).await {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(
                    Failure::new(Kind::Invalid, format!("`{shown}` is not a directory"))
                        .hint("give the path of a git repository"),
                );
            }
            Err(error) => {
                return Err(
                    Failure::new(Kind::Invalid, format!("can't read `{shown}`: {error}"))
                        .hint("give the path of a git repository"),
                );
            }
        }
        let none = Self {
            top: path.to_owned(),
            git_dir: PathBuf::new(),
            filters: Vec::new(),
        };
        let top = match none.git_line(&["rev-parse", "--show-toplevel"]).await {
            Ok(top) if !top.is_empty() => PathBuf::from(OsString::from_vec(top)),
            Err(failure) if failure.kind == Kind::Host => return Err(failure),
            Ok(_) | Err(_) if none.git_line(&["rev-parse", "--git-dir"]).await.is_ok() => {
                return Err(Failure::new(
                    Kind::Invalid,
                    format!("the repository at `{shown}` has no working tree"),
                )
                .hint("clone it, and give the clone's path"));
            }
            Ok(_) => PathBuf::new(),
            Err(failure) => {
                let failure = if failure.detail.contains("dubious ownership") {
                    Failure::new(
                        Kind::Invalid,
                        format!("the repository at `{shown}` belongs to another user"),
                    )
                    .hint("`git config --global --add safe.directory PATH` if you trust it")
                } else {
                    Failure::new(Kind::Invalid, format!("`{shown}` is in no git repository"))
                        .hint("give the path of a repository, or run `git init` and commit first")
                };
                return Err(failure);
            }
        };
        let mut repository = Self { top, ..none };
        repository.git_dir = PathBuf::from(OsString::from_vec(
            repository
                .git_line(&["rev-parse", "--absolute-git-dir"])
                .await?,
        ));
        repository.filters = repository.filter_names().await?;
        Ok(repository)
    }

    /// The working tree's top, absolute.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The facts that a workspace plugin needs.
    ///
    /// # Errors
    /// A repository without a commit.
    pub async fn source(&self) -> Result<Source, Failure> {
        let head = self
            .git_line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .await
            .map_err(|_| {
                Failure::new(
                    Kind::Invalid,
                    format!(
                        "the repository at `{}` has no commit yet",
                        escape::text(self.top.as_os_str().as_bytes())
                    ),
                )
                .hint("make a first commit, then try again")
            })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let optional = async |arguments: &[&str]| -> Option<String> {
            self.git_line(arguments)
                .await
                .ok()
                .map(text)
                .filter(|value| !value.is_empty())
        };
        Ok(Source {
            head: text(head),
            branch: optional(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await,
            object_format: optional(&["rev-parse", "--show-object-format"])
                .await
                .unwrap_or_else(|| "sha1".into()),
            user_name: optional(&["config", "--get", "user.name"]).await,
            user_email: optional(&["config", "--get", "user.email"]).await,
        })
    }

    /// How the working tree differs from HEAD: modified, deleted and untracked files that are
    /// not ignored.
    ///
    /// # Errors
    /// Where git fails.
    pub async fn differences(&self) -> Result<Differences, Failure> {
        let output = self
            .git(&[
                "status",
                "--porcelain=v2",
                "-z",
                "--no-renames",
                "--untracked-files=all",
                "--ignore-submodules=none",
            ])
            .await?;
        let mut differences = parse_status(&output)?;
        if tokio::fs::try_exists(self.top.join(".gitmodules"))
            .await
            .unwrap_or(false)
        {
            differences
                .notes
                .push("submodules do not come along yet: their directories are empty".into());
        }
        Ok(differences)
    }

    /// `git upload-pack` for the commit that is checked out and its history: the command whose
    /// stdin and stdout speak to a `git fetch`.
    pub fn upload_pack(&self) -> Command {
        let mut command = self.command();
        // Protocol version 0 serves what it advertises and nothing else; only HEAD is advertised.
        command
            .args(["-c", "transfer.hideRefs=refs/"])
            .args(["-c", "uploadpack.allowAnySHA1InWant=false"])
            .args(["-c", "uploadpack.allowFilter=false"])
            .args(["upload-pack", "--strict"])
            .arg(&self.git_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Writes files of the working tree as a tar archive that ends in an empty file named `end`.
    /// Links are archived, never followed. Blocks; call it on a thread of its own.
    ///
    /// # Errors
    /// A file that vanished, changed its size or can't be read; or the writer's error.
    pub fn write_tar(
        &self,
        paths: &[Vec<u8>],
        end: &str,
        writer: impl Write,
    ) -> std::io::Result<()> {
        let top = Dir::open_ambient_dir(&self.top, cap_std::ambient_authority())?;
        let mut archive = tar::Builder::new(writer);
        for path in paths {
            let path = Path::new(OsStr::from_bytes(path));
            append(&mut archive, &top, path).map_err(|error| {
                std::io::Error::new(
                    error.kind(),
                    format!("`{}`: {error}", escape::text(path.as_os_str().as_bytes())),
                )
            })?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(0);
        archive.append_data(&mut header, end, std::io::empty())?;
        archive.into_inner()?.flush()
    }

    /// git with everything switched off that could run a program or write.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        command
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C.UTF-8")
            .arg("-C")
            .arg(&self.top)
            .args(["-c", "core.fsmonitor=false"])
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.quotePath=false"])
            .args(["-c", "maintenance.auto=false"])
            .kill_on_drop(true);
        for filter in &self.filters {
            for setting in ["clean=", "smudge=", "process=", "required=false"] {
                let mut value = OsString::from("filter.");
                value.push(filter);
                value.push(".");
                value.push(setting);
                command.arg("-c").arg(value);
            }
        }
        command
    }

    async fn filter_names(&self) -> Result<Vec<OsString>, Failure> {
        // Exit code 1 tells that nothing matches.
        let output = self
            .git(&[
                "config",
                "--null",
                "--name-only",
                "--get-regexp",
                "^filter\\.",
            ])
            .await
            .unwrap_or_default();
        let mut names: Vec<OsString> = output
            .split(|b| *b == 0)
            .filter_map(|key| {
                let rest = key.strip_prefix(b"filter.")?;
                let end = rest.iter().rposition(|b| *b == b'.')?;
                Some(OsString::from_vec(rest[..end].to_vec()))
            })
            // A name with `=` could not be written as `-c name=value`.
            .filter(|name| !name.as_bytes().contains(&b'='))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let output = self
            .command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| {
                Failure::new(Kind::Host, format!("can't run git: {error}"))
                    .hint("`banger doctor` names the missing packages")
            })?;
        if !output.status.success() {
            return Err(Failure::new(
                Kind::Invalid,
                format!("`git {}` failed", arguments.first().unwrap_or(&"")),
            )
            .detail(&output.stderr));
        }
        Ok(output.stdout)
    }

    pub(crate) async fn git_line(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut output = self.git(arguments).await?;
        if output.last() == Some(&b'\n') {
            output.pop();
        }
        Ok(output)
    }
}

/// Reads `git status --porcelain=v2 -z --no-renames`.
fn parse_status(output: &[u8]) -> Result<Differences, Failure> {
    let malformed = |entry: &[u8]| {
        Failure::new(Kind::Internal, "git status printed what banger can't read").detail(entry)
    };
    let mut present = std::collections::BTreeSet::new();
    let mut deleted = std::collections::BTreeSet::new();
    let mut notes = Vec::new();
    let mut staged = 0_usize;
    for entry in output.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
        let Some((kind, rest)) = entry.split_first() else {
            continue;
        };
        // Fields before the path, and which of them is the working tree's mode.
        let (fields, mode_at) = match kind {
            b'1' => (8, 5),
            b'u' => (10, 6),
            b'?' => {
                let path = rest.strip_prefix(b" ").ok_or_else(|| malformed(entry))?;
                if let Some(nested) = path.strip_suffix(b"/") {
                    notes.push(format!(
                        "the repository inside this one, `{}`, does not come along yet",
                        escape::text(nested)
                    ));
                } else {
                    present.insert(path.to_vec());
                }
                continue;
            }
            b'#' | b'!' => continue,
            _ => return Err(malformed(entry)),
        };
        let parts: Vec<&[u8]> = entry.splitn(fields + 1, |b| *b == b' ').collect();
        let (Some(states), Some(submodule), Some(mode), Some(path)) = (
            parts.get(1),
            parts.get(2),
            parts.get(mode_at),
            parts.get(fields),
        ) else {
            return Err(malformed(entry));
        };
        if submodule.first() == Some(&b'S') {
            continue;
        }
        if states.first().is_some_and(|state| *state != b'.') {
            staged += 1;
        }
        if *mode == b"000000" {
            deleted.insert(path.to_vec());
        } else {
            present.insert(path.to_vec());
        }
    }
    if staged > 0 {
        notes.push(format!(
            "{staged} staged path(s) arrive as unstaged changes: the index does not come along yet"
        ));
    }
    // Staged as deleted, and there again as an untracked file.
    for path in &present {
        deleted.remove(path);
    }
    Ok(Differences {
        present: present.into_iter().collect(),
        deleted: deleted.into_iter().collect(),
        notes,
    })
}

fn append<W: Write>(archive: &mut tar::Builder<W>, top: &Dir, path: &Path) -> std::io::Result<()> {
    use cap_std::fs::MetadataExt as _;
    let metadata = top.symlink_metadata(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    if metadata.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, path, top.read_link_contents(path)?)
    } else if metadata.is_file() {
        let file = top.open(path)?;
        let metadata = file.metadata()?;
        let executable = metadata.mode() & 0o100 != 0;
        header.set_size(metadata.len());
        header.set_mode(if executable { 0o755 } else { 0o644 });
        let reader = Exactly {
            file,
            left: metadata.len(),
        };
        archive.append_data(&mut header, path, reader)
    } else {
        Err(std::io::Error::other("it is neither a file nor a symlink"))
    }
}

/// Reads exactly as many bytes as were announced, or fails.
struct Exactly<R> {
    file: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let (Some(buffer), false) = (buffer.get_mut(..room), room == 0) else {
            return Ok(0);
        };
        let count = self.file.read(buffer)?;
        if count == 0 {
            return Err(std::io::Error::other("it changed while it was being read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn git(top: &Path, arguments: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-C"])
            .arg(top)
            .args(arguments)
            .output()
            .await
            .expect("git runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    #[tokio::test]
    async fn differences_are_seen_and_nothing_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let top = dir.path().join("a repo\n");
        std::fs::create_dir(&top).expect("made");
        git(&top, &["init", "-q", "-b", "main"]).await;
        for name in ["kept", "changed", "gone", "-dash", "new\nline"] {
            std::fs::write(top.join(name), name).expect("written");
        }
        std::fs::write(top.join(".gitattributes"), "* filter=evil\n").expect("written");
        git(&top, &["add", "-A"]).await;
        git(&top, &["commit", "-qm", "one"]).await;
        let marker = dir.path().join("ran");
        let evil = format!("touch '{}'; cat", marker.display());
        for key in [
            "filter.evil.clean",
            "filter.evil.process",
            "core.fsmonitor",
            "core.pager",
        ] {
            git(&top, &["config", key, &evil]).await;
        }
        git(&top, &["config", "filter.evil.required", "true"]).await;
        std::fs::write(top.join("changed"), "other").expect("written");
        std::fs::write(top.join("new\nline"), "more").expect("written");
        std::fs::remove_file(top.join("gone")).expect("removed");
        std::fs::write(top.join("extra"), "x").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", top.join("link")).expect("linked");
        let index = std::fs::read(top.join(".git/index")).expect("read");

        let repository = Repository::find(&top).await.expect("found");
        assert_eq!(repository.top(), top.canonicalize().expect("there"));
        let source = repository.source().await.expect("has a commit");
        assert_eq!(
            (source.branch.as_deref(), source.head.len()),
            (Some("main"), 40)
        );
        let differences = repository.differences().await.expect("read");
        let names = |paths: &[Vec<u8>]| -> Vec<String> {
            paths.iter().map(|path| escape::text(path)).collect()
        };
        assert_eq!(
            names(&differences.present),
            ["changed", "extra", "link", "new\\nline"]
        );
        assert_eq!(names(&differences.deleted), ["gone"]);

        let mut archive = Vec::new();
        repository
            .write_tar(&differences.present, ".end", &mut archive)
            .expect("archived");
        let mut entries = tar::Archive::new(&archive[..]);
        let found: Vec<_> = entries
            .entries()
            .expect("reads")
            .map(|entry| {
                let entry = entry.expect("reads");
                (entry.path_bytes().into_owned(), entry.header().entry_type())
            })
            .collect();
        assert_eq!(found.len(), 5);
        assert_eq!(found[4].0, b".end");
        assert_eq!(found[2], (b"link".to_vec(), tar::EntryType::Symlink));
        assert!(!marker.exists(), "a program of the repository was run");
        assert_eq!(std::fs::read(top.join(".git/index")).expect("read"), index);
    }

    #[tokio::test]
    async fn what_is_no_repository_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        for path in [
            dir.path(),
            &file,
            Path::new("relative"),
            &dir.path().join("absent"),
        ] {
            let failure = Repository::find(path).await.expect_err("refused");
            assert_eq!(failure.kind, Kind::Invalid, "{failure:?}");
        }
        git(dir.path(), &["init", "-q"]).await;
        let empty = Repository::find(dir.path()).await.expect("found");
        let failure = empty.source().await.expect_err("refused");
        assert!(failure.message.contains("no commit"), "{failure:?}");
        git(dir.path(), &["init", "-q", "--bare", "bare"]).await;
        let failure = Repository::find(&dir.path().join("bare"))
            .await
            .expect_err("refused");
        assert!(failure.message.contains("working tree"), "{failure:?}");
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut reader = Exactly {
            file: &b"abc"[..],
            left: 5,
        };
        let mut out = Vec::new();
        assert!(reader.read_to_end(&mut out).is_err());
    }
}
