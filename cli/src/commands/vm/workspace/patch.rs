//! Where a patch goes: a file that is never half, or standard output.

use crate::error::{CommandError, host};
use crate::frames::Channel;
use crate::stream::Sink;
use crate::terminal::{Terminal, Trust};
use banger_core::{Failure, Kind, escape};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file that appears under its name when it is whole.
#[derive(Debug)]
pub struct PatchFile {
    path: PathBuf,
    file: Destination,
    /// Bytes so far.
    pub length: u64,
}

/// A regular file is replaced in one step; a device, a pipe or a socket is written to.
#[derive(Debug)]
enum Destination {
    Draft(NamedTempFile),
    Special(std::fs::File),
}

impl PatchFile {
    /// Begins one beside where it is to be, so that no other file system lies between.
    ///
    /// # Errors
    /// Where the directory can't be written.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        // What a link leads to is meant, not the link.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = target.as_path();
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let shown = escape::text(path.as_os_str().as_encoded_bytes());
                return Err(
                    Failure::new(Kind::Invalid, format!("`{shown}` is a directory"))
                        .hint("name a file in it"),
                );
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = std::fs::OpenOptions::new().write(true).open(path);
                return Ok(Self {
                    file: Destination::Special(file.map_err(|error| failed(path, &error))?),
                    path: target,
                    length: 0,
                });
            }
            _ => {}
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".banger-")
            .suffix(".part")
            // As for any new file: the umask takes away from it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            // Its own name would tell the user nothing.
            .map_err(|error| failed(path, &std::io::Error::from(error.kind())))?;
        Ok(Self {
            file: Destination::Draft(file),
            path: target,
            length: 0,
        })
    }

    /// Gives it its name; what was there before is replaced in one step.
    ///
    /// # Errors
    /// Where it can't be written to the disk or renamed.
    pub fn finish(self) -> Result<u64, Failure> {
        if let Destination::Draft(file) = self.file {
            let synced = file.as_file().sync_all();
            synced.map_err(|error| failed(&self.path, &error))?;
            let persisted = file.persist(&self.path);
            persisted.map_err(|error| failed(&self.path, &error.error))?;
        }
        Ok(self.length)
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let path = escape::text(path.as_os_str().as_encoded_bytes());
    host(format!("write `{path}`"), error)
}

impl Sink for PatchFile {
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError> {
        only_stdout(channel)?;
        let written = match &mut self.file {
            Destination::Draft(file) => file.write_all(bytes),
            Destination::Special(file) => file.write_all(bytes),
        };
        written.map_err(|error| failed(&self.path, &error))?;
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// Standard output, which escapes on a terminal.
#[derive(Debug)]
pub struct PatchOutput(Terminal);

impl PatchOutput {
    /// Standard output.
    pub fn new() -> Self {
        Self(Terminal::new(Trust::Escaped))
    }
}

impl Sink for PatchOutput {
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError> {
        only_stdout(channel)?;
        self.0.write(channel, bytes)
    }
}

fn only_stdout(channel: Channel) -> Result<(), Failure> {
    match channel {
        Channel::Stdout => Ok(()),
        Channel::Stderr => Err(Failure::new(
            Kind::Daemon,
            "the daemon sent more than a patch",
        )),
    }
}
