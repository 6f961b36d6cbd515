//! Licences, sources and duplicates of the dependencies, by cargo-deny.
//!
//! Compiling cargo-deny takes minutes, so this is a command of its own and not part of
//! `.ci/run`.

use crate::process::Signals;
use crate::project::Project;
use crate::screen;
use anyhow::Result;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Installed where there is none.
const VERSION: &str = "0.20.2";

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask deny                           everything; fetches the advisory database
  cargo xtask deny bans licenses sources     what needs no database")]
pub struct Arguments {
    /// Checks: advisories, bans, licenses, sources; all where none is named.
    checks: Vec<String>,
}

/// `cargo xtask deny`.
pub fn run(arguments: &Arguments, signals: &Signals) -> Result<()> {
    let project = Project::locate()?;
    let program = find(&project, signals)?;
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        if !project.root.join(manifest).is_file() {
            continue;
        }
        screen::say(format!("deny: {manifest}"));
        let mut command = Command::new(&program);
        command
            .current_dir(&project.root)
            .args(["--manifest-path", manifest, "--config", "deny.toml"])
            .args(["--all-features", "--locked", "check"]);
        if manifest != "Cargo.toml" {
            // One configuration for both; the exceptions are those of the main workspace.
            command.args(["--allow", "unmatched-skip"]);
            command.args(["--allow", "license-not-encountered"]);
        }
        command.args(&arguments.checks);
        signals.run(&mut command)?;
    }
    Ok(())
}

/// The installed cargo-deny, else one of our own under the target directory.
fn find(project: &Project, signals: &Signals) -> Result<PathBuf> {
    let own = project.target.join("tools/bin/cargo-deny");
    for program in [PathBuf::from("cargo-deny"), own.clone()] {
        let version = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        if version.is_ok_and(|output| output.status.success()) {
            return Ok(program);
        }
    }
    screen::say(format!(
        "deny: installing cargo-deny {VERSION}, which takes a few minutes"
    ));
    let mut command = project.cargo();
    command
        .args([
            "install",
            "cargo-deny",
            "--version",
            VERSION,
            "--locked",
            "--root",
        ])
        .arg(project.target.join("tools"));
    signals.run(&mut command)?;
    Ok(own)
}
