//! SIGINT, SIGTERM and others as events that can be waited for beside a socket.

use crate::error::host;
use banger_core::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What the user or the system wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite end.
    Terminate,
    /// The terminal has gone.
    Hangup,
    /// Ctrl-\\.
    Quit,
    /// The terminal has another size.
    Resized,
}

impl Signal {
    /// Its name without `SIG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Hangup => "HUP",
            Self::Quit => "QUIT",
            Self::Resized => "WINCH",
        }
    }
}

/// What there was to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal came.
    Signal(Signal),
    /// The other descriptor can be read, or is at its end.
    Readable,
    /// The time is over.
    TimedOut,
}

/// The signals since they were caught; from then on they do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    caught: Vec<(Signal, UnixStream)>,
}

impl Signals {
    /// Begins to catch what ends a command: SIGINT and SIGTERM.
    ///
    /// # Errors
    /// [`banger_core::Kind::Host`] where the system refuses.
    pub fn catch() -> Result<Self, Failure> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        Self::of([(Signal::Interrupt, SIGINT), (Signal::Terminate, SIGTERM)])
    }

    /// Begins to catch what else matters while a terminal is in raw mode.
    ///
    /// # Errors
    /// As [`Signals::catch`].
    pub fn catch_of_terminal() -> Result<Self, Failure> {
        use signal_hook::consts::{
            SIGALRM, SIGHUP, SIGPROF, SIGQUIT, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU,
        };
        Self::of([
            (Signal::Hangup, SIGHUP),
            (Signal::Quit, SIGQUIT),
            (Signal::Resized, SIGWINCH),
            // They mean nothing to us, but would end the process with the terminal raw.
            (Signal::Terminate, SIGALRM),
            (Signal::Terminate, SIGPROF),
            (Signal::Terminate, SIGUSR1),
            (Signal::Terminate, SIGUSR2),
            (Signal::Terminate, SIGVTALRM),
            (Signal::Terminate, SIGXCPU),
        ])
    }

    /// None at all: another thread has them.
    pub fn none() -> Self {
        Self { caught: Vec::new() }
    }

    fn of<const N: usize>(signals: [(Signal, i32); N]) -> Result<Self, Failure> {
        let catch = |number| -> std::io::Result<UnixStream> {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, handlers)?;
            Ok(ours)
        };
        let mut caught = Vec::new();
        for (signal, number) in signals {
            let pipe = catch(number).map_err(|error| host("catch signals", &error))?;
            caught.push((signal, pipe));
        }
        Ok(Self { caught })
    }

    /// What can be read when a signal has come.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.caught.iter().map(|(_, pipe)| pipe.as_fd())
    }

    /// A signal that has come, without waiting.
    pub fn next(&self) -> Option<Signal> {
        let mut caught = self.caught.iter();
        caught.find_map(|(signal, pipe)| take(pipe).then_some(*signal))
    }

    /// Waits for a signal, or until `other` can be read, or for so long. Signals come first.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Event, Failure> {
        let timeout = timeout.map(timespec);
        loop {
            let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds: Vec<PollFd<'_>> = self.descriptors().chain(other).map(watch).collect();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Event::TimedOut),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(host("wait for the daemon", &error)),
            }
            let is_readable = fds
                .get(self.caught.len())
                .is_some_and(|fd| !fd.revents().is_empty());
            if let Some(signal) = self.next() {
                return Ok(Event::Signal(signal));
            }
            if is_readable {
                return Ok(Event::Readable);
            }
        }
    }
}

/// A time as poll(2) takes it.
pub fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// Takes one byte, which stands for one signal.
fn take(mut pipe: &UnixStream) -> bool {
    matches!(pipe.read(&mut [0]), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_before_bytes_and_bytes_before_time() {
        let signals = Signals::catch().expect("caught");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let soon = Some(Duration::from_millis(1));
        let wait = || signals.wait(Some(ours.as_fd()), soon).expect("waits");
        assert_eq!(wait(), Event::TimedOut);
        drop(theirs);
        assert_eq!(wait(), Event::Readable);
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).expect("raised");
        assert_eq!(wait(), Event::Signal(Signal::Interrupt));
        assert_eq!(wait(), Event::Readable);
    }
}
