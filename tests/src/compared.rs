//! Commands whose output is compared with what it should be while it comes: also 200 MB of it tell
//! where the first wrong byte is.

use std::io::Read;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::home::DEADLINE;

/// What both outputs must be.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Standard output.
    pub stdout: Arc<Vec<u8>>,
    /// Standard error.
    pub stderr: Arc<Vec<u8>>,
    /// A byte that may come any number of times before standard output begins.
    pub lead: Option<u8>,
}

/// How far one client has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which client, by the number it was started with.
    pub client: usize,
    /// Bytes more, the lead not counted: 0 where all was lead.
    pub more: usize,
}

/// A command that runs.
pub struct Compared {
    child: Child,
    streams: Vec<JoinHandle<Result<(), String>>>,
}

impl Compared {
    /// Starts it. Whatever comes is told as progress.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn spawn(
        mut command: Command,
        client: usize,
        expected: &Expected,
        progress: &Sender<Progress>,
    ) -> Self {
        let mut child = command.spawn().expect("banger starts");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let (of_stdout, of_stderr) = (progress.clone(), progress.clone());
        let (out, err) = (Arc::clone(&expected.stdout), Arc::clone(&expected.stderr));
        let lead = expected.lead;
        let streams = vec![
            std::thread::spawn(move || {
                compare("stdout", stdout, &out, lead, &|more| {
                    let _ = of_stdout.send(Progress { client, more });
                })
            }),
            std::thread::spawn(move || {
                compare("stderr", stderr, &err, None, &|more| {
                    let _ = of_stderr.send(Progress { client, more });
                })
            }),
        ];
        Self { child, streams }
    }

    /// Its standard input, once.
    ///
    /// # Panics
    /// Where it was taken before, or is no pipe.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    /// Waits for its end: its exit code, once both streams have come whole.
    ///
    /// # Errors
    /// What was wrong with a stream, or that it did not end in time.
    ///
    /// # Panics
    /// Where it can't be waited for.
    pub fn finish(&mut self) -> Result<Option<i32>, String> {
        let (ended, late) = mpsc::channel::<()>();
        let pid = Pid::from_child(&self.child);
        let watchdog = std::thread::spawn(move || {
            let is_late = late.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                let _ = kill_process(pid, Signal::KILL);
            }
            is_late
        });
        let status = self.child.wait().expect("it ends");
        drop(ended);
        let is_late = watchdog.join().unwrap_or(true);
        for stream in self.streams.drain(..) {
            stream.join().map_err(|_| "a reader has panicked")??;
        }
        if is_late {
            return Err(format!("it did not end within {DEADLINE:?}"));
        }
        Ok(status.code())
    }
}

impl Drop for Compared {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compare(
    name: &str,
    mut source: impl Read,
    expected: &[u8],
    lead: Option<u8>,
    tell: &dyn Fn(usize),
) -> Result<(), String> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let read = source
            .read(&mut buffer)
            .map_err(|error| error.to_string())?;
        let mut piece = buffer.get(..read).unwrap_or_default();
        if read == 0 {
            return match at == expected.len() {
                true => Ok(()),
                false => Err(format!(
                    "{name} ends after {at} of {} bytes",
                    expected.len()
                )),
            };
        }
        if at == 0 {
            let begins = piece.iter().position(|byte| Some(*byte) != lead);
            piece = piece.get(begins.unwrap_or(read)..).unwrap_or_default();
        }
        let rest = expected.get(at..).unwrap_or_default();
        if !rest.starts_with(piece) {
            let same = rest.iter().zip(piece).take_while(|(a, b)| a == b).count();
            let around = |bytes: &[u8]| {
                let shown = bytes.get(same..).unwrap_or_default();
                String::from_utf8_lossy(shown.get(..shown.len().min(80)).unwrap_or_default())
                    .into_owned()
            };
            let place = expected
                .windows(16)
                .position(|window| piece.get(same..same + 16) == Some(window));
            return Err(format!(
                "{name} differs at byte {}: {:?} instead of {:?} (found at {place:?})",
                at + same,
                around(piece),
                around(rest)
            ));
        }
        at += piece.len();
        tell(piece.len());
    }
}

/// What the clients have told, added up.
pub struct Told {
    progress: Receiver<Progress>,
    totals: Vec<usize>,
    heard: Vec<bool>,
}

impl Told {
    /// For this many clients.
    pub fn new(clients: usize) -> (Sender<Progress>, Self) {
        let (sender, progress) = mpsc::channel();
        let told = Self {
            progress,
            totals: vec![0; clients],
            heard: vec![false; clients],
        };
        (sender, told)
    }

    /// Whether each client has got anything by now, if only of the lead.
    pub fn all_heard(&mut self) -> bool {
        self.totals();
        self.heard.iter().all(|heard| *heard)
    }

    /// Bytes that each client has got by now.
    pub fn totals(&mut self) -> &[usize] {
        while let Ok(told) = self.progress.try_recv() {
            self.add(told);
        }
        &self.totals
    }

    /// Waits until the clients have got enough; whether they did before the time was over or the
    /// last of them ended.
    pub fn wait(&mut self, until: Instant, mut enough: impl FnMut(&[usize]) -> bool) -> bool {
        loop {
            if enough(self.totals()) {
                return true;
            }
            match self
                .progress
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(told) => self.add(told),
                Err(_) => return false,
            }
        }
    }

    fn add(&mut self, told: Progress) {
        if let Some(total) = self.totals.get_mut(told.client) {
            *total += told.more;
        }
        if let Some(heard) = self.heard.get_mut(told.client) {
            *heard = true;
        }
    }
}
