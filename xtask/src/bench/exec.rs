//! A command on a connected machine: the whole process, from its start to its end.

use super::Bench;
use super::figure::{Aim, Figure, fine, median, spread};
use anyhow::Result;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `vm exec VM -- true` and `ssh HOST true` over a live master connection.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let loopback = bench.loopback()?;
    let mut ours = Vec::new();
    let mut floor = Vec::new();
    // Where the rest goes: what starting any process takes, and what starting banger does.
    let mut nothing = Vec::new();
    let mut version = Vec::new();
    // The first of each connects, and loads files; it does not count.
    for run in 0..=bench.runs.saturating_mul(10).max(50) {
        let mut command = bench
            .banger
            .command(&["vm", "exec", loopback.name(), "--", "true"]);
        let our_time = time(bench, &mut command)?;
        let floor_time = time(bench, &mut loopback.ssh("true"))?;
        let nothing_time = time(bench, &mut Command::new("true"))?;
        let version_time = time(bench, &mut bench.banger.command(&["--version"]))?;
        if run > 0 {
            ours.push(our_time);
            floor.push(floor_time);
            nothing.push(nothing_time);
            version.push(version_time);
        }
    }
    loopback.check()?;
    Ok(vec![Figure {
        name: "vm exec VM -- true".into(),
        ours: fine(median(&ours)),
        floor: fine(median(&floor)),
        value: median(&ours).as_secs_f64() / median(&floor).as_secs_f64(),
        aim: Some(Aim::AtMost(0.6, "")),
        how: format!(
            "whole process, median of {}, alternating with `ssh` over a live ControlMaster on the \
             same sshd on loopback; banger {}, ssh {}; to start `true` takes {}, and \
             `banger --version` {}",
            ours.len(),
            spread(&ours),
            spread(&floor),
            fine(median(&nothing)),
            fine(median(&version))
        ),
    }])
}

fn time(bench: &Bench<'_>, command: &mut Command) -> Result<Duration> {
    bench
        .signals
        .time(command.stdin(Stdio::null()).stdout(Stdio::null()))
}
