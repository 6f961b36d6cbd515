//! A connection to a session's output, and the way to the next one.

use super::output::Position;
use crate::client::Client;
use crate::error::host;
use crate::frames::{Channel, Frames};
use crate::output::Output;
use crate::signal::Signals;
use crate::stream;
use banger_core::protocol::Call;
use banger_core::protocol::session::{
    OutputFrom, Session, SessionAttach, SessionLogs, SessionRef, TerminalSize,
};
use banger_core::session::OutputStream;
use banger_core::{Failure, Kind, SessionId};
use banger_host::dirs::Dirs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the daemon is asked for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// `guest.session.attach`.
    Attach(SessionAttach),
    /// `guest.session.logs`.
    Logs(SessionLogs),
}

impl Ask {
    fn call(&self) -> Call {
        match self {
            Self::Attach(attach) => Call::SessionAttach(attach.clone()),
            Self::Logs(logs) => Call::SessionLogs(logs.clone()),
        }
    }

    /// Whether this stream comes.
    pub fn wants(&self, channel: Channel) -> bool {
        match self {
            Self::Attach(attach) => attach.terminal.is_none(),
            Self::Logs(logs) => match logs.stream {
                None => true,
                Some(OutputStream::Stdout) => channel == Channel::Stdout,
                Some(OutputStream::Stderr) => channel == Channel::Stderr,
            },
        }
    }

    /// Asks for this very session from now on: another may get its name.
    pub fn stay_with(&mut self, id: &SessionId) {
        match self {
            Self::Attach(attach) => attach.session = id.to_string(),
            Self::Logs(logs) => logs.session = id.to_string(),
        }
    }

    /// Asks for what follows, from here on. A takeover is done once: of two that take over
    /// from each other none would ever read in peace.
    pub fn go_on_from(&mut self, position: Position) {
        let at = |channel, offset| self.wants(channel).then_some(offset);
        let stdout = at(Channel::Stdout, position.stdout);
        let stderr = at(Channel::Stderr, position.stderr);
        match self {
            Self::Attach(attach) => {
                attach.takeover = false;
                (attach.stdout_offset, attach.stderr_offset) = (stdout, stderr);
            }
            Self::Logs(logs) => {
                (logs.tail, logs.since_ms) = (None, None);
                (logs.stdout_offset, logs.stderr_offset) = (stdout, stderr);
            }
        }
    }

    /// The terminal's size has changed.
    pub fn resize(&mut self, size: TerminalSize) {
        if let Self::Attach(SessionAttach {
            terminal: Some(terminal),
            ..
        }) = self
        {
            terminal.size = size;
        }
    }

    /// What is asked from where on; none where it is for the daemon to say.
    fn offsets(&mut self) -> (&mut Option<u64>, &mut Option<u64>) {
        match self {
            Self::Attach(attach) => (&mut attach.stdout_offset, &mut attach.stderr_offset),
            Self::Logs(logs) => (&mut logs.stdout_offset, &mut logs.stderr_offset),
        }
    }

    /// Asks from where the logs begin, where that is later. Whether it was.
    fn skip_what_is_gone(&mut self, client: &mut Client) -> Result<bool, Failure> {
        let (vm, session) = match self {
            Self::Attach(attach) => (&attach.vm, &attach.session),
            Self::Logs(logs) => (&logs.vm, &logs.session),
        };
        let session = SessionRef {
            vm: vm.clone(),
            session: session.clone(),
        };
        let session = client.call::<Session>(Call::SessionGet(session))?.value;
        let (stdout, stderr) = self.offsets();
        let mut moved = false;
        for (offset, start) in [
            (stdout, session.snapshot.stdout_start),
            (stderr, session.snapshot.stderr_start),
        ] {
            if let Some(offset) = offset.as_mut().filter(|offset| **offset < start) {
                *offset = start;
                moved = true;
            }
        }
        Ok(moved)
    }
}

/// A connection over which output comes.
#[derive(Debug)]
pub struct Link {
    /// It does not wait.
    pub socket: UnixStream,
    /// Where the streams begin.
    pub from: Position,
    /// Whose they are.
    pub session_id: SessionId,
    /// What came of a frame so far.
    pub frames: Frames,
    /// What is still to be written to it: whole frames, of which the first may be begun.
    pub outgoing: Vec<u8>,
    /// Stays open: the daemon ends what a closed connection asked for.
    _client: Client,
}

impl Link {
    /// Asks and connects. Where the beginning is no longer kept, asks from where the log begins;
    /// `looks` says that it is known to be so.
    ///
    /// # Errors
    /// What the daemon answers, or why it does not.
    pub fn open(client: Client, mut ask: Ask, looks: Option<Failure>) -> Result<Self, Failure> {
        let mut client = client;
        let mut gone = looks;
        loop {
            if let Some(failure) = gone.take()
                && !ask.skip_what_is_gone(&mut client)?
            {
                return Err(failure);
            }
            match client.call::<OutputFrom>(ask.call()) {
                // Each round moves on, so this ends.
                Err(failure) if failure.kind == Kind::Gone => gone = Some(failure),
                answer => return Self::connect(client, &answer?.value),
            }
        }
    }

    fn connect(client: Client, reply: &OutputFrom) -> Result<Self, Failure> {
        let socket = stream::connect(&reply.stream)?;
        socket
            .set_nonblocking(true)
            .map_err(|error| stream::broken(&error))?;
        Ok(Self {
            socket,
            from: Position {
                stdout: reply.stdout_offset,
                stderr: reply.stderr_offset,
            },
            session_id: reply.session_id.clone(),
            frames: Frames::default(),
            outgoing: Vec::new(),
            _client: client,
        })
    }

    /// Reads what there is; `None` where nothing is there now, 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.socket.read(buffer) {
            Err(error) if is_for_later(&error) => None,
            // Its reason says no more than that it is over.
            Err(_) => Some(0),
            Ok(length) => Some(length),
        }
    }

    /// Writes what it takes. What a broken connection does not take is dropped: reading tells
    /// that it is broken.
    pub fn write(&mut self) {
        match self.socket.write(&self.outgoing) {
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.outgoing.clear(),
            Ok(length) => {
                self.outgoing.drain(..length);
            }
        }
    }

    /// Tells the daemon that we leave, after what was typed last.
    pub fn leave(mut self) {
        const PATIENCE: Duration = Duration::from_millis(200);
        if !self.outgoing.is_empty() {
            let _ = self.socket.set_nonblocking(false);
            let _ = self.socket.set_write_timeout(Some(PATIENCE));
            let _ = self.socket.write_all(&self.outgoing);
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A connection that is being made, in a thread of its own: it may take long, and the user's
/// keys and signals are heard meanwhile.
#[derive(Debug)]
pub struct Attempt {
    thread: JoinHandle<Result<Link, Failure>>,
    /// At its end when the thread has ended.
    pub done: UnixStream,
}

impl Attempt {
    /// Begins one.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn begin(
        dirs: Dirs,
        output: Output,
        ask: Ask,
        looks: Option<Failure>,
    ) -> Result<Self, Failure> {
        let pair = UnixStream::pair();
        let (done, theirs) = pair.map_err(|error| host("connect again", &error))?;
        let quiet = Output {
            quiet: true,
            ..output
        };
        let thread = std::thread::spawn(move || {
            let _theirs = theirs;
            let client = Client::connect(dirs, Arc::new(Signals::none()), &quiet)?;
            Link::open(client, ask, looks)
        });
        Ok(Self { thread, done })
    }

    /// How it went; waits until it is over.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn end(self) -> Result<Link, Failure> {
        self.thread.join().unwrap_or_else(|_| {
            Err(Failure::new(
                Kind::Internal,
                "the thread that connects again has panicked",
            ))
        })
    }
}
