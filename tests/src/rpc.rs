//! A small client of the daemon's JSON-RPC socket, which can also be rude.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::home::DEADLINE;

/// A connection.
pub struct Rpc {
    reader: BufReader<UnixStream>,
    requests: u64,
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
                Ok(Some(serde_json::from_str(&line)?))
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
                return Ok(message);
            }
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
