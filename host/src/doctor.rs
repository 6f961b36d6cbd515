//! What on this host helps or hinders banger, as a list of checks with remedies.
//!
//! It changes nothing and installs nothing; where packages are missing it names the one command that
//! installs all of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::image::{self, ImageStore};
use crate::machine::accelerator::{self, Accelerator};
use crate::machine::tool;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// Nothing to do.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Error,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name: `tools`, `accelerator`, `disk-space`, `image`.
    pub id: String,
    /// How it came out.
    pub status: CheckStatus,
    /// One sentence.
    pub summary: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn new(
        id: &str,
        status: CheckStatus,
        summary: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self {
            id: id.into(),
            status,
            summary: summary.into(),
            hint,
        }
    }
}

/// Where the checks look.
#[derive(Debug, Clone)]
pub struct Places<'a> {
    /// The directory of the images; the free space is measured there.
    pub images: &'a Path,
    /// The file in which the accelerator's probe is remembered.
    pub accelerator_cache: &'a Path,
}

/// Runs all checks, in a fixed order. What fails is a check of its own, never an error.
pub async fn examine(places: &Places<'_>) -> Vec<Check> {
    vec![
        tools().await,
        accelerator(places.accelerator_cache).await,
        disk_space(places.images),
        base_image(places.images),
    ]
}

async fn tools() -> Check {
    let missing: Vec<tool::Tool> = tool::ALL
        .into_iter()
        .filter(|tool| tool.find().is_none())
        .collect();
    if missing.is_empty() {
        return Check::new(
            "tools",
            CheckStatus::Ok,
            "every program that banger needs is installed",
            None,
        );
    }
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    let packages: BTreeSet<&'static str> = missing.iter().map(|tool| tool.package).collect();
    let mut facts = None;
    if packages.contains(tool::QEMU.package) {
        facts = Some(QemuVersions {
            candidate: policy(tool::QEMU.package).await.candidate,
            installed_utils: policy(tool::QEMU_IMG.package).await.installed,
        });
    }
    let summary = format!("missing: {}", programs.join(", "));
    Check::new(
        "tools",
        CheckStatus::Error,
        summary,
        Some(install_command(&packages, facts.as_ref())),
    )
}

/// What `apt-cache policy` says of a package.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    installed: Option<String>,
    candidate: Option<String>,
}

#[derive(Debug, Default)]
struct QemuVersions {
    candidate: Option<String>,
    installed_utils: Option<String>,
}

async fn policy(package: &str) -> Policy {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    output
        .map(|output| parse_policy(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

fn parse_policy(text: &str) -> Policy {
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))?
            .trim();
        // It goes into a command that the user will copy: only what a version may contain.
        let sound = value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c));
        (sound && !value.is_empty()).then(|| value.to_owned())
    };
    Policy {
        installed: field("Installed:"),
        candidate: field("Candidate:"),
    }
}

/// The one command. Where another version of qemu-utils is installed than the one that goes with
/// qemu-system-x86, apt reports a conflict unless told to take that version.
fn install_command(packages: &BTreeSet<&str>, qemu: Option<&QemuVersions>) -> String {
    let mut words = vec!["apt-get".to_owned(), "install".to_owned()];
    let mut listed: Vec<String> = packages
        .iter()
        .map(|package| (*package).to_owned())
        .collect();
    if let Some(QemuVersions {
        candidate: Some(candidate),
        installed_utils: Some(installed),
    }) = qemu
        && candidate != installed
    {
        words.push("--allow-downgrades".to_owned());
        listed.retain(|package| package != tool::QEMU_IMG.package);
        listed.push(format!("{}={candidate}", tool::QEMU_IMG.package));
    }
    words.extend(listed);
    let command = words.join(" ");
    if rustix::process::geteuid().is_root() {
        command
    } else {
        format!("sudo {command}")
    }
}

async fn accelerator(cache: &Path) -> Check {
    match accelerator::choose(cache).await {
        Ok(verdict) => match verdict.accelerator {
            Accelerator::Kvm => Check::new(
                "accelerator",
                CheckStatus::Ok,
                format!("KVM: {}", verdict.reason),
                None,
            ),
            Accelerator::Tcg => Check::new(
                "accelerator",
                CheckStatus::Warning,
                format!(
                    "software emulation, several times slower than KVM: {}",
                    verdict.reason
                ),
                Some(if verdict.reason.contains("may not open") {
                    "`sudo usermod -aG kvm $USER`, then log in again".into()
                } else {
                    "run banger where hardware virtualisation works (a BIOS setting, or nested virtualisation of the host's VM), or live with it".into()
                }),
            ),
        },
        Err(error) => {
            let hint = error.hint();
            Check::new("accelerator", CheckStatus::Error, error.to_string(), hint)
        }
    }
}

fn disk_space(directory: &Path) -> Check {
    let present = directory
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(present) {
        Ok(space) => space_check(present, space.f_bavail.saturating_mul(space.f_frsize) >> 20),
        Err(error) => Check::new(
            "disk-space",
            CheckStatus::Warning,
            format!(
                "the free space at {} is not known: {error}",
                present.display()
            ),
            None,
        ),
    }
}

/// An image takes some 400 MiB, twice that while it is built; a working machine easily 1 GiB.
fn space_check(place: &Path, free_mib: u64) -> Check {
    let status = match free_mib {
        ..2048 => CheckStatus::Error,
        2048..10240 => CheckStatus::Warning,
        _ => CheckStatus::Ok,
    };
    let hint = (status != CheckStatus::Ok).then(|| {
        format!(
            "free some space at {}, or set BANGER_HOME to another disk",
            place.display()
        )
    });
    Check::new(
        "disk-space",
        status,
        format!("{free_mib} MiB free at {}", place.display()),
        hint,
    )
}

fn base_image(directory: &Path) -> Check {
    match ImageStore::new(directory).get(image::BASE) {
        Ok(Some(image)) if image.is_current() => Check::new(
            "image",
            CheckStatus::Ok,
            format!(
                "the image {} is present ({} MiB)",
                image::BASE,
                image.bytes() >> 20
            ),
            None,
        ),
        Ok(Some(_)) => Check::new(
            "image",
            CheckStatus::Warning,
            format!("the image {} is out of date", image::BASE),
            Some("it is built anew at the next use; that takes a minute and the network".into()),
        ),
        Ok(None) => Check::new(
            "image",
            CheckStatus::Warning,
            format!("the image {} is not built yet", image::BASE),
            Some("it is built at the first use; that takes a minute and the network".into()),
        ),
        Err(error) => Check::new("image", CheckStatus::Error, error.to_string(), error.hint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        let text = "qemu-utils:\n  Installed: 1:8.2+ds-1\n  Candidate: 1:7.2+dfsg-7+deb12u1\n  Version table:\n";
        let policy = parse_policy(text);
        assert_eq!(policy.installed.as_deref(), Some("1:8.2+ds-1"));
        assert_eq!(policy.candidate.as_deref(), Some("1:7.2+dfsg-7+deb12u1"));
        assert_eq!(
            parse_policy("x:\n  Installed: (none)\n  Candidate: 1;rm\n"),
            Policy::default()
        );
    }

    #[test]
    fn one_command_installs_everything_also_beside_a_newer_qemu_utils() {
        let packages = BTreeSet::from(["mmdebstrap", "qemu-system-x86"]);
        let command = install_command(&packages, None);
        assert!(
            command.ends_with("apt-get install mmdebstrap qemu-system-x86"),
            "{command}"
        );
        let other = QemuVersions {
            candidate: Some("1:7.2".into()),
            installed_utils: Some("1:8.2".into()),
        };
        let command = install_command(&packages, Some(&other));
        assert!(
            command.ends_with(
                "apt-get install --allow-downgrades mmdebstrap qemu-system-x86 qemu-utils=1:7.2"
            ),
            "{command}"
        );
        let same = QemuVersions {
            candidate: Some("1:7.2".into()),
            installed_utils: Some("1:7.2".into()),
        };
        assert!(!install_command(&packages, Some(&same)).contains("downgrades"));
    }

    #[test]
    fn little_space_is_told() {
        assert_eq!(space_check(Path::new("/x"), 100).status, CheckStatus::Error);
        assert_eq!(
            space_check(Path::new("/x"), 5000).status,
            CheckStatus::Warning
        );
        assert_eq!(space_check(Path::new("/x"), 50_000).hint, None);
    }
}
