//! The seed disk: what makes a guest this guest and no other (keys, name), as a plain ustar archive
//! on a read-only disk that the guest's init unpacks over its root.
//!
//! Only regular files with short paths are written; everything belongs to root. Nothing secret but
//! the guest's own host key is put there: credentials travel over SSH.

use std::fmt;

/// Keys of one guest.
#[derive(Clone)]
pub struct Seed {
    /// The guest's private host key, ed25519, in OpenSSH's format.
    pub host_key_openssh: String,
    /// The public half, one line in OpenSSH's format.
    pub host_key_public: String,
    /// The public key that may log in as root, one line in OpenSSH's format.
    pub authorized_key: String,
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("host_key_public", &self.host_key_public)
            .finish_non_exhaustive()
    }
}

/// The archive for a guest of that name.
#[must_use]
pub fn archive(seed: &Seed, hostname: &str) -> Vec<u8> {
    let files: [(&str, u32, &str); 4] = [
        (
            "etc/ssh/ssh_host_ed25519_key",
            0o600,
            &seed.host_key_openssh,
        ),
        (
            "etc/ssh/ssh_host_ed25519_key.pub",
            0o644,
            &seed.host_key_public,
        ),
        ("etc/ssh/authorized_keys", 0o600, &seed.authorized_key),
        ("etc/hostname", 0o644, hostname),
    ];
    let mut archive = Vec::new();
    for (path, mode, text) in files {
        let mut text = text.to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        append(&mut archive, path, mode, text.as_bytes());
    }
    // The end mark is two empty blocks; the disk is padded to what tar calls a record.
    archive.resize((archive.len() + 1024).next_multiple_of(10240), 0);
    archive
}

fn append(archive: &mut Vec<u8>, path: &str, mode: u32, content: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |offset: usize, bytes: &[u8]| {
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_the_archive_with_owners_and_modes() {
        let seed = Seed {
            host_key_openssh: "PRIVATE".into(),
            host_key_public: "ssh-ed25519 AAAA host".into(),
            authorized_key: "ssh-ed25519 BBBB user\n".into(),
        };
        assert!(!format!("{seed:?}").contains("PRIVATE"));
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("seed.tar");
        std::fs::write(&file, archive(&seed, "vm-1")).expect("write");
        let list = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&file)
            .output()
            .expect("tar");
        assert!(list.status.success() && list.stderr.is_empty(), "{list:?}");
        let list = String::from_utf8(list.stdout).expect("text");
        assert_eq!(list.lines().count(), 4, "{list}");
        assert!(list.lines().all(|line| line.contains(" 0/0 ")), "{list}");
        assert!(list.contains("-rw------- 0/0"), "{list}");
        let status = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(directory.path())
            .args(["--no-same-owner"])
            .status()
            .expect("tar");
        assert!(status.success());
        let read = |path: &str| std::fs::read_to_string(directory.path().join(path)).expect("read");
        assert_eq!(read("etc/hostname"), "vm-1\n");
        assert_eq!(read("etc/ssh/authorized_keys"), "ssh-ed25519 BBBB user\n");
        assert_eq!(read("etc/ssh/ssh_host_ed25519_key"), "PRIVATE\n");
    }
}
