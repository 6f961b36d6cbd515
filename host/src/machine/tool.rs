//! The host programs that banger starts: where they are, which Debian package brings them, and what
//! they said when they failed.
//!
//! It runs programs directly, never through a shell, and installs nothing.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

/// A program of the host together with the Debian package that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// File name of the program.
    pub program: &'static str,
    /// Debian package that contains it.
    pub package: &'static str,
}

/// Runs the machines.
pub const QEMU: Tool = Tool {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
};
/// Makes copy-on-write disks.
pub const QEMU_IMG: Tool = Tool {
    program: "qemu-img",
    package: "qemu-utils",
};
/// Assembles a Debian from packages.
pub const MMDEBSTRAP: Tool = Tool {
    program: "mmdebstrap",
    package: "mmdebstrap",
};
/// Maps subordinate user ids, so that an image can be built without root.
pub const NEWUIDMAP: Tool = Tool {
    program: "newuidmap",
    package: "uidmap",
};
/// Makes the file systems.
pub const MKFS_EXT4: Tool = Tool {
    program: "mkfs.ext4",
    package: "e2fsprogs",
};
/// Keeps a build's mounts and processes apart.
pub const UNSHARE: Tool = Tool {
    program: "unshare",
    package: "util-linux",
};
/// Starts a machine in a session of its own.
pub const SETSID: Tool = Tool {
    program: "setsid",
    package: "util-linux",
};
/// Carries a repository into a machine.
pub const GIT: Tool = Tool {
    program: "git",
    package: "git",
};
/// The user's own way in.
pub const SSH: Tool = Tool {
    program: "ssh",
    package: "openssh-client",
};

/// Every tool that banger may start, in the order in which `doctor` lists them.
pub const ALL: [Tool; 9] = [
    QEMU, QEMU_IMG, MMDEBSTRAP, NEWUIDMAP, MKFS_EXT4, UNSHARE, SETSID, GIT, SSH,
];

/// Why a tool gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The system could not start it.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        message: String,
    },
}

impl ToolError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { package, .. } => Some(format!("apt-get install {package}")),
            Self::Start { .. } | Self::Failed { .. } => None,
        }
    }
}

/// The directories searched: those of `PATH`, then the system ones, which an ordinary user's `PATH`
/// lacks and where `mkfs.ext4` is.
#[must_use]
pub fn search_path() -> std::ffi::OsString {
    let mut directories: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    for system in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        let system = PathBuf::from(system);
        if !directories.contains(&system) {
            directories.push(system);
        }
    }
    std::env::join_paths(directories).unwrap_or_else(|_| "/usr/sbin:/sbin:/usr/bin:/bin".into())
}

impl Tool {
    /// Where the program is, if it is installed.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        std::env::split_paths(&search_path())
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(self.program))
            .find(|file| {
                file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
            })
    }

    /// Where the program is.
    ///
    /// # Errors
    /// [`ToolError::Missing`].
    pub fn require(&self) -> Result<PathBuf, ToolError> {
        self.find().ok_or(ToolError::Missing {
            program: self.program,
            package: self.package,
        })
    }

    /// A command for the program with the full search path and no standard input.
    ///
    /// # Errors
    /// [`ToolError::Missing`].
    pub fn command(&self) -> Result<Command, ToolError> {
        let mut command = Command::new(self.require()?);
        command.env("PATH", search_path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the program to its end and returns its standard output.
    ///
    /// # Errors
    /// [`ToolError`] when it is missing, does not start or reports failure.
    pub async fn run<I, S>(&self, arguments: I) -> Result<Vec<u8>, ToolError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self
            .command()?
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| ToolError::Start {
                program: self.program,
                source,
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ToolError::Failed {
            program: self.program,
            status: output.status,
            message: last_lines(&output.stderr, 5).join("; "),
        })
    }
}

/// The last `count` lines that are not blank, with control characters replaced.
#[must_use]
pub fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| printable(line))
        .collect()
}

/// `line` with control characters replaced, so that it may reach a terminal.
#[must_use]
pub fn printable(line: &str) -> String {
    line.trim_end()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_the_last_ones_without_control_characters() {
        assert_eq!(
            last_lines(b"one\n\ntwo\x1b[2J\nthree\n", 2),
            ["two\u{fffd}[2J", "three"]
        );
        assert!(last_lines(b"", 3).is_empty());
    }

    #[tokio::test]
    async fn a_failing_tool_tells_what_it_said() {
        let ls = Tool {
            program: "ls",
            package: "coreutils",
        };
        let error = ls
            .run(["/nonexistent-banger"])
            .await
            .expect_err("ls must fail");
        assert!(error.to_string().contains("nonexistent-banger"), "{error}");
        let missing = Tool {
            program: "no-such-program-banger",
            package: "nothing",
        };
        let error = missing.run(["x"]).await.expect_err("must be missing");
        assert_eq!(error.hint().as_deref(), Some("apt-get install nothing"));
    }
}
