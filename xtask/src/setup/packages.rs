//! Debian packages: finds out by their files which are missing, and has apt install those.

use super::Purpose;
use crate::process::{self, Signals};
use crate::project::Project;
use crate::screen;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long another apt may hold its locks.
const LOCK_LIMIT: Duration = Duration::from_secs(300);

/// Something that must be there, and the packages that bring it.
struct Need {
    purpose: Purpose,
    /// A command, or an absolute path.
    probe: &'static str,
    packages: &'static [&'static str],
}

/// Always asked for together: of two versions, apt would remove one to install the other.
const QEMU: &[&str] = &["qemu-system-x86", "qemu-utils"];

const NEEDS: &[Need] = &[
    need(Purpose::Demo, "cc", &["gcc", "libc6-dev"]),
    need(
        Purpose::Demo,
        "/etc/ssl/certs/ca-certificates.crt",
        &["ca-certificates"],
    ),
    need(Purpose::Demo, "git", &["git"]),
    need(Purpose::Demo, "mkfs.ext4", &["e2fsprogs"]),
    need(Purpose::Demo, "mmdebstrap", &["mmdebstrap"]),
    need(Purpose::Demo, "newuidmap", &["uidmap"]),
    need(Purpose::Demo, "qemu-img", QEMU),
    need(Purpose::Demo, "qemu-system-x86_64", QEMU),
    need(Purpose::Demo, "ssh", &["openssh-client"]),
    need(Purpose::Test, "debugfs", &["e2fsprogs"]),
    need(Purpose::Test, "python3", &["python3"]),
    need(Purpose::Test, "shellcheck", &["shellcheck"]),
    need(Purpose::Test, "sshd", &["openssh-server"]),
    need(Purpose::Test, "tmux", &["tmux"]),
    need(Purpose::Test, "vim", &["vim"]),
];

const fn need(purpose: Purpose, probe: &'static str, packages: &'static [&'static str]) -> Need {
    Need {
        purpose,
        probe,
        packages,
    }
}

/// Installs the packages that are missing for a purpose.
pub fn ensure(project: &Project, purpose: Purpose, signals: &Signals) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_there("apt-get") {
        bail!(
            "missing, and only apt is known here to install it: {}",
            missing.join(" ")
        );
    }
    let Some(apt) = Apt::find() else {
        let packages = missing.join(" ");
        bail!(
            "missing packages: {packages}; neither root nor able to `sudo` without a password, so \
             run this once:\n  sudo sh -c 'apt-get update && apt-get install \
             --no-install-recommends {packages}'"
        );
    };
    // Two at once: the second waits, and finds that the first has done its work.
    std::fs::create_dir_all(&project.target)
        .with_context(|| format!("can't create {}", project.target.display()))?;
    let path = project.target.join("xtask-setup.lock");
    let lock = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    lock.lock()
        .with_context(|| format!("can't lock {}", path.display()))?;
    let missing = self::missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    screen::say(format!("setup: installing {}", missing.join(" ")));
    apt.update(signals)?;
    let hushed = if missing.contains(&"openssh-server") {
        HushedSshd::begin(&apt)
    } else {
        None
    };
    let installed = apt.install(&missing, signals);
    if let Some(hushed) = hushed {
        hushed.end(&apt);
    }
    installed?;
    let left = self::missing(purpose);
    if !left.is_empty() {
        bail!(
            "apt reports success, but this is still missing: {}",
            left.join(" ")
        );
    }
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static str> {
    let missing: BTreeSet<&'static str> = NEEDS
        .iter()
        .filter(|need| need.purpose <= purpose && !is_there(need.probe))
        .flat_map(|need| need.packages.iter().copied())
        .collect();
    missing.into_iter().collect()
}

/// Whether a file or a command is there, also one that only root has in its `PATH`.
fn is_there(probe: &str) -> bool {
    if probe.starts_with('/') {
        return Path::new(probe).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(probe).is_file())
}

/// A way to run apt as root.
struct Apt {
    prefix: &'static [&'static str],
}

impl Apt {
    fn find() -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(Self { prefix: &[] });
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        sudo.is_ok_and(|status| status.success()).then_some(Self {
            prefix: &["sudo", "-n"],
        })
    }

    fn as_root(&self, words: &[&str]) -> Command {
        let mut words = self.prefix.iter().chain(words);
        let mut command = Command::new(words.next().copied().unwrap_or_default());
        command.args(words).stdin(Stdio::null());
        command
    }

    fn apt_get(&self, words: &[&str]) -> Command {
        let mut command = self.as_root(&[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C",
            "apt-get",
            "-q",
            "-y",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
        ]);
        command
            .arg(format!("DPkg::Lock::Timeout={}", LOCK_LIMIT.as_secs()))
            .args(words);
        command
    }

    fn update(&self, signals: &Signals) -> Result<()> {
        if !self.run(&["update"], signals)? {
            // One repository that does not answer need not matter; the installation will tell.
            screen::warn("setup: apt-get update failed; trying with the lists that are there");
        }
        Ok(())
    }

    fn install(&self, packages: &[&str], signals: &Signals) -> Result<()> {
        // What a user has installed is never removed for this.
        let mut words = vec!["install", "--no-install-recommends", "--no-remove"];
        words.extend(packages);
        if self.run(&words, signals)? {
            return Ok(());
        }
        // A newer qemu-utils, from backports say, refuses the system emulator of the release:
        // «qemu-utils : Breaks: qemu-system-common». The two must be of one version.
        let installed = version("qemu-utils", "Installed");
        let candidate = version("qemu-system-x86", "Candidate");
        let version = candidate.filter(|candidate| {
            packages.contains(&"qemu-utils")
                && installed.is_some_and(|installed| installed != *candidate)
        });
        let Some(version) = version else {
            bail!("apt-get install failed; the lines above tell why");
        };
        screen::say(format!(
            "setup: the installed qemu-utils does not go with qemu-system-x86; taking {version} of both"
        ));
        let utils = format!("qemu-utils={version}");
        let system = format!("qemu-system-x86={version}");
        let mut words = vec!["install", "--no-install-recommends", "--no-remove"];
        words.push("--allow-downgrades");
        words.extend(packages.iter().filter(|name| !name.starts_with("qemu-")));
        words.extend([system.as_str(), utils.as_str()]);
        if !self.run(&words, signals)? {
            bail!("apt-get install failed; the lines above tell why");
        }
        Ok(())
    }

    /// Runs apt-get; tells whether it succeeded. `DPkg::Lock::Timeout` covers the lock of dpkg but not those of the lists and
    /// the archives, which are waited for here.
    fn run(&self, words: &[&str], signals: &Signals) -> Result<bool> {
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            signals.check()?;
            let mut command = self.apt_get(words);
            let mut child = command
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("can't run `{}`", process::line(&command)))?;
            let errors = child.stderr.take().context("a pipe is missing")?;
            let errors = thread::spawn(move || {
                let mut read = String::new();
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    let _ = writeln!(std::io::stderr(), "{line}");
                    read.push_str(&line);
                    read.push('\n');
                }
                read
            });
            let status = signals.wait(child)?;
            let errors = errors.join().unwrap_or_default();
            if status.success() {
                return Ok(true);
            }
            if !errors.contains("Could not get lock") || Instant::now() > end {
                return Ok(false);
            }
            screen::say("setup: another apt is at work; waiting for it");
            thread::sleep(Duration::from_secs(3));
        }
    }
}

/// What `apt-cache policy` tells of a package: its `Installed` or its `Candidate` version.
fn version(package: &str, which: &str) -> Option<String> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout), which)
}

fn version_in(policy: &str, which: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix(which)?.strip_prefix(": "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

/// Keeps the package openssh-server from starting a server on this machine, and from starting one
/// at the next boot: the tests run the program themselves, on loopback, with keys of their own.
///
/// A masked unit is left alone by the package's scripts. Nothing is touched where the unit was
/// there before, or where systemd does not run (there, `policy-rc.d` is the usual guard).
struct HushedSshd;

const SSHD_UNITS: [&str; 2] = ["ssh.service", "ssh.socket"];
const SSHD_DIRECTORIES: [&str; 2] = ["/lib/systemd/system", "/usr/lib/systemd/system"];

impl HushedSshd {
    fn begin(apt: &Apt) -> Option<Self> {
        let known = SSHD_DIRECTORIES
            .iter()
            .chain(&["/etc/systemd/system"])
            .any(|directory| {
                std::fs::symlink_metadata(Path::new(directory).join("ssh.service")).is_ok()
            });
        if known || !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        screen::say("setup: openssh-server is for the tests only; its service stays off");
        systemctl(apt, "mask").then_some(Self)
    }

    fn end(self, apt: &Apt) {
        let unmasked = systemctl(apt, "unmask");
        let there = SSHD_DIRECTORIES
            .iter()
            .any(|directory| Path::new(directory).join("ssh.service").exists());
        if !unmasked || (there && !systemctl(apt, "disable")) {
            screen::warn(
                "setup: could not restore the units of openssh-server; run \
                 `systemctl unmask ssh.service ssh.socket; systemctl disable ssh.service`",
            );
        }
    }
}

fn systemctl(apt: &Apt, verb: &str) -> bool {
    let mut command = apt.as_root(&["systemctl", "--quiet", verb]);
    process::tidy(command.args(SSHD_UNITS), Duration::from_secs(60)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let policy =
            "qemu-utils:\n  Installed: 1:10.0\n  Candidate: 1:7.2+dfsg-7\n  Version table:\n";
        assert_eq!(version_in(policy, "Candidate"), Some("1:7.2+dfsg-7".into()));
        assert_eq!(version_in(policy, "Installed"), Some("1:10.0".into()));
        assert_eq!(version_in("x:\n  Candidate: (none)\n", "Candidate"), None);
        assert_eq!(version_in("", "Candidate"), None);
    }

    #[test]
    fn commands_are_found_and_others_are_not() {
        assert!(is_there("sh"));
        assert!(is_there("/proc"));
        assert!(!is_there("no-such-command-4711"));
        assert!(!is_there("/no/such/path"));
    }
}
