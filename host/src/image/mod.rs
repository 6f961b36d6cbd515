//! Images: the disks that machines start from, built once and shared by all of them.
//!
//! An image is a directory `<images>/<name>` that appears by one rename when it is complete, so a
//! cancelled, failed or killed build leaves nothing that looks finished. Machines link its files, so
//! images may be rebuilt and deleted at any time. Nothing secret and no key is ever put in an image.

mod build;
mod progress;
mod recipe;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
/// Cancels a build; re-exported so that callers take the same version.
pub use tokio_util::sync::CancellationToken;

pub use progress::{BuildProgress, Stage};

use crate::machine::tool::ToolError;
use banger_core::{Failure, Kind};

/// Name of the image that banger builds from Debian packages alone.
pub const BASE: &str = "base";

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const DISK: &str = "rootfs.qcow2";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRD: &str = "initrd.img";

/// What an image is, as kept in its `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// Its name.
    pub name: String,
    /// Version of banger that built it.
    pub created_by: String,
    /// Seconds since 1970 at which it was finished.
    pub created_unix_seconds: u64,
    /// Debian suite, such as `bookworm`.
    pub suite: String,
    /// Hex sha256 of everything that went into the recipe; another key means that it is out of date.
    pub key: String,
    /// Installed packages by name, with versions.
    pub packages: BTreeMap<String, String>,
    /// The image's files by name.
    pub files: BTreeMap<String, ImageFile>,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Size in bytes.
    pub bytes: u64,
    /// Hex sha256.
    pub sha256: String,
}

/// A complete image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    dir: PathBuf,
    manifest: ImageManifest,
}

impl Image {
    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &ImageManifest {
        &self.manifest
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root disk, qcow2, read-only.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The initramfs.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join(INITRD)
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.files.values().map(|file| file.bytes).sum()
    }

    /// Whether the recipe that this banger has now would make the same image.
    #[must_use]
    pub fn is_current(&self) -> bool {
        recipe::Recipe::of(&self.manifest.name)
            .is_some_and(|recipe| recipe.key() == self.manifest.key)
    }
}

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image can have this name.
    #[error(
        "{name:?} is no name of an image: 1 to 63 of a-z, 0-9, - and ., first a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// There is no recipe of this name.
    #[error("there is no recipe for an image named {name}")]
    UnknownRecipe {
        /// What was given.
        name: String,
    },
    /// There is no image of this name.
    #[error("there is no image named {name}")]
    Missing {
        /// What was given.
        name: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program of the host is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// An ordinary user has no subordinate ids, so cannot build without root.
    #[error("the user {user} has no subordinate ids in {file}")]
    SubordinateIds {
        /// The user's name or id.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// A step of the build failed.
    #[error("building the image {name} failed at {stage}: {}", last_lines.join("; "))]
    Build {
        /// The image.
        name: String,
        /// The step.
        stage: Stage,
        /// The last lines of the log.
        last_lines: Vec<String>,
        /// The whole log.
        log: PathBuf,
        /// The likely remedy, if the log tells one.
        advice: Option<&'static str>,
    },
    /// The build was cancelled.
    #[error("building the image {name} was cancelled")]
    Cancelled {
        /// The image.
        name: String,
    },
}

impl ImageError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tool(error) => error.hint(),
            Self::SubordinateIds { user, .. } => Some(format!(
                "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            )),
            Self::Build { log, advice, .. } => Some(match advice {
                Some(advice) => format!("{advice}; the whole log is {}", log.display()),
                None => format!("read {}", log.display()),
            }),
            _ => None,
        }
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let kind = match &error {
            ImageError::Name { .. } => Kind::Invalid,
            ImageError::UnknownRecipe { .. } | ImageError::Missing { .. } => Kind::NotFound,
            ImageError::Cancelled { .. } => Kind::Cancelled,
            _ => Kind::Host,
        };
        Self::from_error(kind, &error).hint(error.hint().unwrap_or_default())
    }
}

/// The images under one directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
}

impl ImageStore {
    /// The store in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The manifests of all complete images, by name.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<ImageManifest>, ImageError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::io("read", &self.dir)(error)),
        };
        let mut manifests = Vec::new();
        for entry in entries {
            let entry = entry.map_err(ImageError::io("read", &self.dir))?;
            if let Some(name) = entry.file_name().to_str()
                && check_name(name).is_ok()
                && let Some(image) = self.get(name)?
            {
                manifests.push(image.manifest);
            }
        }
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(manifests)
    }

    /// The image of that name, if it is complete.
    ///
    /// # Errors
    /// [`ImageError::Name`].
    pub fn get(&self, name: &str) -> Result<Option<Image>, ImageError> {
        check_name(name)?;
        let dir = self.dir.join(name);
        let Ok(bytes) = fs::read(dir.join(MANIFEST)) else {
            return Ok(None);
        };
        let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) else {
            return Ok(None);
        };
        let whole = [DISK, KERNEL, INITRD].iter().all(|name| {
            manifest.files.get(*name).is_some_and(|file| {
                fs::metadata(dir.join(name)).is_ok_and(|metadata| metadata.len() == file.bytes)
            })
        });
        Ok((whole && manifest.name == name).then_some(Image { dir, manifest }))
    }

    /// Builds the image anew, also when there is one; that one stays until the new one is complete.
    /// Of two builders at once, one waits and takes what the other has built.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn build(
        &self,
        name: &str,
        progress: &(dyn Fn(BuildProgress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Image, ImageError> {
        check_name(name)?;
        let recipe =
            recipe::Recipe::of(name).ok_or(ImageError::UnknownRecipe { name: name.into() })?;
        build::Build::new(self, recipe, progress, cancel)
            .run(build::When::Always)
            .await
    }

    /// The image, built first when it is missing or out of date.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn ensure(
        &self,
        name: &str,
        progress: &(dyn Fn(BuildProgress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Image, ImageError> {
        let present = self.get(name)?;
        let Some(recipe) = recipe::Recipe::of(name) else {
            return present.ok_or(ImageError::UnknownRecipe { name: name.into() });
        };
        match present {
            Some(image) if image.manifest.key == recipe.key() => Ok(image),
            _ => {
                build::Build::new(self, recipe, progress, cancel)
                    .run(build::When::OutOfDate)
                    .await
            }
        }
    }

    /// Deletes the image and its log. Machines made from it keep working.
    ///
    /// # Errors
    /// [`ImageError::Missing`], [`ImageError::Io`].
    pub fn delete(&self, name: &str) -> Result<(), ImageError> {
        check_name(name)?;
        let dir = self.dir.join(name);
        // Moved away first, so that half an image never has the name.
        let doomed = tempfile::Builder::new()
            .prefix(build::DRAFT_PREFIX)
            .tempdir_in(&self.dir)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => ImageError::Missing { name: name.into() },
                _ => ImageError::io("create a directory in", &self.dir)(error),
            })?;
        fs::rename(&dir, doomed.path().join("image")).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ImageError::Missing { name: name.into() },
            _ => ImageError::io("remove", &dir)(error),
        })?;
        let path = doomed.path().to_owned();
        doomed.close().map_err(ImageError::io("remove", path))?;
        // The log is an aid only.
        let _ = fs::remove_file(self.log(name));
        Ok(())
    }

    /// The log of the image's last build.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && letter(bytes[0])
        && bytes.iter().all(|c| letter(*c) || matches!(c, b'-' | b'.'));
    if good {
        Ok(())
    } else {
        Err(ImageError::Name {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Path, name: &str) -> PathBuf {
        let dir = store.join(name);
        fs::create_dir_all(&dir).expect("directory");
        let files = [DISK, KERNEL, INITRD].map(|file| {
            fs::write(dir.join(file), file).expect("file");
            (
                file.to_owned(),
                ImageFile {
                    bytes: file.len() as u64,
                    sha256: String::new(),
                },
            )
        });
        let manifest = ImageManifest {
            name: name.into(),
            created_by: "0".into(),
            created_unix_seconds: 0,
            suite: "bookworm".into(),
            key: "k".into(),
            packages: BTreeMap::new(),
            files: files.into(),
        };
        fs::write(
            dir.join(MANIFEST),
            serde_json::to_vec(&manifest).expect("json"),
        )
        .expect("manifest");
        dir
    }

    #[test]
    fn only_complete_images_are_seen() {
        let home = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::new(home.path().join("images"));
        assert!(store.list().expect("list").is_empty());
        let dir = put(store.dir(), "base");
        fs::create_dir_all(store.dir().join(".building-x")).expect("directory");
        fs::create_dir_all(store.dir().join("empty")).expect("directory");
        assert_eq!(store.list().expect("list").len(), 1);
        assert!(!store.get("base").expect("get").expect("image").is_current());
        fs::write(dir.join(DISK), "cut").expect("file");
        assert_eq!(store.get("base").expect("get"), None);
        for name in ["", "..", ".x", "a/b", "A", "a b"] {
            assert!(
                matches!(store.get(name), Err(ImageError::Name { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn deleting_removes_the_whole_image() {
        let home = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::new(home.path().join("images"));
        assert!(matches!(
            store.delete("base"),
            Err(ImageError::Missing { .. })
        ));
        put(store.dir(), "base");
        store.delete("base").expect("delete");
        assert_eq!(fs::read_dir(store.dir()).expect("read").count(), 0);
        assert!(matches!(
            store.delete("base"),
            Err(ImageError::Missing { .. })
        ));
    }
}
