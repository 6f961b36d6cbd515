//! A key's way to a program on a terminal and back.

use super::Bench;
use super::figure::{Aim, Figure, median, percentile};
use super::loopback::Loopback;
use super::session::Session;
use crate::process;
use crate::pty::Pty;
use crate::screen;
use anyhow::Result;
use std::time::Duration;

/// Keys that count, for each side.
const KEYS: usize = 300;
/// Keys before them.
const WARM_UP: usize = 30;
/// Shows each key as it comes.
const ECHO: &str = "stty raw -echo; printf READY; exec cat";
/// A character that nothing else shows.
const KEY: char = 'Q';

/// `vm session attach` to a session with a terminal, `ssh -t`, and `ssh -t` with tmux.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let loopback = bench.loopback()?;
    let vm = loopback.name();
    let session = Session::start(bench, vm, "bench-echo", "tty", &["sh", "-c", ECHO])?;
    let tmux = Tmux::new(bench, loopback);
    let mut sides = [
        Side::start(Pty::spawn(&session.command("attach"))?)?,
        Side::start(Pty::spawn(&loopback.ssh_on_terminal(ECHO))?)?,
        Side::start(Pty::spawn(&loopback.ssh_on_terminal(&tmux.line(
            &format!(
                "-f /dev/null new-session {} \\; set status off",
                screen::command_line([ECHO])
            ),
        )))?)?,
    ];
    // In turn, so that whatever else the machine does befalls all alike.
    for number in 0..WARM_UP + KEYS {
        bench.signals.check()?;
        for side in &mut sides {
            let time = side.pty.echo(KEY)?;
            if number >= WARM_UP {
                side.times.push(time);
            }
        }
    }
    loopback.check()?;
    let [ours, ssh, in_tmux] = sides.map(|side| side.times);
    let figure = |name: &str, value: fn(&[Duration]) -> Duration, floor: &[Duration], aim| Figure {
        name: name.into(),
        ours: micros(value(&ours)),
        floor: micros(value(floor)),
        value: value(&ours).as_secs_f64() / value(floor).as_secs_f64(),
        aim,
        how: format!(
            "one of {KEYS} keys to `cat` in raw mode and back, one at a time, each side on a \
             terminal of its own, in turn; banger is `vm session attach`, whose sessions are kept \
             by tmux and logged, so that plain `ssh` has fewer processes on the way; all over \
             connections that were there before",
        ),
    };
    let aim = Some(Aim::AtMost(1.2, ""));
    let late: fn(&[Duration]) -> Duration = |times| percentile(times, 95);
    Ok(vec![
        figure("key echo / ssh -t", median, &ssh, aim),
        figure("key echo / ssh -t, p95", late, &ssh, None),
        figure("key echo / ssh -t tmux", median, &in_tmux, aim),
        figure("key echo / ssh -t tmux, p95", late, &in_tmux, None),
    ])
}

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// A program on a terminal that has said that it is ready, and what its echoes took.
struct Side {
    pty: Pty,
    times: Vec<Duration>,
}

impl Side {
    fn start(mut pty: Pty) -> Result<Self> {
        pty.until("READY")?;
        let times = Vec::with_capacity(KEYS);
        Ok(Self { pty, times })
    }
}

/// A tmux server of our own on the host, ended when this value goes.
struct Tmux<'a> {
    loopback: &'a Loopback,
    socket: String,
}

impl<'a> Tmux<'a> {
    fn new(bench: &Bench<'_>, loopback: &'a Loopback) -> Self {
        let socket = bench.scratch.join("tmux").to_string_lossy().into_owned();
        Self { loopback, socket }
    }

    /// `tmux` with that server and these arguments, for the host's shell.
    fn line(&self, arguments: &str) -> String {
        let socket = screen::command_line([&self.socket]);
        format!("tmux -S {socket} {arguments}")
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let mut end = self.loopback.ssh(&self.line("kill-server"));
        process::tidy(&mut end, Duration::from_secs(10));
    }
}
