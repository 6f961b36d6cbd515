//! A repository on its way into a guest.

use super::meter::Meter;
use super::{KIND, Workspaces, guest_path};
use crate::guest_script::{self, EndMark, ErrorTail};
use crate::plugin::{Existing, LayOverRequest, ReceiveRequest, Transport};
use crate::repository::{Differences, Repository};
use crate::ssh::{Bytes, Process, ProcessEvent};
use crate::store::VmRecord;
use crate::task::{Task, now_ms};
use crate::vm::Guest;
use banger_core::protocol::workspace::{Prepare, PrepareMode, Prepared};
use banger_core::workspace::Source;
use banger_core::{ByteString, Failure, Kind, Script};
use std::os::unix::ffi::OsStrExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Commits of history that the default mode brings.
const SHALLOW_DEPTH: u32 = 50;
/// Bytes carried at once.
const CHUNK: usize = 64 << 10;
/// Pieces of a tar archive that may wait for the network.
const PIECES: usize = 16;

impl Workspaces {
    /// Puts a repository into a guest.
    ///
    /// # Errors
    /// Where the repository can't be read, or the guest refuses. A working copy that was there is
    /// still there unless the commit had arrived, and only laying files over it failed.
    pub async fn prepare(
        &self,
        vm: &VmRecord,
        request: &Prepare,
        task: &Task,
    ) -> Result<Prepared, Failure> {
        let (repository, source) = self.examine(&request.path).await?;
        let guest = self.machines.guest(vm).await?;
        let work = async {
            let saved = if request.force && !request.discard {
                let path = guest_path(&guest, request.guest_path.as_ref())?;
                self.save_at(vm, &guest, &path, task).await?
            } else {
                Vec::new()
            };
            let prepared = self.prepare_in(&guest, &repository, &source, request, task);
            prepared
                .await
                .map(|prepared| Prepared { saved, ..prepared })
        };
        let prepared = match task.until_cancelled(work).await {
            Ok(prepared) => prepared,
            Err(failure) => return Err(self.machines.explain(vm, failure).await),
        };
        self.store.put_workspace(&vm.id, &prepared)?;
        Ok(prepared)
    }

    async fn prepare_in(
        &self,
        guest: &Guest,
        repository: &Repository,
        source: &Source,
        request: &Prepare,
        task: &Task,
    ) -> Result<Prepared, Failure> {
        let plugin = self.registry.workspace(KIND)?;
        let path = guest_path(guest, request.guest_path.as_ref())?;
        crate::session::preflight::check(
            &self.registry,
            guest,
            &guest.home,
            b"bash",
            &plugin.info().needs,
        )
        .await?;
        task.progress("workspace", "reading the repository");
        let Differences {
            present,
            deleted,
            notes,
        } = repository.differences().await?;

        let PrepareMode::ShallowOverlay = request.mode;
        let receive = ReceiveRequest {
            path: path.clone(),
            source: source.clone(),
            depth: Some(SHALLOW_DEPTH),
            existing: if request.force {
                Existing::Overwrite
            } else {
                Existing::Keep
            },
        };
        let mut meter = Meter::new(task, "sending the commit");
        let script = plugin.receive(&receive)?;
        let Transport::GitUploadPack = plugin.info().transport;
        let limit = script.timeout;
        guest_script::within(limit, receive_from(script, guest, repository, &mut meter))
            .await
            .map_err(|failure| {
                let hint = match failure.kind {
                    Kind::Conflict => "add --force to replace it, or choose another --guest-path",
                    _ => "",
                };
                failure.stage("workspace-receive").hint(hint)
            })?;

        meter.label = "sending uncommitted files";
        let request_over = LayOverRequest {
            path: path.clone(),
            head: source.head.clone(),
            deleted: deleted.clone(),
        };
        let script = plugin.lay_over(&request_over)?;
        let limit = script.timeout;
        guest_script::within(
            limit,
            lay_over(script, guest, repository, &present, &mut meter),
        )
        .await
        .map_err(|failure| failure.stage("workspace-lay-over"))?;
        Ok(Prepared {
            path: ByteString(repository.top().as_os_str().as_bytes().to_vec()),
            guest_path: path,
            kind: KIND.into(),
            mode: request.mode,
            head_commit: source.head.clone(),
            branch: source.branch.clone(),
            files_laid_over: present.len() as u64,
            files_deleted: deleted.len() as u64,
            bytes_sent: meter.bytes,
            prepared_at_ms: now_ms(),
            notes,
            saved: Vec::new(),
            prepared_tree: None,
            exported_tree: None,
            exported_head: None,
            unexported_at_stop: None,
        })
    }
}

async fn receive_from(
    script: Script,
    guest: &Guest,
    repository: &Repository,
    meter: &mut Meter<'_>,
) -> Result<(), Failure> {
    let mut server = repository.upload_pack().spawn().map_err(|error| {
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

async fn lay_over(
    mut script: Script,
    guest: &Guest,
    repository: &Repository,
    present: &[Vec<u8>],
    meter: &mut Meter<'_>,
) -> Result<(), Failure> {
    let end = EndMark::tell(&mut script).member();
    let process: Process = guest_script::start(&guest.remote, &script).await?;
    let (mut input, mut output) = process.into_split();

    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let (repository, paths) = (repository.clone(), present.to_vec());
    let archive = tokio::task::spawn_blocking(move || {
        let writer = std::io::BufWriter::with_capacity(CHUNK, PieceWriter(sender));
        repository.write_tar(&paths, &end, writer)
    });
    let upward = async {
        meter.send(&mut input, script.stdin.into()).await?;
        while let Some(piece) = pieces.recv().await {
            meter.send(&mut input, piece).await?;
        }
        match archive.await {
            Ok(Ok(())) => input.close().await.map_err(Failure::from),
            // Without its last member the guest's script fails: nothing cut short is taken for whole.
            Ok(Err(error)) => Err(Failure::new(
                Kind::Invalid,
                format!("can't read the working tree: {error}"),
            )
            .hint("if something is writing there, let it finish and try again")),
            Err(error) => Err(Failure::from_error(Kind::Internal, &error)),
        }
    };
    let downward = guest_script::finish(&mut output, "laying the working tree over");
    tokio::pin!(downward);
    // Where reading the user's tree fails, that is the reason, and the guest's script is dropped
    // with its channel; else the script's own end tells.
    tokio::select! {
        sent = upward => match sent {
            Err(failure) if matches!(failure.kind, Kind::Invalid | Kind::Internal) => Err(failure),
            _ => downward.await,
        },
        ended = &mut downward => ended,
    }
}

/// Hands what a blocking writer writes to a task.
struct PieceWriter(mpsc::Sender<Bytes>);

impl std::io::Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
