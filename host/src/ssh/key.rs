//! Keys: the private one that banger shows to a guest, and the public one by which it knows it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read.
    #[error("cannot read the key {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no OpenSSH key.
    #[error("{what} is no OpenSSH key")]
    Malformed {
        /// Which text or file.
        what: String,
        /// What the parser said.
        source: russh::keys::ssh_key::Error,
    },
    /// The private key has a passphrase.
    #[error("{what} is encrypted; banger needs a key without a passphrase")]
    Encrypted {
        /// Which text or file.
        what: String,
    },
    /// The key is of a type that banger doesn't use.
    #[error("{what} is of type {algorithm}; ed25519 or ecdsa is needed")]
    Algorithm {
        /// Which text or file.
        what: String,
        /// Its type, as OpenSSH writes it.
        algorithm: String,
    },
    /// Making a key failed.
    #[error("cannot make a key")]
    Generate {
        /// What the library said.
        source: russh::keys::ssh_key::Error,
    },
}

fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. })
}

/// A server's public key, pinned. Serialised as its OpenSSH line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(PublicKey);

impl HostKey {
    /// Reads `ssh-ed25519 AAAA… [comment]`. The comment is dropped.
    ///
    /// # Errors
    /// The line is malformed or of a type that banger doesn't use.
    pub fn parse(line: &str) -> Result<Self, KeyError> {
        let what = || "the public key".to_owned();
        let key = PublicKey::from_openssh(line.trim()).map_err(|source| KeyError::Malformed {
            what: what(),
            source,
        })?;
        if !is_supported(&key.algorithm()) {
            return Err(KeyError::Algorithm {
                what: what(),
                algorithm: key.algorithm().to_string(),
            });
        }
        Ok(Self::from_public(key))
    }

    pub(super) fn from_public(key: PublicKey) -> Self {
        Self(PublicKey::new(key.key_data().clone(), ""))
    }

    pub(super) fn matches(&self, key: &PublicKey) -> bool {
        self.0.key_data() == key.key_data()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }
}

pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.to_openssh().map_err(|_| fmt::Error)?;
        f.write_str(line.trim_end())
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.fingerprint())
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for HostKey {
    type Error = KeyError;

    fn try_from(line: String) -> Result<Self, KeyError> {
        Self::parse(&line)
    }
}

/// A private key with which banger logs in. `Debug` shows the fingerprint only.
#[derive(Clone)]
pub struct Identity(Arc<PrivateKey>);

impl Identity {
    /// Reads a private key from an OpenSSH file.
    ///
    /// # Errors
    /// The file can't be read, is no OpenSSH private key, is encrypted, or of another type than
    /// ed25519 and ecdsa.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse_named(&text, &path.display().to_string())
    }

    /// Reads a private key from the text of an OpenSSH file.
    ///
    /// # Errors
    /// As for [`Identity::load`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::parse_named(text.as_bytes(), "the private key")
    }

    fn parse_named(text: &[u8], what: &str) -> Result<Self, KeyError> {
        let what = what.to_owned();
        let key = match PrivateKey::from_openssh(text) {
            Ok(key) => key,
            Err(source) => return Err(KeyError::Malformed { what, source }),
        };
        if key.is_encrypted() {
            return Err(KeyError::Encrypted { what });
        }
        if !is_supported(&key.algorithm()) {
            return Err(KeyError::Algorithm {
                what,
                algorithm: key.algorithm().to_string(),
            });
        }
        Ok(Self(Arc::new(key)))
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }

    /// The public half as an `authorized_keys` line without comment.
    pub fn public_line(&self) -> String {
        HostKey::from_public(self.0.public_key().clone()).to_string()
    }

    /// `SHA256:…` of the public half.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.public_key())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// A fresh ed25519 key pair as text.
pub struct KeyPair {
    /// The OpenSSH private key file, unencrypted, with its final newline. Keep it at mode 0600.
    pub private_text: String,
    /// The public half, without a newline.
    pub public_line: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// The private half, ready to log in with.
    pub identity: Identity,
    /// The public half, ready to be pinned where the pair is a server's.
    pub host_key: HostKey,
}

impl KeyPair {
    /// Makes a pair from the system's randomness.
    ///
    /// # Errors
    /// The key can't be written as text: a defect of the library.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .map_err(|source| KeyError::Generate { source })?;
        key.set_comment(comment);
        let private_text = key
            .to_openssh(LineEnding::LF)
            .map_err(|source| KeyError::Generate { source })?
            .to_string();
        let public_line = key
            .public_key()
            .to_openssh()
            .map_err(|source| KeyError::Generate { source })?
            .trim_end()
            .to_owned();
        let host_key = HostKey::from_public(key.public_key().clone());
        Ok(Self {
            private_text,
            public_line,
            fingerprint: host_key.fingerprint(),
            host_key,
            identity: Identity(Arc::new(key)),
        })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn keygen(directory: &Path, arguments: &[&str]) -> PathBuf {
        let path = directory.join("key");
        let status = Command::new("ssh-keygen")
            .args(["-q", "-f"])
            .arg(&path)
            .args(arguments)
            .status()
            .expect("ssh-keygen runs");
        assert!(status.success());
        path
    }

    #[test]
    fn a_generated_pair_is_what_ssh_keygen_understands() {
        let pair = KeyPair::generate("banger").expect("generates");
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("key");
        std::fs::write(&path, &pair.private_text).expect("writes");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("sets the mode");
        let public = Command::new("ssh-keygen")
            .args(["-y", "-f"])
            .arg(&path)
            .output()
            .expect("ssh-keygen runs");
        assert_eq!(
            String::from_utf8_lossy(&public.stdout).trim(),
            pair.public_line
        );
        let listed = Command::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(&path)
            .output()
            .expect("ssh-keygen runs");
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&pair.fingerprint));
        let loaded = Identity::load(&path).expect("loads");
        assert_eq!(loaded.fingerprint(), pair.fingerprint);
        assert!(pair.public_line.starts_with(&loaded.public_line()));
    }

    #[test]
    fn unusable_private_keys_are_told_apart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let missing = Identity::load(&directory.path().join("none"));
        assert!(matches!(missing, Err(KeyError::Read { .. })));

        let encrypted = keygen(directory.path(), &["-t", "ed25519", "-N", "secret"]);
        assert!(matches!(
            Identity::load(&encrypted),
            Err(KeyError::Encrypted { .. })
        ));

        let other = tempfile::tempdir().expect("temporary directory");
        let rsa = keygen(other.path(), &["-t", "rsa", "-b", "2048", "-N", ""]);
        let error = Identity::load(&rsa).expect_err("rsa is refused");
        assert!(matches!(error, KeyError::Algorithm { .. }), "{error:?}");

        assert!(matches!(
            Identity::parse("hello"),
            Err(KeyError::Malformed { .. })
        ));
    }

    #[test]
    fn a_host_key_travels_as_its_line() {
        let pair = KeyPair::generate("a comment").expect("generates");
        let key = HostKey::parse(&format!("{}\n", pair.public_line)).expect("parses");
        assert_eq!(key, pair.host_key);
        let json = serde_json::to_string(&key).expect("serialises");
        assert_eq!(json, format!("\"{key}\""));
        assert_eq!(
            serde_json::from_str::<HostKey>(&json).expect("deserialises"),
            key
        );
        assert!(serde_json::from_str::<HostKey>("\"ssh-ed25519 AAAA\"").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let pair = KeyPair::generate("").expect("generates");
        for shown in [format!("{pair:?}"), format!("{:?}", pair.identity)] {
            assert!(!shown.contains("PRIVATE"));
            assert!(shown.contains(&pair.fingerprint));
            assert!(shown.len() < 80, "{shown}");
        }
    }
}
