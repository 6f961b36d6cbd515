//! A stream socket: standard input goes out, output comes in, byte for byte.
//!
//! Three threads at most: this one passes output on, one reads standard input, one waits for
//! signals. Payloads are passed on from the buffer they were read into, whatever their frames'
//! sizes; one that has to wait (a full pipe, say) holds up its own direction only.

use crate::error::CommandError;
use crate::frames::{Channel, Frames, Item};
use crate::signal::{Event, Signals};
use banger_core::frame::{self, Frame, HEADER_LENGTH, PAYLOAD_LIMIT};
use banger_core::protocol::Stream;
use banger_core::{Failure, Kind, escape};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much is read at once.
const CHUNK: usize = 256 << 10;
const _: () = assert!(CHUNK <= PAYLOAD_LIMIT);

/// A second signal within this time ends banger itself.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// What is written to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Our standard input, and its end.
    Stdin,
    /// Nothing.
    Nothing,
    /// Nothing until all has come and the sink has it; then that is said.
    Receipt,
}

/// What SIGINT and SIGTERM do. A second one soon after always ends banger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// They go to the program.
    Forward,
    /// They end the stream.
    Leave,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The program ended so.
    Exit(u8),
    /// A signal ended the stream, and the program knows nothing of it.
    Left,
}

/// Where output goes.
pub trait Sink {
    /// Takes these bytes.
    ///
    /// # Errors
    /// Where they can't be taken: the stream ends then.
    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), CommandError>;

    /// All has come.
    ///
    /// # Errors
    /// Where it can't be kept.
    fn complete(&mut self) -> Result<(), CommandError> {
        Ok(())
    }
}

/// Connects and passes everything on until the end.
///
/// # Errors
/// What the daemon answers, what the sink says, or how the stream broke.
pub fn run(
    stream: &Stream,
    input: Input,
    on_signal: OnSignal,
    signals: &Arc<Signals>,
    sink: &mut dyn Sink,
) -> Result<Ended, CommandError> {
    let mut socket = connect(stream)?;
    let clone = || socket.try_clone().map_err(|error| broken(&error));
    let sender = Arc::new(Mutex::new(clone()?));
    let left = Arc::new(AtomicBool::new(false));
    if input == Input::Stdin {
        let sender = sender.clone();
        std::thread::spawn(move || send_stdin(&sender));
    }
    {
        let (signals, left, socket) = (signals.clone(), left.clone(), clone()?);
        std::thread::spawn(move || pass_signals(&signals, on_signal, &sender, &left, &socket));
    }
    let mut frames = Frames::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read.map_err(|error| broken(&error))?,
        };
        if read == 0 {
            if left.load(Ordering::SeqCst) {
                return Ok(Ended::Left);
            }
            return Err(cut_off().into());
        }
        let mut bytes = buffer.get(..read).unwrap_or_default();
        while let Some(item) = frames.next(&mut bytes).map_err(malformed)? {
            match item {
                Item::Output(channel, bytes) => sink.write(channel, bytes)?,
                Item::Frame(Frame::Exit(code)) => {
                    if input == Input::Receipt && code == 0 {
                        sink.complete()?;
                        acknowledge(&mut socket);
                    }
                    return Ok(Ended::Exit(code));
                }
                Item::Frame(Frame::Error(failure)) => return Err(failure.into()),
                // Not for clients, or of no use to this one.
                Item::Frame(_) => {}
            }
        }
    }
}

/// Connects, and shows the token.
///
/// # Errors
/// How that failed.
pub fn connect(stream: &Stream) -> Result<UnixStream, Failure> {
    let mut socket = UnixStream::connect(&stream.socket).map_err(|error| broken(&error))?;
    let token = format!("{}\n", stream.token);
    socket
        .write_all(token.as_bytes())
        .map_err(|error| broken(&error))?;
    Ok(socket)
}

/// Says that all has come, and waits until the daemon has taken note, so that whatever is asked next
/// finds it noted. A daemon that has gone can't.
fn acknowledge(socket: &mut UnixStream) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if socket
        .write_all(&Frame::<Vec<u8>>::StdinEnd.encode())
        .is_ok()
    {
        let limit = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let _ = poll(
            &mut [PollFd::new(&*socket, PollFlags::empty())],
            Some(&limit),
        );
    }
}

/// Standard input as frames. The header is written in front of what was read: one write a chunk.
fn send_stdin(sender: &Mutex<UnixStream>) {
    let send = |bytes: &[u8]| {
        let mut socket = sender.lock().unwrap_or_else(PoisonError::into_inner);
        socket.write_all(bytes)
    };
    let mut buffer = vec![0; HEADER_LENGTH + CHUNK];
    loop {
        let (head, room) = buffer.split_at_mut(HEADER_LENGTH);
        let length = match rustix::io::read(rustix::stdio::stdin(), &mut *room) {
            Err(rustix::io::Errno::INTR) => continue,
            // An input that can't be read is as good as at its end.
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        let frame = Frame::Stdin(room.get(..length).unwrap_or_default());
        if let Some((header, _)) = frame.as_parts() {
            head.copy_from_slice(&header);
        }
        let written = send(buffer.get(..HEADER_LENGTH + length).unwrap_or_default());
        if written.is_err() {
            // The reader tells why the stream has ended.
            return;
        }
    }
    let _ = send(&Frame::<Vec<u8>>::StdinEnd.encode());
}

fn pass_signals(
    signals: &Signals,
    on_signal: OnSignal,
    sender: &Arc<Mutex<UnixStream>>,
    left: &AtomicBool,
    socket: &UnixStream,
) {
    let mut last: Option<Instant> = None;
    while let Ok(event) = signals.wait(None, None) {
        let Event::Signal(signal) = event else {
            continue;
        };
        if last.is_some_and(|last| last.elapsed() < IMPATIENCE) {
            std::process::exit(Kind::Cancelled.exit_code().into());
        }
        last = Some(Instant::now());
        match on_signal {
            OnSignal::Forward => {
                // The lock may be held for long, where the program does not read its input.
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let frame = Frame::<Vec<u8>>::Signal(signal.name().into()).encode();
                    let mut socket = sender.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = socket.write_all(&frame);
                });
            }
            OnSignal::Leave => {
                left.store(true, Ordering::SeqCst);
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

const LOG_HINT: &str = "`banger daemon status` shows whether it runs and where its log is";

/// Bytes came that are no frames.
pub fn malformed(error: frame::FrameError) -> Failure {
    Failure::from_error(Kind::Daemon, &error).hint(LOG_HINT)
}

/// The end came without a frame that says so.
pub fn cut_off() -> Failure {
    Failure::new(Kind::Daemon, "the daemon closed the stream before its end").hint(LOG_HINT)
}

/// The socket can't be used.
pub fn broken(error: &std::io::Error) -> Failure {
    let mut failure = Failure::from_error(Kind::Daemon, error);
    failure.message = format!(
        "lost the stream: {}",
        escape::text(failure.message.as_bytes())
    );
    failure.hint(LOG_HINT)
}
