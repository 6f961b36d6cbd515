//! Which process is a machine's, also after the daemon was restarted.
//!
//! A pid alone is never trusted: it is kept with the start time from `/proc/<pid>/stat`, and signals
//! go through a pidfd that was checked after it was opened, so that a reused pid is never hit.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be confused with a later one of the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to its start.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// The process that has `pid` now; none when there is none, or it is a zombie.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_ticks) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start_ticks })
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Whether `directory` is the process's working directory.
    #[must_use]
    pub fn works_in(&self, directory: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let here = std::fs::metadata(directory);
        let there = std::fs::metadata(format!("/proc/{}/cwd", self.pid));
        matches!((here, there), (Ok(a), Ok(b)) if a.dev() == b.dev() && a.ino() == b.ino())
    }

    /// A handle on exactly this process; none when it is gone.
    fn open(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Checked after opening: from here on the handle cannot mean another process.
        self.is_alive().then_some(handle)
    }

    /// Sends SIGKILL; does nothing when the process is gone.
    pub fn kill(&self) {
        if let Some(handle) = self.open()
            && let Err(error) = pidfd_send_signal(&handle, Signal::KILL)
        {
            tracing::debug!(pid = self.pid, %error, "the process could not be killed");
        }
    }

    /// Waits at most `limit` for the process to be gone, and tells whether it is.
    pub async fn wait_gone(&self, limit: Duration) -> bool {
        let Some(handle) = self.open() else {
            return true;
        };
        // On a thread of its own: a pidfd is readable when its process is gone.
        let gone = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + limit;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).ok();
                let mut watched = [PollFd::new(&handle, PollFlags::IN)];
                match poll(&mut watched, timeout.as_ref()) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return result.is_ok_and(|ready| ready > 0),
                }
            }
        });
        gone.await.unwrap_or(false) || !self.is_alive()
    }
}

/// State letter and start time out of a line of `/proc/<pid>/stat`. The command's name, in
/// parentheses, may itself contain spaces and parentheses.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start time field 22.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_hostile_names_are_read() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_stat(&format!("7 (qemu) {tail}")), Some(('S', 4711)));
        assert_eq!(
            parse_stat(&format!("7 (a) Z 9 (b c) {tail}")),
            Some(('S', 4711))
        );
        assert_eq!(parse_stat("7 (cut) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[tokio::test]
    async fn a_process_of_another_start_time_is_never_killed() {
        let mut child = tokio::process::Command::new("sleep")
            .arg("60")
            .kill_on_drop(true)
            .spawn()
            .expect("sleep");
        let pid = i32::try_from(child.id().expect("running")).expect("pid");
        let real = ProcessIdentity::of(pid).expect("alive");
        let other = ProcessIdentity {
            start_ticks: real.start_ticks + 1,
            ..real
        };
        assert!(!other.is_alive());
        other.kill();
        assert!(other.wait_gone(Duration::ZERO).await);
        assert!(!real.wait_gone(Duration::from_millis(100)).await);
        assert!(real.works_in(&std::env::current_dir().expect("cwd")));
        real.kill();
        assert!(real.wait_gone(Duration::from_secs(10)).await);
        child.wait().await.expect("reaped");
    }
}
