//! Where a patch goes: a file that is never half, or standard output.

use crate::error::{CommandError, host};
use crate::frames::Channel;
use crate::output::Output;
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
    Complete,
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
            Destination::Complete => Ok(()),
        };
        written.map_err(|error| failed(&self.path, &error))?;
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Gives it its name; what was there before is replaced in one step.
    fn complete(&mut self) -> Result<(), CommandError> {
        if let Destination::Draft(file) = std::mem::replace(&mut self.file, Destination::Complete) {
            let synced = file.as_file().sync_all();
            synced.map_err(|error| failed(&self.path, &error))?;
            let persisted = file.persist(&self.path);
            persisted.map_err(|error| failed(&self.path, &error.error))?;
        }
        Ok(())
    }
}

/// Standard output, which escapes on a terminal.
#[derive(Debug)]
pub struct PatchOutput {
    terminal: Terminal,
    /// How much came.
    pub length: u64,
}

impl PatchOutput {
    /// Standard output.
    pub fn new() -> Self {
        Self {
            terminal: Terminal::new(Trust::Escaped),
            length: 0,
        }
    }
}

impl Sink for PatchOutput {
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError> {
        only_stdout(channel)?;
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.terminal.write(channel, bytes)
    }
}

/// A patch on a terminal: escaped, its lines coloured.
#[derive(Debug)]
pub struct Coloured {
    output: Output,
    /// A line that has begun.
    line: Vec<u8>,
    /// Lines that are still to come of the hunk, old and new; none outside of hunks.
    hunk: (u64, u64),
}

impl Coloured {
    /// On this standard output.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            line: Vec::new(),
            hunk: (0, 0),
        }
    }

    fn paint(&mut self, line: &[u8]) -> String {
        let style = self.output.style;
        let text = escape::lines(line);
        let (old, new) = self.hunk;
        if (old, new) != (0, 0) {
            let (took, text) = match line.first() {
                Some(b'+') => ((0, 1), style.good(&text)),
                Some(b'-') => ((1, 0), style.gone(&text)),
                Some(b'\\') => ((0, 0), text),
                _ => ((1, 1), text),
            };
            self.hunk = (old.saturating_sub(took.0), new.saturating_sub(took.1));
            return text;
        }
        if let Some(counts) = line.strip_prefix(b"@@ ") {
            self.hunk = hunk_lengths(counts);
            return style.hint(&text);
        }
        match line {
            [b'\\' | b' ', ..] | [] => text,
            _ if line.starts_with(b"diff ")
                || line.starts_with(b"--- ")
                || line.starts_with(b"+++ ") =>
            {
                style.head(&text)
            }
            _ => text,
        }
    }
}

impl Sink for Coloured {
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError> {
        only_stdout(channel)?;
        let mut text = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.last() == Some(&b'\n') {
                let mut line = std::mem::take(&mut self.line);
                line.pop();
                text += &self.paint(&line);
                text.push('\n');
            }
        }
        self.output.print(&text)
    }
}

/// `-1,3 +1,2 @@ …`: how many lines of each side follow.
fn hunk_lengths(text: &[u8]) -> (u64, u64) {
    let text = String::from_utf8_lossy(text);
    let mut lengths = text
        .split(' ')
        .take(2)
        .map(|range| match range.split_once(',') {
            Some((_, length)) => length.parse().unwrap_or(0),
            None => 1,
        });
    (lengths.next().unwrap_or(0), lengths.next().unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hunk_tells_how_long_it_is() {
        assert_eq!(hunk_lengths(b"-1,3 +1,2 @@ fn x()"), (3, 2));
        assert_eq!(hunk_lengths(b"-1 +0,0 @@"), (1, 0));
        assert_eq!(hunk_lengths(b"nonsense"), (1, 0));
    }
}
