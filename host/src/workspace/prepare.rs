//! A repository on its way into a guest.

use super::meter::Meter;
use super::{KIND, Workspaces, guest_path};
use crate::guest_script::{self, ErrorTail};
use crate::plugin::{Existing, ReceiveRequest, Transport};
use crate::repository::{
    PARTIAL, Part, References, Repository, Scan, ScanOptions, Snapshot, SnapshotError, Stop,
};
use crate::ssh::ProcessEvent;
use crate::store::VmRecord;
use crate::task::{Task, now_ms};
use crate::vm::Guest;
use banger_core::protocol::workspace::{Prepare, PrepareMode, Prepared};
use banger_core::{ByteString, Failure, GuestPath, Kind, Script};
use sha2::{Digest as _, Sha256};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Commits of history that the default mode brings.
const SHALLOW_DEPTH: u32 = 50;
/// Bytes carried at once.
const CHUNK: usize = 64 << 10;
/// How often a repository that changes while it is read is read again.
const ATTEMPTS: u32 = 3;

impl Workspaces {
    /// Puts a repository into a guest.
    ///
    /// # Errors
    /// Where the repository can't be read, or the guest refuses. The guest's working copy is then as
    /// it was.
    pub async fn prepare(
        &self,
        vm: &VmRecord,
        request: &Prepare,
        task: &Task,
    ) -> Result<Prepared, Failure> {
        let repository = self.examine(request).await?;
        let guest = self.machines.guest(vm).await?;
        let path = guest_path(&guest, request.guest_path.as_ref())?;
        let lock = self.lock(&vm.id, &path);
        let work = async {
            let _one_at_a_time = lock.lock().await;
            let saved = if request.force && !request.discard {
                self.save_at(vm, &guest, &path, task).await?
            } else {
                Vec::new()
            };
            let prepared = Prepared {
                saved,
                ..self
                    .prepare_in(vm, &guest, &path, &repository, request, task)
                    .await?
            };
            self.store.put_workspace(&vm.id, &prepared)?;
            Ok(prepared)
        };
        match task.until_cancelled(work).await {
            Ok(prepared) => Ok(prepared),
            Err(failure) => Err(self.machines.explain(vm, failure).await),
        }
    }

    async fn prepare_in(
        &self,
        vm: &VmRecord,
        guest: &Guest,
        path: &GuestPath,
        repository: &Repository,
        request: &Prepare,
        task: &Task,
    ) -> Result<Prepared, Failure> {
        let plugin = self.registry.workspace(KIND)?;
        let Transport::GitUploadPack = plugin.info().transport;
        let kept = self.kept_snapshot(vm, path);
        let ready = crate::session::preflight::check(
            &self.registry,
            guest,
            &guest.home,
            b"bash",
            &plugin.info().needs,
        );
        let options = scan_options(request);
        let (scanned, ready) = tokio::join!(take(repository, &options, &kept, task), ready);
        ready?;
        let (mut scan, snapshot) = scanned?;
        let partial = scan.parts.iter().any(|part| part.repository.is_partial());

        let recorded = self.store.workspaces(&vm.id)?;
        let exported = recorded
            .into_iter()
            .find(|one| one.guest_path == *path)
            .and_then(|one| one.exported_tree)
            .filter(|tree| tree.len() == snapshot.id.len());
        let script = plugin.receive(&ReceiveRequest {
            path: path.clone(),
            snapshot: snapshot.id.clone(),
            object_format: scan.object_format.clone(),
            depth: match request.mode {
                // What is checked out is there; of the history it may not be.
                PrepareMode::ShallowOverlay if partial => Some(1),
                PrepareMode::ShallowOverlay => Some(SHALLOW_DEPTH),
                PrepareMode::FullCopy => None,
            },
            branch: request.branch.clone(),
            origin: origin(repository, request.mode),
            existing: if request.force {
                Existing::Overwrite
            } else {
                Existing::Keep
            },
            exported,
        })?;
        task.progress("workspace", "sending the repository");
        let mut meter = Meter::new(task, "sending the repository");
        let limit = script.timeout;
        guest_script::within(limit, receive_from(script, guest, &snapshot, &mut meter))
            .await
            .map_err(|failure| {
                let hint = match failure.kind {
                    Kind::Conflict => {
                        "`banger vm workspace export` brings the work home; --force overwrites \
                         what is there, and --guest-path chooses another place"
                    }
                    Kind::Guest if partial => {
                        return Failure::new(
                            Kind::Invalid,
                            "objects of the repository are missing here, and are not fetched",
                        )
                        .detail(failure.detail.as_bytes())
                        .stage("workspace-receive")
                        .hint(PARTIAL);
                    }
                    _ => "",
                };
                failure.stage("workspace-receive").hint(hint)
            })?;
        let prepared_tree = snapshot.working_tree().await;
        // Without it the next time only takes longer.
        if let Err(failure) = snapshot.keep(&kept) {
            tracing::warn!(vm = %vm.name, %failure, "a snapshot is not kept");
        }
        if partial && request.mode == PrepareMode::ShallowOverlay {
            scan.notes.push(
                "it is a partial clone: of its history only the last commit comes along".into(),
            );
        }
        let sum = |count: fn(&Part) -> u64| scan.parts.iter().map(count).sum();
        let top = scan.parts.first();
        // Ignored files that came along are in no tree of the guest's: what becomes of them can't be
        // told, so that they stay at stake.
        let is_converted = scan.is_converted && request.include_ignored.is_empty();
        let mut prepared = Prepared {
            path: ByteString(repository.top().as_os_str().as_bytes().to_vec()),
            guest_path: path.clone(),
            kind: KIND.into(),
            mode: request.mode,
            head_commit: top.map(|top| top.head.clone()).unwrap_or_default(),
            branch: request
                .branch
                .clone()
                .or_else(|| top.and_then(|top| top.branch.clone())),
            files_laid_over: sum(|part| part.changed),
            files_deleted: sum(|part| part.deleted),
            files_staged: sum(|part| part.staged),
            submodules: scan.parts.len().saturating_sub(1) as u64,
            bytes_sent: meter.bytes,
            prepared_at_ms: now_ms(),
            notes: scan.notes,
            saved: Vec::new(),
            prepared_tree,
            exported_tree: None,
            exported_head: None,
            unexported_at_stop: None,
        };
        // Else it would hold work that was not exported from the beginning. Where the guest can't
        // tell, that is what it is.
        if is_converted && let Ok(status) = self.inspected(guest, &prepared).await {
            prepared.prepared_tree = Some(status.tree);
        }
        Ok(prepared)
    }

    /// Where the last snapshot that went to a place is kept.
    fn kept_snapshot(&self, vm: &VmRecord, path: &GuestPath) -> PathBuf {
        self.machines
            .snapshots(&vm.id)
            .join(short_digest(path.as_bytes()))
    }
}

fn short_digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)[..12])
}

fn scan_options(request: &Prepare) -> ScanOptions {
    ScanOptions {
        untracked: request.untracked,
        include_ignored: request.include_ignored.clone(),
        references: match request.mode {
            PrepareMode::ShallowOverlay => References::None,
            PrepareMode::FullCopy => References::All,
        },
    }
}

/// What a working copy is a copy of. A guest need not know the host's paths.
fn origin(repository: &Repository, mode: PrepareMode) -> String {
    let mode = match mode {
        PrepareMode::ShallowOverlay => "shallow",
        PrepareMode::FullCopy => "full",
    };
    format!(
        "{mode} {}",
        short_digest(repository.top().as_os_str().as_bytes())
    )
}

/// Reads the repository as it is at one moment.
async fn take(
    repository: &Repository,
    options: &ScanOptions,
    kept: &Path,
    task: &Task,
) -> Result<(Scan, Snapshot), Failure> {
    let mut attempt = 1;
    loop {
        task.progress("workspace", "reading the repository");
        let taken = take_once(repository, options, kept).await;
        match taken {
            Err(SnapshotError::Changed(_)) if attempt < ATTEMPTS => attempt += 1,
            taken => return Ok(taken?),
        }
    }
}

async fn take_once(
    repository: &Repository,
    options: &ScanOptions,
    kept: &Path,
) -> Result<(Scan, Snapshot), SnapshotError> {
    let scan = repository.scan(options).await?;
    let stop = Stop::default();
    let (flag, kept) = (stop.flag(), kept.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        let made = Snapshot::make(&scan, &kept, &flag);
        made.map(|snapshot| (scan, snapshot))
    });
    made.await
        .map_err(|error| Failure::from_error(Kind::Internal, &error))?
}

async fn receive_from(
    script: Script,
    guest: &Guest,
    snapshot: &Snapshot,
    meter: &mut Meter<'_>,
) -> Result<(), Failure> {
    let mut server = snapshot.upload_pack().spawn().map_err(|error| {
        Failure::new(Kind::Host, format!("can't run git: {error}"))
            .hint("`banger doctor` names the missing packages")
    })?;
    let (Some(mut to_server), Some(mut from_server), Some(mut server_errors)) = (
        server.stdin.take(),
        server.stdout.take(),
        server.stderr.take(),
    ) else {
        return Err(Failure::new(Kind::Internal, "git has no pipes"));
    };
    let (mut input, mut output) = guest_script::start(&guest.remote, &script)
        .await?
        .into_split();
    input.write_all(script.stdin.into()).await?;

    let upward = async {
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
            match from_server.read_buf(&mut buffer).await {
                Ok(0) => break input.close().await.map_err(Failure::from),
                // The script's own end tells why it reads no more.
                Ok(_) => meter.send(&mut input, buffer.freeze()).await?,
                Err(error) => {
                    break Err(Failure::new(
                        Kind::Host,
                        format!("can't read from git: {error}"),
                    ));
                }
            }
        }
    };
    let mut errors = ErrorTail::default();
    let downward = async {
        while let Some(event) = output.next().await {
            match event {
                // Where git has ended already, its own error says why.
                ProcessEvent::Stdout(bytes) => drop(to_server.write_all(&bytes).await),
                ProcessEvent::Stderr(bytes) => errors.push(&bytes),
                ProcessEvent::Exit(exit) => {
                    drop(to_server);
                    return guest_script::exit_code(exit);
                }
            }
        }
        guest_script::exit_code(crate::ssh::Exit::Unknown)
    };
    let complaints = async {
        let mut bytes = Vec::new();
        // Bounded: git prints a few lines.
        let _ = (&mut server_errors)
            .take(16 << 10)
            .read_to_end(&mut bytes)
            .await;
        bytes
    };
    let (sent, code, complaints) = tokio::join!(upward, downward, complaints);
    let code = code?;
    if code != 0 {
        let mut failure = errors.failure(code, "receiving");
        if failure.kind == Kind::Guest && !complaints.is_empty() {
            failure.detail.push_str("\non the host:\n");
            failure
                .detail
                .push_str(&banger_core::escape::lines(&complaints));
        }
        return Err(failure);
    }
    sent
}
