//! Where the project and what is built of it are, and how to run `cargo` there.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// This checkout.
#[derive(Debug, Clone)]
pub struct Project {
    /// The directory with the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// The target directory, which `CARGO_TARGET_DIR` may have moved.
    pub target: PathBuf,
}

impl Project {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo does not answer.
    pub fn locate() -> Result<Self> {
        let output = cargo(Path::new(env!("CARGO_MANIFEST_DIR")))
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("can't run cargo")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
        let path = |key: &str| {
            metadata
                .get(key)
                .and_then(serde_json::Value::as_str)
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata has no {key}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// `cargo` in the workspace's root.
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// `cargo` in the workspace of the plugins.
    pub fn cargo_plugins(&self) -> Option<Command> {
        let plugins = self.root.join("plugins");
        plugins
            .join("Cargo.toml")
            .is_file()
            .then(|| cargo(&plugins))
    }

    /// The release build of `banger`.
    pub fn release_binary(&self) -> PathBuf {
        self.target.join("release/banger")
    }
}

fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    // Set by the `cargo run` that started us; it describes xtask, not what is built now.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command
}
