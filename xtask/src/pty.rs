//! A program on a terminal of its own, as a person sees it: keys in, text out.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may be waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running program and its terminal. Both are gone when this value is.
pub struct Pty {
    terminal: OwnedFd,
    child: Child,
    text: Text,
}

impl Pty {
    /// Starts a command on a terminal of 80 columns and 24 rows.
    ///
    /// # Errors
    /// If there is no terminal, or it can't be started.
    pub fn spawn(command: &Command) -> Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("can't open a terminal")?;
        grantpt(&terminal).context("can't grant a terminal")?;
        unlockpt(&terminal).context("can't unlock a terminal")?;
        let name = ptsname(&terminal, Vec::new()).context("a terminal has no name")?;
        let side = OpenOptions::new()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.to_bytes()))
            .context("can't open a terminal's other side")?;
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).context("can't size a terminal")?;
        // Its own session, with the terminal to control it; it dies with us.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--", "setsid", "--ctty"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(side.try_clone()?))
            .stdout(Stdio::from(side.try_clone()?))
            .stderr(Stdio::from(side));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        let child = wrapped
            .spawn()
            .context("can't start a program on a terminal")?;
        Ok(Self {
            terminal,
            child,
            text: Text::default(),
        })
    }

    /// Waits until the program has shown this.
    ///
    /// # Errors
    /// If it does not.
    pub fn until(&mut self, wanted: &str) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        let mut seen = String::new();
        while !seen.contains(wanted) {
            if !self.read(end.saturating_duration_since(Instant::now()), &mut seen)? {
                bail!(
                    "a program on a terminal did not show `{wanted}` but `{}`",
                    seen.trim()
                );
            }
        }
        Ok(())
    }

    /// How long a key takes to be shown.
    ///
    /// # Errors
    /// If it is not.
    pub fn echo(&mut self, key: char) -> Result<Duration> {
        let mut seen = String::new();
        while self.read(Duration::ZERO, &mut seen)? {}
        seen.clear();
        let mut bytes = [0; 4];
        let start = Instant::now();
        rustix::io::write(&self.terminal, key.encode_utf8(&mut bytes).as_bytes())
            .context("can't write to a terminal")?;
        while !seen.contains(key) {
            if !self.read(DEADLINE.saturating_sub(start.elapsed()), &mut seen)? {
                bail!("a key was not shown");
            }
        }
        Ok(start.elapsed())
    }

    /// Adds what is shown within a time; whether anything was.
    fn read(&mut self, limit: Duration, seen: &mut String) -> Result<bool> {
        let limit = Timespec::try_from(limit).context("too long")?;
        let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
        match poll(&mut ready, Some(&limit)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => bail!("interrupted"),
            Err(error) => return Err(error).context("can't wait for a terminal"),
        }
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(&self.terminal, &mut buffer) {
            Ok(count @ 1..) => {
                self.text
                    .feed(buffer.get(..count).unwrap_or_default(), seen);
                Ok(true)
            }
            // That is how a terminal says that nobody is on its other side.
            Ok(_) | Err(rustix::io::Errno::IO) => {
                bail!("a program on a terminal has ended: `{}`", seen.trim())
            }
            Err(error) => Err(error).context("can't read a terminal"),
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Leaves the text of what is written to a terminal: no control sequences.
#[derive(Debug, Default)]
struct Text(State);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Ground,
    Escape,
    /// `ESC [` and its parameters.
    Control,
    /// `ESC ]` and others, up to BEL or `ESC \`.
    Message,
    MessageEscape,
    /// `ESC (` and others, one byte more.
    One,
}

impl Text {
    fn feed(&mut self, bytes: &[u8], text: &mut String) {
        for byte in bytes {
            self.0 = match (self.0, byte) {
                (State::Ground, 0x1b) => State::Escape,
                (State::Ground, byte) => {
                    if byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\n' {
                        text.push(char::from(*byte));
                    }
                    State::Ground
                }
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_' | b'k') => State::Message,
                (State::Escape, b'(' | b')' | b'*' | b'+' | b'#' | b'%' | b' ') => State::One,
                (State::Escape | State::One, _) => State::Ground,
                (State::Control, 0x40..=0x7e) => State::Ground,
                (State::Control, _) => State::Control,
                (State::Message, 0x07) => State::Ground,
                (State::Message, 0x1b) => State::MessageEscape,
                (State::Message, _) => State::Message,
                (State::MessageEscape, b'\\') => State::Ground,
                (State::MessageEscape, _) => State::Message,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_no_text_however_they_are_cut() {
        let bytes = b"a\x1b[1;31mb\x1b]0;title\x07c\x1b(Bd\x1bP+q\x1b\\e\x1b[?2026h\r\nf";
        let mut text = Text::default();
        let mut seen = String::new();
        for byte in bytes {
            text.feed(&[*byte], &mut seen);
        }
        assert_eq!(seen, "abcde\nf");
    }

    #[test]
    fn a_key_is_shown_by_a_program_on_a_terminal() {
        let mut command = Command::new("sh");
        command.args(["-c", "stty raw -echo; printf ready; exec cat"]);
        let mut pty = Pty::spawn(&command).expect("starts");
        pty.until("ready").expect("says so");
        pty.echo('Q').expect("shown");
        pty.echo('Q').expect("shown again");
        let mut gone = Pty::spawn(Command::new("sh").args(["-c", "exit 0"])).expect("starts");
        assert!(gone.until("never").is_err());
    }
}
