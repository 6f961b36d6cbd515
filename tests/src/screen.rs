//! A real pseudo-terminal with a command on it, and an emulator that shows what a person would see.
//!
//! The command is the child of a shell that leads the terminal's session and outlives it: a terminal
//! whose session has ended is reset by the kernel, and nobody could see what the command left.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::home::{DEADLINE, Home};

/// Tells the exit code through a file and stays.
const LEADER: &str = "code=$1; shift; trap '' HUP TERM INT; \"$@\"; printf %s \"$?\" >\"$code.new\"; \
                      mv \"$code.new\" \"$code\"; exec sleep 600";

/// Counts what can't be seen.
#[derive(Default)]
struct Bells(usize);

impl vt100::Callbacks for Bells {
    fn audible_bell(&mut self, _: &mut vt100::Screen) {
        self.0 += 1;
    }
}

/// A terminal with a command on it.
pub struct Screen {
    master: File,
    leader: Child,
    code: PathBuf,
    drawn: Arc<(Mutex<Drawn>, Condvar)>,
    modes: String,
}

struct Drawn {
    emulator: vt100::Parser<Bells>,
    /// Everything that came, for a failure's message.
    bytes: Vec<u8>,
}

impl Screen {
    /// `banger` with these arguments on a terminal of this size.
    ///
    /// # Errors
    /// There is no terminal, or the command can't be started.
    pub fn open(home: &Home, arguments: &[&str], columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        tcsetwinsize(&master, size(columns, rows))?;
        let slave = || -> Result<OwnedFd> {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
            Ok(rustix::fs::open(&name, flags, rustix::fs::Mode::empty())?)
        };
        let code = tempfile::Builder::new()
            .prefix("code-")
            .tempfile_in(home.scratch())?
            .into_temp_path()
            .to_owned();
        let banger = home.command(arguments);
        let mut words: Vec<OsString> = ["--ctty", "bash", "-c", LEADER, "leader"]
            .map(OsString::from)
            .into();
        words.push(code.clone().into());
        words.push(banger.get_program().to_owned());
        words.extend(banger.get_args().map(OsString::from));
        let mut command = Command::new("setsid");
        command.args(words).env_clear();
        for (name, value) in banger.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
            .env("TERM", "xterm-256color")
            .current_dir(home.scratch())
            .stdin(Stdio::from(slave()?))
            .stdout(Stdio::from(slave()?))
            .stderr(Stdio::from(slave()?));
        let modes = format!("{:?}", tcgetattr(&master)?);
        let leader = command.spawn().context("setsid can't be run")?;
        drop(command);
        let drawn = Arc::new((
            Mutex::new(Drawn {
                emulator: vt100::Parser::new_with_callbacks(
                    count(rows),
                    count(columns),
                    0,
                    Bells::default(),
                ),
                bytes: Vec::new(),
            }),
            Condvar::new(),
        ));
        let mut reader = File::from(master.try_clone()?);
        let pumped = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let piece = buffer.get(..read).unwrap_or_default();
                let mut drawn = pumped.0.lock().unwrap_or_else(PoisonError::into_inner);
                drawn.emulator.process(piece);
                drawn.bytes.extend_from_slice(piece);
                pumped.1.notify_all();
            }
        });
        Ok(Self {
            master: File::from(master),
            leader,
            code,
            drawn,
            modes,
        })
    }

    /// The command's process.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn pid(&self) -> Pid {
        let leader = self.leader.id();
        let since = Instant::now();
        loop {
            let children =
                std::fs::read_to_string(format!("/proc/{leader}/task/{leader}/children"));
            let child = children.ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = child.and_then(Pid::from_raw) {
                return pid;
            }
            assert!(since.elapsed() < DEADLINE, "the command does not run");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends the command a signal.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signalled");
    }

    /// Types this.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    /// Gives the terminal another size, as a person who pulls at a window's corner.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut drawn = self.drawn.0.lock().unwrap_or_else(PoisonError::into_inner);
        drawn
            .emulator
            .screen_mut()
            .set_size(count(rows), count(columns));
        drop(drawn);
        // The kernel sends WINCH to whoever is in the foreground.
        tcsetwinsize(&self.master, size(columns, rows)).expect("resized");
    }

    /// Makes the screen empty, so that only what is drawn from now on is on it.
    pub fn wipe(&self) {
        let mut drawn = self.drawn.0.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.emulator.process(b"\x1b[2J");
    }

    /// How many bells have rung.
    pub fn bells(&self) -> usize {
        let drawn = self.drawn.0.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.emulator.callbacks().0
    }

    /// Waits until so many bells have rung.
    ///
    /// # Panics
    /// Where they do not.
    #[track_caller]
    pub fn until_bells(&self, count: usize) {
        let since = Instant::now();
        while self.bells() < count {
            assert!(since.elapsed() < DEADLINE, "no bell rings");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the screen is as wanted, and returns its text.
    ///
    /// # Panics
    /// Where it does not come to be so; the message shows the screen.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> String {
        let since = Instant::now();
        let mut drawn = self.drawn.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if wanted(drawn.emulator.screen()) {
                return drawn.emulator.screen().contents();
            }
            let left = DEADLINE.saturating_sub(since.elapsed());
            if left.is_zero() {
                let tail = drawn.bytes.len().saturating_sub(600);
                panic!(
                    "{what}: not seen on\n{}\n{:?}",
                    drawn.emulator.screen().contents(),
                    String::from_utf8_lossy(drawn.bytes.get(tail..).unwrap_or_default())
                );
            }
            drawn = self
                .drawn
                .1
                .wait_timeout(drawn, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the screen shows this text.
    ///
    /// # Panics
    /// As [`Screen::until`].
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        self.until(&format!("`{text}`"), |screen| {
            screen.contents().contains(text)
        })
    }

    /// Whether the terminal's modes are those that it had before the command was started.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn has_its_modes(&self) -> bool {
        format!("{:?}", tcgetattr(&self.master).expect("modes")) == self.modes
    }

    /// Waits until the command has ended; its exit code, 128 + n where signal n ended it.
    ///
    /// # Panics
    /// Where it does not end in time.
    #[track_caller]
    pub fn ended(&self) -> i32 {
        let since = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.code)
                && let Ok(code) = text.parse()
            {
                return code;
            }
            assert!(
                since.elapsed() < DEADLINE,
                "the command did not end; the screen:\n{}",
                self.until("", |_| true)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let leader = self.leader.id();
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{leader}/task/{leader}/children"))
        {
            let children = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            for pid in children.filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

fn count(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
