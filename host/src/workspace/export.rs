//! The work of a guest on its way back.

use super::{KIND, Workspaces, guest_path};
use crate::guest_script::{self, ErrorTail};
use crate::ssh::ProcessEvent;
use crate::store::VmRecord;
use crate::task::Task;
use crate::vm::Guest;
use banger_core::frame::Frame;
use banger_core::protocol::workspace::{Export, ExportReply};
use banger_core::{Failure, Kind};

impl Workspaces {
    /// Describes the work in a guest and opens a stream with its patch.
    ///
    /// # Errors
    /// Where there is no working copy, or the base is no commit of it.
    pub async fn export(
        &self,
        vm: &VmRecord,
        request: &Export,
        task: &Task,
    ) -> Result<ExportReply, Failure> {
        let guest = self.machines.guest(vm).await?;
        match task
            .until_cancelled(self.export_from(&guest, request))
            .await
        {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.machines.explain(vm, failure).await),
        }
    }

    async fn export_from(&self, guest: &Guest, request: &Export) -> Result<ExportReply, Failure> {
        let plugin = self.registry.workspace(KIND)?;
        let path = guest_path(guest, request.guest_path.as_ref())?;
        let inspect = plugin
            .inspect(&path, request.base_commit.as_deref())
            .map_err(|error| wrong_base(error.into()))?;
        let output = guest_script::run(&guest.remote, &inspect).await?;
        let status = plugin
            .read_inspect(&output)
            .map_err(|error| wrong_base(error.into()))?;

        let script = plugin.export_patch(&path, &status.base)?;
        let mut process = guest_script::start(&guest.remote, &script).await?;
        process.stdin().write_all(script.stdin.into()).await?;
        process.stdin().close().await?;
        let patch = self.streams.open(move |mut connection| async move {
            let mut errors = ErrorTail::default();
            let end = loop {
                match process.output().next().await {
                    Some(ProcessEvent::Stdout(bytes)) => {
                        if connection.writer.write(Frame::Stdout(bytes)).await.is_err() {
                            return;
                        }
                    }
                    Some(ProcessEvent::Stderr(bytes)) => errors.push(&bytes),
                    Some(ProcessEvent::Exit(exit)) => match guest_script::exit_code(exit) {
                        Ok(0) => break Ok(0),
                        Ok(code) => break Err(errors.failure(code, "exporting")),
                        Err(failure) => break Err(failure),
                    },
                    None => return,
                }
            };
            connection.writer.finish(end).await;
        });
        Ok(ExportReply {
            base_ref: request.base_commit.clone().unwrap_or_else(|| "HEAD".into()),
            base_commit: status.base,
            head_commit: status.head,
            branch: status.branch,
            commits: status.commits,
            changes: status.changes,
            patch,
        })
    }
}

/// Tells where to look, where the plugin has not.
fn wrong_base(failure: Failure) -> Failure {
    if failure.kind == Kind::Invalid && failure.hint.is_empty() {
        failure.hint("--guest-path must name a working copy there, --base-commit a commit of it")
    } else {
        failure
    }
}
