//! A connection to the daemon: requests out, replies and progress in.

use crate::launch::{self, Connected, Started};
use crate::output::Output;
use crate::progress::Progress;
use crate::signal::{Event, Signals};
use banger_core::protocol::{
    Call, Hello, HelloReply, MESSAGE_LIMIT, Message, Notification, PROTOCOL_VERSION, REPLY_LIMIT,
    Request,
};
use banger_core::{Failure, Kind};
use banger_host::dirs::Dirs;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::ops::{ControlFlow, Range};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const CHUNK: usize = 64 << 10;
const HELLO_ID: u64 = 0;

/// What the daemon answered, read and as it came.
#[derive(Debug)]
pub struct Reply<R> {
    /// Read.
    pub value: R,
    /// As it came.
    pub json: serde_json::Value,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    signals: Arc<Signals>,
    quiet: bool,
    received: Vec<u8>,
    /// How much of `received` holds no line feed for sure.
    searched: usize,
    requests: u64,
    /// Whether nothing has ever been received.
    is_silent: bool,
    /// Where a connection can be had that serves better; none where this one must do.
    origin: Option<Origin>,
}

#[derive(Debug)]
struct Origin {
    dirs: Dirs,
    started: Option<Started>,
}

impl Client {
    /// Connects to the daemon, which is started where none runs.
    ///
    /// # Errors
    /// Where it can't be reached or started.
    pub fn connect(dirs: Dirs, signals: Arc<Signals>, output: &Output) -> Result<Self, Failure> {
        let Connected { socket, started } = launch::connect_or_start(&dirs)?;
        let mut client = Self::new(socket, signals, output);
        client.origin = Some(Origin { dirs, started });
        Ok(client)
    }

    /// Talks over this socket alone.
    pub fn new(socket: UnixStream, signals: Arc<Signals>, output: &Output) -> Self {
        Self {
            socket,
            signals,
            quiet: output.quiet || output.json,
            received: Vec::new(),
            searched: 0,
            requests: 0,
            is_silent: true,
            origin: None,
        }
    }

    /// The process at the other end, as the kernel tells it.
    pub fn daemon_process(&self) -> Option<rustix::process::Pid> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket).ok()?;
        Some(peer.pid)
    }

    /// Asks one thing and waits for the answer. The first request greets the daemon also, in the
    /// same write. SIGINT and SIGTERM cancel: the daemon rolls back and answers; a second one
    /// ends the process at once.
    ///
    /// # Errors
    /// What the daemon answers, or why it does not.
    pub fn call<R: DeserializeOwned>(&mut self, call: Call) -> Result<Reply<R>, Failure> {
        let mut reply = None;
        self.call_each(vec![call], |_, answer| {
            reply = Some(answer);
            ControlFlow::Break(())
        })?;
        reply.unwrap_or_else(|| Err(closed()))
    }

    /// Asks several things at once. `answered` gets each answer as it comes, with the call's
    /// place, until it breaks off or all have come.
    ///
    /// # Errors
    /// Why the daemon does not answer.
    pub fn call_each<R: DeserializeOwned>(
        &mut self,
        calls: Vec<Call>,
        mut answered: impl FnMut(usize, Result<Reply<R>, Failure>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut lines = Vec::new();
        let greets = self.requests == 0;
        if greets {
            let hello = Hello {
                protocol: PROTOCOL_VERSION,
                client: concat!("banger ", env!("CARGO_PKG_VERSION")).into(),
            };
            push_line(&mut lines, &Request::new(HELLO_ID, Call::Hello(hello)))?;
        }
        let first = self.requests + 1;
        for call in calls {
            self.requests += 1;
            push_line(&mut lines, &Request::new(self.requests, call))?;
        }
        let ids = first..self.requests + 1;
        loop {
            let heard = self.exchange(&lines, ids.clone(), greets, &mut answered);
            let (Err(failure), Some(origin)) = (&heard, self.origin.take()) else {
                return heard;
            };
            if !self.is_silent || failure.kind != Kind::Daemon {
                return heard;
            }
            // It went before it said a word: ours, because it could not start; another, because
            // it was about to end, and then the next one serves.
            if let Some(started) = origin.started {
                return started.why_ended().map_or(heard, Err);
            }
            let Connected { socket, started } = launch::connect_or_start(&origin.dirs)?;
            self.socket = socket;
            self.origin = started.map(|started| Origin {
                dirs: origin.dirs,
                started: Some(started),
            });
        }
    }

    /// Writes requests and reads their answers.
    fn exchange<R: DeserializeOwned>(
        &mut self,
        lines: &[u8],
        ids: Range<u64>,
        greets: bool,
        answered: &mut impl FnMut(usize, Result<Reply<R>, Failure>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        // A daemon that refuses the greeting may close before it has read all: what it wrote
        // tells more than the failed write.
        let written = self.socket.write_all(lines);
        let mut progress = Progress::new(self.quiet);
        let mut cancelled = false;
        if greets {
            let greeting = HELLO_ID..HELLO_ID + 1;
            let (_, hello) = self.receive(&greeting, &mut progress, &mut cancelled)?;
            check_version(&hello?)?;
        }
        let mut open: BTreeSet<u64> = ids.clone().collect();
        while !open.is_empty() {
            let (id, answer) = match self.receive(&ids, &mut progress, &mut cancelled) {
                Err(failure) if failure.kind == Kind::Daemon => {
                    return Err(match written {
                        Err(error) if error.kind() != ErrorKind::BrokenPipe => lost(&error),
                        _ => failure,
                    });
                }
                received => received?,
            };
            if !open.remove(&id) {
                continue;
            }
            progress.finish();
            let place = usize::try_from(id - ids.start).unwrap_or(usize::MAX);
            if answered(place, answer.and_then(read_reply)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the next answer to one of these requests. The outer failure is the
    /// connection's.
    fn receive(
        &mut self,
        ids: &Range<u64>,
        progress: &mut Progress,
        cancelled: &mut bool,
    ) -> Result<(u64, Result<serde_json::Value, Failure>), Failure> {
        loop {
            let line = match self.hear(progress)? {
                Heard::Line(line) => line,
                Heard::End if *cancelled => {
                    return Err(Failure::new(Kind::Cancelled, "cancelled"));
                }
                Heard::End => return Err(closed()),
                Heard::Signal if *cancelled => {
                    std::process::exit(Kind::Cancelled.exit_code().into());
                }
                Heard::Signal => {
                    *cancelled = true;
                    progress.cancelling();
                    // The daemon sees the end of our side, and answers on its own.
                    let _ = self.socket.shutdown(Shutdown::Write);
                    continue;
                }
            };
            match read_message(&line)? {
                Message::Notification {
                    notification: Notification::Progress(of),
                    ..
                } if ids.contains(&of.request) => {
                    progress.note(&of);
                }
                Message::Reply { id: of, result, .. } if ids.contains(&of) => {
                    return Ok((of, Ok(result)));
                }
                Message::Error { id, error, .. } => match id {
                    Some(of) if ids.contains(&of) => return Ok((of, Err(error.data))),
                    // It could not read what we wrote: that can be any of them.
                    None => return Err(error.data),
                    Some(_) => {}
                },
                // Of a request that is over.
                _ => {}
            }
        }
    }

    /// Waits for the next event of a subscription; none where a signal wants an end.
    ///
    /// # Errors
    /// Of kind [`Kind::Daemon`] where the daemon has gone.
    pub fn next_event(&mut self) -> Result<Option<serde_json::Value>, Failure> {
        let progress = Progress::new(true);
        loop {
            let line = match self.hear(&progress)? {
                Heard::Line(line) => line,
                Heard::End => return Err(closed()),
                Heard::Signal => return Ok(None),
            };
            let message: serde_json::Value =
                serde_json::from_slice(&line).map_err(|error| no_message(&error))?;
            if message
                .get("method")
                .is_some_and(|method| method == "event")
            {
                let event = message.pointer("/params/event").cloned();
                return Ok(Some(event.unwrap_or_default()));
            }
        }
    }

    /// Waits for the next line, without its line feed, or for a signal.
    fn hear(&mut self, progress: &Progress) -> Result<Heard, Failure> {
        loop {
            let unseen = self.received.get(self.searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                self.searched = 0;
                return Ok(Heard::Line(line));
            }
            self.searched = self.received.len();
            if self.searched > REPLY_LIMIT {
                return Err(Failure::new(
                    Kind::Daemon,
                    "the daemon sent a message that is too long",
                ));
            }
            match self
                .signals
                .wait(Some(self.socket.as_fd()), progress.pause())?
            {
                Event::TimedOut => progress.draw(),
                Event::Signal(_) => return Ok(Heard::Signal),
                Event::Readable => {
                    if self.fill()? == 0 {
                        return Ok(Heard::End);
                    }
                }
            }
        }
    }

    fn fill(&mut self) -> Result<usize, Failure> {
        let start = self.received.len();
        self.received.resize(start + CHUNK, 0);
        let read = loop {
            match self.socket.read(&mut self.received[start..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ok(0),
                read => break read,
            }
        };
        let length = *read.as_ref().unwrap_or(&0);
        self.received.truncate(start + length);
        self.is_silent &= length == 0;
        read.map_err(|error| lost(&error))
    }
}

/// What there was to hear.
enum Heard {
    /// A message.
    Line(Vec<u8>),
    /// The daemon has closed the connection.
    End,
    /// The user or the system wants an end.
    Signal,
}

fn read_message(line: &[u8]) -> Result<Message, Failure> {
    serde_json::from_slice(line).map_err(|error| no_message(&error))
}

fn no_message(error: &serde_json::Error) -> Failure {
    let message = format!("the daemon sent what is no message: {error}");
    Failure::new(Kind::Daemon, message).hint(ANOTHER_VERSION_HINT)
}

fn read_reply<R: DeserializeOwned>(json: serde_json::Value) -> Result<Reply<R>, Failure> {
    let value = serde_json::from_value(json.clone())
        .map_err(|error| Failure::from_error(Kind::Daemon, &error).hint(ANOTHER_VERSION_HINT))?;
    Ok(Reply { value, json })
}

fn push_line(lines: &mut Vec<u8>, request: &Request) -> Result<(), Failure> {
    let start = lines.len();
    serde_json::to_writer(&mut *lines, request)
        .map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    if lines.len() - start > MESSAGE_LIMIT {
        return Err(Failure::new(
            Kind::Usage,
            format!("the request is longer than {MESSAGE_LIMIT} bytes"),
        )
        .hint("write what is long to the command's standard input"));
    }
    lines.push(b'\n');
    Ok(())
}

const ANOTHER_VERSION_HINT: &str = "the daemon may be of another version: `banger daemon stop` \
    ends it, the next command starts the right one; machines and sessions go on";

/// Refuses a daemon that speaks another version.
fn check_version(hello: &serde_json::Value) -> Result<(), Failure> {
    let protocol = hello.get("protocol").and_then(serde_json::Value::as_u64);
    if protocol == Some(PROTOCOL_VERSION.into()) {
        return Ok(());
    }
    let hello: Option<HelloReply> = serde_json::from_value(hello.clone()).ok();
    let daemon = hello.map_or("something else".into(), |hello| {
        let version = banger_core::escape::text(hello.version.as_bytes());
        format!("protocol {} (banger {version})", hello.protocol)
    });
    Err(Failure::new(
        Kind::Daemon,
        format!(
            "the daemon that runs speaks {daemon}, this banger speaks protocol {PROTOCOL_VERSION}"
        ),
    )
    .hint(ANOTHER_VERSION_HINT))
}

fn closed() -> Failure {
    Failure::new(
        Kind::Daemon,
        "the daemon closed the connection before it answered",
    )
    .hint("`banger daemon status` shows whether it runs and where its log is")
}

fn lost(error: &std::io::Error) -> Failure {
    let mut failure = Failure::from_error(Kind::Daemon, error);
    failure.message = format!("lost the daemon: {}", failure.message);
    failure.hint("`banger daemon status` shows whether it runs and where its log is")
}
