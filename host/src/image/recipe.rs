//! What goes into an image: packages, sources, banger's own files and the host's trust. Its key is a
//! hash of all of that, so that a changed recipe is seen and built anew.
//!
//! Values from the outside (mirror, certificates) are data for the scripts, never part of them.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The scripts and files that a build needs, under the names by which they find each other.
pub const ASSETS: [(&str, &str); 9] = [
    ("outer.sh", include_str!("build/outer.sh")),
    ("assemble.sh", include_str!("build/assemble.sh")),
    ("kernel.sh", include_str!("build/kernel.sh")),
    ("trust.sh", include_str!("build/trust.sh")),
    ("initramfs.sh", include_str!("build/initramfs.sh")),
    ("remove.sh", include_str!("build/remove.sh")),
    ("initramfs-init.sh", include_str!("guest/initramfs-init.sh")),
    ("banger-init.sh", include_str!("guest/banger-init.sh")),
    ("sshd_config", include_str!("guest/sshd_config")),
];

const PACKAGES: [&str; 13] = [
    "openssh-server",
    "openssh-client",
    "git",
    "ca-certificates",
    "iproute2",
    "procps",
    "tmux",
    "ripgrep",
    "less",
    "curl",
    "xz-utils",
    "kmod",
    "busybox-static",
];

/// Virtual size of the root disk in MiB; it takes only what is used.
const DISK_MIB: u64 = 16 * 1024;

/// A recipe with everything that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Name of the image.
    pub name: String,
    /// Debian suite.
    pub suite: &'static str,
    /// Where packages come from.
    pub mirror: String,
    /// Where security updates come from.
    pub security_mirror: String,
    /// The host's certificates, if it has a bundle.
    pub ca_bundle: Option<PathBuf>,
    ca_hash: String,
}

impl Recipe {
    /// The recipe of that name on this host; none when there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if name != super::BASE {
            return None;
        }
        let set = |variable: &str| {
            std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
        };
        let ca_bundle = set("SSL_CERT_FILE")
            .map(PathBuf::from)
            .into_iter()
            .chain([PathBuf::from("/etc/ssl/certs/ca-certificates.crt")])
            .find(|file| file.is_file());
        Some(Self::new(name, set("BANGER_DEBIAN_MIRROR"), ca_bundle))
    }

    fn new(name: &str, mirror: Option<String>, ca_bundle: Option<PathBuf>) -> Self {
        let mirror = mirror.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
        let mirror = mirror.trim_end_matches('/').to_owned();
        Self {
            name: name.to_owned(),
            suite: "bookworm",
            // Mirrors carry the security archive beside the main one.
            security_mirror: format!("{mirror}-security"),
            ca_hash: ca_bundle.as_deref().map(hash_bundle).unwrap_or_default(),
            mirror,
            ca_bundle,
        }
    }

    /// Hex sha256 of all inputs.
    #[must_use]
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        add("banger image 1");
        for text in [
            &self.name,
            self.suite,
            &self.mirror,
            &self.ca_hash,
            &DISK_MIB.to_string(),
        ] {
            add(text);
        }
        PACKAGES.iter().for_each(|package| add(package));
        for (name, text) in ASSETS {
            add(name);
            add(text);
        }
        HEXLOWER.encode(&hash.finalize())
    }

    /// The environment of assemble.sh.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let bundle = self
            .ca_bundle
            .as_deref()
            .map(|file| file.to_string_lossy().into_owned());
        vec![
            ("BANGER_SUITE", self.suite.to_owned()),
            ("BANGER_MIRROR", self.mirror.clone()),
            ("BANGER_SECURITY_MIRROR", self.security_mirror.clone()),
            ("BANGER_INCLUDE", PACKAGES.join(",")),
            ("BANGER_KERNEL", "linux-image-cloud-amd64".to_owned()),
            ("BANGER_DISK_MIB", DISK_MIB.to_string()),
            ("BANGER_CA_BUNDLE", bundle.unwrap_or_default()),
        ]
    }
}

fn hash_bundle(file: &Path) -> String {
    std::fs::read(file)
        .map(|bytes| HEXLOWER.encode(&Sha256::digest(&bytes)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_key() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bundle = directory.path().join("ca.crt");
        std::fs::write(&bundle, "one").expect("write");
        let plain = Recipe::new("base", None, None);
        assert_eq!(plain.key(), Recipe::new("base", None, None).key());
        let trusting = Recipe::new("base", None, Some(bundle.clone())).key();
        assert_ne!(plain.key(), trusting);
        std::fs::write(&bundle, "two").expect("write");
        assert_ne!(trusting, Recipe::new("base", None, Some(bundle)).key());
        let mirrored = Recipe::new("base", Some("http://mirror/debian/".into()), None);
        assert_ne!(plain.key(), mirrored.key());
        assert_eq!(mirrored.security_mirror, "http://mirror/debian-security");
        assert!(Recipe::of("other").is_none());
    }

    #[test]
    fn every_script_is_sound() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, text) in ASSETS.iter().filter(|(name, _)| name.ends_with(".sh")) {
            let file = directory.path().join(name);
            std::fs::write(&file, text).expect("write");
            let run = |program: &str, arguments: &[&str]| {
                std::process::Command::new(program)
                    .args(arguments)
                    .arg(&file)
                    .output()
            };
            let syntax = run("bash", &["-n"]).expect("bash");
            assert!(syntax.status.success(), "{name}: {syntax:?}");
            // Where shellcheck is not installed, bash has spoken.
            if let Ok(check) = run("shellcheck", &[]) {
                assert!(
                    check.status.success(),
                    "{name}: {}",
                    String::from_utf8_lossy(&check.stdout)
                );
            }
        }
    }
}
