//! A real pseudo-terminal, and programs on it.

use super::DEADLINE;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// A terminal, and all that was shown on it.
pub struct Pty {
    master: File,
    slave: OwnedFd,
    shown: Arc<(Mutex<Vec<u8>>, Condvar)>,
}

impl Pty {
    /// One of this size.
    pub fn open(columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, Mode::empty()).expect("opens");
        let master = File::from(master);
        let shown: Arc<(Mutex<Vec<u8>>, Condvar)> = Arc::default();
        let (kept, mut reader) = (shown.clone(), master.try_clone().expect("a clone"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut shown = kept.0.lock().expect("a lock");
                shown.extend_from_slice(&buffer[..length]);
                kept.1.notify_all();
            }
        });
        let pty = Self {
            master,
            slave,
            shown,
        };
        pty.resize(columns, rows);
        pty
    }

    /// Another size. Nobody is told: no program here has it as its controlling terminal.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.slave, size).expect("a size");
    }

    /// Starts a program on it.
    pub fn spawn(&self, mut command: Command) -> Child {
        let slave = || self.slave.try_clone().expect("a clone");
        command.stdin(slave()).stdout(slave()).stderr(slave());
        command.env("TERM", "xterm").spawn().expect("starts")
    }

    /// Types.
    pub fn type_keys(&self, keys: &[u8]) {
        let mut master = &self.master;
        master.write_all(keys).expect("typed");
    }

    /// Waits until this was shown.
    pub fn wait_for(&self, text: &str) {
        let since = Instant::now();
        let mut shown = self.shown.0.lock().expect("a lock");
        while !contains(&shown, text) {
            let rest = DEADLINE.saturating_sub(since.elapsed());
            assert!(
                !rest.is_zero(),
                "no {text:?} in {:?}",
                String::from_utf8_lossy(&shown)
            );
            shown = self.shown.1.wait_timeout(shown, rest).expect("a lock").0;
        }
    }

    /// All that was shown so far.
    pub fn shown(&self) -> Vec<u8> {
        self.shown.0.lock().expect("a lock").clone()
    }

    /// Its modes, as `stty -a` tells them.
    pub fn modes(&self) -> String {
        let mut stty = Command::new("stty");
        stty.arg("-a");
        stty.stdin(self.slave.try_clone().expect("a clone"));
        let output = stty.output().expect("stty runs");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        // The first line tells the size, which is no mode.
        text.lines().skip(1).collect()
    }
}

/// Waits for a child's end; kills it where it takes too long.
pub fn wait(mut child: Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if since.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::yield_now();
    }
}

/// Whether the bytes hold this text.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
