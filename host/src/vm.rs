//! Machines as users know them: by name, with a state, reachable over SSH.
//!
//! The drivers in [`crate::machine`] make and run them; here they get names, keys, pinned host
//! keys and records, and whatever fails half-way is taken back.

use crate::dirs::Dirs;
use crate::image::{self, ImageStore};
use crate::machine::qemu::DRAFT_PREFIX;
use crate::machine::work_disk::{WorkDisk, WorkDiskError};
use crate::machine::{MachineSpec, QemuMachine, Seed, Status, accelerator};
use crate::ssh::{
    HostKey, HostKeyPolicy, Identity, KeyPair, Remote, SshError, Target, scan_host_key,
};
use crate::store::{AdoptedRecord, Store, VmRecord};
use crate::task::{Task, now_ms};
use banger_core::protocol::machine::{Driver, Vm, VmAdopt, VmCreate, VmLogs, VmSsh, VmState};
use banger_core::{Failure, GuestPath, ImageName, Kind, Script, VmId, VmName, escape};
use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a guest may take from power-on until it lets us in. Software emulation on a busy
/// machine is slow, and a guest with systemd slower.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long to wait for the console to tell that sshd listens, before trying all the same.
const CONSOLE_LIMIT: Duration = Duration::from_secs(60);
/// How long an adopted host may take.
const ADOPT_LIMIT: Duration = Duration::from_secs(15);
/// How long a guest may take to power off.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// How long whoever wants to read a stopped machine's disk waits for others who do.
const DISK_LIMIT: Duration = Duration::from_secs(2);
/// How often a disk is looked at that is still in use.
const DISK_RETRY: Duration = Duration::from_millis(50);
/// A machine's own copy of its record.
const RECORD: &str = "record.json";
/// The user that banger is in its own machines.
const USER: &str = "root";
/// Its home there, which is where the work disk is mounted.
const HOME: &str = "/root";

/// A machine that can be talked to. Cheap to clone.
#[derive(Clone)]
pub struct Guest {
    /// Its sshd.
    pub remote: Remote,
    /// The user's home there.
    pub home: GuestPath,
}

impl Guest {
    /// Where sessions have their directories.
    pub fn state_root(&self) -> Result<GuestPath, Failure> {
        state_root(&self.home)
    }
}

/// The disk of a machine that is stopped, in place of a [`Guest`].
#[derive(Clone)]
pub struct StoppedGuest {
    /// What the user's home holds.
    pub disk: WorkDisk,
    /// Where sessions have their directories.
    pub state_root: GuestPath,
}

fn state_root(home: &GuestPath) -> Result<GuestPath, Failure> {
    home.join(".local/state/banger/sessions")
        .map_err(|error| Failure::from_error(Kind::Guest, &error))
}

/// All machines of this user.
pub struct Machines {
    dirs: Dirs,
    store: Arc<Store>,
    images: ImageStore,
    guests: Mutex<HashMap<VmId, Guest>>,
    /// One lock a machine: starting, stopping and deleting come one after the other.
    locks: Mutex<HashMap<VmId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Machines {
    /// The machines whose records are in this database.
    pub fn new(dirs: Dirs, store: Arc<Store>) -> Self {
        Self {
            images: ImageStore::new(dirs.images()),
            dirs,
            store,
            guests: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    /// The images that machines are made from.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The file that remembers which accelerator works.
    pub fn accelerator_cache(&self) -> PathBuf {
        self.dirs.cache().join("accelerator.json")
    }

    /// Takes back what a daemon left half-made, and finds machines again that the database has
    /// lost: a whole machine holds its own record.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn recover(&self) -> Result<(), Failure> {
        let mut known = Vec::new();
        for vm in self.store.vms()? {
            if vm.complete {
                known.push(vm.id);
            } else {
                tracing::warn!(vm = %vm.name, "removing a machine that was left half-made");
                self.discard(&vm).await?;
            }
        }
        let Ok(entries) = std::fs::read_dir(self.dirs.vms()) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(DRAFT_PREFIX.as_bytes())
            {
                // A machine that was being made: it has never run.
                let _ = std::fs::remove_dir_all(entry.path());
                continue;
            }
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<VmId>().ok())
            else {
                continue;
            };
            if known.contains(&id) {
                continue;
            }
            match self.record_file(&id) {
                Some(record) => {
                    tracing::warn!(vm = %record.name, "a machine was not in the database, and is again");
                    self.store.insert_vm(&record)?;
                }
                // It was never made whole.
                None => {
                    tracing::warn!(%id, "removing a machine that was left half-made");
                    self.remove_files(&id).await?;
                }
            }
        }
        Ok(())
    }

    /// The record of a machine.
    ///
    /// # Errors
    /// Kind `NotFound`.
    pub fn find(&self, name_or_id: &str) -> Result<VmRecord, Failure> {
        self.store.vm(name_or_id)?.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                format!("there is no VM `{}`", escape::text(name_or_id.as_bytes())),
            )
            .hint("`banger vm list` shows those that there are")
        })
    }

    /// All records, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn records(&self) -> Result<Vec<VmRecord>, Failure> {
        Ok(self.store.vms()?)
    }

    /// What is true of a machine now.
    ///
    /// # Errors
    /// Where its files or its record can't be read.
    pub async fn describe(&self, record: &VmRecord) -> Result<Vm, Failure> {
        let (state, ssh) = match &record.adopted {
            Some(host) => (
                VmState::Running,
                Some(format!("{}@{}:{}", host.user, host.host, host.port)),
            ),
            None if !record.complete => (VmState::Creating, None),
            None => match self.status(record).await? {
                Status::Running(running) => (
                    VmState::Running,
                    Some(format!("{USER}@127.0.0.1:{}", running.ssh_port)),
                ),
                Status::Stopped => (VmState::Stopped, None),
            },
        };
        Ok(Vm {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver,
            state,
            image: record.image.clone(),
            cpus: record.cpus,
            memory_mib: record.memory_mib,
            work_disk_mib: record.work_disk_mib,
            created_at_ms: record.created_at_ms,
            ssh,
            host_key: HostKey::parse(&record.host_key)
                .map(|key| key.fingerprint())
                .unwrap_or_default(),
            workspaces: self.store.workspaces(&record.id)?,
        })
    }

    /// Whether a machine runs. An adopted host is taken to.
    ///
    /// # Errors
    /// Where its files can't be read.
    pub async fn is_running(&self, record: &VmRecord) -> Result<bool, Failure> {
        Ok(record.adopted.is_some() || matches!(self.status(record).await?, Status::Running(_)))
    }

    async fn status(&self, record: &VmRecord) -> Result<Status, Failure> {
        Ok(self.qemu(&record.id)?.status().await?)
    }

    fn qemu(&self, id: &VmId) -> Result<QemuMachine, Failure> {
        Ok(QemuMachine::open(&self.dirs.vm(id))?)
    }

    /// Makes a machine that does not run yet. Its record is incomplete until
    /// [`Machines::complete`]: a daemon that starts meanwhile removes it.
    ///
    /// # Errors
    /// A name that is taken, values out of range, an image that can't be built; nothing is left.
    pub async fn create(&self, request: &VmCreate, task: &Task) -> Result<VmRecord, Failure> {
        let record = self.plan(request)?;
        let spec = MachineSpec {
            name: record.name.as_str().into(),
            cpus: record.cpus,
            memory_mib: record.memory_mib,
            work_disk_mib: record.work_disk_mib,
        };
        spec.check()
            .map_err(|error| Failure::from_error(Kind::Invalid, &error))?;
        if self.store.vm(record.name.as_str())?.is_some() {
            return Err(Failure::new(
                Kind::Conflict,
                format!("there is a VM with the name `{}` already", record.name),
            )
            .hint("choose another name, or delete that one first"));
        }
        let image = record.image.clone().unwrap_or_else(default_image);
        let image = self.ensure_image(&image, task).await?;
        task.check()?;
        task.progress("create", format!("making the disks of {}", record.name));
        let host_key = generate(&format!("banger {} host", record.name))?;
        let client_key = generate(&format!("banger {} client", record.name))?;
        let record = VmRecord {
            host_key: host_key.public_line.clone(),
            ..record
        };
        self.store.insert_vm(&record)?;
        let made = async {
            let seed = Seed {
                host_key_openssh: host_key.private_text.clone(),
                host_key_public: host_key.public_line.clone(),
                authorized_key: client_key.public_line.clone(),
            };
            QemuMachine::create(&self.dirs.vm(&record.id), &image, spec, &seed).await?;
            let identity = self.identity_file(&record.id);
            write_private(&identity, client_key.private_text.as_bytes())?;
            task.check()
        };
        match made.await {
            Ok(()) => Ok(record),
            Err(failure) => {
                if let Err(error) = self.discard(&record).await {
                    tracing::error!(vm = %record.name, %error, "a half-made machine can't be removed");
                }
                Err(failure)
            }
        }
    }

    /// The record of the machine that a request asks for, with every default filled in.
    fn plan(&self, request: &VmCreate) -> Result<VmRecord, Failure> {
        let id = VmId::from_random(rand::random());
        let name = match &request.name {
            Some(name) => name.clone(),
            None => {
                let text = format!("vm-{}", id.as_str().get(..6).unwrap_or_default());
                text.parse::<VmName>()
                    .map_err(|error| Failure::from_error(Kind::Internal, &error))?
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = u32::try_from((processors / 2).clamp(1, 4)).unwrap_or(1);
        Ok(VmRecord {
            id,
            name,
            driver: Driver::Qemu,
            complete: false,
            image: Some(request.image.clone().unwrap_or_else(default_image)),
            cpus: request.cpus.unwrap_or(cpus),
            memory_mib: request.memory_mib.unwrap_or(2048),
            work_disk_mib: request.work_disk_mib.unwrap_or(16 << 10),
            created_at_ms: now_ms(),
            host_key: String::new(),
            adopted: None,
        })
    }

    /// The image of that name, built first where it is missing or out of date.
    ///
    /// # Errors
    /// Where it can't be built; a failure names the step and the log.
    pub async fn ensure_image(
        &self,
        name: &ImageName,
        task: &Task,
    ) -> Result<image::Image, Failure> {
        let report = task.clone();
        let progress = move |progress: image::BuildProgress| {
            report.progress("image", format!("{}: {}", progress.stage, progress.message));
        };
        match self
            .images
            .ensure(name.as_str(), &progress, task.cancel())
            .await
        {
            Ok(image) => Ok(image),
            Err(error) => match self.images.get(name.as_str())? {
                // Offline, say: an image that is out of date is better than none.
                Some(image) if !task.cancel().is_cancelled() => {
                    tracing::warn!(%name, %error, "an image that is out of date is used");
                    task.progress(
                        "image",
                        format!("{name} can't be rebuilt ({error}); using the one that is there"),
                    );
                    Ok(image)
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Marks a machine as made whole.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn complete(&self, record: &VmRecord) -> Result<VmRecord, Failure> {
        let record = VmRecord {
            complete: true,
            ..record.clone()
        };
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|error| Failure::from_error(Kind::Internal, &error))?;
        write_private(&self.dirs.vm(&record.id).join(RECORD), &json)?;
        self.store.update_vm(&record)?;
        Ok(record)
    }

    /// The record that a whole machine holds in its directory.
    fn record_file(&self, id: &VmId) -> Option<VmRecord> {
        let json = std::fs::read(self.dirs.vm(id).join(RECORD)).ok()?;
        let record: VmRecord = serde_json::from_slice(&json).ok()?;
        (record.id == *id && record.complete).then_some(record)
    }

    /// Starts a machine and waits until it lets us in. One that runs already is only waited for.
    ///
    /// # Errors
    /// Where it does not come up; it is stopped again then. An adopted host is only contacted.
    pub async fn start(&self, record: &VmRecord, task: &Task) -> Result<(), Failure> {
        let lock = self.lock(&record.id);
        let _one_at_a_time = task
            .until_cancelled(async { Ok(lock.lock().await) })
            .await?;
        if record.adopted.is_some() {
            return Err(adopted(record, "start"));
        }
        let machine = self.qemu(&record.id)?;
        let started_here = !matches!(machine.status().await?, Status::Running(_));
        if started_here {
            self.forget_guest(&record.id).await;
            let choice = task
                .until_cancelled(async {
                    task.progress("boot", "looking which accelerator works");
                    Ok(accelerator::choose(&self.accelerator_cache())
                        .await
                        .map_err(crate::machine::MachineError::from)?)
                })
                .await?;
            task.progress(
                "boot",
                format!("starting {} ({})", record.name, choice.accelerator),
            );
            machine.start(choice.accelerator).await?;
        }
        let up = task.until_cancelled(self.wait_up(record, &machine)).await;
        if up.is_err() && started_here {
            self.forget_guest(&record.id).await;
            if let Err(error) = machine.kill().await {
                tracing::warn!(vm = %record.name, %error, "a machine that did not come up can't be killed");
            }
        }
        up
    }

    async fn wait_up(&self, record: &VmRecord, machine: &QemuMachine) -> Result<(), Failure> {
        let Status::Running(running) = machine.status().await? else {
            return Err(ended_at_boot(record, machine));
        };
        let guest = self.qemu_guest(record, running.ssh_port)?;
        let process = running.process;
        machine.wait_for_sshd(CONSOLE_LIMIT).await;
        guest
            .remote
            .wait_ready(BOOT_LIMIT, move || {
                if process.is_alive() {
                    Ok(())
                } else {
                    Err("QEMU has ended".into())
                }
            })
            .await
            .map_err(|error| match error {
                SshError::MachineEnded { .. } => ended_at_boot(record, machine),
                other => Failure::from(other).stage("boot"),
            })?;
        self.remember_guest(&record.id, guest);
        Ok(())
    }

    fn qemu_guest(&self, record: &VmRecord, port: u16) -> Result<Guest, Failure> {
        let identity = Identity::load(&self.identity_file(&record.id))
            .map_err(|error| Failure::from_error(Kind::Host, &error))?;
        Ok(Guest {
            remote: Remote::new(Target {
                host: "127.0.0.1".into(),
                port,
                user: USER.into(),
                identity,
                host_key: HostKeyPolicy::Pinned(parse_key(&record.host_key)?),
            }),
            home: home(HOME)?,
        })
    }

    /// A machine to talk to; connects only when used, except to ask an adopted host for its home.
    ///
    /// # Errors
    /// Kind `Conflict` where it is stopped.
    pub async fn guest(&self, record: &VmRecord) -> Result<Guest, Failure> {
        if let Some(guest) = self.known_guest(&record.id) {
            return Ok(guest);
        }
        let lock = self.lock(&record.id);
        let _one_at_a_time = lock.lock().await;
        if let Some(guest) = self.known_guest(&record.id) {
            return Ok(guest);
        }
        let guest = match &record.adopted {
            Some(host) => self.adopted_guest(host, &record.host_key).await?,
            None => match self.status(record).await? {
                Status::Running(running) => self.qemu_guest(record, running.ssh_port)?,
                Status::Stopped => return Err(stopped(record)),
            },
        };
        self.remember_guest(&record.id, guest.clone());
        Ok(guest)
    }

    /// A stopped machine's disk, to read what it left. The machine may be started meanwhile: what
    /// is read after that fails, and is to be asked of the guest.
    ///
    /// # Errors
    /// Kind `Conflict` where it runs, or is being started or stopped; for an adopted host.
    pub async fn stopped_guest(&self, record: &VmRecord) -> Result<StoppedGuest, Failure> {
        if record.adopted.is_some() {
            return Err(adopted(record, "read the disk of"));
        }
        let lock = self.lock(&record.id);
        let busy = |what| {
            Failure::new(
                Kind::Conflict,
                format!("the VM `{}` {what}: its disk can't be read", record.name),
            )
        };
        let Ok(_one_at_a_time) = tokio::time::timeout(DISK_LIMIT, lock.lock()).await else {
            return Err(busy("is being started or stopped").hint("ask again"));
        };
        let machine = self.qemu(&record.id)?;
        if !machine.is_off().await? {
            return Err(busy("runs"));
        }
        let home = home(HOME)?;
        let since = std::time::Instant::now();
        let disk = loop {
            match WorkDisk::open(&machine.work_disk(), home.clone()).await {
                // A QEMU that was killed keeps its locks until the kernel has taken it apart.
                Err(WorkDiskError::InUse { .. }) if since.elapsed() < DISK_LIMIT => {
                    tokio::time::sleep(DISK_RETRY).await;
                }
                disk => break disk?,
            }
        };
        Ok(StoppedGuest {
            state_root: state_root(&home)?,
            disk,
        })
    }

    async fn adopted_guest(&self, host: &AdoptedRecord, key: &str) -> Result<Guest, Failure> {
        let identity = Identity::load(Path::new(&host.identity)).map_err(|error| {
            Failure::from_error(Kind::Invalid, &error)
                .hint("give an unencrypted OpenSSH private key with --identity")
        })?;
        let remote = Remote::new(Target {
            host: host.host.clone(),
            port: host.port,
            user: host.user.clone(),
            identity,
            host_key: HostKeyPolicy::Pinned(parse_key(key)?),
        });
        let script = Script {
            body: "printf %s \"$HOME\"".into(),
            timeout: Some(ADOPT_LIMIT),
            ..Script::default()
        };
        let output = remote.run(&script, 4096).await?;
        let home = GuestPath::try_from(output.stdout).map_err(|error| {
            Failure::from_error(Kind::Guest, &error)
                .hint("the login there needs a HOME and bash")
                .detail(&output.stderr)
        })?;
        Ok(Guest { remote, home })
    }

    /// Records a host that runs already.
    ///
    /// # Errors
    /// Where it can't be reached or does not let us in; nothing is recorded then.
    pub async fn adopt(&self, request: &VmAdopt, task: &Task) -> Result<VmRecord, Failure> {
        if self.store.vm(request.name.as_str())?.is_some() {
            return Err(Failure::new(
                Kind::Conflict,
                format!("there is a VM with the name `{}` already", request.name),
            )
            .hint("choose another name, or delete that one first"));
        }
        if Path::new(&request.identity).is_relative() {
            return Err(Failure::new(
                Kind::Invalid,
                "the path of the identity must be absolute",
            ));
        }
        let host = AdoptedRecord {
            host: request.host.clone(),
            port: request.port,
            user: request.user.clone(),
            identity: request.identity.clone(),
        };
        task.progress("adopt", format!("asking {}:{}", host.host, host.port));
        let (key, guest) = task
            .until_cancelled(async {
                let key = match &request.host_key {
                    Some(line) => HostKey::parse(line).map_err(|error| {
                        Failure::from_error(Kind::Invalid, &error)
                            .hint("give it as in a public key file: `ssh-ed25519 AAAA…`")
                    })?,
                    None => scan_host_key(&host.host, host.port).await?,
                };
                let guest = self.adopted_guest(&host, &key.to_string()).await?;
                Ok((key, guest))
            })
            .await?;
        let record = VmRecord {
            id: VmId::from_random(rand::random()),
            name: request.name.clone(),
            driver: Driver::Ssh,
            complete: true,
            image: None,
            cpus: 0,
            memory_mib: 0,
            work_disk_mib: 0,
            created_at_ms: now_ms(),
            host_key: key.to_string(),
            adopted: Some(host),
        };
        self.store.insert_vm(&record)?;
        self.remember_guest(&record.id, guest);
        Ok(record)
    }

    /// Stops a machine: gracefully, then by force.
    ///
    /// # Errors
    /// Where even force does not help; for an adopted host.
    pub async fn stop(
        &self,
        record: &VmRecord,
        grace: Duration,
        task: &Task,
    ) -> Result<(), Failure> {
        if record.adopted.is_some() {
            return Err(adopted(record, "stop"));
        }
        let lock = self.lock(&record.id);
        let _one_at_a_time = lock.lock().await;
        task.progress("stop", format!("stopping {}", record.name));
        let machine = self.qemu(&record.id)?;
        machine.stop(grace).await?;
        self.forget_guest(&record.id).await;
        Ok(())
    }

    /// Ends a machine and removes everything of it. An adopted host is only forgotten.
    ///
    /// # Errors
    /// Where it can't be ended or its files can't be removed; its record stays then.
    pub async fn delete(&self, record: &VmRecord) -> Result<(), Failure> {
        let lock = self.lock(&record.id);
        let _one_at_a_time = lock.lock().await;
        self.discard(record).await
    }

    async fn discard(&self, record: &VmRecord) -> Result<(), Failure> {
        self.forget_guest(&record.id).await;
        // The record becomes incomplete first: should we be killed half-way, the next daemon
        // goes on with the removal.
        if record.complete {
            let _ = std::fs::remove_file(self.dirs.vm(&record.id).join(RECORD));
            self.store.update_vm(&VmRecord {
                complete: false,
                ..record.clone()
            })?;
        }
        self.remove_files(&record.id).await?;
        self.store.delete_vm(&record.id)?;
        Ok(())
    }

    /// Where the snapshots that went into a machine are kept.
    pub fn snapshots(&self, id: &VmId) -> std::path::PathBuf {
        self.dirs.snapshots(id)
    }

    async fn remove_files(&self, id: &VmId) -> Result<(), Failure> {
        // Of no use without the machine; what can't be removed is only a cache.
        let _ = tokio::fs::remove_dir_all(self.dirs.snapshots(id)).await;
        let dir = self.dirs.vm(id);
        if !dir.exists() {
            return Ok(());
        }
        if let Ok(machine) = QemuMachine::open(&dir) {
            machine.kill().await?;
            machine.delete().await?;
        }
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(
                Kind::Host,
                format!("can't remove {}: {error}", dir.display()),
            )),
            _ => Ok(()),
        }
    }

    /// How to reach a machine with OpenSSH's client.
    ///
    /// # Errors
    /// Where it is stopped or the file of its host key can't be written.
    pub async fn ssh(&self, record: &VmRecord) -> Result<VmSsh, Failure> {
        let guest = self.guest(record).await?;
        let target = guest.remote.target();
        let dir = self.dirs.vm(&record.id);
        std::fs::create_dir_all(&dir).map_err(|error| {
            Failure::new(Kind::Host, format!("can't make {}: {error}", dir.display()))
        })?;
        let known_hosts = dir.join("known_hosts");
        // OpenSSH looks its usual port up without brackets.
        let line = match target.port {
            22 => format!("{} {}\n", target.host, record.host_key),
            port => format!("[{}]:{port} {}\n", target.host, record.host_key),
        };
        write_private(&known_hosts, line.as_bytes())?;
        Ok(VmSsh {
            host: target.host.clone(),
            port: target.port,
            user: target.user.clone(),
            identity: match &record.adopted {
                Some(host) => host.identity.clone(),
                None => self
                    .identity_file(&record.id)
                    .to_string_lossy()
                    .into_owned(),
            },
            known_hosts: known_hosts.to_string_lossy().into_owned(),
        })
    }

    /// Where a machine's console log is.
    ///
    /// # Errors
    /// For an adopted host, which has none.
    pub fn logs(&self, record: &VmRecord) -> Result<VmLogs, Failure> {
        if record.adopted.is_some() {
            return Err(adopted(record, "read the console of"));
        }
        Ok(VmLogs {
            console: self
                .qemu(&record.id)?
                .console_log()
                .to_string_lossy()
                .into_owned(),
        })
    }

    fn identity_file(&self, id: &VmId) -> PathBuf {
        self.dirs.vm(id).join("id_ed25519")
    }

    fn lock(&self, id: &VmId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(id.clone()).or_default())
    }

    fn known_guest(&self, id: &VmId) -> Option<Guest> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.get(id).cloned()
    }

    fn remember_guest(&self, id: &VmId, guest: Guest) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.insert(id.clone(), guest);
    }

    async fn forget_guest(&self, id: &VmId) {
        let guest = {
            let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
            guests.remove(id)
        };
        if let Some(guest) = guest {
            guest.remote.close().await;
        }
    }

    /// Explains a failure to reach a guest: a machine that has ended meanwhile is stopped.
    pub async fn explain(&self, record: &VmRecord, failure: Failure) -> Failure {
        if failure.kind == Kind::Unreachable
            && record.adopted.is_none()
            && matches!(self.status(record).await, Ok(Status::Stopped))
        {
            self.forget_guest(&record.id).await;
            return stopped(record);
        }
        failure
    }
}

/// The image of a machine that names none.
pub fn default_image() -> ImageName {
    #[expect(clippy::unwrap_used, reason = "a constant that a test parses")]
    image::BASE.parse().unwrap()
}

fn home(path: &str) -> Result<GuestPath, Failure> {
    path.parse()
        .map_err(|error| Failure::from_error(Kind::Internal, &error))
}

fn parse_key(line: &str) -> Result<HostKey, Failure> {
    HostKey::parse(line).map_err(|error| Failure::from_error(Kind::Internal, &error))
}

fn generate(comment: &str) -> Result<KeyPair, Failure> {
    KeyPair::generate(comment).map_err(|error| Failure::from_error(Kind::Internal, &error))
}

fn stopped(record: &VmRecord) -> Failure {
    Failure::new(
        Kind::Conflict,
        format!("the VM `{}` is stopped", record.name),
    )
    .hint(format!("`banger vm start {}`", record.name))
}

fn adopted(record: &VmRecord, operation: &str) -> Failure {
    Failure::new(
        Kind::Conflict,
        format!(
            "`{}` is an adopted host: banger does not {operation} it",
            record.name
        ),
    )
    .hint("do it on that host, or `banger vm delete` to forget it here")
}

fn ended_at_boot(record: &VmRecord, machine: &QemuMachine) -> Failure {
    Failure::new(
        Kind::Unreachable,
        format!("the VM `{}` ended while it was booting", record.name),
    )
    .stage("boot")
    .hint(format!(
        "its console log is {}",
        machine.console_log().display()
    ))
}

/// Writes a file that only the user can read, atomically.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        Failure::new(
            Kind::Host,
            format!("can't write {}: {error}", path.display()),
        )
    };
    let draft = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(fail)?;
    std::io::Write::write_all(&mut file, bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    std::fs::rename(&draft, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_image_has_a_valid_name() {
        assert_eq!(super::default_image().as_str(), crate::image::BASE);
    }
}
