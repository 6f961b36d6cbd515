//! Reads frames from bytes that come in pieces of any size.
//!
//! Output is handed out as it comes, in pieces from the buffer it was read into, so that a frame
//! that is cut in its middle has given all that arrived.

use banger_core::frame::{self, Frame, FrameError, HEADER_LENGTH};

/// One of the program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What there is in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Some output, never empty.
    Output(Channel, &'a [u8]),
    /// A whole frame of another kind.
    Frame(Frame),
}

/// The state between two pieces.
#[derive(Debug, Default)]
pub struct Frames {
    header: Vec<u8>,
    /// Type and missing bytes of the frame whose payload is being read.
    frame: Option<(u8, usize)>,
    /// The payload so far of a frame that is not handed out piece by piece.
    payload: Vec<u8>,
}

impl Frames {
    /// Takes the next item off the bytes; none where more of them are needed.
    ///
    /// # Errors
    /// The bytes are no frames.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        loop {
            let (kind, missing) = match self.frame {
                Some(frame) => frame,
                None => {
                    let wanted = HEADER_LENGTH - self.header.len();
                    let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
                    self.header.extend_from_slice(head);
                    *bytes = rest;
                    let Ok(header) = <[u8; HEADER_LENGTH]>::try_from(&self.header[..]) else {
                        return Ok(None);
                    };
                    self.header.clear();
                    frame::parse_header(header)?
                }
            };
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            *bytes = rest;
            let missing = missing - piece.len();
            self.frame = (missing > 0).then_some((kind, missing));
            let channel = match kind {
                frame::STDOUT => Some(Channel::Stdout),
                frame::STDERR => Some(Channel::Stderr),
                _ => None,
            };
            match channel {
                Some(channel) if !piece.is_empty() => {
                    return Ok(Some(Item::Output(channel, piece)));
                }
                Some(_) => {}
                None => self.payload.extend_from_slice(piece),
            }
            if missing > 0 {
                return Ok(None);
            }
            if channel.is_none() {
                let frame = Frame::decode(kind, std::mem::take(&mut self.payload))?;
                return Ok(Some(Item::Frame(frame)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_output(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            piece in 1..64_usize,
            code: u8,
        ) {
            let (mut expected, mut wire) = ((Vec::new(), Vec::new()), Vec::new());
            for (is_error, bytes) in parts {
                if is_error {
                    expected.1.extend_from_slice(&bytes);
                    wire.extend(Frame::Stderr(bytes).encode());
                } else {
                    expected.0.extend_from_slice(&bytes);
                    wire.extend(Frame::Stdout(bytes).encode());
                }
            }
            wire.extend(Frame::<Vec<u8>>::InputTaken(7).encode());
            wire.extend(Frame::<Vec<u8>>::Exit(code).encode());
            let (mut frames, mut got, mut others) = (Frames::default(), (vec![], vec![]), vec![]);
            for mut bytes in wire.chunks(piece) {
                while let Some(item) = frames.next(&mut bytes).expect("well formed") {
                    match item {
                        Item::Output(Channel::Stdout, bytes) => got.0.extend_from_slice(bytes),
                        Item::Output(Channel::Stderr, bytes) => got.1.extend_from_slice(bytes),
                        Item::Frame(frame) => others.push(frame),
                    }
                }
                prop_assert!(bytes.is_empty());
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(others, [Frame::InputTaken(7), Frame::Exit(code)]);
        }

        #[test]
        fn no_bytes_panic(mut wire in prop::collection::vec(any::<u8>(), 0..200)) {
            // Types that exist, so that more than the header is looked at.
            if let Some(first) = wire.first_mut() {
                *first %= 12;
            }
            let (mut frames, mut bytes) = (Frames::default(), &wire[..]);
            while let Ok(Some(_)) = frames.next(&mut bytes) {}
        }
    }
}
