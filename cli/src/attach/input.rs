//! Input that must reach a session exactly once.
//!
//! The daemon tells how many bytes of this writer the session has ever taken. What is not yet
//! taken is kept, and sent once more over a new connection, from there on.

use banger_core::frame::Frame;
use banger_core::{Failure, Kind};

/// The most that is kept. Beyond it, standard input is not read.
pub const LIMIT: usize = 1 << 20;

/// How much is sent in one frame.
const CHUNK: usize = 64 << 10;

/// What was read and may not have been taken.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// Where in all of the input `bytes` begins: so much was taken.
    taken: u64,
    /// How many of `bytes` went into this connection.
    sent: usize,
    /// The connection is new, and where to go on is not known yet.
    waits: bool,
    /// Nothing more can be read.
    ended: bool,
    /// This connection knows of the end.
    end_sent: bool,
}

impl Kept {
    /// How much more may be read.
    pub fn room(&self) -> usize {
        if self.ended {
            0
        } else {
            LIMIT.saturating_sub(self.bytes.len())
        }
    }

    /// So much is kept that the session may not have taken.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// A new connection: nothing is sent before it has told what was taken.
    pub fn reconnected(&mut self) {
        self.waits = true;
        self.sent = 0;
        self.end_sent = false;
    }

    /// The session has taken so much of the input in all.
    ///
    /// # Errors
    /// A number that can't be: going on would lose or repeat input.
    pub fn note_taken(&mut self, total: u64) -> Result<(), Failure> {
        let more = total.checked_sub(self.taken);
        let more = more.and_then(|more| usize::try_from(more).ok());
        let Some(more) = more.filter(|more| *more <= self.bytes.len()) else {
            let known = self.taken + self.bytes.len() as u64;
            return Err(Failure::new(
                Kind::Daemon,
                format!(
                    "the session says it took {total} bytes of input; {} were taken before and \
                     {known} were read",
                    self.taken
                ),
            )
            .hint("look at what the session got, then attach again"));
        };
        self.bytes.drain(..more);
        self.taken = total;
        self.sent = if self.waits {
            0
        } else {
            self.sent.saturating_sub(more)
        };
        self.waits = false;
        Ok(())
    }

    /// The next frame to send; none where there is nothing now.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        if self.waits {
            return None;
        }
        let unsent = self.bytes.get(self.sent..).unwrap_or_default();
        let chunk = unsent.get(..CHUNK.min(unsent.len())).unwrap_or_default();
        if !chunk.is_empty() {
            let frame = Frame::Stdin(chunk).encode();
            self.sent += chunk.len();
            return Some(frame);
        }
        // Only once all is taken: a connection that breaks before could not tell.
        if self.ended && self.bytes.is_empty() && !self.end_sent {
            self.end_sent = true;
            return Some(Frame::<Vec<u8>>::StdinEnd.encode());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_core::frame::HEADER_LENGTH;
    use proptest::prelude::*;

    const END: &[u8] = &[2, 0, 0, 0, 0];

    #[test]
    fn a_new_connection_goes_on_where_the_session_is() {
        let mut kept = Kept::default();
        kept.push(b"abcdef");
        assert_eq!(kept.next().as_deref(), Some(&b"\x01\0\0\0\x06abcdef"[..]));
        assert_eq!(kept.next(), None);
        kept.note_taken(2).expect("possible");
        kept.reconnected();
        kept.push(b"g");
        kept.end();
        assert_eq!(kept.next(), None, "where to go on is not known yet");
        kept.note_taken(4).expect("possible");
        assert_eq!(kept.next().as_deref(), Some(&b"\x01\0\0\0\x03efg"[..]));
        assert_eq!(kept.next(), None, "the end comes once all is taken");
        kept.note_taken(7).expect("possible");
        assert_eq!(kept.next().as_deref(), Some(END));
        assert_eq!(kept.next(), None);
        kept.reconnected();
        kept.note_taken(7).expect("possible");
        assert_eq!(kept.next().as_deref(), Some(END), "each connection is told");
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut kept = Kept::default();
        kept.push(b"abc");
        kept.next();
        assert!(kept.note_taken(4).is_err());
        kept.note_taken(2).expect("possible");
        assert!(kept.note_taken(1).is_err());
        assert!(kept.note_taken(u64::MAX).is_err());
    }

    #[test]
    fn no_more_is_read_than_is_kept() {
        let mut kept = Kept::default();
        kept.push(&vec![0; LIMIT]);
        assert_eq!(kept.room(), 0);
        while kept.next().is_some() {}
        assert_eq!(kept.room(), 0);
        kept.note_taken(10).expect("possible");
        assert_eq!(kept.room(), 10);
        kept.end();
        assert_eq!(kept.room(), 0);
    }

    proptest! {
        /// A session that takes any part of what comes, over connections that break anywhere.
        #[test]
        fn input_arrives_once_and_in_order(
            steps in prop::collection::vec((0..5_u8, 0..50_usize), 0..60),
        ) {
            let (mut kept, mut read, mut session, mut counter) =
                (Kept::default(), Vec::new(), Vec::new(), 0_u8);
            let mut wire: Vec<u8> = Vec::new();
            for (step, amount) in steps {
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..amount).map(|_| { counter = counter.wrapping_add(1); counter }).collect();
                        kept.push(&bytes);
                        read.extend(bytes);
                    }
                    2 => if let Some(frame) = kept.next() {
                        wire.extend_from_slice(&frame[HEADER_LENGTH..]);
                    },
                    3 => {
                        let taken: Vec<u8> = wire.drain(..amount.min(wire.len())).collect();
                        session.extend(taken);
                        if amount % 2 == 0 {
                            kept.note_taken(session.len() as u64).expect("possible");
                        }
                    }
                    _ => {
                        wire.clear();
                        kept.reconnected();
                        kept.note_taken(session.len() as u64).expect("possible");
                    }
                }
                prop_assert!(read.starts_with(&session));
            }
            while let Some(frame) = kept.next() {
                wire.extend_from_slice(&frame[HEADER_LENGTH..]);
            }
            session.extend(wire);
            prop_assert_eq!(read, session);
        }
    }
}
