//! A stopped machine's work disk, read on the host without booting it.
//!
//! The guest is hostile and may have written any bytes there. So the reader is banger's own and
//! small (`ext4`, `journal`): it refuses what it does not know, follows no symbolic link, takes
//! only regular files for files, and has a deadline. It works on a thread of its own, and a panic
//! would become an error. The crate ext4-view (1.0.0) was looked at first and not taken: it ends a
//! journal where that wraps, keeps blocks that were freed later, reads what was allocated and never
//! written as if it were data, and sizes allocations by what the image says.
//!
//! A machine that runs changes its disk under the reader. Whoever opens one sees to it that the
//! machine does not run; here the image is refused while QEMU's locks are on it, and what was read is
//! thrown away where the image has changed since it was opened.
//!
//! What the files mean is not known here.

mod ext4;
mod journal;

pub use ext4::Ext4Error;
use ext4::{Ext4, Inode, InodeKind};

use banger_core::{Failure, GuestPath, Kind};
use std::cell::RefCell;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one look at a disk may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Entries of a directory beyond which it is not listed.
pub const ENTRIES_LIMIT: usize = 4096;
/// The most that is read of a file at once, in bytes.
pub const PIECE_LIMIT: usize = 1 << 20;
/// Bytes from a file's end within which its last lines are looked for.
const TAIL_LIMIT: u64 = 64 << 20;

/// Why a work disk can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkDiskError {
    /// The image can't be opened.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its machine runs, or it was written to while it was read.
    #[error("the disk {} is in use", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// What is on it can't be read.
    #[error("the disk {} cannot be read", path.display())]
    Content {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: Ext4Error,
    },
    /// The reader failed.
    #[error("the reader of the disk {} failed", path.display())]
    Reader {
        /// The image.
        path: PathBuf,
    },
}

impl From<WorkDiskError> for Failure {
    fn from(error: WorkDiskError) -> Self {
        let kind = match &error {
            WorkDiskError::Io { .. } => Kind::Host,
            WorkDiskError::InUse { .. } => Kind::Conflict,
            WorkDiskError::Content { .. } => Kind::Guest,
            WorkDiskError::Reader { .. } => Kind::Internal,
        };
        let failure = Self::from_error(kind, &error);
        match error {
            WorkDiskError::InUse { .. } => failure.hint("ask again"),
            WorkDiskError::Content { .. } => {
                failure.hint("start the VM: its own kernel may be able to read it")
            }
            _ => failure,
        }
    }
}

/// A work disk that nobody writes to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkDisk(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    fs: Ext4,
    path: PathBuf,
    mount_point: GuestPath,
    stamp: Stamp,
}

/// What changes when somebody writes to a file: its time of modification in nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(i64, i64);

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.mtime(), metadata.mtime_nsec()))
    }
}

impl WorkDisk {
    /// Opens the disk in this file, which the guest has at `mount_point`.
    ///
    /// # Errors
    /// [`WorkDiskError`]
    pub async fn open(path: &Path, mount_point: GuestPath) -> Result<Self, WorkDiskError> {
        let path = path.to_owned();
        let named = path.clone();
        let opening = tokio::task::spawn_blocking(move || Self::open_now(path, mount_point));
        opening
            .await
            .unwrap_or(Err(WorkDiskError::Reader { path: named }))
    }

    fn open_now(path: PathBuf, mount_point: GuestPath) -> Result<Self, WorkDiskError> {
        let io = |operation| {
            let path = path.clone();
            move |source| WorkDiskError::Io {
                operation,
                path,
                source,
            }
        };
        let file = File::open(&path).map_err(io("open"))?;
        let stamp = Stamp::of(&file).map_err(io("look at"))?;
        if is_locked(&file).map_err(io("look for locks of"))? {
            return Err(WorkDiskError::InUse { path });
        }
        let fs = match Ext4::open(file, Instant::now() + DEADLINE) {
            Ok(fs) => fs,
            Err(source) => return Err(WorkDiskError::Content { path, source }),
        };
        let opened = Opened {
            fs,
            path,
            mount_point,
            stamp,
        };
        opened.check_unchanged()?;
        Ok(Self(Arc::new(opened)))
    }

    /// Looks at files, on a thread where that may block, within [`DEADLINE`].
    ///
    /// # Errors
    /// [`WorkDiskError`]; what was read is thrown away where the disk has changed meanwhile.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Look<'_>) -> Result<T, Ext4Error> + Send + 'static,
    ) -> Result<T, WorkDiskError> {
        let opened = Arc::clone(&self.0);
        let looking = tokio::task::spawn_blocking(move || {
            let result = work(&Look {
                opened: &opened,
                until: Instant::now() + DEADLINE,
                last: RefCell::default(),
            });
            opened.check_unchanged()?;
            result.map_err(|source| WorkDiskError::Content {
                path: opened.path.clone(),
                source,
            })
        });
        looking.await.unwrap_or_else(|_| {
            Err(WorkDiskError::Reader {
                path: self.0.path.clone(),
            })
        })
    }
}

impl Opened {
    fn check_unchanged(&self) -> Result<(), WorkDiskError> {
        match Stamp::of(self.fs.image()) {
            Ok(stamp) if stamp == self.stamp => Ok(()),
            _ => Err(WorkDiskError::InUse {
                path: self.path.clone(),
            }),
        }
    }
}

/// A regular file of the disk.
#[derive(Debug, Clone)]
pub struct DiskFile(Inode);

impl DiskFile {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.0.size
    }
}

/// A look at a disk; ends at its deadline.
pub struct Look<'a> {
    opened: &'a Opened,
    until: Instant,
    /// The directory that was looked into last: most questions are about its neighbours.
    last: RefCell<Option<(Vec<u8>, Inode)>>,
}

impl Look<'_> {
    /// The names in a directory, but for `.` and `..`. None where there is no such directory.
    ///
    /// # Errors
    /// [`Ext4Error`]; also where it has more than [`ENTRIES_LIMIT`] entries.
    pub fn names(&self, directory: &GuestPath) -> Result<Vec<Vec<u8>>, Ext4Error> {
        let Some(directory) = self.find(directory.as_bytes())? else {
            return Ok(Vec::new());
        };
        if directory.kind != InodeKind::Directory {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        let mut too_much = false;
        self.opened
            .fs
            .each_entry(&directory, self.until, |name, _| {
                if name == b"." || name == b".." {
                    return ControlFlow::Continue(());
                }
                if names.len() == ENTRIES_LIMIT {
                    too_much = true;
                    return ControlFlow::Break(());
                }
                names.push(name.to_vec());
                ControlFlow::Continue(())
            })?;
        match too_much {
            true => Err(Ext4Error::TooMuch {
                what: "entries in a directory",
            }),
            false => Ok(names),
        }
    }

    /// Whether there is a directory of this name, and no link to one.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn is_directory(&self, path: &GuestPath) -> Result<bool, Ext4Error> {
        Ok(self
            .find(path.as_bytes())?
            .is_some_and(|inode| inode.kind == InodeKind::Directory))
    }

    /// A regular file. `None` where there is none of this name.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn file(&self, path: &GuestPath) -> Result<Option<DiskFile>, Ext4Error> {
        Ok(self
            .find(path.as_bytes())?
            .filter(|inode| inode.kind == InodeKind::File)
            .map(DiskFile))
    }

    /// The whole of a small file, and no more than `limit` bytes. `None` where it is longer or no
    /// regular file.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn contents(&self, path: &GuestPath, limit: usize) -> Result<Option<Vec<u8>>, Ext4Error> {
        match self.file(path)? {
            Some(file) if file.length() <= limit as u64 => self.read(&file, 0, limit).map(Some),
            _ => Ok(None),
        }
    }

    /// What a file holds from a byte on: less than `limit` and [`PIECE_LIMIT`] bytes at its end
    /// only. Holes are zeros.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn read(&self, file: &DiskFile, offset: u64, limit: usize) -> Result<Vec<u8>, Ext4Error> {
        let left = usize::try_from(file.length().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(limit).min(PIECE_LIMIT)];
        let length = self
            .opened
            .fs
            .read(&file.0, offset, &mut bytes, self.until)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Where a file's last lines begin, not before `start`; a line feed at its end belongs to the
    /// last line. They are looked for in its last 64 MiB.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn start_of_last_lines(
        &self,
        file: &DiskFile,
        start: u64,
        lines: u64,
    ) -> Result<u64, Ext4Error> {
        let end = file.length();
        if lines == 0 {
            return Ok(end);
        }
        let start = start.max(end.saturating_sub(TAIL_LIMIT));
        let mut at = end;
        let mut seen = 0;
        while at > start {
            let from = start.max(at.saturating_sub(PIECE_LIMIT as u64));
            let length = usize::try_from(at - from).unwrap_or(PIECE_LIMIT);
            let piece = self.read(file, from, length)?;
            for (n, byte) in piece.iter().enumerate().rev() {
                let after = from + n as u64 + 1;
                if *byte == b'\n' && after != end {
                    seen += 1;
                    if seen == lines {
                        return Ok(after);
                    }
                }
            }
            at = from;
        }
        Ok(start)
    }

    /// Paths that are not below the mount point are not on this disk.
    fn find(&self, path: &[u8]) -> Result<Option<Inode>, Ext4Error> {
        let mount_point = self.opened.mount_point.as_bytes();
        let Some(path) = path
            .strip_prefix(mount_point.strip_suffix(b"/").unwrap_or(mount_point))
            .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
        else {
            return Ok(None);
        };
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let parent = match &mut *self.last.borrow_mut() {
            Some((known, inode)) if known == parent => inode.clone(),
            last => {
                let Some(inode) = self.opened.fs.find(names(parent), self.until)? else {
                    return Ok(None);
                };
                *last = Some((parent.to_vec(), inode.clone()));
                inode
            }
        };
        match name {
            b"" | b"." => Ok(Some(parent)),
            name => self.opened.fs.child(&parent, name, self.until),
        }
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
}

/// Whether a program holds locks on the file as QEMU does on its disks: on single bytes of it, that
/// belong to an open file and no process. Where the kernel names the device otherwise than `stat`
/// (btrfs, overlayfs) nothing is found.
fn is_locked(file: &File) -> std::io::Result<bool> {
    let metadata = file.metadata()?;
    let (major, minor) = (
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev()),
    );
    let name = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    // As in `1: OFDLCK ADVISORY  READ  -1 fd:01:4711 100 101`.
    let locks = match std::fs::read_to_string("/proc/locks") {
        Ok(locks) => locks,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(locks.lines().any(|line| {
        line.contains(" OFDLCK ") && line.split_ascii_whitespace().any(|word| word == name)
    }))
}
