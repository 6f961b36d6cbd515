//! A small client of the daemon's sockets, which can also be rude. Whatever the daemon says to it
//! must be as the committed schema has it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use banger_core::frame::{self, Frame, HEADER_LENGTH};
use serde_json::{Value, json};

use crate::home::DEADLINE;
use crate::schema::Schema;

/// The committed schema, read once.
fn schema() -> Result<&'static Schema> {
    static READ: OnceLock<Schema> = OnceLock::new();
    match READ.get() {
        Some(schema) => Ok(schema),
        None => {
            let schema = Schema::read()?;
            Ok(READ.get_or_init(|| schema))
        }
    }
}

/// A connection.
pub struct Rpc {
    reader: BufReader<UnixStream>,
    requests: u64,
    /// Notifications that came while an answer was waited for.
    pub told: Vec<Value>,
}

impl Rpc {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self {
            reader: BufReader::new(stream),
            requests: 0,
            told: Vec::new(),
        })
    }

    /// Connects and greets.
    ///
    /// # Errors
    /// Nobody listens, or the daemon does not like us.
    pub fn greet(socket: &Path) -> Result<Self> {
        let mut rpc = Self::connect(socket)?;
        rpc.call("daemon.hello", json!({"protocol": 1, "client": "test"}))?;
        Ok(rpc)
    }

    /// Writes these bytes and a line feed.
    ///
    /// # Errors
    /// The daemon has hung up.
    pub fn send_line(&mut self, line: &[u8]) -> Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(line)?;
        stream.write_all(b"\n")?;
        Ok(())
    }

    /// The next message; none where the daemon has hung up.
    ///
    /// # Errors
    /// Nothing comes in time, or no JSON.
    pub fn next_message(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Ok(None),
            // A daemon that leaves what we wrote unread hangs up so.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
            read => {
                read?;
                let message = serde_json::from_str(&line)?;
                schema()?.check_message(&message)?;
                Ok(Some(message))
            }
        }
    }

    /// Asks, and waits for the answer: the whole message, without the progress before it.
    ///
    /// # Errors
    /// None comes.
    pub fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.requests += 1;
        let id = self.requests;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send_line(request.to_string().as_bytes())?;
        loop {
            let message = self.next_message()?.context("the daemon hung up")?;
            if message["id"] == id {
                if let Some(result) = message.get("result") {
                    schema()?.check_result(method, result)?;
                }
                return Ok(message);
            }
            self.told.push(message);
        }
    }

    /// The result of a request.
    ///
    /// # Errors
    /// The daemon answers with an error.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let mut message = self.ask(method, params)?;
        if message["error"].is_null() {
            Ok(message["result"].take())
        } else {
            bail!("{method}: {}", message["error"])
        }
    }
}

/// A stream that a reply has promised.
pub struct Frames(UnixStream);

impl Frames {
    /// Connects and shows the token.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(stream: &Value) -> Result<Self> {
        let path = stream["socket"].as_str().context("no socket")?;
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let token = stream["token"].as_str().context("no token")?;
        socket.write_all(format!("{token}\n").as_bytes())?;
        Ok(Self(socket))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// The daemon has hung up.
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        Ok(self.0.write_all(&frame.encode())?)
    }

    /// The next frame.
    ///
    /// # Errors
    /// None comes, or no frame, or an error that is not as the schema has it.
    pub fn receive(&mut self) -> Result<Frame> {
        let mut header = [0; HEADER_LENGTH];
        self.0.read_exact(&mut header)?;
        let (kind, length) = frame::parse_header(header)?;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        let frame = Frame::decode(kind, payload)?;
        if let Frame::Error(failure) = &frame {
            schema()?.check_definition("Failure", &serde_json::to_value(failure)?)?;
        }
        Ok(frame)
    }

    /// Every frame until the last, which is an exit code or an error.
    ///
    /// # Errors
    /// As [`Frames::receive`].
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.receive()?;
            let is_last = matches!(frame, Frame::Exit(_) | Frame::Error(_));
            frames.push(frame);
            if is_last {
                return Ok(frames);
            }
        }
    }
}
