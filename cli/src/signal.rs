//! SIGINT and SIGTERM as events that can be waited for beside a socket.

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
}

impl Signal {
    /// Its name without `SIG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
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

/// The signals since [`Signals::catch`]; from then on they do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: UnixStream,
    terminate: UnixStream,
}

impl Signals {
    /// Begins to catch them.
    ///
    /// # Errors
    /// [`banger_core::Kind::Host`] where the system refuses.
    pub fn catch() -> Result<Self, Failure> {
        let catch = |number| -> std::io::Result<UnixStream> {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, handlers)?;
            Ok(ours)
        };
        let failed = |error: std::io::Error| host("catch signals", &error);
        Ok(Self {
            interrupt: catch(signal_hook::consts::SIGINT).map_err(failed)?,
            terminate: catch(signal_hook::consts::SIGTERM).map_err(failed)?,
        })
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
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        loop {
            let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds = vec![watch(self.interrupt.as_fd()), watch(self.terminate.as_fd())];
            fds.extend(other.map(watch));
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Event::TimedOut),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(host("wait for the daemon", &error)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready.first() == Some(&true) && take(&self.interrupt) {
                return Ok(Event::Signal(Signal::Interrupt));
            }
            if ready.get(1) == Some(&true) && take(&self.terminate) {
                return Ok(Event::Signal(Signal::Terminate));
            }
            if ready.get(2) == Some(&true) {
                return Ok(Event::Readable);
            }
        }
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
