//! The guest's output on our own outputs: byte for byte into files and pipes, escaped on a
//! terminal.

use crate::error::CommandError;
use crate::frames::Channel;
use crate::output::write_error;
use crate::stream::Sink;
use banger_core::escape;
use rustix::fd::BorrowedFd;
use std::borrow::Cow;
use std::io::IsTerminal as _;

const PIPE_SIZE: usize = 1 << 20;

/// What may reach a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Printable text, line feeds and tabs.
    Escaped,
    /// Everything.
    Raw,
}

impl Trust {
    /// From a command's `--raw`.
    pub fn from_flag(raw: bool) -> Self {
        if raw { Self::Raw } else { Self::Escaped }
    }
}

/// Standard output and standard error.
#[derive(Debug)]
pub struct Terminal {
    stdout: Option<Escaper>,
    stderr: Option<Escaper>,
}

impl Terminal {
    /// Escapes where an output is a terminal and the guest is not trusted.
    pub fn new(trust: Trust) -> Self {
        widen(rustix::stdio::stdout());
        let escaper =
            |is_terminal: bool| (is_terminal && trust == Trust::Escaped).then(Escaper::default);
        Self {
            stdout: escaper(std::io::stdout().is_terminal()),
            stderr: escaper(std::io::stderr().is_terminal()),
        }
    }
}

impl Terminal {
    /// The bytes as they may be written to the output.
    pub fn made_safe<'a>(&mut self, channel: Channel, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let escaper = match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        };
        match escaper {
            Some(escaper) => escaper.escape(bytes).into_bytes().into(),
            None => bytes.into(),
        }
    }
}

impl Sink for Terminal {
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError> {
        write_all(descriptor(channel), &self.made_safe(channel, bytes))
    }
}

/// Where an output of the program goes.
pub fn descriptor(channel: Channel) -> BorrowedFd<'static> {
    match channel {
        Channel::Stdout => rustix::stdio::stdout(),
        Channel::Stderr => rustix::stdio::stderr(),
    }
}

/// A pipe holds 64 KiB by default: with more room, the two ends change places less often. Where
/// it is no pipe, or the user has no more to spend, it stays as it is.
fn widen(fd: BorrowedFd<'_>) {
    if rustix::pipe::fcntl_getpipe_size(fd).is_ok_and(|size| size < PIPE_SIZE) {
        let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_SIZE);
    }
}

/// Past the buffer of the standard library, which would copy everything once more.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), CommandError> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Whoever opened it wanted no waiting; we do.
            Err(rustix::io::Errno::AGAIN) => wait_for_room(fd),
            Err(error) => return Err(write_error(&error.into())),
        }
    }
    Ok(())
}

fn wait_for_room(fd: BorrowedFd<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
}

/// Escapes text that comes in pieces, which may end within a character.
#[derive(Debug, Default)]
struct Escaper {
    begun: Vec<u8>,
}

impl Escaper {
    fn escape(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let begun = begun_character(&self.begun);
        let rest = self.begun.split_off(self.begun.len() - begun);
        let whole = std::mem::replace(&mut self.begun, rest);
        escape::lines(&whole)
    }
}

/// How many bytes at the end may be the beginning of a character.
fn begun_character(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|length| {
            let tail = bytes.get(bytes.len() - length..).unwrap_or_default();
            std::str::from_utf8(tail)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_may_come_in_pieces() {
        let text = "aü→😀\x1b[2J\tb\n".as_bytes();
        for piece in 1..text.len() {
            let mut escaper = Escaper::default();
            let shown: String = text
                .chunks(piece)
                .map(|bytes| escaper.escape(bytes))
                .collect();
            assert_eq!(shown, "aü→😀\\x1b[2J\tb\n");
        }
        let mut escaper = Escaper::default();
        assert_eq!(escaper.escape(b"\xff\xe2"), "\\xff");
        assert_eq!(escaper.escape(b"x"), "\\xe2x");
    }
}
