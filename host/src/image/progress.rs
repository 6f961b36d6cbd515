//! How far a build is, read from the lines that it prints.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A step of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Waiting for another builder.
    Waiting,
    /// Checking tools and making the directory.
    Preparing,
    /// Fetching package lists and packages.
    Downloading,
    /// Unpacking and configuring them.
    Installing,
    /// Fetching the kernel.
    Kernel,
    /// Writing banger's own files and the host's certificates.
    Configuring,
    /// Making the file system.
    Disk,
    /// Turning it into the image's files and checking them.
    Finishing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for another build",
            Self::Preparing => "preparing",
            Self::Downloading => "downloading packages",
            Self::Installing => "installing packages",
            Self::Kernel => "fetching the kernel",
            Self::Configuring => "configuring",
            Self::Disk => "making the disk",
            Self::Finishing => "finishing",
        })
    }
}

/// One report of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildProgress {
    /// The step.
    pub stage: Stage,
    /// What is being done, one line without control characters.
    pub message: String,
    /// Time since the build was asked for.
    pub elapsed: Duration,
}

/// The step that a line of the log begins, if it begins one.
#[must_use]
pub fn stage_of(line: &str) -> Option<Stage> {
    if let Some(id) = line.strip_prefix("banger-stage: ") {
        return match id.trim() {
            "bootstrap" => Some(Stage::Downloading),
            "kernel-download" => Some(Stage::Kernel),
            "configure" | "kernel" | "packages" => Some(Stage::Configuring),
            "disk" => Some(Stage::Disk),
            _ => None,
        };
    }
    let text = line.strip_prefix("I: ")?;
    if text.starts_with("running apt-get update") || text.starts_with("downloading packages") {
        return Some(Stage::Downloading);
    }
    if text.starts_with("extracting archives") || text.starts_with("installing ") {
        return Some(Stage::Installing);
    }
    None
}

/// The likely remedy for a build whose log ends like this.
#[must_use]
pub fn advice(log_end: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 12] = [
        ("No space left on device", "free some disk space"),
        (
            "Could not resolve",
            "the package mirror cannot be reached: check the network",
        ),
        (
            "Temporary failure resolving",
            "the package mirror cannot be reached: check the network",
        ),
        (
            "Could not connect",
            "the package mirror cannot be reached: check the network and the proxy settings",
        ),
        (
            "Unable to connect",
            "the package mirror cannot be reached: check the network and the proxy settings",
        ),
        (
            "Connection failed",
            "the package mirror cannot be reached: check the network and the proxy settings",
        ),
        ("Network is unreachable", "there is no network"),
        (
            "Failed to fetch",
            "the package mirror did not deliver: try again, or set BANGER_DEBIAN_MIRROR",
        ),
        ("NO_PUBKEY", "apt-get install debian-archive-keyring"),
        ("is not signed", "apt-get install debian-archive-keyring"),
        (
            "unshare failed",
            "user namespaces are not allowed here: see kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns",
        ),
        (
            "Operation not permitted",
            "namespaces are restricted here: run outside the container, or as root",
        ),
    ];
    KNOWN
        .iter()
        .find(|(sign, _)| log_end.contains(sign))
        .map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_from_the_log() {
        assert_eq!(stage_of("banger-stage: disk"), Some(Stage::Disk));
        assert_eq!(stage_of("banger-stage: nonsense"), None);
        assert_eq!(
            stage_of("I: downloading packages with apt..."),
            Some(Stage::Downloading)
        );
        assert_eq!(
            stage_of("I: installing remaining packages inside the chroot..."),
            Some(Stage::Installing)
        );
        assert_eq!(stage_of("I: success in 3 seconds"), None);
        assert_eq!(stage_of("Setting up git"), None);
    }

    #[test]
    fn known_failures_have_a_remedy() {
        assert!(
            advice("Err:1 Temporary failure resolving 'deb.debian.org'")
                .is_some_and(|a| a.contains("network"))
        );
        assert!(advice("cp: No space left on device").is_some_and(|a| a.contains("space")));
        assert_eq!(advice("something else"), None);
    }
}
