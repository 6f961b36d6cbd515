//! Output on its way to our own outputs, and how far each of the session's streams has come.

use super::screen::Screen;
use crate::error::CommandError;
use crate::frames::Channel;
use crate::output::write_error;
use crate::terminal::{Terminal, descriptor};
use rustix::fd::BorrowedFd;
use std::collections::VecDeque;

/// A pipe or a terminal that poll(2) calls writable takes so much without waiting (`PIPE_BUF`).
const PIECE: usize = 4096;

/// How far the two streams have come: the next byte of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

impl Position {
    fn of(&mut self, channel: Channel) -> &mut u64 {
        match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        }
    }
}

/// Counts what comes, so that nothing is missed or repeated where a connection follows another.
#[derive(Debug, Default)]
pub struct Counter {
    next: Position,
    /// What this connection repeats.
    repeated: Position,
}

impl Counter {
    /// At the first connection's beginning.
    pub fn starting_at(position: Position) -> Self {
        Self {
            next: position,
            repeated: Position::default(),
        }
    }

    /// What to ask for next.
    pub fn position(&self) -> Position {
        self.next
    }

    /// A new connection begins here. Returns how many bytes it leaves out of a stream.
    pub fn go_on_from(&mut self, channel: Channel, from: u64) -> u64 {
        let next = self.next.of(channel);
        let missing = from.saturating_sub(*next);
        *self.repeated.of(channel) = next.saturating_sub(from);
        *next = from.max(*next);
        missing
    }

    /// Takes a piece; what of it is new.
    pub fn take<'a>(&mut self, channel: Channel, piece: &'a [u8]) -> &'a [u8] {
        let repeated = self.repeated.of(channel);
        let skipped = usize::try_from(*repeated).map_or(piece.len(), |r| r.min(piece.len()));
        *repeated -= skipped as u64;
        let new = piece.get(skipped..).unwrap_or_default();
        *self.next.of(channel) += new.len() as u64;
        new
    }
}

/// What is still to be written, in the order in which it came.
#[derive(Debug)]
pub struct Pending {
    queue: VecDeque<(Channel, Vec<u8>, usize)>,
    face: Face,
}

/// What becomes of the bytes.
#[derive(Debug)]
pub enum Face {
    /// Byte for byte into files and pipes; escaped on a terminal, unless that is to be trusted.
    Bytes(Terminal),
    /// They draw our terminal.
    Screen(Screen),
}

impl Pending {
    /// Nothing yet.
    pub fn new(face: Face) -> Self {
        Self {
            queue: VecDeque::new(),
            face,
        }
    }

    /// Adds output.
    pub fn push(&mut self, channel: Channel, bytes: &[u8]) {
        let bytes = match &mut self.face {
            Face::Bytes(terminal) => terminal.made_safe(channel, bytes).into_owned(),
            Face::Screen(screen) => {
                screen.note(bytes);
                bytes.to_vec()
            }
        };
        if !bytes.is_empty() {
            self.queue.push_back((channel, bytes, 0));
        }
    }

    /// Adds a bell.
    pub fn push_bell(&mut self) {
        self.queue.push_back((Channel::Stdout, vec![0x07], 0));
    }

    /// The output that has to be writable before anything more can be written; none where
    /// nothing waits.
    pub fn descriptor(&self) -> Option<BorrowedFd<'static>> {
        self.queue
            .front()
            .map(|(channel, _, _)| descriptor(*channel))
    }

    /// Writes to an output that is writable, as much as it takes without waiting.
    ///
    /// # Errors
    /// As of [`write_error`].
    pub fn write(&mut self) -> Result<(), CommandError> {
        let mut is_first = true;
        while let Some((channel, bytes, written)) = self.queue.front_mut() {
            let fd = descriptor(*channel);
            let rest = bytes.get(*written..).unwrap_or_default();
            let mut taken = write_now(fd, rest);
            if is_first && taken == Ok(0) {
                let piece = rest.get(..PIECE.min(rest.len())).unwrap_or_default();
                taken = rustix::io::write(fd, piece);
            }
            match taken {
                Ok(length) => *written += length,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(write_error(&error.into())),
            }
            if *written < bytes.len() {
                return Ok(());
            }
            self.queue.pop_front();
            is_first = false;
        }
        Ok(())
    }
}

/// Writes what goes without waiting; 0 where nothing does, or where that can't be asked for: on
/// terminals, some file systems and older kernels. The outputs are not ours alone, so they are not
/// made non-blocking.
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};
    const WHERE_IT_IS: u64 = u64::MAX;
    let bytes = [std::io::IoSlice::new(bytes)];
    match pwritev2(fd, &bytes, WHERE_IT_IS, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::SPIPE) => Ok(0),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let bytes = vec![0; 1 << 20];
        let taken = write_now(writer.as_fd(), &bytes).expect("written");
        // Nothing where the kernel can't be asked.
        assert!(taken < bytes.len(), "{taken}");
        if taken > 0 {
            assert_eq!(write_now(writer.as_fd(), &bytes), Ok(0));
        }
    }

    #[test]
    fn connections_that_overlap_repeat_nothing_and_gaps_are_counted() {
        let mut counter = Counter::starting_at(Position {
            stdout: 10,
            stderr: 0,
        });
        assert_eq!(counter.take(Channel::Stdout, b"abc"), b"abc");
        assert_eq!(counter.go_on_from(Channel::Stdout, 11), 0);
        assert_eq!(counter.take(Channel::Stdout, b"b"), b"");
        assert_eq!(counter.take(Channel::Stdout, b"cd"), b"d");
        assert_eq!(counter.take(Channel::Stdout, b"e"), b"e");
        assert_eq!(counter.go_on_from(Channel::Stdout, 20), 5);
        assert_eq!(counter.take(Channel::Stdout, b"u"), b"u");
        assert_eq!(
            counter.position(),
            Position {
                stdout: 21,
                stderr: 0
            }
        );
    }
}
