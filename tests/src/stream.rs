//! A client of the stream socket: frames, one at a time.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use banger_core::frame::{Frame, HEADER_LENGTH, parse_header};
use serde_json::Value;

use crate::home::DEADLINE;

/// A stream that a reply has named.
#[derive(Debug)]
pub struct Stream(UnixStream);

/// What a stream brought until its last frame.
#[derive(Debug, Default)]
pub struct Brought {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The last count of taken input.
    pub taken: Option<u64>,
    /// The exit code, or the failure.
    pub end: Option<Result<u8, Value>>,
}

impl Stream {
    /// Connects to what a reply names.
    ///
    /// # Errors
    /// It names nothing, or nobody listens there.
    pub fn open(reply: &Value) -> Result<Self> {
        let socket = reply["socket"].as_str().context("no socket")?;
        let token = reply["token"].as_str().context("no token")?;
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.write_all(format!("{token}\n").as_bytes())?;
        Ok(Self(stream))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// The daemon has hung up.
    pub fn write(&mut self, frame: &Frame) -> Result<()> {
        Ok(self.0.write_all(&frame.encode())?)
    }

    /// The next frame; none where the daemon has hung up.
    ///
    /// # Errors
    /// None comes in time, or what is no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let mut header = [0; HEADER_LENGTH];
        match self.0.read(&mut header)? {
            0 => return Ok(None),
            read => self
                .0
                .read_exact(header.get_mut(read..).unwrap_or_default())?,
        }
        let (kind, length) = parse_header(header)?;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok(Some(Frame::decode(kind, payload)?))
    }

    /// Reads until `enough`, or the last frame.
    ///
    /// # Errors
    /// As [`Stream::next_frame`]; or the stream ends without a last frame.
    pub fn until(
        &mut self,
        brought: &mut Brought,
        enough: impl Fn(&Brought) -> bool,
    ) -> Result<()> {
        while brought.end.is_none() && !enough(brought) {
            match self.next_frame()? {
                Some(Frame::Stdout(bytes)) => brought.stdout.extend(bytes),
                Some(Frame::Stderr(bytes)) => brought.stderr.extend(bytes),
                Some(Frame::InputTaken(count)) => brought.taken = Some(count),
                Some(Frame::Exit(code)) => brought.end = Some(Ok(code)),
                Some(Frame::Error(failure)) => {
                    brought.end = Some(Err(serde_json::to_value(failure)?));
                }
                Some(frame) => bail!("a frame that is not the daemon's: {frame:?}"),
                None => bail!("the stream was cut after {brought:?}"),
            }
        }
        Ok(())
    }

    /// Reads to the last frame.
    ///
    /// # Errors
    /// As [`Stream::until`].
    pub fn finish(&mut self) -> Result<Brought> {
        let mut brought = Brought::default();
        self.until(&mut brought, |_| false)?;
        Ok(brought)
    }

    /// Stops sending, as a client that leaves does.
    ///
    /// # Errors
    /// It is gone already.
    pub fn leave(self) -> Result<()> {
        Ok(self.0.shutdown(std::net::Shutdown::Both)?)
    }
}
