//! Following a session over connections that may break: no byte of output is missed or repeated,
//! and none of the input either.
//!
//! One loop waits for everything at once: signals, keys, the stream, our own outputs, the next
//! connection. It writes only what can be written without waiting, so a key or a signal is always
//! heard. What is connected and how is the business of `link.rs`; what was taken of the input, of
//! `input.rs`; where the output stands, of `output.rs`; the user, of `keys.rs`; the terminal, of
//! `screen.rs`.

mod detach;
mod input;
mod keys;
mod link;
mod output;
pub mod screen;

pub use detach::DetachKey;
pub use input::Kept;
pub use keys::Keys;
pub use link::{Ask, Link};
pub use output::Face;

use crate::context::Context;
use crate::error::{CommandError, host};
use crate::frames::{Channel, Item};
use crate::output::Output;
use crate::signal::{Signals, timespec};
use crate::{stream, text};
use banger_core::frame::Frame;
use banger_core::{Failure, Kind, escape};
use banger_host::dirs::Dirs;
use link::Attempt;
use output::{Counter, Pending};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// The first pause before connecting again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that says nothing but lasts so long is taken for good.
const PROVEN: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The session ended so.
    Exit(u8),
    /// The user left, and the session goes on. So many bytes of input had not been taken.
    Left {
        /// Bytes.
        untaken: usize,
    },
}

/// Whether a connection that breaks is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBreak {
    /// It is.
    Reconnect,
    /// It is the end.
    Fail,
}

/// A session that is followed.
#[derive(Debug)]
pub struct Following {
    dirs: Dirs,
    output: Output,
    ask: Ask,
    on_break: OnBreak,
    keys: Keys,
    signals: Vec<Arc<Signals>>,
    counter: Counter,
    pending: Pending,
    state: State,
    outage: Outage,
    /// Standard input ended while it was a terminal.
    hung_up: bool,
}

#[derive(Debug)]
enum State {
    Connected {
        link: Box<Link>,
        since: Instant,
        /// It has sent something.
        spoke: bool,
    },
    Resting {
        until: Instant,
        looks: Option<Failure>,
    },
    Connecting(Attempt),
    /// Over, once everything is written.
    Over(Result<u8, Failure>),
    /// Between two of the others.
    Nothing,
}

/// What the user knows of a connection that is lost.
#[derive(Debug)]
struct Outage {
    told: bool,
    /// Why the last attempt failed, as it was shown.
    why: String,
    pause: Duration,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signal,
    Keys,
    Socket,
    Output,
    Attempt,
}

impl Following {
    /// Begins with a connection that there is.
    ///
    /// # Errors
    /// Where the environment does not tell where banger's files are, or signals can't be caught.
    pub fn new(
        context: &Context,
        mut ask: Ask,
        link: Link,
        keys: Keys,
        face: Face,
        on_break: OnBreak,
    ) -> Result<Self, Failure> {
        let mut signals = vec![context.signals()?];
        if matches!(face, Face::Screen(_)) {
            signals.push(Arc::new(Signals::catch_of_terminal()?));
        }
        ask.stay_with(&link.session_id);
        Ok(Self {
            dirs: context.dirs()?,
            output: context.output,
            ask,
            on_break,
            keys,
            signals,
            counter: Counter::starting_at(link.from),
            pending: Pending::new(face),
            state: State::Connected {
                link: Box::new(link),
                since: Instant::now(),
                spoke: false,
            },
            outage: Outage {
                told: false,
                why: String::new(),
                pause: FIRST_PAUSE,
            },
            hung_up: false,
        })
    }

    /// Passes everything on until the end.
    ///
    /// # Errors
    /// Why it can't go on: what the daemon says, or what our outputs say.
    pub fn run(mut self) -> Result<Ended, CommandError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let State::Over(_) = self.state
                && self.pending.descriptor().is_none()
                && let State::Over(end) = self.take_state()
            {
                return Ok(Ended::Exit(end?));
            }
            self.queue_input();
            let ready = self.wait()?;
            for source in ready {
                let goes_on = match source {
                    Source::Signal => self.hear_signals(),
                    Source::Keys => self.read_keys(&mut buffer),
                    Source::Output => {
                        self.pending.write()?;
                        true
                    }
                    Source::Socket => {
                        self.use_socket(&mut buffer)?;
                        true
                    }
                    Source::Attempt => {
                        self.end_attempt();
                        true
                    }
                };
                if !goes_on || self.hung_up {
                    return Ok(self.leave());
                }
            }
            self.keep_time()?;
        }
    }

    /// What has happened, signals first.
    fn wait(&self) -> Result<Vec<Source>, Failure> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        for signals in &self.signals {
            let descriptors = signals.descriptors();
            watched.extend(descriptors.map(|fd| (Source::Signal, fd, PollFlags::IN)));
        }
        let reads_keys = match &self.keys {
            Keys::Ignored => false,
            Keys::Kept(kept) => kept.room() > 0 && !matches!(self.state, State::Over(_)),
            Keys::Typed(_) | Keys::Watching(_) => true,
        };
        if reads_keys {
            watched.push((Source::Keys, rustix::stdio::stdin(), PollFlags::IN));
        }
        if let Some(fd) = self.pending.descriptor() {
            watched.push((Source::Output, fd, PollFlags::OUT));
        }
        match &self.state {
            State::Connected { link, .. } => {
                // Nothing is read that can't be shown: the session's writer waits, not we.
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, self.pending.descriptor().is_none());
                flags.set(PollFlags::OUT, !link.outgoing.is_empty());
                if !flags.is_empty() {
                    watched.push((Source::Socket, link.socket.as_fd(), flags));
                }
            }
            State::Connecting(attempt) => {
                watched.push((Source::Attempt, attempt.done.as_fd(), PollFlags::IN));
            }
            State::Resting { .. } | State::Over(_) | State::Nothing => {}
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        match poll(&mut fds, self.timeout().map(timespec).as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(host("wait for the session", &error)),
        }
        let ready = watched.iter().zip(&fds);
        let ready = ready.filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _, _), _)| *source).collect())
    }

    fn timeout(&self) -> Option<Duration> {
        match &self.state {
            State::Resting { until, .. } => Some(until.saturating_duration_since(Instant::now())),
            State::Connected { since, .. } if self.outage.told => {
                Some(PROVEN.saturating_sub(since.elapsed()))
            }
            _ => None,
        }
    }

    /// What is due by now.
    fn keep_time(&mut self) -> Result<(), Failure> {
        if let State::Connected { since, .. } = &self.state
            && self.outage.told
            && since.elapsed() >= PROVEN
        {
            self.prove();
        }
        if let State::Resting { until, .. } = &self.state
            && *until <= Instant::now()
            && let State::Resting { looks, .. } = self.take_state()
        {
            self.ask.go_on_from(self.counter.position());
            let ask = self.ask.clone();
            let attempt = Attempt::begin(self.dirs.clone(), self.output, ask, looks)?;
            self.state = State::Connecting(attempt);
        }
        Ok(())
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Nothing)
    }

    fn use_socket(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        let State::Connected { link, .. } = &mut self.state else {
            return Ok(());
        };
        if !link.outgoing.is_empty() {
            link.write();
        }
        if self.pending.descriptor().is_some() {
            return Ok(());
        }
        match link.read(buffer) {
            None => {}
            Some(0) => self.lose(stream::cut_off()),
            Some(length) => self.take_in(buffer.get(..length).unwrap_or_default())?,
        }
        Ok(())
    }

    /// Takes what the daemon sent.
    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let State::Connected { link, spoke, .. } = &mut self.state {
            let Some(item) = link.frames.next(&mut bytes).map_err(stream::malformed)? else {
                return Ok(());
            };
            let is_first = !std::mem::replace(spoke, true);
            if !matches!(item, Item::Frame(Frame::Error(_))) {
                self.prove();
            }
            match item {
                Item::Output(channel, piece) => {
                    let new = self.counter.take(channel, piece);
                    self.pending.push(channel, new);
                }
                Item::Frame(Frame::InputTaken(total)) => {
                    if let Keys::Kept(kept) = &mut self.keys {
                        kept.note_taken(total)?;
                    }
                }
                Item::Frame(Frame::Exit(code)) => self.state = State::Over(Ok(code)),
                Item::Frame(Frame::Error(failure)) => match failure.kind {
                    Kind::Gone if self.on_break == OnBreak::Reconnect => {
                        self.rest(Duration::ZERO, Some(failure));
                    }
                    // The daemon that gave the token is not the one that was shown it.
                    Kind::NotFound if is_first => self.lose(failure),
                    kind if is_passing(kind) => self.lose(failure),
                    _ => self.state = State::Over(Err(failure)),
                },
                Item::Frame(_) => {}
            }
        }
        Ok(())
    }

    /// The connection has shown that it works.
    fn prove(&mut self) {
        self.outage.pause = FIRST_PAUSE;
        self.outage.why.clear();
        if std::mem::take(&mut self.outage.told) {
            self.say("reconnected");
        }
    }

    /// The connection broke.
    fn lose(&mut self, failure: Failure) {
        if self.on_break == OnBreak::Fail {
            self.state = State::Over(Err(failure));
            return;
        }
        if !std::mem::replace(&mut self.outage.told, true) {
            self.say("connection lost; reconnecting…");
        }
        self.rest(self.outage.pause, None);
        self.outage.pause = (self.outage.pause * 2).min(LONGEST_PAUSE);
    }

    fn rest(&mut self, pause: Duration, looks: Option<Failure>) {
        let until = Instant::now() + pause;
        self.state = State::Resting { until, looks };
    }

    /// An attempt to connect is over.
    fn end_attempt(&mut self) {
        let State::Connecting(attempt) = self.take_state() else {
            return;
        };
        match attempt.end() {
            Ok(link) => self.go_on(link),
            Err(failure) if is_passing(failure.kind) => {
                // Once for each reason: it may be one that the user can mend.
                if self.outage.why != failure.message {
                    let why = escape::text(failure.message.as_bytes());
                    self.say(&format!("not yet: {why}"));
                    self.outage.why = failure.message.clone();
                }
                self.lose(failure);
            }
            Err(failure) => self.state = State::Over(Err(failure)),
        }
    }

    fn go_on(&mut self, link: Link) {
        for (channel, from, name) in [
            (Channel::Stdout, link.from.stdout, "stdout"),
            (Channel::Stderr, link.from.stderr, "stderr"),
        ] {
            if !self.ask.wants(channel) {
                continue;
            }
            let missing = self.counter.go_on_from(channel, from);
            if missing > 0 {
                let missing = text::plural(missing, "byte");
                let note = format!("{missing} of {name} are no longer kept: they are missing here");
                self.output.warn(Kind::Gone, &note);
            }
        }
        if let Keys::Kept(kept) = &mut self.keys {
            kept.reconnected();
        }
        self.state = State::Connected {
            link: Box::new(link),
            since: Instant::now(),
            spoke: false,
        };
    }

    /// A remark. A raw terminal needs to be told to go to the line's beginning.
    fn say(&self, remark: &str) {
        match self.keys {
            Keys::Ignored | Keys::Kept(_) => self.output.remark(remark),
            Keys::Typed(_) | Keys::Watching(_) => {
                self.output.remark(&format!("\r\n{remark}\r"));
            }
        }
    }

    fn leave(mut self) -> Ended {
        if let State::Connected { link, .. } = self.take_state() {
            link.leave();
        }
        let untaken = match &self.keys {
            Keys::Kept(kept) => kept.len(),
            _ => 0,
        };
        Ended::Left { untaken }
    }
}

/// Whether connecting again may help. A daemon that ends cancels what it is asked.
fn is_passing(kind: Kind) -> bool {
    matches!(kind, Kind::Unreachable | Kind::Daemon | Kind::Cancelled)
}
