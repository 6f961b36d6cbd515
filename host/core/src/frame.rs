//! The frames of a stream socket: how bytes of `vm.exec`, logs, patches and attached sessions
//! travel between the daemon and its client.
//!
//! A reply of the daemon names a socket and a one-time token. The client connects, writes the
//! token as one line, and from then on both sides write frames: a type byte, the payload's length
//! as four bytes big-endian, the payload.

use crate::Failure;

/// The largest payload of one frame, in bytes. Readers refuse more.
pub const PAYLOAD_LIMIT: usize = 1 << 20;

/// The bytes before a payload.
pub const HEADER_LENGTH: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<B = Vec<u8>> {
    /// Client to daemon: bytes for the program's standard input.
    Stdin(B),
    /// Client to daemon: standard input has ended.
    StdinEnd,
    /// Daemon to client: bytes of standard output.
    Stdout(B),
    /// Daemon to client: bytes of standard error.
    Stderr(B),
    /// Client to daemon: the terminal's size.
    Resize {
        /// Characters in a row.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Client to daemon: a signal for the program, by its name without `SIG`.
    Signal(String),
    /// Daemon to client: how many bytes of this writer the session's input has ever taken.
    InputTaken(u64),
    /// Daemon to client, the last frame: how the program ended, 0 to 255.
    Exit(u8),
    /// Daemon to client, the last frame: why there is no exit code.
    Error(Failure),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such type.
    #[error("there is no frame of type {0}")]
    Type(u8),
    /// Longer than [`PAYLOAD_LIMIT`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The payload is not of the type's form.
    #[error("the payload of a frame of type {0} is malformed")]
    Payload(u8),
}

const STDIN: u8 = 1;
const STDIN_END: u8 = 2;
/// The type of a frame of bytes of standard output, whose payload may be passed on piece by piece.
pub const STDOUT: u8 = 3;
/// The type of a frame of bytes of standard error, whose payload may be passed on piece by piece.
pub const STDERR: u8 = 4;
const RESIZE: u8 = 5;
const SIGNAL: u8 = 6;
const EXIT: u8 = 7;
const ERROR: u8 = 8;
const INPUT_TAKEN: u8 = 9;

/// The type and the payload's length, from a frame's first five bytes.
///
/// # Errors
/// An unknown type or a length over [`PAYLOAD_LIMIT`].
pub fn parse_header(header: [u8; HEADER_LENGTH]) -> Result<(u8, usize), FrameError> {
    let [kind, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(STDIN..=INPUT_TAKEN).contains(&kind) {
        return Err(FrameError::Type(kind));
    }
    if length > PAYLOAD_LIMIT {
        return Err(FrameError::TooLong(length));
    }
    Ok((kind, length))
}

/// The header of a frame with this type and payload length.
fn header(kind: u8, length: usize) -> [u8; HEADER_LENGTH] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, a, b, c, d]
}

impl<B: AsRef<[u8]>> Frame<B> {
    /// The header and payload of bytes that are written from where they lie; for frames that
    /// carry bytes only.
    pub fn as_parts(&self) -> Option<([u8; HEADER_LENGTH], &[u8])> {
        let (kind, bytes) = match self {
            Self::Stdin(bytes) => (STDIN, bytes.as_ref()),
            Self::Stdout(bytes) => (STDOUT, bytes.as_ref()),
            Self::Stderr(bytes) => (STDERR, bytes.as_ref()),
            _ => return None,
        };
        Some((header(kind, bytes.len()), bytes))
    }

    /// The whole frame as bytes. Payloads of bytes over [`PAYLOAD_LIMIT`] are the caller's
    /// mistake: split them before.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, std::borrow::Cow<'_, [u8]>) = match self {
            Self::Stdin(bytes) => (STDIN, bytes.as_ref().into()),
            Self::StdinEnd => (STDIN_END, [].as_slice().into()),
            Self::Stdout(bytes) => (STDOUT, bytes.as_ref().into()),
            Self::Stderr(bytes) => (STDERR, bytes.as_ref().into()),
            Self::Resize { columns, rows } => {
                let mut payload = columns.to_be_bytes().to_vec();
                payload.extend_from_slice(&rows.to_be_bytes());
                (RESIZE, payload.into())
            }
            Self::Signal(name) => (SIGNAL, name.as_bytes().into()),
            Self::InputTaken(bytes) => (INPUT_TAKEN, bytes.to_be_bytes().to_vec().into()),
            Self::Exit(code) => (EXIT, vec![*code].into()),
            Self::Error(failure) => (ERROR, encode_failure(failure).into()),
        };
        debug_assert!(payload.len() <= PAYLOAD_LIMIT);
        let mut bytes = header(kind, payload.len()).to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }
}

fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut failure = failure.clone();
    loop {
        let json = serde_json::to_vec(&failure).unwrap_or_default();
        if json.len() <= PAYLOAD_LIMIT || failure.detail.is_empty() {
            return json;
        }
        failure.detail.clear();
    }
}

impl Frame {
    /// The frame of this type with this payload.
    ///
    /// # Errors
    /// An unknown type, or a payload that is not of its form.
    pub fn decode(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        let malformed = || FrameError::Payload(kind);
        Ok(match kind {
            STDIN => Self::Stdin(payload),
            STDIN_END if payload.is_empty() => Self::StdinEnd,
            STDOUT => Self::Stdout(payload),
            STDERR => Self::Stderr(payload),
            RESIZE => match payload[..] {
                [a, b, c, d] => Self::Resize {
                    columns: u16::from_be_bytes([a, b]),
                    rows: u16::from_be_bytes([c, d]),
                },
                _ => return Err(malformed()),
            },
            SIGNAL => Self::Signal(String::from_utf8(payload).map_err(|_| malformed())?),
            INPUT_TAKEN => Self::InputTaken(u64::from_be_bytes(
                payload.try_into().map_err(|_| malformed())?,
            )),
            EXIT => match payload[..] {
                [code] => Self::Exit(code),
                _ => return Err(malformed()),
            },
            ERROR => Self::Error(serde_json::from_slice(&payload).map_err(|_| malformed())?),
            STDIN_END => return Err(malformed()),
            other => return Err(FrameError::Type(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let (head, payload) = bytes.split_at(HEADER_LENGTH);
        let (kind, length) = parse_header(head.try_into().expect("five bytes"))?;
        assert_eq!(length, payload.len());
        Frame::decode(kind, payload.to_vec())
    }

    #[test]
    fn every_frame_survives_the_wire() {
        for frame in [
            Frame::Stdin(b"\x00\xff\n".to_vec()),
            Frame::StdinEnd,
            Frame::Stdout(vec![]),
            Frame::Stderr(b"x".to_vec()),
            Frame::Resize {
                columns: 80,
                rows: 24,
            },
            Frame::Signal("INT".into()),
            Frame::InputTaken(1 << 40),
            Frame::Exit(255),
            Frame::Error(Failure::new(Kind::Unreachable, "gone").hint("start it")),
        ] {
            assert_eq!(decode(&frame.encode()), Ok(frame));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Frame::decode(kind, payload);
        }
    }
}
