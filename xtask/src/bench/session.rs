//! What a session printed, and what it prints, in bulk.

use super::Bench;
use super::figure::{Aim, Figure, median, spread};
use super::loopback::Loopback;
use super::throughput::{self, SIZE, rate};
use crate::process;
use crate::screen;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command of a clean-up may take.
const TIDY_LIMIT: Duration = Duration::from_secs(30);
/// What the program says once it is talked to.
const READY: &[u8] = b"ready\n";

/// A session that is gone when this value is.
pub struct Session<'a> {
    bench: &'a Bench<'a>,
    vm: String,
    name: String,
}

impl<'a> Session<'a> {
    /// Starts one that runs these words.
    pub fn start(
        bench: &'a Bench<'a>,
        vm: &str,
        name: &str,
        stdin: &str,
        words: &[&str],
    ) -> Result<Self> {
        let session = Self {
            bench,
            vm: vm.to_owned(),
            name: name.to_owned(),
        };
        let mut arguments = vec![
            "vm", "session", "start", vm, "--name", name, "--stdin", stdin, "--",
        ];
        arguments.extend(words);
        let mut command = bench.banger.command(&arguments);
        bench.signals.run(command.stdout(Stdio::null()))?;
        Ok(session)
    }

    /// `banger vm session VERB VM NAME`.
    pub fn command(&self, verb: &str) -> Command {
        let words = ["vm", "session", verb, &self.vm, &self.name];
        self.bench.banger.command(&words)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for verb in ["kill", "delete"] {
            process::tidy(&mut self.command(verb), TIDY_LIMIT);
        }
    }
}

/// `vm session logs`, and `vm session attach` while the program prints, each beside `ssh`.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let loopback = bench.loopback()?;
    let data = throughput::data(bench)?;
    let path = data.to_str().context("the path of the data is no text")?;
    let cat = format!("cat {}", screen::command_line([path]));
    Ok(vec![
        logs(bench, loopback, &data, &cat)?,
        attach(bench, loopback, &cat)?,
    ])
}

fn logs(bench: &Bench<'_>, loopback: &Loopback, data: &Path, cat: &str) -> Result<Figure> {
    let vm = loopback.name();
    let session = Session::start(bench, vm, "bench-printed", "none", &["sh", "-c", cat])?;
    let mut wait = session.command("wait");
    bench
        .signals
        .run(wait.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut ours = Vec::new();
    let mut floor = Vec::new();
    for run in 0..=bench.runs {
        let expected = (run == 0).then_some(data);
        let our_time = counted(bench, &mut session.command("logs"), expected)?;
        let floor_time = counted(bench, &mut loopback.ssh(cat), expected)?;
        // The first run warms caches.
        if run > 0 {
            ours.push(our_time);
            floor.push(floor_time);
        }
    }
    loopback.check()?;
    Ok(figure(
        "256 MiB of a session's logs",
        &ours,
        &floor,
        "`vm session logs` of random bytes that it has printed, whole process into a pipe that is \
         counted",
    ))
}

fn attach(bench: &Bench<'_>, loopback: &Loopback, cat: &str) -> Result<Figure> {
    let program = format!("read x; echo ready; read x; {cat}");
    let mut ours = Vec::new();
    let mut floor = Vec::new();
    for run in 0..=bench.runs {
        let words = ["sh", "-c", &program];
        let session = Session::start(bench, loopback.name(), "bench-prints", "pipe", &words)?;
        let our_time = prompted(bench, &mut session.command("attach"))?;
        drop(session);
        let floor_time = prompted(bench, &mut loopback.ssh(&program))?;
        if run > 0 {
            ours.push(our_time);
            floor.push(floor_time);
        }
    }
    loopback.check()?;
    Ok(figure(
        "256 MiB while attached",
        &ours,
        &floor,
        "`vm session attach` to a program that prints random bytes once it has read a line, from \
         that line to its end, into a pipe that is counted; banger's is kept as a log meanwhile",
    ))
}

fn figure(name: &str, ours: &[Duration], floor: &[Duration], how: &str) -> Figure {
    let (our_time, floor_time) = (median(ours), median(floor));
    Figure {
        name: name.into(),
        ours: rate(our_time),
        floor: rate(floor_time),
        value: floor_time.as_secs_f64() / our_time.as_secs_f64(),
        aim: Some(Aim::AtLeast(0.95, "")),
        how: format!(
            "{how}; median of {}, alternating with `ssh` and `cat FILE` over a live ControlMaster \
             with its default cipher; banger {}, ssh {}",
            ours.len(),
            spread(ours),
            spread(floor)
        ),
    }
}

/// How long a command takes that must print the data; compared with it where it is given.
fn counted(bench: &Bench<'_>, command: &mut Command, expected: Option<&Path>) -> Result<Duration> {
    let mut expected = match expected {
        Some(path) => Some(File::open(path).context("can't open the data")?),
        None => None,
    };
    let mut buffer = Vec::new();
    let mut equal = true;
    let mut received = 0;
    let start = Instant::now();
    let status = bench
        .signals
        .stream(command.stdin(Stdio::null()), |bytes| {
            received += bytes.len() as u64;
            if let Some(expected) = &mut expected {
                buffer.resize(bytes.len(), 0);
                equal = equal && expected.read_exact(&mut buffer).is_ok() && buffer == bytes;
            }
        })?;
    let time = start.elapsed();
    process::succeed(command, status)?;
    check_size(command, received)?;
    if !equal {
        bail!("`{}` printed other bytes", process::line(command));
    }
    Ok(time)
}

/// How long a command takes from a line on its standard input to its end.
fn prompted(bench: &Bench<'_>, command: &mut Command) -> Result<Duration> {
    bench.signals.check()?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .with_context(|| format!("can't run `{}`", process::line(command)))?;
    let mut input = child.stdin.take().context("a pipe is missing")?;
    let mut output = child.stdout.take().context("a pipe is missing")?;
    let mut talk = || -> Result<(Duration, u64)> {
        input.write_all(b"\n")?;
        let mut ready = [0; READY.len()];
        output.read_exact(&mut ready)?;
        let start = Instant::now();
        input.write_all(b"\n")?;
        let mut buffer = [0; 64 << 10];
        let mut received = 0;
        loop {
            match output.read(&mut buffer)? {
                0 => return Ok((start.elapsed(), received)),
                count => received += count as u64,
            }
        }
    };
    let talked = talk().with_context(|| format!("talking to `{}`", process::line(command)));
    if talked.is_err() {
        let _ = child.kill();
    }
    let status = bench.signals.wait(child)?;
    let (time, received) = talked?;
    process::succeed(command, status)?;
    check_size(command, received)?;
    Ok(time)
}

fn check_size(command: &Command, received: u64) -> Result<()> {
    if received == SIZE {
        Ok(())
    } else {
        bail!(
            "`{}` printed {received} of {SIZE} bytes",
            process::line(command)
        )
    }
}
