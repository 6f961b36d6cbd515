//! Where banger keeps its files on this machine. `docs/files.md` describes each.

use banger_core::{Failure, Kind, VmId};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The longest path of a unix socket that Linux takes, in bytes, without its NUL.
const SOCKET_PATH_LIMIT: usize = 107;

/// The five directories. Each is private to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    cache: PathBuf,
}

impl Dirs {
    /// Everything under one directory.
    pub fn under(home: &Path) -> Self {
        Self {
            config: home.join("config"),
            data: home.join("data"),
            state: home.join("state"),
            runtime: home.join("runtime"),
            cache: home.join("cache"),
        }
    }

    /// `BANGER_HOME` where it is set, else the XDG directories.
    ///
    /// # Errors
    /// Where a path is relative, `HOME` is missing, or a socket's path would be too long.
    pub fn from_environment() -> Result<Self, Failure> {
        Self::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, Failure> {
        let absolute = |name: &str| -> Result<Option<PathBuf>, Failure> {
            match variable(name).map(PathBuf::from) {
                Some(path) if path.is_relative() => Err(Failure::new(
                    Kind::Invalid,
                    format!("{name} must be an absolute path, not `{}`", path.display()),
                )),
                other => Ok(other),
            }
        };
        let dirs = if let Some(home) = absolute("BANGER_HOME")? {
            Self::under(&home)
        } else {
            let home = absolute("HOME")?.ok_or_else(|| {
                Failure::new(Kind::Host, "neither HOME nor BANGER_HOME is set")
                    .hint("set BANGER_HOME to a directory of yours")
            })?;
            let xdg = |name: &str, fallback: &str| -> Result<PathBuf, Failure> {
                Ok(absolute(name)?
                    .unwrap_or_else(|| home.join(fallback))
                    .join("banger"))
            };
            let state = xdg("XDG_STATE_HOME", ".local/state")?;
            let runtime = match absolute("XDG_RUNTIME_DIR")? {
                Some(dir) => dir.join("banger"),
                None => state.join("runtime"),
            };
            Self {
                config: xdg("XDG_CONFIG_HOME", ".config")?,
                data: xdg("XDG_DATA_HOME", ".local/share")?,
                state,
                runtime,
                cache: xdg("XDG_CACHE_HOME", ".cache")?,
            }
        };
        let socket = dirs.stream_socket();
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(Failure::new(
                Kind::Invalid,
                format!(
                    "`{}` is too long for a socket: at most {SOCKET_PATH_LIMIT} bytes",
                    socket.display()
                ),
            )
            .hint("set BANGER_HOME to a shorter path"));
        }
        Ok(dirs)
    }

    /// Makes the directories, each with mode 0700.
    ///
    /// # Errors
    /// Where one can't be made, or the runtime directory belongs to somebody else.
    pub fn create(&self) -> Result<(), Failure> {
        for dir in [
            &self.config,
            &self.data,
            &self.images(),
            &self.user_plugins(),
            &self.state,
            &self.vms(),
            &self.saved(),
            &self.quarantine(),
            &self.runtime,
            &self.cache,
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|error| {
                    Failure::new(
                        Kind::Host,
                        format!("can't make the directory {}: {error}", dir.display()),
                    )
                })?;
        }
        let check = |error: std::io::Error| {
            Failure::new(
                Kind::Host,
                format!("can't read {}: {error}", self.runtime.display()),
            )
        };
        let metadata = std::fs::symlink_metadata(&self.runtime).map_err(check)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failure::new(
                Kind::Host,
                format!("{} is not a directory of yours", self.runtime.display()),
            ));
        }
        if metadata.mode() & 0o077 != 0 {
            std::fs::set_permissions(&self.runtime, std::fs::Permissions::from_mode(0o700))
                .map_err(check)?;
        }
        Ok(())
    }

    /// Configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Images and plugins.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Database, machines and log.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// What can be made again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// One directory an image.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The user's plugins, `*.wasm`.
    pub fn user_plugins(&self) -> PathBuf {
        self.data.join("plugins")
    }

    /// Compiled plugins.
    pub fn plugin_cache(&self) -> PathBuf {
        self.cache.join("plugins")
    }

    /// What was last put into a machine's working copies.
    pub fn snapshots(&self, id: &VmId) -> PathBuf {
        self.cache.join("snapshots").join(id.as_str())
    }

    /// One directory a machine.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// A machine's directory.
    pub fn vm(&self, id: &VmId) -> PathBuf {
        self.vms().join(id.as_str())
    }

    /// Work that was saved before it would have been lost.
    pub fn saved(&self) -> PathBuf {
        self.state.join("saved")
    }

    /// Where what a guest sends is examined before a repository of the user's gets it.
    pub fn quarantine(&self) -> PathBuf {
        self.state.join("quarantine")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("banger.db")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// Held by the daemon that runs.
    pub fn daemon_lock(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// The JSON-RPC socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("daemon.sock")
    }

    /// The socket of streams.
    pub fn stream_socket(&self) -> PathBuf {
        self.runtime.join("stream.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Dirs, Failure> {
        Dirs::from_variables(|name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn banger_home_wins_over_xdg() {
        let dirs = from(&[
            ("BANGER_HOME", "/b"),
            ("HOME", "/h"),
            ("XDG_STATE_HOME", "/s"),
        ]);
        assert_eq!(dirs.expect("valid"), Dirs::under(Path::new("/b")));
    }

    #[test]
    fn xdg_has_fallbacks() {
        let dirs = from(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).expect("valid");
        assert_eq!(dirs.state(), Path::new("/h/.local/state/banger"));
        assert_eq!(dirs.cache(), Path::new("/c/banger"));
        assert_eq!(
            dirs.socket(),
            Path::new("/h/.local/state/banger/runtime/daemon.sock")
        );
    }

    #[test]
    fn what_can_not_work_is_said() {
        assert!(from(&[("BANGER_HOME", "relative")]).is_err());
        assert!(from(&[]).is_err());
        assert!(from(&[("BANGER_HOME", &format!("/{}", "x".repeat(100)))]).is_err());
    }
}
