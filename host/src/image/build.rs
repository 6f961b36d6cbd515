//! One build of an image: the lock, the private directory, the child and the final rename.
//!
//! The work is done by the scripts in `build/`, in namespaces of their own, which die with the
//! daemon: they watch a pipe that only the daemon holds open. Root is not needed where the user has
//! subordinate ids. Cancelling, or dropping the future, ends the whole process group.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rustix::fs::{FlockOperation, RenameFlags, flock};
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::progress::{BuildProgress, Stage, advice, stage_of};
use super::recipe::{ASSETS, Recipe};
use super::{
    DISK, INITRD, Image, ImageError, ImageFile, ImageManifest, ImageStore, KERNEL, MANIFEST,
};
use crate::machine::tool::{self, Tool, ToolError, last_lines, printable};

/// How the directories of unfinished builds begin.
pub const DRAFT_PREFIX: &str = ".building-";

/// Whether a current image is built again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Yes, unless another builder made it while this one waited.
    Always,
    /// Only if it is missing or out of date.
    OutOfDate,
}

/// A build that was asked for.
pub struct Build<'a> {
    store: &'a ImageStore,
    recipe: Recipe,
    progress: &'a (dyn Fn(BuildProgress) + Send + Sync),
    cancel: &'a CancellationToken,
    began: Instant,
    stage: Mutex<Stage>,
}

/// The namespaces in which the scripts run; the words are arguments of outer.sh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    User,
    Root,
}

impl Mode {
    /// Without root where possible: root itself takes this way too if it has subordinate ids.
    fn choose() -> Result<Self, ImageError> {
        let root = rustix::process::geteuid().is_root();
        let missing = ["/etc/subuid", "/etc/subgid"]
            .into_iter()
            .find(|file| !has_subordinate_ids(file));
        match missing {
            None if tool::NEWUIDMAP.find().is_some() => Ok(Self::User),
            _ if root => Ok(Self::Root),
            None => tool::NEWUIDMAP
                .require()
                .map(|_| Self::User)
                .map_err(ImageError::from),
            Some(file) => Err(ImageError::SubordinateIds {
                user: user_name(),
                file,
            }),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Root => "root",
        }
    }
}

fn user_name() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

fn has_subordinate_ids(file: &str) -> bool {
    let (name, uid) = (user_name(), rustix::process::geteuid().as_raw().to_string());
    fs::read_to_string(file).is_ok_and(|text| {
        text.lines().any(|line| {
            line.split(':')
                .next()
                .is_some_and(|user| user == name || user == uid)
        })
    })
}

impl<'a> Build<'a> {
    /// A build by that recipe.
    pub fn new(
        store: &'a ImageStore,
        recipe: Recipe,
        progress: &'a (dyn Fn(BuildProgress) + Send + Sync),
        cancel: &'a CancellationToken,
    ) -> Self {
        let (began, stage) = (Instant::now(), Mutex::new(Stage::Preparing));
        Self {
            store,
            recipe,
            progress,
            cancel,
            began,
            stage,
        }
    }

    /// Builds, or takes what another builder made meanwhile.
    pub async fn run(&self, when: When) -> Result<Image, ImageError> {
        self.report(Stage::Preparing, "checking what is installed");
        let mode = Mode::choose()?;
        for tool in [
            tool::MMDEBSTRAP,
            tool::UNSHARE,
            tool::MKFS_EXT4,
            tool::QEMU_IMG,
        ] {
            tool.require()?;
        }
        let dir = self.store.dir();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ImageError::io("create", dir))?;
        let (_lock, waited) = self.lock().await?;
        if (waited || when == When::OutOfDate)
            && let Some(image) = self.store.get(&self.recipe.name)?
            && image.manifest.key == self.recipe.key()
        {
            return Ok(image);
        }
        self.remove_leftovers(mode).await;

        let draft = tempfile::Builder::new()
            .prefix(DRAFT_PREFIX)
            .tempdir_in(dir)
            .map_err(ImageError::io("create a directory in", dir))?
            .keep();
        let result = self.fill(mode, &draft).await;
        self.remove(mode, std::slice::from_ref(&draft)).await;
        result?;
        self.store
            .get(&self.recipe.name)?
            .ok_or(ImageError::Missing {
                name: self.recipe.name.clone(),
            })
    }

    async fn fill(&self, mode: Mode, draft: &Path) -> Result<(), ImageError> {
        let assets = write_assets(draft)?;
        let image = draft.join("image");
        fs::create_dir(&image).map_err(ImageError::io("create", &image))?;
        self.report(Stage::Downloading, "starting mmdebstrap");
        let mut command = outer(mode, draft)?;
        command
            .arg(assets.join("assemble.sh"))
            .arg(draft)
            .arg(&assets)
            .envs(self.recipe.environment());
        self.run_logged(command).await?;

        self.report(Stage::Finishing, "packing the disk");
        let (raw, disk) = (draft.join("rootfs.ext4"), image.join(DISK));
        let convert = tool::QEMU_IMG.run([
            "convert".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            "raw".as_ref(),
            "-O".as_ref(),
            "qcow2".as_ref(),
            raw.as_os_str(),
            disk.as_os_str(),
        ]);
        tokio::select! {
            converted = convert => converted.map(drop)?,
            () = self.cancel.cancelled() => return Err(self.cancelled()),
        };
        for name in [KERNEL, INITRD] {
            fs::rename(draft.join(name), image.join(name))
                .map_err(ImageError::io("move", image.join(name)))?;
        }
        let packages = draft.join("packages");
        let packages = fs::read_to_string(&packages).map_err(ImageError::io("read", &packages))?;
        self.report(Stage::Finishing, "checking the files");
        let (recipe, files_dir) = (self.recipe.clone(), image.clone());
        let sealed =
            tokio::task::spawn_blocking(move || seal(&files_dir, &recipe, &packages)).await;
        sealed.unwrap_or_else(|error| Err(ImageError::io("seal", &image)(error.into())))?;
        if self.cancel.is_cancelled() {
            return Err(self.cancelled());
        }
        self.publish(&image)
    }

    /// The one moment at which the image comes to be. An older one is exchanged, then removed with
    /// the draft.
    fn publish(&self, image: &Path) -> Result<(), ImageError> {
        use rustix::fs::{CWD, renameat_with};
        let place = self.store.dir().join(&self.recipe.name);
        let done = match renameat_with(CWD, image, CWD, &place, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {
                renameat_with(CWD, image, CWD, &place, RenameFlags::EXCHANGE)
            }
            other => other,
        };
        done.map_err(|error| ImageError::io("put the image in", &place)(error.into()))?;
        sync(self.store.dir())
    }

    /// Runs the scripts, passing on their progress and keeping everything that they print.
    async fn run_logged(&self, mut command: Command) -> Result<(), ImageError> {
        let log_path = self.store.log(&self.recipe.name);
        let mut log = File::create(&log_path).map_err(ImageError::io("create", &log_path))?;
        let start = |source| ToolError::Start {
            program: "bash",
            source,
        };
        let mut child = command.spawn().map_err(start)?;
        let mut group = Group(
            child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
        );
        // Held until the end: its closing ends the scripts.
        let held = child.stdin.take();
        let mut tail = Vec::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                let read = tokio::select! {
                    read = output.read_until(b'\n', &mut line) => read,
                    () = self.cancel.cancelled() => {
                        group.kill();
                        let _ = child.wait().await;
                        return Err(self.cancelled());
                    }
                };
                if !matches!(read, Ok(1..)) {
                    break;
                }
                log.write_all(&line)
                    .map_err(ImageError::io("write", &log_path))?;
                self.follow(&line);
                tail.extend_from_slice(&line);
                let surplus = tail.len().saturating_sub(8192);
                tail.drain(..surplus);
            }
        }
        let status = child.wait().await.map_err(start)?;
        drop(held);
        group.0 = None;
        if status.success() {
            return Ok(());
        }
        Err(ImageError::Build {
            name: self.recipe.name.clone(),
            stage: self.current(),
            last_lines: last_lines(&tail, 6),
            log: log_path,
            advice: advice(&String::from_utf8_lossy(&tail)),
        })
    }

    fn follow(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = printable(&line);
        match stage_of(&line) {
            Some(stage) => self.report(
                stage,
                line.strip_prefix("I: ").unwrap_or(&stage.to_string()),
            ),
            None if line.starts_with("Setting up ") || line.starts_with("Get:") => {
                self.report(self.current(), &line);
            }
            None => {}
        }
    }

    fn current(&self) -> Stage {
        self.stage.lock().map_or(Stage::Preparing, |stage| *stage)
    }

    fn report(&self, stage: Stage, message: &str) {
        if let Ok(mut current) = self.stage.lock() {
            *current = stage;
        }
        (self.progress)(BuildProgress {
            stage,
            message: message.to_owned(),
            elapsed: self.began.elapsed(),
        });
    }

    fn cancelled(&self) -> ImageError {
        ImageError::Cancelled {
            name: self.recipe.name.clone(),
        }
    }

    /// The lock of the store, and whether it had to be waited for. The kernel gives it up when its
    /// holder dies.
    async fn lock(&self) -> Result<(File, bool), ImageError> {
        let path = self.store.dir().join(".lock");
        let file = File::create(&path).map_err(ImageError::io("create", &path))?;
        let mut waited = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok((file, waited)),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    if !waited {
                        self.report(Stage::Waiting, "another build is running");
                    }
                    waited = true;
                }
                Err(error) => return Err(ImageError::io("lock", path)(error.into())),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = self.cancel.cancelled() => return Err(self.cancelled()),
            }
        }
    }

    /// Under the lock, every draft belongs to a build that died.
    async fn remove_leftovers(&self, mode: Mode) {
        let Ok(entries) = fs::read_dir(self.store.dir()) else {
            return;
        };
        let drafts: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(DRAFT_PREFIX)
            })
            .map(|entry| entry.path())
            .collect();
        self.remove(mode, &drafts).await;
    }

    /// Removes drafts, whose files may belong to subordinate ids. A failure is only logged: the next
    /// build tries again.
    async fn remove(&self, mode: Mode, drafts: &[PathBuf]) {
        let stubborn: Vec<&PathBuf> = drafts
            .iter()
            .filter(|draft| draft.exists() && fs::remove_dir_all(draft).is_err())
            .collect();
        let Some(first) = stubborn.first() else {
            return;
        };
        let attempt = async {
            let assets = tempfile::tempdir_in(self.store.dir())
                .map_err(ImageError::io("write in", *first))?;
            let scripts = write_assets(assets.path())?;
            let mut command = outer(mode, assets.path())?;
            command.arg(scripts.join("remove.sh")).args(&stubborn);
            let mut child = command.spawn().map_err(|source| ToolError::Start {
                program: "bash",
                source,
            })?;
            let held = child.stdin.take();
            let _ = child.wait().await;
            drop(held);
            Ok::<(), ImageError>(())
        };
        if let Err(error) = attempt.await {
            tracing::warn!(%error, "what a dead build left could not be removed");
        }
    }
}

/// The process group of the scripts, killed when the build is given up in whatever way.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

const BASH: Tool = Tool {
    program: "bash",
    package: "bash",
};

fn outer(mode: Mode, dir: &Path) -> Result<Command, ImageError> {
    let mut command = BASH.command()?;
    command
        .arg(dir.join("assets/outer.sh"))
        .arg(mode.word())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .process_group(0);
    Ok(command)
}

fn write_assets(dir: &Path) -> Result<PathBuf, ImageError> {
    let assets = dir.join("assets");
    fs::create_dir(&assets).map_err(ImageError::io("create", &assets))?;
    for (name, text) in ASSETS {
        let file = assets.join(name);
        fs::write(&file, text).map_err(ImageError::io("write", &file))?;
        fs::set_permissions(&file, Permissions::from_mode(0o755))
            .map_err(ImageError::io("protect", &file))?;
    }
    Ok(assets)
}

/// Hashes the files, makes them read-only, writes the manifest and has all of it on the disk.
fn seal(image: &Path, recipe: &Recipe, packages: &str) -> Result<(), ImageError> {
    let mut files = std::collections::BTreeMap::new();
    for name in [DISK, KERNEL, INITRD] {
        let path = image.join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o444))
            .map_err(ImageError::io("protect", &path))?;
        files.insert(name.to_owned(), measure(&path)?);
    }
    let packages = packages.lines().filter_map(|line| line.split_once('\t'));
    let manifest = ImageManifest {
        name: recipe.name.clone(),
        created_by: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        suite: recipe.suite.to_owned(),
        key: recipe.key(),
        packages: packages
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect(),
        files,
    };
    let path = image.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| ImageError::io("describe", &path)(error.into()))?;
    fs::write(&path, text).map_err(ImageError::io("write", &path))?;
    sync(&path)?;
    sync(image)
}

fn measure(path: &Path) -> Result<ImageFile, ImageError> {
    let mut file = File::open(path).map_err(ImageError::io("open", path))?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(ImageError::io("read", path))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
    file.sync_all().map_err(ImageError::io("sync", path))?;
    Ok(ImageFile {
        bytes,
        sha256: HEXLOWER.encode(&hash.finalize()),
    })
}

fn sync(path: &Path) -> Result<(), ImageError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(ImageError::io("sync", path))
}
