//! Work that would be lost is saved on the host first.
//!
//! Whoever is about to remove a working copy asks here. Where nobody can say that all work is known
//! elsewhere, and it can't be saved either, the answer is a failure, never silence.

use super::Workspaces;
use super::export::{Outgoing, Wanted};
use super::status::is_unexported;
use crate::store::VmRecord;
use crate::task::{Task, now_ms};
use crate::vm::Guest;
use banger_core::protocol::workspace::{EXPORT_LIMIT_BYTES, ExportFormat, Prepared, Saved};
use banger_core::workspace::{Status, empty_tree};
use banger_core::{ByteString, Failure, GuestPath, Kind, escape};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How deep submodules are followed, and how many files one machine may cause.
const DEPTH_LIMIT: u32 = 8;
const SAVED_LIMIT: usize = 100;

impl Workspaces {
    /// Saves what a machine's working copies hold and nobody else has.
    ///
    /// # Errors
    /// Kind `Conflict` where there may be such work and it can't be saved. What was saved until
    /// then stays.
    pub async fn save_all(&self, vm: &VmRecord, task: &Task) -> Result<Vec<Saved>, Failure> {
        // An adopted host stays as it is.
        let workspaces = match &vm.adopted {
            Some(_) => Vec::new(),
            None => self.store.workspaces(&vm.id)?,
        };
        if workspaces.is_empty() || !vm.complete {
            return Ok(Vec::new());
        }
        if !self.machines.is_running(vm).await? {
            return match workspaces
                .iter()
                .find(|one| one.unexported_at_stop != Some(false))
            {
                None => Ok(Vec::new()),
                Some(at) => Err(not_saved(
                    vm,
                    &at.guest_path,
                    match at.unexported_at_stop {
                        Some(_) => "it did when the machine was stopped",
                        None => "it was not stopped by banger, or could not be asked then",
                    },
                )
                .hint(format!(
                    "`banger vm start {0}`, then delete it again or export the work; or \
                     `banger vm delete --discard {0}`",
                    vm.name
                ))),
            };
        }
        let mut saved = Vec::new();
        for recorded in workspaces {
            let one = async {
                let guest = self.machines.guest(vm).await?;
                self.save(vm, &guest, &recorded, task).await
            };
            match task.until_cancelled(one).await {
                Ok(one) => saved.extend(one),
                Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
                Err(failure) => {
                    return Err(not_saved(vm, &recorded.guest_path, &failure.message)
                        .detail(failure.detail.as_bytes())
                        .hint(format!(
                            "export it yourself, or `banger vm delete --discard {}`",
                            vm.name
                        )));
                }
            }
        }
        Ok(saved)
    }

    /// Saves what the working copy at a place holds and nobody else has, before it is replaced.
    ///
    /// # Errors
    /// Kind `Conflict` where there may be such work and it can't be saved.
    pub(super) async fn save_at(
        &self,
        vm: &VmRecord,
        guest: &Guest,
        path: &GuestPath,
        task: &Task,
    ) -> Result<Vec<Saved>, Failure> {
        let recorded = self.store.workspaces(&vm.id)?;
        // What banger did not put there has no base that an export could be from.
        let Some(recorded) = recorded.into_iter().find(|one| one.guest_path == *path) else {
            return Ok(Vec::new());
        };
        match self.save(vm, guest, &recorded, task).await {
            Err(failure) if failure.kind != Kind::Cancelled => {
                Err(not_saved(vm, path, &failure.message)
                    .detail(failure.detail.as_bytes())
                    .hint("export it yourself, or add --discard to give it up"))
            }
            saved => saved,
        }
    }

    /// Saves a working copy and the submodules in it that have work of their own.
    async fn save(
        &self,
        vm: &VmRecord,
        guest: &Guest,
        recorded: &Prepared,
        task: &Task,
    ) -> Result<Vec<Saved>, Failure> {
        task.progress(
            "save",
            format!("looking for work in {}", recorded.guest_path),
        );
        let mut saved = Vec::new();
        let known = |status: &Status| !is_unexported(recorded, status);
        let mut left = vec![(
            recorded.guest_path.clone(),
            Some(recorded.head_commit.clone()),
            0,
        )];
        while let Some((path, base, depth)) = left.pop() {
            // The guest names them: there may be no end of it.
            if depth > DEPTH_LIMIT || saved.len() > SAVED_LIMIT {
                return Err(Failure::new(
                    Kind::Guest,
                    "there are more submodules with work of their own than banger follows",
                ));
            }
            let wanted = Wanted {
                path: &path,
                base: base.as_deref(),
                format: ExportFormat::Bundle,
                limit: EXPORT_LIMIT_BYTES,
            };
            let always = |_: &Status| false;
            let known: &(dyn Fn(&Status) -> bool + Sync) =
                if depth == 0 { &known } else { &always };
            let one = match self.save_as(vm, guest, &wanted, known).await {
                // Such as a repository whose history is damaged: the files may be whole.
                Err(failure) if matches!(failure.kind, Kind::Guest | Kind::Conflict) => {
                    tracing::warn!(vm = %vm.name, %failure, "work is saved as a patch, not as a bundle");
                    let wanted = Wanted {
                        format: ExportFormat::Patch,
                        ..wanted
                    };
                    self.save_as(vm, guest, &wanted, known).await
                }
                one => one,
            };
            let (one, status) = one?;
            saved.extend(one);
            for submodule in status.submodules {
                let below =
                    GuestPath::try_from([path.as_bytes(), b"/", submodule.path.as_ref()].concat())
                        .map_err(|error| Failure::from_error(Kind::Guest, &error))?;
                // Where the base has none, all of it is new.
                let base = submodule
                    .base
                    .unwrap_or_else(|| empty_tree(&status.base).into());
                left.push((below, Some(base), depth + 1));
            }
        }
        Ok(saved)
    }

    /// `known` says whether a state is known elsewhere.
    async fn save_as(
        &self,
        vm: &VmRecord,
        guest: &Guest,
        wanted: &Wanted<'_>,
        known: &(dyn Fn(&Status) -> bool + Sync),
    ) -> Result<(Option<Saved>, Status), Failure> {
        let mut outgoing = self.outgoing(guest, wanted).await?;
        if known(&outgoing.status) {
            return Ok((None, outgoing.status));
        }
        let file = self.saved_file(vm, wanted.format);
        let bytes = write_whole(&mut outgoing, &file).await?;
        let status = outgoing.status;
        let saved = (bytes > 0).then(|| Saved {
            guest_path: wanted.path.clone(),
            file: ByteString(file.as_os_str().as_bytes().to_vec()),
            format: wanted.format,
            base_commit: status.base.clone(),
            bytes,
        });
        Ok((saved, status))
    }

    fn saved_file(&self, vm: &VmRecord, format: ExportFormat) -> PathBuf {
        let ending = match format {
            ExportFormat::Patch => "patch",
            ExportFormat::Mbox => "mbox",
            ExportFormat::Bundle => "bundle",
        };
        let (directory, now) = (self.dirs.saved(), now_ms());
        // Several may come within a millisecond.
        (0_u32..)
            .map(|number| match number {
                0 => directory.join(format!("{}-{now}.{ending}", vm.name)),
                _ => directory.join(format!("{}-{now}-{number}.{ending}", vm.name)),
            })
            .find(|path| !path.exists())
            .unwrap_or(directory)
    }
}

fn not_saved(vm: &VmRecord, path: &GuestPath, why: &str) -> Failure {
    Failure::new(
        Kind::Conflict,
        format!(
            "`{path}` in `{}` may hold work that was not exported, and it can't be saved: {}",
            vm.name,
            why.trim_end_matches('.')
        ),
    )
}

/// Writes an export into a file that appears when it is whole. An export of nothing makes none.
///
/// # Errors
/// The export's, or where the file can't be written.
pub(super) async fn write_whole(outgoing: &mut Outgoing, path: &Path) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| {
        let shown = escape::text(path.as_os_str().as_bytes());
        Failure::new(Kind::Host, format!("can't write `{shown}`: {error}"))
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new()
        .prefix(".part-")
        .tempfile_in(directory)
        .map_err(failed)?;
    let mut bytes = 0_u64;
    while let Some(piece) = outgoing.next().await? {
        draft.write_all(&piece).map_err(failed)?;
        bytes += piece.len() as u64;
    }
    if bytes == 0 {
        return Ok(0);
    }
    let synced = tokio::task::spawn_blocking(move || draft.as_file().sync_all().map(|()| draft));
    let draft = synced
        .await
        .map_err(|error| Failure::from_error(Kind::Internal, &error))?
        .map_err(failed)?;
    draft
        .persist_noclobber(path)
        .map_err(|error| failed(error.error))?;
    Ok(bytes)
}
