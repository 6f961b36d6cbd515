//! What the daemon holds in memory while it has nothing to do.

use super::Bench;
use super::figure::{Aim, Figure};
use anyhow::{Context, Result};
use std::time::Duration;

/// A fresh daemon that has loaded its plugins.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    bench.banger.stop_daemon();
    let plugins = bench.banger.json(&["plugin", "list"])?;
    let plugins = plugins
        .get("plugins")
        .unwrap_or(&plugins)
        .as_array()
        .map_or(0, Vec::len);
    // Until what it does at its start is over.
    std::thread::sleep(Duration::from_secs(3));
    let status = bench.banger.json(&["daemon", "status"])?;
    let kib = status
        .get("memory_kib")
        .or_else(|| status.get("daemon")?.get("memory_kib"))
        .and_then(serde_json::Value::as_f64)
        .context("`daemon status --json` tells no memory_kib")?;
    let mib = kib / 1024.0;
    Ok(vec![Figure {
        name: "daemon, idle".into(),
        ours: format!("{mib:.1} MiB"),
        floor: String::new(),
        value: mib,
        aim: Some(Aim::AtMost(40.0, "MiB")),
        how: format!(
            "resident memory of a fresh daemon that has listed its {plugins} plugins, after three \
             seconds of rest"
        ),
    }])
}
