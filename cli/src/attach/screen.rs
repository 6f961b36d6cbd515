//! Our terminal while a session draws it: raw mode, and the way out of it.
//!
//! Raw mode ends on every way out: [`RawTerminal`] ends it when it is dropped, and a panic's hook
//! before the panic is shown. Signals are events of the attach's loop, so they end it as anything
//! else does.

use crate::error::host;
use banger_core::Failure;
use banger_core::protocol::session::TerminalSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::termios::{self, OptionalActions, Termios};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// What to give back.
static SAVED: Mutex<Option<Saved>> = Mutex::new(None);
/// Whether the alternate screen is shown.
static ALTERNATE: AtomicBool = AtomicBool::new(false);

/// Whether keys are told apart more finely than usual (the protocol of the kitty terminal).
static KEYS: AtomicBool = AtomicBool::new(false);

/// A terminal, and the modes that it had before it was raw.
#[derive(Debug)]
struct Saved {
    input: OwnedFd,
    output: OwnedFd,
    modes: Termios,
}

/// Back to the screen that was there before, where a program has left another one.
const LEAVE_ALTERNATE: &[u8] = b"\x1b[?1049l";

/// Back to the usual keys. Each of the two screens remembers its own.
const USUAL_KEYS: &[u8] = b"\x1b[<9u";

/// What a program that was cut off may have left: colours, no cursor, mouse and focus reports,
/// bracketed paste, other cursor keys and keypad, extended keys, lines that do not wrap.
const RESET: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\
\x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?1l\x1b>\x1b[>4m\x1b[?7h";

/// How long a terminal that takes nothing is waited for.
const PATIENCE_MS: i64 = 200;

/// The size of the terminal that one of our descriptors is; none where none is one.
pub fn size() -> Option<TerminalSize> {
    let descriptors = [
        rustix::stdio::stdout(),
        rustix::stdio::stdin(),
        rustix::stdio::stderr(),
    ];
    let size = descriptors
        .into_iter()
        .find_map(|fd| termios::tcgetwinsize(fd).ok())?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// The terminal is raw while this lives.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal raw that standard input and standard output are.
    ///
    /// # Errors
    /// Where they are none, or it does not let itself be changed.
    pub fn enter() -> Result<Self, Failure> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        let input = copy(rustix::stdio::stdin());
        let failed = |error: std::io::Error| host("make the terminal raw", &error);
        let output = copy(rustix::stdio::stdout()).map_err(failed)?;
        Self::enter_on(input.map_err(failed)?, output).map_err(|error| failed(error.into()))
    }

    fn enter_on(input: OwnedFd, output: OwnedFd) -> rustix::io::Result<Self> {
        static HOOK: Once = Once::new();
        let modes = termios::tcgetattr(&input)?;
        HOOK.call_once(|| {
            let shown = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                shown(panic);
            }));
        });
        let mut raw = modes.clone();
        raw.make_raw();
        let saved = Saved {
            input: input.try_clone().map_err(|_| rustix::io::Errno::MFILE)?,
            output,
            modes,
        };
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        // From here on dropping it restores.
        let guard = Self(());
        termios::tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was, once. It may have gone: then there is nothing to do.
fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(saved) = saved else { return };
    let mut reset = Vec::new();
    let keys = KEYS.swap(false, Ordering::SeqCst);
    if keys {
        reset.extend_from_slice(USUAL_KEYS);
    }
    if ALTERNATE.swap(false, Ordering::SeqCst) {
        reset.extend_from_slice(LEAVE_ALTERNATE);
        reset.extend_from_slice(if keys { USUAL_KEYS } else { b"" });
    }
    reset.extend_from_slice(RESET);
    if is_writable(&saved.output) {
        let _ = rustix::io::write(&saved.output, &reset);
    }
    let _ = termios::tcsetattr(&saved.input, OptionalActions::Now, &saved.modes);
}

fn is_writable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    let patience = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE_MS * 1_000_000,
    };
    poll(&mut fds, Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// Follows what is drawn, as far as the way out has to know: leaving the alternate screen where
/// it is not shown would move the cursor to nowhere in particular.
#[derive(Debug, Default)]
pub struct Screen {
    state: State,
    number: u32,
    alternate_named: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    Bracket,
    Private,
    Keys,
}

/// What was said of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// From here on the alternate screen is shown, or is not.
    Alternate(bool),
    /// Keys come in another form.
    FineKeys,
}

impl Screen {
    /// Notes what goes to the terminal, in pieces of any size.
    pub fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.step(*byte) {
                Some(Told::Alternate(is_shown)) => ALTERNATE.store(is_shown, Ordering::SeqCst),
                Some(Told::FineKeys) => KEYS.store(true, Ordering::SeqCst),
                None => {}
            }
        }
    }

    fn step(&mut self, byte: u8) -> Option<Told> {
        let (state, mut told) = (self.state, None);
        self.state = match (state, byte) {
            (_, 0x1b) => State::Escape,
            // A full reset.
            (State::Escape, b'c') => {
                told = Some(Told::Alternate(false));
                State::Text
            }
            (State::Escape, b'[') => State::Bracket,
            (State::Bracket, b'?') => {
                (self.number, self.alternate_named) = (0, false);
                State::Private
            }
            (State::Bracket, b'>' | b'=') | (State::Keys, b'0'..=b'9' | b';') => State::Keys,
            (State::Keys, b'u') => {
                told = Some(Told::FineKeys);
                State::Text
            }
            (State::Private, b'0'..=b'9') => {
                let digit = u32::from(byte - b'0');
                self.number = self.number.saturating_mul(10).saturating_add(digit);
                State::Private
            }
            (State::Private, b';' | b'h' | b'l') => {
                self.alternate_named |= matches!(self.number, 47 | 1047 | 1049);
                self.number = 0;
                if byte == b';' {
                    State::Private
                } else {
                    told = self
                        .alternate_named
                        .then_some(Told::Alternate(byte == b'h'));
                    State::Text
                }
            }
            _ => State::Text,
        };
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{self, OpenptFlags};
    use std::io::Read as _;

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = pty::openpt(flags).expect("a pseudo-terminal");
        pty::grantpt(&master).expect("granted");
        pty::unlockpt(&master).expect("unlocked");
        let name = pty::ptsname(&master, Vec::new()).expect("a name");
        let slave = rustix::fs::open(
            name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
            rustix::fs::Mode::empty(),
        )
        .expect("opens");
        let modes = || format!("{:?}", termios::tcgetattr(&slave).expect("modes"));
        let before = modes();
        let copy = || slave.try_clone().expect("a copy");
        let (input, output) = (copy(), copy());
        let died = std::thread::spawn(move || {
            let raw = RawTerminal::enter_on(input, output).expect("raw");
            Screen::default().note(b"\x1b[?1049h");
            // Its drop never runs: the hook alone must do.
            std::mem::forget(raw);
            panic!("on purpose");
        })
        .join();
        assert!(died.is_err());
        assert_eq!(modes(), before);
        let mut written = vec![0; LEAVE_ALTERNATE.len() + RESET.len()];
        let mut master = std::fs::File::from(master);
        master.read_exact(&mut written).expect("bytes");
        assert_eq!(written, [LEAVE_ALTERNATE, RESET].concat());
        // Dropping it is enough as well, and raw it is in between.
        let raw = RawTerminal::enter_on(copy(), copy()).expect("raw");
        assert_ne!(modes(), before);
        drop(raw);
        assert_eq!(modes(), before);
    }

    fn told(bytes: &[u8]) -> Option<Told> {
        let mut screen = Screen::default();
        bytes.iter().filter_map(|byte| screen.step(*byte)).last()
    }

    #[test]
    fn the_alternate_screen_is_followed() {
        for (bytes, expected) in [
            (&b"\x1b[?1049h"[..], Some(Told::Alternate(true))),
            (
                b"\x1b[?1049h text \x1b[?1049l",
                Some(Told::Alternate(false)),
            ),
            (b"\x1b[?25;1047h", Some(Told::Alternate(true))),
            (b"\x1b[?47h", Some(Told::Alternate(true))),
            (b"\x1b[?1049h\x1bc", Some(Told::Alternate(false))),
            (b"\x1b[?1049\x1b[?25h", None),
            (b"\x1b[1049h", None),
            (b"\x1b[>1u", Some(Told::FineKeys)),
            (b"\x1b[=15;1u", Some(Told::FineKeys)),
            (b"\x1b[u\x1b[>1m\x1b[<u", None),
            (b"[?1049h", None),
            (b"\x1b[?10490h\x1b[?99999999999h", None),
        ] {
            assert_eq!(told(bytes), expected, "{bytes:?}");
        }
    }
}
