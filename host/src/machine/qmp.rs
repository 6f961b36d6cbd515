//! A small client of QEMU's machine protocol: one connection for each question.
//!
//! The socket lies in the machine's directory, whose path may be longer than the 107 bytes that a
//! socket address holds, so it is reached through a handle on the directory. It understands only
//! what the driver needs, bounds every answer and never waits without a limit.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Name of the socket in the machine's directory.
pub const SOCKET: &str = "qmp.sock";
const LIMIT: Duration = Duration::from_secs(5);
const MAX_LINE: u64 = 1 << 20;

/// Why QEMU gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket cannot be reached, or the connection broke.
    #[error("cannot talk to QEMU while it should {operation}")]
    Connection {
        /// The command.
        operation: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No answer came in time.
    #[error("QEMU did not answer {operation} within {LIMIT:?}")]
    Deadline {
        /// The command.
        operation: String,
    },
    /// QEMU refused.
    #[error("QEMU refused {operation}: {message}")]
    Refused {
        /// The command.
        operation: String,
        /// What QEMU said.
        message: String,
    },
}

/// Runs one command with arguments and returns its `return` value.
///
/// # Errors
/// [`QmpError`].
pub async fn execute(
    directory: &Path,
    operation: &str,
    arguments: Value,
) -> Result<Value, QmpError> {
    match tokio::time::timeout(LIMIT, conversation(directory, operation, arguments)).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(message))) => Err(QmpError::Refused {
            operation: operation.to_owned(),
            message,
        }),
        Ok(Err(source)) => Err(QmpError::Connection {
            operation: operation.to_owned(),
            source,
        }),
        Err(_) => Err(QmpError::Deadline {
            operation: operation.to_owned(),
        }),
    }
}

type Answer = Result<Value, String>;

async fn conversation(
    directory: &Path,
    operation: &str,
    arguments: Value,
) -> std::io::Result<Answer> {
    let handle = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    let mut stream = BufReader::new(UnixStream::connect(address).await?);
    drop(handle);
    read(&mut stream, |message| {
        message.get("QMP").map(|_| Ok(Value::Null))
    })
    .await?
    .ok();
    send(&mut stream, json!({"execute": "qmp_capabilities"})).await?;
    if let Err(message) = read(&mut stream, answer).await? {
        return Ok(Err(message));
    }
    send(
        &mut stream,
        json!({"execute": operation, "arguments": arguments}),
    )
    .await?;
    read(&mut stream, answer).await
}

async fn send(stream: &mut BufReader<UnixStream>, message: Value) -> std::io::Result<()> {
    stream
        .get_mut()
        .write_all(format!("{message}\n").as_bytes())
        .await
}

/// Reads until `pick` finds what it wants; events in between are passed over.
async fn read(
    stream: &mut BufReader<UnixStream>,
    pick: impl Fn(&Value) -> Option<Answer>,
) -> std::io::Result<Answer> {
    loop {
        let mut line = Vec::new();
        let count = (&mut *stream)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let message: Value = serde_json::from_slice(&line)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
        if let Some(found) = pick(&message) {
            return Ok(found);
        }
    }
}

fn answer(message: &Value) -> Option<Answer> {
    if let Some(value) = message.get("return") {
        return Some(Ok(value.clone()));
    }
    let error = message.get("error")?;
    Some(Err(error
        .get("desc")
        .and_then(Value::as_str)
        .unwrap_or("no reason given")
        .to_owned()))
}

/// The forwarded host port out of the text that `info usernet` prints.
#[must_use]
pub fn forwarded_port(text: &str) -> Option<u16> {
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != "TCP[HOST_FORWARD]" {
            return None;
        }
        // File descriptor, address, port.
        fields.nth(2)?.parse().ok().filter(|port| *port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_what_qemu_prints() {
        let text = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  11       127.0.0.1 38243       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded_port(text), Some(38243));
        assert_eq!(
            forwarded_port("TCP[HOST_FORWARD] 11 127.0.0.1 0 10.0.2.15 22 0 0"),
            None
        );
        assert_eq!(
            forwarded_port("TCP[ESTABLISHED] 11 127.0.0.1 5 10.0.2.15 22 0 0"),
            None
        );
        assert_eq!(forwarded_port(""), None);
    }
}
