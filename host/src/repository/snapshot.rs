//! A repository of our own that holds one moment of the user's, ready to be fetched.
//!
//! It borrows the user's objects and adds what only the working tree and the index have, written by
//! `git fast-import`. It shares no configuration with anything of the user's. What its references
//! and its commits hold is described in `wit/workspace.wit`.
//!
//! A snapshot that was served is kept, so that the next one needs to bring only what is new since.

use super::scan::{Conflict, Edit, Part, Scan};
use banger_core::{Failure, Kind, escape};
use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufWriter, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::process::Command;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: u32 = 3;
const CHUNK: usize = 64 << 10;
/// The same content gives the same commit.
const COMMITTER: &str = "committer banger <banger@localhost> 1577836800 +0000\ndata 0\n\n";

/// Why there is no snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// Something changed while it was read: it may be tried again.
    Changed(Vec<u8>),
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for SnapshotError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Changed(path) => Self::new(
                Kind::Invalid,
                format!("`{}` changed while it was being read", escape::text(&path)),
            )
            .hint("if something is writing there, let it finish and try again"),
            SnapshotError::Failed(failure) => failure,
        }
    }
}

/// Stops the making of a snapshot when it is dropped.
#[derive(Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// What is looked at.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A snapshot on disk; it is removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct Snapshot {
    directory: tempfile::TempDir,
    objects: Vec<PathBuf>,
    /// The commit `refs/snapshot/top`.
    pub id: String,
}

impl Snapshot {
    /// Writes what was scanned, beside `kept`, the place of the last snapshot. Reads the working
    /// tree. Blocks; call it on a thread of its own.
    ///
    /// # Errors
    /// Where a file changed meanwhile, or can't be read; or git fails.
    pub fn make(scan: &Scan, kept: &Path, stop: &AtomicBool) -> Result<Self, SnapshotError> {
        let wrong = |error: std::io::Error| host("can't make a snapshot", &error);
        let (Some(parent), Some(name)) = (kept.parent(), kept.file_name()) else {
            return Err(Failure::new(Kind::Internal, "a snapshot has no place").into());
        };
        std::fs::create_dir_all(parent).map_err(wrong)?;
        let directory = tempfile::Builder::new()
            .prefix(
                &[name.as_bytes(), b".new-"]
                    .concat()
                    .escape_ascii()
                    .to_string(),
            )
            .tempdir_in(parent)
            .map_err(wrong)?;
        let objects = scan
            .parts
            .iter()
            .map(|part| part.repository.objects())
            .collect();
        let mut snapshot = Self {
            directory,
            objects,
            id: String::new(),
        };
        snapshot.lay_out(scan).map_err(wrong)?;
        snapshot.borrow_objects(None).map_err(wrong)?;
        snapshot.import(scan, stop)?;
        let id =
            std::fs::read_to_string(snapshot.path().join("refs/snapshot/top")).map_err(wrong)?;
        snapshot.id = id.trim_end().to_owned();
        // Only now: nothing of this one may lie in the last one alone.
        let last = kept.join("objects");
        if last.is_dir() {
            snapshot.borrow_objects(Some(&last)).map_err(wrong)?;
        }
        Ok(snapshot)
    }

    /// Where it is.
    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts it where the last one was.
    ///
    /// # Errors
    /// Where that can't be written.
    pub fn keep(self, kept: &Path) -> Result<(), Failure> {
        let wrong = |error: std::io::Error| host("can't keep a snapshot", &error);
        self.borrow_objects(None).map_err(wrong)?;
        match std::fs::remove_dir_all(kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => {}
        }
        std::fs::rename(self.path(), kept).map_err(wrong)
    }

    /// The id of the working tree's tree. Where filters or line ends are converted, the guest's git
    /// would make another of the same files.
    pub async fn working_tree(&self) -> Option<String> {
        let mut command = Command::from(bare_git());
        command
            .arg("-C")
            .arg(self.path())
            .args(["rev-parse", "--verify", "--quiet"])
            .arg(format!("{}:worktree", self.id))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.ok()?;
        let id = String::from_utf8(output.stdout).ok()?;
        (output.status.success()).then(|| id.trim_end().to_owned())
    }

    /// `git upload-pack` on it: the command whose stdin and stdout speak to a `git fetch`.
    pub fn upload_pack(&self) -> Command {
        let mut command = Command::from(bare_git());
        command
            // Packing well costs more time than it saves on the way.
            .args(["-c", "core.compression=1", "-c", "pack.window=0"])
            // What the guest has is left out also where it has it under another path: the trees of a
            // commit lie one level deeper in a snapshot.
            .args(["-c", "pack.useSparse=false"])
            .args(["upload-pack", "--strict"])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What `git init` would make.
    fn lay_out(&self, scan: &Scan) -> std::io::Result<()> {
        let path = self.path();
        std::fs::create_dir_all(path.join("objects/info"))?;
        std::fs::create_dir_all(path.join("refs"))?;
        std::fs::write(path.join("HEAD"), "ref: refs/heads/none\n")?;
        std::fs::write(
            path.join("config"),
            format!(
                "[core]\nrepositoryformatversion = 1\nbare = true\n[extensions]\nobjectFormat = {}\n",
                scan.object_format
            ),
        )?;
        let shallow: Vec<u8> = scan
            .parts
            .iter()
            .flat_map(|part| part.repository.shallow())
            .collect();
        if !shallow.is_empty() {
            std::fs::write(path.join("shallow"), shallow)?;
        }
        let mut references = Vec::new();
        for part in &scan.parts {
            for (id, name) in &part.references {
                references.extend_from_slice(format!("{id} refs/parts/{}/", part.key).as_bytes());
                references.extend_from_slice(name);
                references.push(b'\n');
            }
        }
        std::fs::write(path.join("packed-refs"), references)
    }

    fn borrow_objects(&self, last: Option<&Path>) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for objects in self.objects.iter().map(PathBuf::as_path).chain(last) {
            lines.extend_from_slice(&quoted(objects.as_os_str().as_bytes()));
            lines.push(b'\n');
        }
        std::fs::write(self.path().join("objects/info/alternates"), lines)
    }

    fn import(&self, scan: &Scan, stop: &AtomicBool) -> Result<(), SnapshotError> {
        let no_git = |error: std::io::Error| host("can't run git", &error);
        let mut child = bare_git()
            .arg("--git-dir")
            .arg(self.path())
            .args(["-c", "core.compression=1", "-c", "fastimport.unpackLimit=1"])
            .args([
                "-c",
                "core.protectNTFS=false",
                "-c",
                "core.protectHFS=false",
            ])
            .args(["fast-import", "--quiet", "--done", "--force"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(no_git)?;
        let (Some(input), Some(mut errors)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(Failure::new(Kind::Internal, "git has no pipes").into());
        };
        let complaints = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = errors.read_to_end(&mut bytes);
            bytes
        });
        let mut writer = Import {
            out: BufWriter::with_capacity(CHUNK, input),
            marks: 0,
            stop,
        };
        let written = scan
            .parts
            .iter()
            .try_for_each(|part| writer.part(part, scan))
            .and_then(|()| Ok(writer.out.write_all(b"done\n")?))
            .and_then(|()| Ok(writer.out.flush()?));
        drop(writer);
        if matches!(&written, Err(ImportError::Snapshot(_))) {
            let _ = child.kill();
        }
        let status = child.wait().map_err(no_git)?;
        let complaints = complaints.join().unwrap_or_default();
        match written {
            Err(ImportError::Snapshot(error)) => Err(error),
            // git's own end says why it reads no more.
            Ok(()) | Err(ImportError::Pipe(_)) if !status.success() => {
                let partial = scan.parts.iter().any(|part| part.repository.is_partial());
                let failure = Failure::new(Kind::Invalid, "git can't read the repository")
                    .detail(&complaints[..complaints.len().min(4096)]);
                Err(if partial {
                    failure.hint(PARTIAL)
                } else {
                    failure.hint("`git fsck` may say more")
                }
                .into())
            }
            Err(ImportError::Pipe(error)) => Err(no_git(error).into()),
            Ok(()) => Ok(()),
        }
    }
}

/// What to do about a partial clone.
pub const PARTIAL: &str = "it is a partial clone, and objects that are needed are not in it: \
    `git fetch --refetch --no-filter` brings them";

fn host(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Host, format!("{what}: {error}"))
}

/// git with nobody's configuration.
fn bare_git() -> std::process::Command {
    let mut command = std::process::Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/");
    command
}

/// A path as git quotes it, whatever is in it.
fn quoted(path: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in path {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => text.push(*byte),
            _ => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
        }
    }
    text.push(b'"');
    text
}

enum ImportError {
    Snapshot(SnapshotError),
    /// fast-import reads no more.
    Pipe(std::io::Error),
}

impl From<std::io::Error> for ImportError {
    fn from(error: std::io::Error) -> Self {
        Self::Pipe(error)
    }
}

impl From<SnapshotError> for ImportError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

/// What is written to `git fast-import`.
struct Import<'a, W: Write> {
    out: W,
    marks: u64,
    stop: &'a AtomicBool,
}

/// What a file was when it was looked at.
#[derive(PartialEq, Eq)]
struct Stamp {
    length: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &cap_std::fs::Metadata) -> Self {
        Self {
            length: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl<W: Write> Import<'_, W> {
    fn part(&mut self, part: &Part, scan: &Scan) -> Result<(), ImportError> {
        let top = Dir::open_ambient_dir(part.repository.top(), cap_std::ambient_authority())
            .map_err(|_| SnapshotError::Changed(part.path.clone()))?;
        let mut read = BTreeMap::new();
        for (path, edit) in &part.worktree {
            if *edit == Edit::Read {
                read.insert(path.as_slice(), self.file(&top, path)?);
            }
        }
        write!(self.out, "commit refs/snapshot/{}\n{COMMITTER}", part.key)?;
        write!(self.out, "from {}\ndeleteall\n", part.head)?;
        for name in ["worktree", "index"] {
            writeln!(self.out, "M 040000 {} {name}", part.tree)?;
        }
        self.edits(b"worktree/", &part.worktree, &read)?;
        self.edits(b"index/", &part.index, &read)?;
        self.metadata(part, scan)
    }

    /// Removals first: a file may stand where a directory was.
    fn edits(
        &mut self,
        below: &[u8],
        edits: &BTreeMap<Vec<u8>, Edit>,
        read: &BTreeMap<&[u8], (&'static str, u64)>,
    ) -> Result<(), ImportError> {
        let quote = |path: &[u8]| quoted(&[below, path].concat());
        for (path, edit) in edits {
            if *edit == Edit::Remove {
                self.line(&[b"D ", &quote(path)])?;
            }
        }
        for (path, edit) in edits {
            let what = match edit {
                Edit::Remove => continue,
                Edit::Object { mode, id } => format!("M {mode} {id} "),
                Edit::Read => match read.get(path.as_slice()) {
                    Some((mode, mark)) => format!("M {mode} :{mark} "),
                    None => continue,
                },
            };
            self.line(&[what.as_bytes(), &quote(path)])?;
        }
        Ok(())
    }

    fn metadata(&mut self, part: &Part, scan: &Scan) -> Result<(), ImportError> {
        let list = |paths: &[Vec<u8>]| -> Vec<u8> {
            paths
                .iter()
                .flat_map(|path| [path.as_slice(), b"\0"].concat())
                .collect()
        };
        let settings = part
            .settings
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), b"\0", value, b"\0"].concat())
            .collect();
        let conflicts = part
            .conflicts
            .iter()
            .flat_map(|conflict| {
                let Conflict {
                    mode,
                    id,
                    stage,
                    path,
                } = conflict;
                let entry = format!("{mode} {id} {stage}\t");
                [entry.as_bytes(), path, b"\0"].concat()
            })
            .collect();
        let parts = if part.path.is_empty() {
            scan.parts
                .iter()
                .filter(|part| !part.path.is_empty())
                .flat_map(|part| {
                    [&part.path, b"\0".as_slice(), part.key.as_bytes(), b"\0"].concat()
                })
                .collect()
        } else {
            Vec::new()
        };
        let branch = part.branch.clone().unwrap_or_default().into_bytes();
        for (name, content) in [
            ("branch", branch),
            ("conflicts", conflicts),
            ("intent-to-add", list(&part.intent_to_add)),
            ("skip-worktree", list(&part.skip_worktree)),
            ("assume-unchanged", list(&part.assume_unchanged)),
            ("settings", settings),
            (
                "sparse-checkout",
                part.sparse_checkout.clone().unwrap_or_default(),
            ),
            ("parts", parts),
        ] {
            if !content.is_empty() {
                writeln!(
                    self.out,
                    "M 100644 inline meta/{name}\ndata {}",
                    content.len()
                )?;
                self.line(&[&content])?;
            }
        }
        for conflict in &part.conflicts {
            if conflict.mode != "160000" {
                let id = &conflict.id;
                writeln!(self.out, "M 100644 {id} objects/{id}")?;
            }
        }
        self.line(&[])
    }

    fn line(&mut self, pieces: &[&[u8]]) -> Result<(), ImportError> {
        for piece in pieces {
            self.out.write_all(piece)?;
        }
        Ok(self.out.write_all(b"\n")?)
    }

    /// Writes one file or link as a blob, as it is at one moment; its mode and mark.
    fn file(&mut self, top: &Dir, path: &[u8]) -> Result<(&'static str, u64), ImportError> {
        let name = Path::new(OsStr::from_bytes(path));
        let changed = || SnapshotError::Changed(path.to_vec());
        let unreadable = |error: &std::io::Error| -> SnapshotError {
            if error.kind() == std::io::ErrorKind::NotFound {
                return changed();
            }
            Failure::new(
                Kind::Invalid,
                format!("can't read `{}`: {error}", escape::text(path)),
            )
            .hint("a file that can't be read can't come along; make it readable, or let git ignore it")
            .into()
        };
        for _ in 0..ATTEMPTS {
            let metadata = top
                .symlink_metadata(name)
                .map_err(|error| unreadable(&error))?;
            if metadata.is_symlink() {
                let target = top
                    .read_link_contents(name)
                    .map_err(|error| unreadable(&error))?;
                let target = target.as_os_str().as_bytes();
                let mark = self.blob(target.len() as u64)?;
                self.line(&[target])?;
                return Ok(("120000", mark));
            }
            if !metadata.is_file() {
                return Err(changed().into());
            }
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(
                (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32,
            );
            let mut file = top
                .open_with(name, &options)
                .map_err(|error| unreadable(&error))?;
            let before = Stamp::of(&file.metadata().map_err(|error| unreadable(&error))?);
            if before != Stamp::of(&metadata) {
                continue;
            }
            let mark = self.blob(before.length)?;
            let whole = self.copy(&mut file, before.length, &unreadable)?;
            self.line(&[])?;
            let after = Stamp::of(&file.metadata().map_err(|error| unreadable(&error))?);
            // What was written of another moment is not referred to.
            if whole && before == after {
                let mode = if metadata.mode() & 0o100 != 0 {
                    "100755"
                } else {
                    "100644"
                };
                return Ok((mode, mark));
            }
        }
        Err(changed().into())
    }

    fn blob(&mut self, length: u64) -> Result<u64, ImportError> {
        self.marks += 1;
        write!(self.out, "blob\nmark :{}\ndata {length}\n", self.marks)?;
        Ok(self.marks)
    }

    /// Writes exactly so many bytes, zeros where the file has no more; whether it had them all.
    fn copy(
        &mut self,
        file: &mut cap_std::fs::File,
        length: u64,
        unreadable: &dyn Fn(&std::io::Error) -> SnapshotError,
    ) -> Result<bool, ImportError> {
        let mut buffer = vec![0; CHUNK];
        let mut left = length;
        while left > 0 {
            if self.stop.load(Ordering::Relaxed) {
                return Err(SnapshotError::from(Failure::new(Kind::Cancelled, "cancelled")).into());
            }
            let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = file
                .read(&mut buffer[..room])
                .map_err(|error| unreadable(&error))?;
            if count == 0 {
                std::io::copy(&mut std::io::repeat(0).take(left), &mut self.out)?;
                return Ok(false);
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        Ok(true)
    }
}
