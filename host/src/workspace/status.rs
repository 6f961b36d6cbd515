//! What is in a guest's working copy, and whether it is known elsewhere too.

use super::export::wrong_base;
use super::{KIND, Workspaces};
use crate::guest_script;
use crate::store::VmRecord;
use crate::task::Task;
use crate::vm::Guest;
use banger_core::Failure;
use banger_core::protocol::workspace::{Prepared, WorkspaceRef, WorkspaceStatus};
use banger_core::workspace::Status;
use std::time::Duration;

/// How long a guest that is about to be stopped may take to tell what is in its working copies.
const LAST_LOOK: Duration = Duration::from_secs(10);

impl Workspaces {
    /// Compares a working copy with what was put in.
    ///
    /// # Errors
    /// Where nothing was put in there, or the guest can't tell.
    pub async fn status(
        &self,
        vm: &VmRecord,
        request: &WorkspaceRef,
        task: &Task,
    ) -> Result<WorkspaceStatus, Failure> {
        let work = async {
            let guest = self.machines.guest(vm).await?;
            let recorded = self.recorded(vm, &guest, request.guest_path.as_ref())?;
            let status = self.inspected(&guest, &recorded).await?;
            Ok(WorkspaceStatus {
                unexported: is_unexported(&recorded, &status),
                path: recorded.path,
                guest_path: recorded.guest_path,
                base_commit: status.base,
                head_commit: status.head,
                branch: status.branch,
                commits: status.commits,
                tree: status.tree,
                changes: status.changes,
                more: status.more,
                submodules: status.submodules,
            })
        };
        self.explained(vm, task.until_cancelled(work).await).await
    }

    /// Asks the guest, compared with the recorded head.
    ///
    /// # Errors
    /// Where it can't tell.
    pub(super) async fn inspected(
        &self,
        guest: &Guest,
        recorded: &Prepared,
    ) -> Result<Status, Failure> {
        let plugin = self.registry.workspace(KIND)?;
        let script = plugin
            .inspect(&recorded.guest_path, Some(&recorded.head_commit))
            .map_err(|error| wrong_base(error.into()))?;
        let output =
            guest_script::run_to(&guest.remote, &script, super::export::REPORT_LIMIT).await?;
        plugin
            .read_inspect(&output)
            .map_err(|error| wrong_base(error.into()))
    }

    /// Notes what is in a machine's working copies before it is stopped: a machine that is
    /// stopped can't be asked. Nothing here fails.
    pub async fn note_before_stop(&self, vm: &VmRecord) {
        if vm.adopted.is_some() {
            return;
        }
        let look = async {
            let mut told = Vec::new();
            let Ok(guest) = self.machines.guest(vm).await else {
                return told;
            };
            for recorded in self.store.workspaces(&vm.id).unwrap_or_default() {
                if let Ok(status) = self.inspected(&guest, &recorded).await {
                    let unexported = is_unexported(&recorded, &status);
                    told.push((recorded.guest_path, unexported));
                }
            }
            told
        };
        // A guest that does not answer soon is one whose work is not known.
        let told = tokio::time::timeout(LAST_LOOK, look)
            .await
            .unwrap_or_default();
        let noted = self.store.change_workspaces(&vm.id, |record| {
            record.unexported_at_stop = told
                .iter()
                .find(|(path, _)| *path == record.guest_path)
                .map(|(_, unexported)| *unexported);
        });
        if let Err(error) = noted {
            tracing::warn!(vm = %vm.name, %error, "what is in a machine can't be noted");
        }
    }

    /// Forgets that, since a machine that runs may change it.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn forget_note(&self, vm: &VmRecord) -> Result<(), Failure> {
        Ok(self
            .store
            .change_workspaces(&vm.id, |record| record.unexported_at_stop = None)?)
    }
}

/// Whether a working copy holds what is neither what was put in nor what was last exported.
pub(super) fn is_unexported(recorded: &Prepared, now: &Status) -> bool {
    let head = now.head.as_deref();
    let at_prepared_head = head == Some(recorded.head_commit.as_str()) || head.is_none();
    let as_prepared = match &recorded.prepared_tree {
        Some(tree) => *tree == now.tree,
        None => now.changes.is_empty() && !now.more,
    };
    let as_exported = recorded.exported_tree.as_deref() == Some(now.tree.as_str())
        && recorded.exported_head.as_deref() == head;
    // What is in submodules is in no tree of the superproject.
    !now.submodules.is_empty() || !(at_prepared_head && as_prepared || as_exported)
}
