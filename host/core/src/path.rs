//! Paths in the guest, which are never used on the host.

use crate::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An absolute path in the guest, without NUL bytes and without `..`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "ByteString", into = "ByteString")]
#[schemars(with = "ByteString")]
pub struct GuestPath(Vec<u8>);

/// Bytes that are no [`GuestPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{path}` is no path in the guest: it must be absolute, without `..` and NUL, at most 4095 bytes"
)]
pub struct InvalidGuestPath {
    /// The bytes, escaped.
    pub path: String,
}

impl GuestPath {
    /// The path as bytes, without a slash at its end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, where it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// This path followed by a relative one.
    ///
    /// # Errors
    /// Where the result is no guest path.
    pub fn join(&self, relative: &str) -> Result<Self, InvalidGuestPath> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(relative.as_bytes());
        Self::try_from(bytes)
    }
}

impl TryFrom<Vec<u8>> for GuestPath {
    type Error = InvalidGuestPath;
    fn try_from(mut bytes: Vec<u8>) -> Result<Self, InvalidGuestPath> {
        let valid = bytes.first() == Some(&b'/')
            && bytes.len() <= 4095
            && !bytes.contains(&0)
            && !bytes.split(|b| *b == b'/').any(|part| part == b"..");
        if !valid {
            return Err(InvalidGuestPath {
                path: crate::escape::text(&bytes),
            });
        }
        while bytes.len() > 1 && bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<ByteString> for GuestPath {
    type Error = InvalidGuestPath;
    fn try_from(bytes: ByteString) -> Result<Self, InvalidGuestPath> {
        Self::try_from(bytes.0)
    }
}

impl From<GuestPath> for ByteString {
    fn from(path: GuestPath) -> Self {
        Self(path.0)
    }
}

impl std::str::FromStr for GuestPath {
    type Err = InvalidGuestPath;
    fn from_str(text: &str) -> Result<Self, InvalidGuestPath> {
        Self::try_from(text.as_bytes().to_vec())
    }
}

impl std::fmt::Display for GuestPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::escape::text(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_parents() {
        for good in ["/", "/root/repo", "/a b\n'c", "/..a/b.."] {
            assert_eq!(
                good.parse::<GuestPath>().expect("valid").as_bytes(),
                good.as_bytes()
            );
        }
        assert_eq!(
            "/a//".parse::<GuestPath>().expect("valid").as_bytes(),
            b"/a"
        );
        for bad in ["", "a", "/a/../b", "/..", "/a\0"] {
            assert!(bad.parse::<GuestPath>().is_err(), "{bad:?}");
        }
    }
}
