//! Compiled code, kept between two runs of the daemon.
//!
//! Compiled code is as powerful as the daemon, so this is the one place in banger where a file
//! could become native code. Only files of this process's user, in a directory that nobody else
//! can write to, are looked at; and each must end in a digest over itself, the component and the
//! engine it was made for. The digest finds accidents (a file cut short by a power loss, one
//! copied to another name); it is the directory that keeps other users out. Who can write as this
//! user needs no cache to run code as this user.
//!
//! No error leaves this module: without a cache a component is compiled again, which takes
//! milliseconds. Precompiled artefacts of anyone else are never loaded, whatever their name.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::hash::{Hash as _, Hasher};
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// How many files the directory may hold before the oldest are removed.
const FILES_LIMIT: usize = 128;
/// The size of a file, in bytes. Code is some ten times the component.
const FILE_LIMIT: u64 = 256 << 20;
const MAGIC: &[u8; 16] = b"banger compiled\n";
const TRAILER: usize = MAGIC.len() + 32;

/// A private directory of compiled code.
pub struct CodeCache {
    directory: OwnedFd,
    engine: Sha256Digest,
}

/// Code that this process has compiled, or that has passed every check of [`CodeCache`].
pub struct TrustedCode(Vec<u8>);

impl TrustedCode {
    /// Compiles a component.
    pub fn compile(engine: &Engine, component: &[u8]) -> wasmtime::Result<Self> {
        engine.precompile_component(component).map(Self)
    }

    /// Maps the code into memory as executable.
    #[allow(unsafe_code)]
    pub fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` demands bytes that `precompile_component` made, unmodified.
        // A `TrustedCode` is made in two places only: by that very function in this process, and
        // by `CodeCache::get` from a file that is owned by this user and writable by nobody else,
        // in a directory of which the same is true, and whose digest over all its bytes matches,
        // so that they are the ones that an earlier process of ours has written completely. They
        // lie in our own memory since before the digest was checked. wasmtime itself compares its
        // version, settings and CPU features with the artefact's.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

impl CodeCache {
    /// Opens the directory and makes it if need be.
    ///
    /// # Errors
    /// In one sentence why there is no cache: it belongs to someone else, or others may write.
    pub fn open(path: &Path, engine: &Engine) -> Result<Self, String> {
        let name = path.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| format!("{name} can't be made: {error}"))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| format!("{name} can't be opened: {error}"))?;
        let stat = rustix::fs::fstat(&directory)
            .map_err(|error| format!("{name} can't be examined: {error}"))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(format!("{name} belongs to another user"));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(format!("{name} may be written to by other users"));
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&directory, Mode::RWXU)
                .map_err(|error| format!("{name} can't be made private: {error}"))?;
        }
        let mut hasher = ShaHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            directory,
            engine: hasher.0.finalize().into(),
        })
    }

    /// The code of a component, where a sound file has it.
    pub fn get(&self, component: &Sha256Digest) -> Option<TrustedCode> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.directory, self.name(component), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let size = u64::try_from(stat.st_size).ok()?;
        let sound = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o022 == 0
            && size <= FILE_LIMIT;
        if !sound {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?.saturating_add(1));
        File::from(file)
            .take(FILE_LIMIT)
            .read_to_end(&mut bytes)
            .ok()?;
        let code = bytes.len().checked_sub(TRAILER)?;
        let trailer = self.trailer(component, &bytes[..code]);
        if bytes[code..] != trailer {
            return None;
        }
        bytes.truncate(code);
        Some(TrustedCode(bytes))
    }

    /// Whether there is a file for the component, sound or not.
    pub fn has(&self, component: &Sha256Digest) -> bool {
        rustix::fs::statat(
            &self.directory,
            self.name(component),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .is_ok()
    }

    /// Keeps the code of a component. A failure is only logged.
    pub fn put(&self, component: &Sha256Digest, code: &TrustedCode) {
        if let Err(error) = self.try_put(component, code) {
            tracing::warn!(%error, "compiled plugin code could not be kept");
        }
    }

    fn try_put(&self, component: &Sha256Digest, code: &TrustedCode) -> std::io::Result<()> {
        // Two processes may do this at once: each has a temporary file of its own.
        let temporary = format!(".{}-{:016x}", std::process::id(), rand::random::<u64>());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let descriptor =
            rustix::fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(descriptor);
        let written = file
            .write_all(&code.0)
            .and_then(|()| file.write_all(&self.trailer(component, &code.0)))
            .and_then(|()| {
                rustix::fs::renameat(
                    &self.directory,
                    &temporary,
                    &self.directory,
                    self.name(component),
                )
                .map_err(Into::into)
            });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        written
    }

    /// Removes the oldest files where there are too many: code for other engines, of plugins that
    /// are gone, and temporary files of processes that were killed.
    pub fn prune(&self) {
        if let Err(error) = self.try_prune() {
            tracing::warn!(%error, "old compiled plugin code could not be removed");
        }
    }

    fn try_prune(&self) -> Result<(), Errno> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(&self.directory, ".", flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut entries = RawDir::new(listing.as_fd(), &mut buffer);
        let mut files = Vec::new();
        while let Some(entry) = entries.next() {
            let name = entry?.file_name().to_owned();
            let stat = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            if let Ok(stat) = stat
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                files.push((stat.st_mtime, name));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_LIMIT);
        for (_, name) in &files[..surplus] {
            rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        Ok(())
    }

    fn name(&self, component: &Sha256Digest) -> String {
        let hex = data_encoding::HEXLOWER.encode(component);
        let engine = data_encoding::HEXLOWER.encode(&self.engine[..8]);
        format!("{hex}-{engine}.code")
    }

    fn trailer(&self, component: &Sha256Digest, code: &[u8]) -> [u8; TRAILER] {
        let mut digest = Sha256::new();
        digest.update(component);
        digest.update(self.engine);
        digest.update(code);
        let mut trailer = [0; TRAILER];
        trailer[..MAGIC.len()].copy_from_slice(MAGIC);
        trailer[MAGIC.len()..].copy_from_slice(&digest.finalize());
        trailer
    }
}

/// The standard hasher gives other numbers after an update of the compiler; this one never does.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: Sha256Digest = self.0.clone().finalize().into();
        digest.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
    }
}
