//! What plugins cost, measured inside one process by the example `plugin_figures` of banger-host.

use super::Bench;
use super::figure::{Aim, Figure};
use crate::screen;
use anyhow::{Context, Result};
use serde_json::Value;

/// A figure of the example: its key, what it is, its unit, the aim, how it is measured.
const FIGURES: [(&str, &str, &str, Option<Aim>, &str); 3] = [
    (
        "call_us",
        "a plugin call, warm",
        "µs",
        Some(Aim::AtMost(50.0, "µs")),
        "`session-backend.launch` in one process, with a fresh store each time, median of 2000",
    ),
    (
        "load_cached_ms",
        "load all plugins, cached",
        "ms",
        Some(Aim::AtMost(10.0, "ms")),
        "the built-in plugins, into a new registry, median of 20",
    ),
    (
        "load_cold_ms",
        "load all plugins, compiling",
        "ms",
        None,
        "the same without a cache, median of 3",
    ),
];

/// Runs the example, whose last line is a JSON object.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut command = bench.project.cargo();
    command.args([
        "run",
        "--release",
        "--locked",
        "--package",
        "banger-host",
        "--example",
        "plugin_figures",
    ]);
    let output = bench.signals.output(&mut command)?;
    let output = String::from_utf8_lossy(&output);
    screen::say(output.trim_end());
    let answer: Value = serde_json::from_str(output.lines().last().unwrap_or_default())
        .context("the last line of the example plugin_figures is no JSON")?;
    FIGURES
        .into_iter()
        .map(|(key, name, unit, aim, how)| {
            let value = answer
                .get(key)
                .and_then(Value::as_f64)
                .with_context(|| format!("the example plugin_figures tells no {key}"))?;
            Ok(Figure {
                name: name.into(),
                ours: format!("{value:.1} {unit}"),
                floor: String::new(),
                value,
                aim,
                how: how.into(),
            })
        })
        .collect()
}
