//! The repository of the demo: this project itself, changed on the host, then in the guest.

use super::steps::{Steps, git};
use crate::project::Project;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// What the session does: a commit with a binary file, and on top of it changes that are staged,
/// not staged, and not tracked.
pub const GUEST_WORK: &str = "\
cd /root/repo
echo \"A line from the guest.\" >> Cargo.toml
head -c 65536 /dev/urandom > picture.bin
git add -A
git -c user.name=Guest -c user.email=guest@example.invalid commit -q -m \"Work done in the guest\"
git mv rust-toolchain.toml \"renamed in the guest.toml\"
echo \"Staged, on top of the commit.\" >> LICENSE-MIT
git add LICENSE-MIT
echo \"Neither staged nor committed.\" >> Cargo.toml
mkdir -p notes
echo \"Not tracked at all.\" > \"notes/a new file.txt\"
head -c 1000 /dev/urandom > notes/new.bin
git log --oneline -n 1 --stat
git status --short
";

/// Prints the hash of the guest's working tree, without touching its index.
pub const GUEST_TREE: &str = "cd /root/repo && cp .git/index /tmp/demo-index && \
    export GIT_INDEX_FILE=/tmp/demo-index && git add -A && git write-tree";

/// Makes `repo`, with changes that are not committed. Returns its head.
pub fn make(project: &Project, steps: &mut Steps<'_>) -> Result<String> {
    let root = project.root.to_string_lossy().into_owned();
    if has_commits(&project.root) {
        steps.git(&["clone", "--quiet", "--no-local", &root, "repo"])?;
    } else {
        // An unpacked archive: its files become the first commit.
        steps.git(&["init", "--quiet", "repo"])?;
        let outside = ["--git-dir=repo/.git", &format!("--work-tree={root}")];
        steps.git(&[&outside[..], &["add", "--all"]].concat())?;
        steps.git(&[&outside[..], &["commit", "--quiet", "-m", "This project"]].concat())?;
        steps.git(&["-C", "repo", "reset", "--quiet", "--hard"])?;
    }
    let repo = steps.work().join("repo");
    append(&repo.join(".gitignore"), "# changed, not staged\n")?;
    append(&repo.join("Cargo.lock"), "# changed and staged\n")?;
    append(&repo.join("not tracked yet.txt"), "not tracked\n")?;
    append(&repo.join("target/ignored"), "ignored: stays here\n")?;
    std::fs::remove_file(repo.join("deny.toml")).context("can't remove repo/deny.toml")?;
    steps.git(&["-C", "repo", "add", "Cargo.lock"])?;
    steps.git(&["-C", "repo", "status", "--short"])?;
    steps.git_output("make the repository", &["-C", "repo", "rev-parse", "HEAD"])
}

/// Applies `work.patch` at `head` in a fresh clone. Returns the hash of the tree.
pub fn apply(steps: &mut Steps<'_>, head: &str) -> Result<String> {
    steps.git(&["clone", "--quiet", "--no-local", "repo", "applied"])?;
    steps.git(&["-C", "applied", "checkout", "--quiet", "--detach", head])?;
    steps.git(&["-C", "applied", "apply", "--index", "../work.patch"])?;
    steps.git(&["-C", "applied", "status", "--short"])?;
    steps.git_output("compare the trees", &["-C", "applied", "write-tree"])
}

/// Whether `root` is the top of a repository that has a commit.
fn has_commits(root: &Path) -> bool {
    let mut command: Command = git();
    command
        .current_dir(root)
        .args(["rev-parse", "--show-toplevel", "HEAD^{commit}"]);
    let Ok(output) = command.output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let top = text.lines().next().map(Path::new);
    output.status.success()
        && top.is_some_and(|top| top.canonicalize().ok() == root.canonicalize().ok())
}

fn append(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("can't create {}", parent.display()))?;
    }
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("can't open {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}
