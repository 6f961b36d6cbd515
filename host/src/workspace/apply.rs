//! The work of a guest as a new branch of the user's repository.
//!
//! The checkout, the index and HEAD are not touched, and no file is written but git's own objects
//! and the branch: there is no worktree in which content of a guest could be checked out.

use super::Workspaces;
use super::export::Wanted;
use super::saved::write_whole;
use crate::quarantine::{Merge, Quarantine, conflict};
use crate::repository::Repository;
use crate::store::VmRecord;
use crate::task::Task;
use banger_core::protocol::workspace::{
    Applied, Apply, EXPORT_LIMIT_BYTES, ExportFormat, Prepared,
};
use banger_core::workspace::{Status, empty_tree};
use banger_core::{ByteString, Failure, Kind, escape};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// What has been fetched and examined, and can be given to the user's repository.
struct Examined {
    quarantine: Quarantine,
    repository: Repository,
    recorded: Prepared,
    status: Status,
    branch: String,
    /// HEAD of the user's repository, where there is a commit.
    head: Option<String>,
    /// The guest's work, and what the branch is to be; none where there is nothing to apply.
    commits: Option<Commits>,
}

struct Commits {
    work: String,
    result: String,
}

impl Workspaces {
    /// Brings the work into the user's repository as a new branch.
    ///
    /// # Errors
    /// Where there is such a branch, the work does not merge, or it is not sound. The repository
    /// is as it was then; where only making the branch failed, it has objects more that no ref
    /// leads to.
    pub async fn apply(
        &self,
        vm: &VmRecord,
        request: &Apply,
        task: &Task,
    ) -> Result<Applied, Failure> {
        let examined = task
            .until_cancelled(self.examine_work(vm, request, task))
            .await;
        let examined = self.explained(vm, examined).await?;
        // From here on nobody interrupts: git would leave a part of a pack behind.
        task.check()?;
        let Examined {
            quarantine,
            repository,
            recorded,
            status,
            branch,
            head,
            commits,
        } = examined;
        let made = match &commits {
            Some(commits) if !request.check => {
                let has: Vec<&str> = [Some(status.base.as_str()), head.as_deref()]
                    .into_iter()
                    .flatten()
                    .filter(|id| *id != empty_tree(id))
                    .collect();
                quarantine
                    .hand_over(&repository, &commits.result, &has)
                    .await?;
                make_branch(&repository, &branch, &commits.result, vm).await?;
                true
            }
            _ => false,
        };
        if !request.check
            && status.submodules.is_empty()
            && let Err(error) =
                self.store
                    .mark_exported(&vm.id, &recorded, &status.tree, status.head.as_deref())
        {
            tracing::warn!(%error, "an export can't be recorded");
        }
        let uncommitted = commits
            .as_ref()
            .is_some_and(|commits| status.head.as_deref() != Some(commits.work.as_str()));
        let merged_into = commits
            .as_ref()
            .filter(|commits| commits.result != commits.work)
            .and(head.clone());
        let mut notes = notes(
            &recorded,
            &commits,
            head.as_deref(),
            request.three_way,
            uncommitted,
        );
        notes.extend(status.submodules.iter().map(|submodule| {
            format!(
                "the submodule {} has work of its own, which does not come along: \
                 `banger vm workspace status` says how to export it",
                submodule.path
            )
        }));
        Ok(Applied {
            path: ByteString(repository.top().as_os_str().as_bytes().to_vec()),
            branch: made.then_some(branch),
            commit: commits.map(|commits| commits.result),
            base_commit: status.base,
            merged_into,
            commits: status.commits,
            uncommitted,
            changes: status.changes,
            more: status.more,
            submodules: status.submodules,
            notes,
        })
    }

    /// Everything that changes nothing.
    async fn examine_work(
        &self,
        vm: &VmRecord,
        request: &Apply,
        task: &Task,
    ) -> Result<Examined, Failure> {
        let guest = self.machines.guest(vm).await?;
        let recorded = self.recorded(vm, &guest, request.guest_path.as_ref())?;
        let path = request.path.as_ref().unwrap_or(&recorded.path);
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.0.clone()));
        let repository = Repository::find(&path).await?;
        let branch = match &request.branch {
            Some(branch) => branch.clone(),
            None => format!("banger/{}", vm.name),
        };
        check_branch(&repository, &branch).await?;
        let head = repository
            .git_line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .await
            .ok()
            .map(|line| String::from_utf8_lossy(&line).into_owned());
        let base = &recorded.head_commit;
        if base != empty_tree(base) {
            let object = format!("{base}^{{commit}}");
            let known = repository.git_line(&["cat-file", "-e", &object]).await;
            known.map_err(|_| {
                Failure::new(
                    Kind::Conflict,
                    format!(
                        "`{}` does not have the commit {base}, which was put in",
                        escape::text(repository.top().as_os_str().as_bytes())
                    ),
                )
                .hint("`banger vm workspace export` brings the work as a patch")
            })?;
        }

        let quarantine = Quarantine::open(&repository, &self.dirs.quarantine()).await?;
        task.progress("workspace", "fetching the work");
        let limit = request.limit_bytes.unwrap_or(EXPORT_LIMIT_BYTES);
        let wanted = Wanted {
            path: &recorded.guest_path,
            base: Some(base),
            format: ExportFormat::Bundle,
            limit,
        };
        let mut outgoing = self.outgoing(&guest, &wanted).await?;
        let bundle = quarantine.bundle();
        let fetched = write_whole(&mut outgoing, &bundle).await?;
        let status = outgoing.status;
        let mut examined = Examined {
            quarantine,
            repository,
            recorded,
            status,
            branch,
            head,
            commits: None,
        };
        if fetched == 0 {
            return Ok(examined);
        }
        task.progress("workspace", "examining it");
        let quarantine = &examined.quarantine;
        let work = quarantine.receive(&bundle, limit).await?;
        let tree = quarantine.resolve(&format!("{work}^{{tree}}")).await?;
        if tree != examined.status.tree {
            return Err(Failure::new(
                Kind::Guest,
                "the guest's bundle holds something else than its report says",
            ));
        }
        let result = match &examined.head {
            Some(head) if request.three_way => {
                task.progress("workspace", "merging");
                let (name, email) = identity(&examined.repository).await;
                let message = format!("Merge the work of {}", vm.name);
                match quarantine
                    .merge(head, &work, (&name, &email), &message)
                    .await?
                {
                    Merge::Commit(commit) => commit,
                    Merge::Conflicts(paths) => return Err(conflict(&paths, head)),
                }
            }
            _ => work.clone(),
        };
        examined.commits = Some(Commits { work, result });
        Ok(examined)
    }
}

fn notes(
    recorded: &Prepared,
    commits: &Option<Commits>,
    head: Option<&str>,
    three_way: bool,
    uncommitted: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if commits.is_none() {
        return notes;
    }
    let went_in = recorded.files_laid_over + recorded.files_deleted;
    if went_in > 0 {
        notes.push(format!(
            "{went_in} file(s) went in uncommitted; what they still differ in is on the branch too{}",
            if uncommitted {
                ", in its last commit unless the guest committed it"
            } else {
                ""
            }
        ));
    }
    if !three_way && head.is_some_and(|head| head != recorded.head_commit) {
        notes.push(format!(
            "the branch begins at {}, which was put in; HEAD here is another commit by now",
            recorded.head_commit.get(..12).unwrap_or_default()
        ));
    }
    notes
}

/// Whether a branch of that name can be made, and would be nobody's HEAD.
async fn check_branch(repository: &Repository, branch: &str) -> Result<(), Failure> {
    let shown = escape::text(branch.as_bytes());
    let valid = repository
        .git_line(&["check-ref-format", "--branch", branch])
        .await;
    if valid.ok().as_deref() != Some(branch.as_bytes()) {
        return Err(
            Failure::new(Kind::Invalid, format!("`{shown}` can't be a branch's name"))
                .hint("name another with --branch"),
        );
    }
    let name = format!("refs/heads/{branch}");
    let taken = |message: String| {
        Failure::new(Kind::Conflict, message).hint("name another with --branch, or delete that one")
    };
    if repository
        .git_line(&["show-ref", "--verify", "--quiet", &name])
        .await
        .is_ok()
    {
        return Err(taken(format!("there is a branch `{shown}` already")));
    }
    // A branch without a commit may be checked out all the same.
    let worktrees = repository
        .git_line(&["worktree", "list", "--porcelain", "-z"])
        .await?;
    let line = format!("branch {name}");
    if worktrees
        .split(|byte| *byte == 0)
        .any(|field| field == line.as_bytes())
    {
        return Err(taken(format!("the branch `{shown}` is checked out")));
    }
    Ok(())
}

async fn make_branch(
    repository: &Repository,
    branch: &str,
    commit: &str,
    vm: &VmRecord,
) -> Result<(), Failure> {
    let name = format!("refs/heads/{branch}");
    let message = format!("banger: the work of {}", vm.name);
    // No commit: it must not be there yet.
    let none = "0".repeat(commit.len());
    repository
        .git_line(&["update-ref", "-m", &message, &name, commit, &none])
        .await
        .map(drop)
        .map_err(|failure| {
            let shown = escape::text(branch.as_bytes());
            Failure {
                kind: Kind::Conflict,
                message: format!("the branch `{shown}` can't be made"),
                ..failure
            }
            .hint("name another with --branch; objects that were brought are removed by `git gc`")
        })
}

/// Who merges: as the user's git would say.
async fn identity(repository: &Repository) -> (String, String) {
    let value = async |key: &str, otherwise: &str| {
        let value = repository.git_line(&["config", "--get", key]).await;
        match value {
            Ok(value) if !value.is_empty() => String::from_utf8_lossy(&value).into_owned(),
            _ => otherwise.to_owned(),
        }
    };
    (
        value("user.name", "banger").await,
        value("user.email", "banger@localhost").await,
    )
}
