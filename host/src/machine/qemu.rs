//! The driver `qemu`: a VM of banger's own in a directory of its own.
//!
//! QEMU runs in a session of its own and outlives the daemon; a restarted daemon finds it again by
//! `run.json` (pid with start time), or, when the daemon died before it could write that, by QEMU's
//! own pid file together with QEMU's working directory, which is the machine's.
//!
//! The port: QEMU is asked to forward port 0 of 127.0.0.1, so the kernel picks a free port in the
//! very call that binds it, and QEMU is asked which one it became. There is no moment at which
//! another program, or another VM, could take it.
//!
//! The machine's files are its own: disk, kernel and initramfs of the image are linked into the
//! directory (copied across file systems), so deleting or rebuilding an image never hurts a machine.
//! It does not wait for sshd, and it never deletes anything outside the directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::qemu_command::{
    self, BASE_DISK, CONSOLE_LOG, INITRD, KERNEL, NETWORK, PID_FILE, QEMU_LOG, ROOT_DISK,
    SEED_DISK, WORK_DISK,
};
use super::{
    Accelerator, MachineError, MachineSpec, ProcessIdentity, Running, Seed, Status, Stopped,
};
use super::{qmp, seed, tool};
use crate::image::Image;

const DESCRIPTION: &str = "machine.json";
const RUN: &str = "run.json";
const START_LIMIT: Duration = Duration::from_secs(30);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How the directories of machines that are being made begin.
pub const DRAFT_PREFIX: &str = ".creating-";

/// A VM, known by its directory.
#[derive(Debug, Clone)]
pub struct QemuMachine {
    dir: PathBuf,
    spec: MachineSpec,
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    spec: MachineSpec,
    image: String,
    image_key: String,
}

impl QemuMachine {
    /// Makes the machine's directory and disks. A failure, or dropping the future, leaves nothing.
    ///
    /// # Errors
    /// [`MachineError`]: a bad spec, a directory that is there already, a missing tool, a full disk.
    pub async fn create(
        dir: &Path,
        image: &Image,
        spec: MachineSpec,
        seed: &Seed,
    ) -> Result<Self, MachineError> {
        spec.check()?;
        if dir.exists() {
            return Err(MachineError::Exists {
                path: dir.to_owned(),
            });
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private
            .create(parent)
            .map_err(MachineError::io("create", parent))?;
        // Finished by one rename: a directory of that name is a whole machine or not there.
        let draft = tempfile::Builder::new()
            .prefix(DRAFT_PREFIX)
            .tempdir_in(parent)
            .map_err(MachineError::io("create a directory in", parent))?;
        let at = |name: &str| draft.path().join(name);

        let sources = [
            (image.disk(), at(BASE_DISK)),
            (image.kernel(), at(KERNEL)),
            (image.initrd(), at(INITRD)),
        ];
        tokio::task::spawn_blocking(move || {
            sources.iter().try_for_each(|(from, to)| link(from, to))
        })
        .await
        .unwrap_or_else(|error| Err(MachineError::io("link files into", parent)(error.into())))?;

        // The base is named relatively, so that the directory may be moved.
        let output = tool::QEMU_IMG
            .command()?
            .current_dir(draft.path())
            .args([
                "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", BASE_DISK, ROOT_DISK,
            ])
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| tool::ToolError::Start {
                program: tool::QEMU_IMG.program,
                source,
            })?;
        if !output.status.success() {
            return Err(MachineError::Tool(tool::ToolError::Failed {
                program: tool::QEMU_IMG.program,
                status: output.status,
                message: tool::last_lines(&output.stderr, 5).join("; "),
            }));
        }

        let work = at(WORK_DISK);
        let file = create_private(&work)?;
        file.set_len(spec.work_disk_mib << 20)
            .map_err(MachineError::io("size", &work))?;
        drop(file);
        let features = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let mut mkfs: Vec<&std::ffi::OsStr> =
            ["-q", "-F", "-L", "banger-work", "-m", "0", "-E", features]
                .map(AsRef::as_ref)
                .to_vec();
        mkfs.push(work.as_os_str());
        tool::MKFS_EXT4.run(mkfs).await?;

        let seed_disk = at(SEED_DISK);
        create_private(&seed_disk)?
            .write_all(&seed::archive(seed, &spec.name))
            .map_err(MachineError::io("write", &seed_disk))?;
        let description = Description {
            spec: spec.clone(),
            image: image.manifest().name.clone(),
            image_key: image.manifest().key.clone(),
        };
        write_json(&at(DESCRIPTION), &description)?;

        let draft = draft.keep();
        if let Err(error) = fs::rename(&draft, dir) {
            // Best effort: the rename's error is the one that matters.
            let _ = fs::remove_dir_all(&draft);
            return Err(MachineError::io("create", dir)(error));
        }
        Ok(Self {
            dir: dir.to_owned(),
            spec,
        })
    }

    /// The machine of an existing directory, running or not.
    ///
    /// # Errors
    /// [`MachineError::Io`] when there is none, [`MachineError::Description`] when it is damaged.
    pub fn open(dir: &Path) -> Result<Self, MachineError> {
        let description: Description = read_json(&dir.join(DESCRIPTION))?;
        Ok(Self {
            dir: dir.to_owned(),
            spec: description.spec,
        })
    }

    /// The machine's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is made of.
    #[must_use]
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// The guest's serial console since the last start; the one before has `.1` appended.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.dir.join(CONSOLE_LOG)
    }

    /// The disk that the guest has at `/root`.
    #[must_use]
    pub fn work_disk(&self) -> PathBuf {
        self.dir.join(WORK_DISK)
    }

    /// Whether no QEMU runs it: also none that an interrupted start left, unlike [`Self::status`].
    ///
    /// # Errors
    /// [`MachineError::Description`] when `run.json` is damaged.
    pub async fn is_off(&self) -> Result<bool, MachineError> {
        Ok(self.process().await?.is_none())
    }

    /// Starts QEMU and returns once the guest's processors run, long before sshd answers.
    ///
    /// # Errors
    /// [`MachineError::AlreadyRunning`]; [`MachineError::StartFailed`] with QEMU's last words.
    pub async fn start(&self, accelerator: Accelerator) -> Result<Running, MachineError> {
        let _starting = self.lock()?;
        if let Status::Running(running) = self.status().await? {
            return Err(MachineError::AlreadyRunning {
                pid: running.process.pid,
            });
        }
        // What an interrupted start may have left.
        self.kill().await?;
        self.rotate(CONSOLE_LOG)?;
        self.rotate(QEMU_LOG)?;
        for stale in [PID_FILE, qmp::SOCKET, RUN] {
            remove_file(&self.dir.join(stale))?;
        }
        create_private(&self.console_log())?;
        let log_path = self.dir.join(QEMU_LOG);
        let log = create_private(&log_path)?;
        let stdout = log
            .try_clone()
            .map_err(MachineError::io("open", &log_path))?;

        let qemu = tool::QEMU.require()?;
        let mut child = tool::SETSID
            .command()?
            .arg(qemu)
            .args(qemu_command::arguments(&self.spec, accelerator))
            .current_dir(&self.dir)
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .map_err(|source| tool::ToolError::Start {
                program: tool::QEMU.program,
                source,
            })?;

        let running = tokio::select! {
            status = child.wait() => {
                let said = fs::read(&log_path).unwrap_or_default();
                return Err(MachineError::StartFailed {
                    status: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                    message: tool::last_lines(&said, 5).join("; "),
                    log: log_path,
                });
            }
            running = self.connect(accelerator) => running,
        };
        match running {
            Ok(running) => {
                // Reaps it when it ends while this daemon lives; later ones have it reaped by init.
                tokio::spawn(async move { child.wait().await });
                Ok(running)
            }
            Err(error) => {
                let _ = child.kill().await;
                remove_file(&self.dir.join(RUN))?;
                Err(error)
            }
        }
    }

    /// Waits for QEMU to listen, has it forward a port and writes down how it is found again.
    async fn connect(&self, accelerator: Accelerator) -> Result<Running, MachineError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match qmp::execute(&self.dir, "query-status", json!({})).await {
                Ok(_) => break,
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let process = self.process_by_pid_file().ok_or(MachineError::NotRunning)?;
        self.monitor(&format!("hostfwd_add {NETWORK} tcp:127.0.0.1:0-:22"))
            .await?;
        let network = self.monitor("info usernet").await?;
        let ssh_port = qmp::forwarded_port(&network).ok_or_else(|| qmp::QmpError::Refused {
            operation: "hostfwd_add".into(),
            message: tool::printable(&network),
        })?;
        let running = Running {
            process,
            ssh_port,
            accelerator,
        };
        write_json(&self.dir.join(RUN), &running)?;
        Ok(running)
    }

    async fn monitor(&self, line: &str) -> Result<String, MachineError> {
        let value = qmp::execute(
            &self.dir,
            "human-monitor-command",
            json!({"command-line": line}),
        )
        .await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the guest's sshd says on the console that it listens, at most for `limit`, and
    /// tells whether it did. Only a hint, since the guest writes it: the banner is the proof.
    ///
    /// Worth asking before connecting: QEMU accepts a connection before the guest has a network, and
    /// then repeats its call to the guest ever more rarely. Measured in turns under emulation on a
    /// host with a load of 10: banner after 19 to 20 s when connected at once, 5 to 8.5 s after this.
    pub async fn wait_for_sshd(&self, limit: Duration) -> bool {
        const SIGN: &[u8] = b"Server listening on ";
        const MOST: u64 = 1 << 20;
        let deadline = Instant::now() + limit;
        loop {
            let mut console = Vec::new();
            if let Ok(file) = File::open(self.console_log())
                && file.take(MOST).read_to_end(&mut console).is_ok()
                && console.windows(SIGN.len()).any(|window| window == SIGN)
            {
                return true;
            }
            let runs = matches!(self.status().await, Ok(Status::Running(_)));
            if !runs || Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Whether it runs, now. A QEMU that an interrupted start left without a record does not count,
    /// since nobody was told its port; the next start, or a kill, ends it.
    ///
    /// # Errors
    /// [`MachineError::Description`] when `run.json` is damaged.
    pub async fn status(&self) -> Result<Status, MachineError> {
        let record = self.dir.join(RUN);
        if record.exists() {
            let running: Running = read_json(&record)?;
            if running.process.is_alive() {
                return Ok(Status::Running(running));
            }
        }
        Ok(Status::Stopped)
    }

    fn process_by_pid_file(&self) -> Option<ProcessIdentity> {
        let pid = fs::read_to_string(self.dir.join(PID_FILE))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        ProcessIdentity::of(pid).filter(|process| process.works_in(&self.dir))
    }

    async fn process(&self) -> Result<Option<ProcessIdentity>, MachineError> {
        Ok(match self.status().await? {
            Status::Running(running) => Some(running.process),
            Status::Stopped => self.process_by_pid_file(),
        })
    }

    /// Presses the guest's power button and waits for it to be off, at most for `grace`; then kills.
    /// The button is pressed again every second, since a guest that still boots misses it.
    ///
    /// # Errors
    /// [`MachineError::Unkillable`].
    pub async fn stop(&self, grace: Duration) -> Result<Stopped, MachineError> {
        let Some(process) = self.process().await? else {
            return Ok(Stopped::Already);
        };
        let deadline = Instant::now() + grace;
        // A paused guest hears nothing.
        let _ = qmp::execute(&self.dir, "cont", json!({})).await;
        loop {
            if let Err(error) = qmp::execute(&self.dir, "system_powerdown", json!({})).await {
                tracing::debug!(%error, dir = %self.dir.display(), "the power button does not answer");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if process.wait_gone(left.min(Duration::from_secs(1))).await {
                self.forget()?;
                return Ok(Stopped::Gracefully);
            }
            if Instant::now() >= deadline {
                self.kill().await?;
                return Ok(Stopped::Forced);
            }
        }
    }

    /// Ends it at once, as a power cut would, and waits until its process is gone.
    ///
    /// # Errors
    /// [`MachineError::Unkillable`].
    pub async fn kill(&self) -> Result<Stopped, MachineError> {
        let Some(process) = self.process().await? else {
            return Ok(Stopped::Already);
        };
        process.kill();
        if !process.wait_gone(KILL_LIMIT).await {
            return Err(MachineError::Unkillable { pid: process.pid });
        }
        self.forget()?;
        Ok(Stopped::Forced)
    }

    fn forget(&self) -> Result<(), MachineError> {
        [RUN, PID_FILE, qmp::SOCKET]
            .iter()
            .try_for_each(|name| remove_file(&self.dir.join(name)))
    }

    /// Holds its processors still; its memory stays.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`], [`MachineError::Qmp`].
    pub async fn pause(&self) -> Result<(), MachineError> {
        self.command("stop").await.map(drop)
    }

    /// Lets its processors run again.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`], [`MachineError::Qmp`].
    pub async fn resume(&self) -> Result<(), MachineError> {
        self.command("cont").await.map(drop)
    }

    /// Whether it is paused.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`], [`MachineError::Qmp`].
    pub async fn is_paused(&self) -> Result<bool, MachineError> {
        Ok(self
            .command("query-status")
            .await?
            .get("status")
            .and_then(Value::as_str)
            == Some("paused"))
    }

    async fn command(&self, operation: &str) -> Result<Value, MachineError> {
        if self.process().await?.is_none() {
            return Err(MachineError::NotRunning);
        }
        Ok(qmp::execute(&self.dir, operation, json!({})).await?)
    }

    /// Removes the machine and everything on its disks.
    ///
    /// # Errors
    /// [`MachineError::AlreadyRunning`] while it runs; [`MachineError::Io`].
    pub async fn delete(self) -> Result<(), MachineError> {
        if let Some(process) = self.process().await? {
            return Err(MachineError::AlreadyRunning { pid: process.pid });
        }
        // The description goes first: what is left of an interrupted deletion is no machine.
        remove_file(&self.dir.join(DESCRIPTION))?;
        fs::remove_dir_all(&self.dir).map_err(MachineError::io("remove", &self.dir))
    }

    /// Two starts of one machine at once: the second one is refused, also from another daemon.
    fn lock(&self) -> Result<File, MachineError> {
        let lock = File::open(&self.dir).map_err(MachineError::io("open", &self.dir))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| MachineError::io("lock", &self.dir)(error.into()))?;
        Ok(lock)
    }

    fn rotate(&self, name: &str) -> Result<(), MachineError> {
        let current = self.dir.join(name);
        match fs::rename(&current, self.dir.join(format!("{name}.1"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(MachineError::io("rotate", current)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Gives the machine a file of the image: the same one where the file system allows it. Both are
/// read-only, so neither can change the other.
fn link(from: &Path, to: &Path) -> Result<(), MachineError> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(MachineError::io("copy", from))?;
    fs::set_permissions(to, Permissions::from_mode(0o400)).map_err(MachineError::io("protect", to))
}

fn create_private(path: &Path) -> Result<File, MachineError> {
    OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(MachineError::io("create", path))
}

fn remove_file(path: &Path) -> Result<(), MachineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(MachineError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, MachineError> {
    let bytes = fs::read(path).map_err(MachineError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| MachineError::Description {
        path: path.to_owned(),
        source,
    })
}

/// Writes the file whole or not at all.
fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), MachineError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .map_err(MachineError::io("write in", directory))?;
    serde_json::to_writer_pretty(&mut file, value).map_err(|source| MachineError::Description {
        path: path.to_owned(),
        source,
    })?;
    file.as_file()
        .sync_all()
        .map_err(MachineError::io("sync", path))?;
    file.persist(path)
        .map_err(|error| MachineError::io("write", path)(error.error))?;
    Ok(())
}
