//! The work of a guest on its way back.

use super::{KIND, Workspaces, guest_path};
use crate::guest_script::{self, ErrorTail};
use crate::ssh::{Bytes, Process, ProcessEvent};
use crate::store::VmRecord;
use crate::task::Task;
use crate::vm::Guest;
use banger_core::frame::Frame;
use banger_core::protocol::workspace::{
    Diff, EXPORT_LIMIT_BYTES, Export, ExportFormat, ExportReply, Prepared,
};
use banger_core::workspace::Status;
use banger_core::{Failure, GuestPath, Kind, Output};

/// Bytes of a report; the plugin that reads it takes no more.
pub(super) const REPORT_LIMIT: usize = 4 << 20;
/// Digits of a report's length.
const LENGTH_DIGITS: usize = 9;
/// How the plugin's script ends where the format can't carry the commits.
const UNFIT_FORMAT: u8 = 6;

/// What is wanted of a working copy.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) path: &'a GuestPath,
    pub(super) base: Option<&'a str>,
    pub(super) format: ExportFormat,
    pub(super) limit: u64,
}

/// Work that a guest sends, after the report on it.
pub(super) struct Outgoing {
    pub(super) status: Status,
    process: Process,
    errors: ErrorTail,
    /// What came together with the report.
    begun: Option<Bytes>,
    left: u64,
    limit: u64,
}

impl Outgoing {
    /// The next piece; `None` once all has come.
    ///
    /// # Errors
    /// Where the script fails, the connection is lost, or the guest sends more than it may.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(begun) = self.begun.take().filter(|begun| !begun.is_empty()) {
            return self.count(begun).map(Some);
        }
        loop {
            match self.process.output().next().await {
                Some(ProcessEvent::Stdout(bytes)) => return self.count(bytes).map(Some),
                Some(ProcessEvent::Stderr(bytes)) => self.errors.push(&bytes),
                Some(ProcessEvent::Exit(exit)) => {
                    return match guest_script::exit_code(exit)? {
                        0 => Ok(None),
                        code => Err(self.errors.failure(code, "exporting")),
                    };
                }
                None => return Err(cut_short()),
            }
        }
    }

    fn count(&mut self, bytes: Bytes) -> Result<Bytes, Failure> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                Ok(bytes)
            }
            None => Err(Failure::new(
                Kind::Invalid,
                format!("the guest's work is larger than {} bytes", self.limit),
            )
            .hint("--limit allows more; `banger vm workspace status` lists what there is")),
        }
    }
}

fn cut_short() -> Failure {
    Failure::new(
        Kind::Guest,
        "the export ended, and the guest did not say how",
    )
}

impl Workspaces {
    /// Describes the work in a guest and opens a stream with it.
    ///
    /// # Errors
    /// Where there is no working copy, or the base is no commit of it.
    pub async fn export(
        &self,
        vm: &VmRecord,
        request: &Export,
        task: &Task,
    ) -> Result<ExportReply, Failure> {
        let work = async {
            let guest = self.machines.guest(vm).await?;
            let path = guest_path(&guest, request.guest_path.as_ref())?;
            let recorded = self.store.workspaces(&vm.id)?;
            let recorded = recorded.into_iter().find(|one| one.guest_path == path);
            let wanted = Wanted {
                path: &path,
                base: request.base_commit.as_deref(),
                format: request.format,
                limit: request.limit_bytes.unwrap_or(EXPORT_LIMIT_BYTES),
            };
            let outgoing = self.outgoing(&guest, &wanted).await?;
            // From another base it may not be all.
            let of = recorded.filter(|recorded| {
                let status = &outgoing.status;
                recorded.head_commit == status.base && status.submodules.is_empty()
            });
            let base_ref = request.base_commit.clone().unwrap_or_else(|| "HEAD".into());
            Ok(self.stream(vm, base_ref, outgoing, of))
        };
        self.explained(vm, task.until_cancelled(work).await).await
    }

    /// A patch to look at.
    ///
    /// # Errors
    /// As [`Workspaces::export`]; where no base is given and nothing was put in there.
    pub async fn diff(
        &self,
        vm: &VmRecord,
        request: &Diff,
        task: &Task,
    ) -> Result<ExportReply, Failure> {
        let work = async {
            let guest = self.machines.guest(vm).await?;
            let (path, base) = match &request.base_commit {
                Some(base) => (
                    guest_path(&guest, request.guest_path.as_ref())?,
                    base.clone(),
                ),
                None => {
                    let recorded = self.recorded(vm, &guest, request.guest_path.as_ref())?;
                    (recorded.guest_path, recorded.head_commit)
                }
            };
            let wanted = Wanted {
                path: &path,
                base: Some(&base),
                format: ExportFormat::Patch,
                limit: request.limit_bytes.unwrap_or(EXPORT_LIMIT_BYTES),
            };
            let outgoing = self.outgoing(&guest, &wanted).await?;
            Ok(self.stream(vm, base, outgoing, None))
        };
        self.explained(vm, task.until_cancelled(work).await).await
    }

    /// Starts an export and reads its report.
    ///
    /// # Errors
    /// Where there is no working copy, no such base, or the format can't carry the work.
    pub(super) async fn outgoing(
        &self,
        guest: &Guest,
        wanted: &Wanted<'_>,
    ) -> Result<Outgoing, Failure> {
        let plugin = self.registry.workspace(KIND)?;
        let script = plugin
            .export(wanted.path, wanted.base, wanted.format)
            .map_err(|error| wrong_base(error.into()))?;
        let mut process = guest_script::start(&guest.remote, &script).await?;
        process.stdin().write_all(script.stdin.into()).await?;
        process.stdin().close().await?;
        let mut errors = ErrorTail::default();
        let mut came = Vec::new();
        let end = loop {
            if let Some(end) = report_end(&came)?
                && came.len() >= end.1
            {
                break end;
            }
            match process.output().next().await {
                Some(ProcessEvent::Stdout(bytes)) => came.extend_from_slice(&bytes),
                Some(ProcessEvent::Stderr(bytes)) => errors.push(&bytes),
                Some(ProcessEvent::Exit(exit)) => {
                    let code = guest_script::exit_code(exit)?;
                    let mut failure = errors.failure(code, "exporting");
                    match code {
                        UNFIT_FORMAT => {
                            failure.kind = Kind::Conflict;
                            failure = failure.hint("--format bundle brings any commits");
                        }
                        0 => return Err(cut_short()),
                        // What `inspect` refuses in the same words.
                        3 => {
                            failure.kind = Kind::Invalid;
                            failure = wrong_base(failure);
                        }
                        _ => {}
                    }
                    return Err(failure);
                }
                None => return Err(cut_short()),
            }
        };
        let begun = came.split_off(end.1);
        let status = plugin.read_inspect(&Output {
            exit_code: 0,
            stdout: came.split_off(end.0),
            stderr: Vec::new(),
        })?;
        Ok(Outgoing {
            status,
            process,
            errors,
            begun: Some(begun.into()),
            left: wanted.limit,
            limit: wanted.limit,
        })
    }

    /// Hands the work to a client. Once that says that it has it, it counts as exported.
    fn stream(
        &self,
        vm: &VmRecord,
        base_ref: String,
        mut outgoing: Outgoing,
        of: Option<Prepared>,
    ) -> ExportReply {
        let status = outgoing.status.clone();
        let (store, id) = (self.store.clone(), vm.id.clone());
        let (tree, head) = (status.tree.clone(), status.head.clone());
        let patch = self.streams.open(move |mut connection| async move {
            let end = loop {
                match outgoing.next().await {
                    Ok(Some(bytes)) => {
                        if connection.writer.write(Frame::Stdout(bytes)).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break Ok(0),
                    Err(failure) => break Err(failure),
                }
            };
            let whole = end.is_ok();
            connection.writer.finish(end).await;
            let Some(prepared) = of.filter(|_| whole) else {
                return;
            };
            if connection.reader.next().await == Some(Frame::StdinEnd)
                && let Err(error) = store.mark_exported(&id, &prepared, &tree, head.as_deref())
            {
                tracing::warn!(%error, "an export can't be recorded");
            }
        });
        ExportReply {
            base_ref,
            base_commit: status.base,
            head_commit: status.head,
            branch: status.branch,
            commits: status.commits,
            tree: status.tree,
            changes: status.changes,
            more: status.more,
            submodules: status.submodules,
            patch,
        }
    }
}

/// Where the report begins and ends, once its length has come.
fn report_end(came: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let damaged = || Failure::new(Kind::Guest, "the guest's report on the export is damaged");
    let head = came
        .get(..came.len().min(LENGTH_DIGITS + 1))
        .unwrap_or(came);
    let Some(line) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() > LENGTH_DIGITS {
            Err(damaged())
        } else {
            Ok(None)
        };
    };
    let length = std::str::from_utf8(head.get(..line).unwrap_or_default())
        .ok()
        .and_then(|digits| digits.trim_start().parse::<usize>().ok())
        .filter(|length| *length <= REPORT_LIMIT)
        .ok_or_else(damaged)?;
    Ok(Some((line + 1, line + 1 + length)))
}

/// Tells where to look, where the plugin has not.
pub(super) fn wrong_base(failure: Failure) -> Failure {
    if failure.kind == Kind::Invalid && failure.hint.is_empty() {
        failure.hint("--guest-path must name a working copy there, --base-commit a commit of it")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_or_refused() {
        assert_eq!(report_end(b"12").expect("goes on"), None);
        assert_eq!(report_end(b"12\nab").expect("known"), Some((3, 15)));
        assert_eq!(report_end(b"  0\n").expect("known"), Some((4, 4)));
        for bad in [&b"x\n"[..], b"-1\n", b"\n", b"0123456789", b"99999999\n"] {
            assert!(report_end(bad).is_err(), "{bad:?}");
        }
    }
}
