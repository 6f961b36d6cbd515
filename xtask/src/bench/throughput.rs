//! 256 MiB through a command on a connected machine: in, out, and both ways.

use super::Bench;
use super::figure::{Aim, Figure, median};
use super::loopback::Loopback;
use crate::process;
use crate::screen;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of a transfer.
pub const SIZE: u64 = 256 << 20;

/// `vm exec` and `ssh` with its default cipher.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let loopback = bench.loopback()?;
    let data = data(bench)?;
    verify(bench, loopback, &data)?;

    let path = data.to_str().context("the path of the data is no text")?;
    let directions = [
        ("in", "cat > /dev/null".to_owned(), true),
        (
            "out",
            format!("cat {}", screen::command_line([path])),
            false,
        ),
        ("both ways", "cat".to_owned(), true),
    ];
    let mut figures = Vec::new();
    for (direction, remote, feeds) in directions {
        let input = || -> Result<Stdio> {
            if feeds {
                Ok(File::open(&data).context("can't open the data")?.into())
            } else {
                Ok(Stdio::null())
            }
        };
        let mut ours = Vec::new();
        let mut floor = Vec::new();
        for run in 0..=bench.runs {
            let our_time = time(bench, exec(bench, loopback, &remote).stdin(input()?))?;
            let floor_time = time(bench, loopback.ssh(&remote).stdin(input()?))?;
            // The first run warms caches.
            if run > 0 {
                ours.push(our_time);
                floor.push(floor_time);
            }
        }
        loopback.check()?;
        let (our_time, floor_time) = (median(&ours), median(&floor));
        figures.push(Figure {
            name: format!("256 MiB {direction}"),
            ours: rate(our_time),
            floor: rate(floor_time),
            value: floor_time.as_secs_f64() / our_time.as_secs_f64(),
            aim: Some(Aim::AtLeast(1.2, "")),
            how: format!(
                "random bytes through `vm exec VM -- sh -c '{}'`, median of {}, alternating with \
                 `ssh` over a live ControlMaster with its default cipher; both take part of the \
                 same processors, and so does sshd",
                if feeds { remote.as_str() } else { "cat FILE" },
                ours.len()
            ),
        });
    }
    Ok(figures)
}

/// A file of random bytes, made when it is needed first.
pub fn data(bench: &Bench<'_>) -> Result<PathBuf> {
    let path = bench.scratch.join("data");
    if !path.exists() {
        let mut random = File::open("/dev/urandom")
            .context("can't open /dev/urandom")?
            .take(SIZE);
        let mut file = File::create(&path).context("can't create the data")?;
        std::io::copy(&mut random, &mut file).context("can't write the data")?;
    }
    Ok(path)
}

fn exec(bench: &Bench<'_>, loopback: &Loopback, remote: &str) -> Command {
    bench
        .banger
        .command(&["vm", "exec", loopback.name(), "--", "sh", "-c", remote])
}

fn time(bench: &Bench<'_>, command: &mut Command) -> Result<Duration> {
    bench.signals.time(command.stdout(Stdio::null()))
}

/// As MiB a second, for a person.
pub fn rate(time: Duration) -> String {
    let mib = (SIZE >> 20) as f64;
    format!("{:.0} MiB/s", mib / time.as_secs_f64())
}

/// Speed is nothing where bytes are lost: all of them must come back as they went.
fn verify(bench: &Bench<'_>, loopback: &Loopback, data: &Path) -> Result<()> {
    let mut expected = File::open(data).context("can't open the data")?;
    let mut command = exec(bench, loopback, "cat");
    command.stdin(File::open(data).context("can't open the data")?);
    let mut buffer = Vec::new();
    let mut equal = true;
    let mut received = 0;
    let status = bench.signals.stream(&mut command, |bytes| {
        buffer.resize(bytes.len(), 0);
        received += bytes.len() as u64;
        equal = equal && expected.read_exact(&mut buffer).is_ok() && buffer == bytes;
    })?;
    process::succeed(&command, status)?;
    if !equal || received != SIZE {
        bail!("of {SIZE} bytes through `vm exec VM -- cat`, {received} came back, or others");
    }
    Ok(())
}
