//! The user's repository, read by git and by nothing else.
//!
//! It is never changed, and nothing of it runs: hooks, filters, file system monitors, pagers and
//! external programs are switched off for every call, no lock is taken and no object written. What
//! goes to a guest is served from a repository of our own (`snapshot`) that borrows its objects and
//! has none of its configuration.

mod scan;
mod snapshot;

pub use scan::{Part, References, Scan, ScanOptions};
pub use snapshot::{PARTIAL, Snapshot, SnapshotError, Stop};

use banger_core::{Failure, Kind, escape};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A repository with a working tree.
#[derive(Debug, Clone)]
pub struct Repository {
    top: PathBuf,
    /// Of this working tree.
    git_dir: PathBuf,
    /// What its working trees share: objects and references.
    common_dir: PathBuf,
    /// Keys and values of its configuration that matter here, in git's order.
    config: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of the filter drivers that its configuration defines.
    filters: Vec<Vec<u8>>,
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
            common_dir: PathBuf::new(),
            config: Vec::new(),
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
        let (git_dir, common_dir, config) = tokio::try_join!(
            repository.git_line(&["rev-parse", "--absolute-git-dir"]),
            repository.git_line(&["rev-parse", "--path-format=absolute", "--git-common-dir"]),
            repository.read_config(),
        )?;
        repository.git_dir = PathBuf::from(OsString::from_vec(git_dir));
        repository.common_dir = PathBuf::from(OsString::from_vec(common_dir));
        repository.filters = filter_names(&config);
        repository.config = config;
        Ok(repository)
    }

    /// The working tree's top, absolute.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// Its working tree's name for people.
    fn shown(&self) -> String {
        escape::text(self.top.as_os_str().as_bytes())
    }

    /// The last value of a key, which is in lower case as git prints it.
    fn setting(&self, key: &str) -> Option<&[u8]> {
        let mut values = self.config.iter().rev();
        values
            .find(|(name, _)| name == key.as_bytes())
            .map(|(_, value)| value.as_slice())
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
            .kill_on_drop(true);
        // In the environment, since any name can be given there.
        let mut settings: Vec<(Vec<u8>, &str)> = [
            ("core.fsmonitor", "false"),
            ("core.hooksPath", "/dev/null"),
            ("core.quotePath", "false"),
            ("maintenance.auto", "false"),
            ("submodule.recurse", "false"),
        ]
        .map(|(key, value)| (key.as_bytes().to_vec(), value))
        .into();
        for filter in &self.filters {
            for (key, value) in [
                ("clean", ""),
                ("smudge", ""),
                ("process", ""),
                ("required", "false"),
            ] {
                settings.push((
                    [b"filter.", filter.as_slice(), b".", key.as_bytes()].concat(),
                    value,
                ));
            }
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (key, value)) in settings.into_iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{at}"), OsString::from_vec(key))
                .env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command
    }

    async fn read_config(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        // Exit code 1 tells that nothing matches.
        let output = self
            .command()
            .args(["config", "--null", "--get-regexp"])
            .arg("^(filter\\.|user\\.|core\\.|extensions\\.|remote\\..*\\.promisor$)")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| no_git(&error))?;
        Ok(output
            .stdout
            .split(|b| *b == 0)
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.iter().position(|b| *b == b'\n') {
                Some(at) => (entry[..at].to_vec(), entry[at + 1..].to_vec()),
                // A key alone means true.
                None => (entry.to_vec(), b"true".to_vec()),
            })
            .collect())
    }

    async fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        self.git_with(arguments, Vec::new()).await
    }

    /// Runs git with these bytes on its stdin.
    async fn git_with(&self, arguments: &[&str], stdin: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| no_git(&error))?;
        let input = child.stdin.take();
        let writing = async move {
            if let Some(mut input) = input {
                // Where git ends early, its exit code tells why.
                drop(input.write_all(&stdin).await);
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), writing);
        let output = output.map_err(|error| no_git(&error))?;
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

fn no_git(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Host, format!("can't run git: {error}"))
        .hint("`banger doctor` names the missing packages")
}

fn filter_names(config: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = config
        .iter()
        .filter_map(|(key, _)| {
            let rest = key.strip_prefix(b"filter.")?;
            let end = rest.iter().rposition(|b| *b == b'.')?;
            Some(rest[..end].to_vec())
        })
        .collect();
    names.sort();
    names.dedup();
    names
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
        let failure = empty.head().await.expect_err("refused");
        assert!(failure.message.contains("no commit"), "{failure:?}");
        git(dir.path(), &["init", "-q", "--bare", "bare"]).await;
        let failure = Repository::find(&dir.path().join("bare"))
            .await
            .expect_err("refused");
        assert!(failure.message.contains("working tree"), "{failure:?}");
    }
}
