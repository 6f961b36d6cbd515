//! What plugins cost, measured inside one process by the example `plugin_bench` of banger-host.

use super::Bench;
use super::figure::{Aim, Figure};
use anyhow::{Context, Result};
use serde_json::Value;

/// A figure of the example: its key, what it is, its unit, and the aim.
const FIGURES: [(&str, &str, &str, Option<Aim>); 3] = [
    (
        "call_us",
        "a plugin call, warm",
        "µs",
        Some(Aim::AtMost(50.0, "µs")),
    ),
    (
        "load_cached_ms",
        "load all plugins, cached",
        "ms",
        Some(Aim::AtMost(10.0, "ms")),
    ),
    ("load_cold_ms", "load all plugins, compiling", "ms", None),
];

/// Runs the example, which prints one JSON object.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut command = bench.project.cargo();
    command.args([
        "run",
        "--release",
        "--locked",
        "--package",
        "banger-host",
        "--example",
        "plugin_bench",
    ]);
    let output = bench.signals.output(&mut command)?;
    let answer: Value =
        serde_json::from_slice(&output).context("the example plugin_bench printed no JSON")?;
    FIGURES
        .into_iter()
        .map(|(key, name, unit, aim)| {
            let value = answer
                .get(key)
                .and_then(Value::as_f64)
                .with_context(|| format!("the example plugin_bench tells no {key}"))?;
            let how = answer
                .get("how")
                .and_then(|how| how.get(key))
                .and_then(Value::as_str)
                .unwrap_or("in one process, median, by the example plugin_bench of banger-host");
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
