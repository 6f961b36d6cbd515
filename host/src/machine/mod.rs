//! Machines: the VMs that banger runs itself.
//!
//! A machine is created, started, stopped, deleted and described here, and it says where its sshd is
//! reached. Nothing here speaks SSH, knows of sessions or keeps a database: a machine's directory is
//! the whole truth about it, also after the daemon was killed.

pub mod accelerator;
mod process;
pub mod qemu;
mod qemu_command;
mod qmp;
mod seed;
pub mod tool;
pub mod work_disk;

use std::path::PathBuf;

use banger_core::{Failure, Kind};
use serde::{Deserialize, Serialize};

pub use accelerator::{Accelerator, Verdict};
pub use process::ProcessIdentity;
pub use qemu::QemuMachine;
pub use qmp::QmpError;
pub use seed::Seed;
pub use tool::ToolError;

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Host name in the guest: 1 to 63 of `a-z`, `0-9` and `-`, no `-` at an end.
    pub name: String,
    /// Virtual processors, 1 to 64.
    pub cpus: u32,
    /// Memory in MiB, at least 128.
    pub memory_mib: u32,
    /// Size of the disk mounted at `/root` in MiB, at least 64. It is sparse: it takes what is used.
    pub work_disk_mib: u64,
}

impl MachineSpec {
    /// Whether a machine can be made of this.
    ///
    /// # Errors
    /// [`MachineError::Spec`] names the field and its limits.
    pub fn check(&self) -> Result<(), MachineError> {
        let spec = |field, limits| Err(MachineError::Spec { field, limits });
        let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let name = self.name.as_bytes();
        if !(1..=63).contains(&name.len())
            || !name.iter().copied().all(letters)
            || name.first() == Some(&b'-')
            || name.last() == Some(&b'-')
        {
            return spec("name", "1 to 63 of a-z, 0-9 and -, with no - at an end");
        }
        if !(1..=64).contains(&self.cpus) {
            return spec("cpus", "1 to 64");
        }
        if !(128..=1 << 20).contains(&self.memory_mib) {
            return spec("memory_mib", "128 to 1048576");
        }
        if !(64..=16 << 20).contains(&self.work_disk_mib) {
            return spec("work_disk_mib", "64 to 16777216");
        }
        Ok(())
    }
}

/// What `start` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// QEMU's process.
    pub process: ProcessIdentity,
    /// Port on 127.0.0.1 that leads to the guest's sshd.
    pub ssh_port: u16,
    /// What runs its processors.
    pub accelerator: Accelerator,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its process is alive.
    Running(Running),
    /// It is not.
    Stopped,
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The guest ended its processes, unmounted its disks and powered off.
    Gracefully,
    /// The guest did not end in time, and its process was killed.
    Forced,
    /// It did not run.
    Already,
}

/// Why something could not be done with a machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A value that no machine can have.
    #[error("the machine's {} must be {limits}", field.replace("_mib", " in MiB").replace('_', " "))]
    Spec {
        /// Name of the field of [`MachineSpec`].
        field: &'static str,
        /// What is allowed.
        limits: &'static str,
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
    /// A file of the machine's directory is not what banger wrote.
    #[error("{} cannot be read as the description of a machine", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There is something already where the machine should be made.
    #[error("there is a machine already in {}", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A program of the host is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// QEMU gave no answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU ended while it started.
    #[error("QEMU ended at its start ({status}): {message}")]
    StartFailed {
        /// How it ended.
        status: String,
        /// The last lines of its standard error.
        message: String,
        /// The file with everything that it said.
        log: PathBuf,
    },
    /// It runs already, so it cannot be started or deleted.
    #[error("the machine runs already (pid {pid})")]
    AlreadyRunning {
        /// QEMU's process.
        pid: i32,
    },
    /// It does not run, so it cannot be paused or resumed.
    #[error("the machine does not run")]
    NotRunning,
    /// Even SIGKILL did not end its process in time.
    #[error("the machine's process {pid} does not end")]
    Unkillable {
        /// QEMU's process.
        pid: i32,
    },
}

impl MachineError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tool(error) => error.hint(),
            Self::StartFailed { log, .. } => Some(format!("read {}", log.display())),
            Self::AlreadyRunning { .. } => Some("stop it first".into()),
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

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        let kind = match &error {
            MachineError::Spec { .. } => Kind::Invalid,
            MachineError::AlreadyRunning { .. }
            | MachineError::NotRunning
            | MachineError::Exists { .. } => Kind::Conflict,
            _ => Kind::Host,
        };
        Self::from_error(kind, &error).hint(error.hint().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "vm-1".into(),
            cpus: 1,
            memory_mib: 512,
            work_disk_mib: 1024,
        }
    }

    #[test]
    fn specs_outside_the_limits_are_refused() {
        assert!(spec().check().is_ok());
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a b",
            "a\n",
            "ä",
            "a,b",
            &"a".repeat(64),
        ] {
            assert!(
                MachineSpec {
                    name: name.into(),
                    ..spec()
                }
                .check()
                .is_err(),
                "{name:?}"
            );
        }
        assert!(MachineSpec { cpus: 0, ..spec() }.check().is_err());
        assert!(
            MachineSpec {
                memory_mib: 64,
                ..spec()
            }
            .check()
            .is_err()
        );
        assert!(
            MachineSpec {
                work_disk_mib: 1,
                ..spec()
            }
            .check()
            .is_err()
        );
    }
}
