//! The Rust target that plugins are built for, in the toolchain of `rust-toolchain.toml`.

use crate::process::{self, Signals};
use crate::project::Project;
use crate::screen;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";

/// Installs the target if rustc has no standard library for it.
pub fn ensure(project: &Project, signals: &Signals) -> Result<()> {
    if is_there(project)? {
        return Ok(());
    }
    screen::say(format!("setup: installing the Rust target {TARGET}"));
    let mut command = Command::new("rustup");
    command
        .args(["target", "add", TARGET])
        .current_dir(&project.root);
    match signals.status(&mut command) {
        Ok(status) => process::succeed(&command, status)?,
        Err(error)
            if error
                .root_cause()
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) =>
        {
            bail!(
                "rustc has no standard library for {TARGET}, and there is no rustup to install it; \
                 take it from where your Rust comes from (on Debian: the package \
                 libstd-rust-dev-wasm32), or use rustup: https://rustup.rs"
            )
        }
        Err(error) => return Err(error),
    }
    if !is_there(project)? {
        bail!("rustup has added {TARGET}, but to another toolchain than `rustc` here is of");
    }
    Ok(())
}

fn is_there(project: &Project) -> Result<bool> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(&project.root)
        .output()
        .context("can't run rustc")?;
    if !output.status.success() {
        bail!(
            "rustc does not answer: {}; `rustup toolchain install --no-self-update` in {} installs \
             the toolchain",
            String::from_utf8_lossy(&output.stderr).trim(),
            project.root.display()
        );
    }
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    Ok(std::fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    }))
}
