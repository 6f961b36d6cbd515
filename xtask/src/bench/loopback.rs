//! An sshd of our own on loopback, adopted by banger, with an OpenSSH master connection beside it.

use super::PREFIX;
use crate::banger::Banger;
use crate::process::{self, Guarded, Signals};
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The server and a client's live connection to it.
pub struct Loopback {
    master: Guarded,
    _server: Guarded,
    directory: TempDir,
    name: String,
}

impl Loopback {
    /// Starts the server with keys of its own, connects OpenSSH's client, and has banger adopt it.
    pub fn start(banger: &Banger, signals: &Signals) -> Result<Self> {
        // A short path: sockets allow 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("banger-bench-")
            .tempdir()
            .context("can't make a temporary directory")?;
        let path = directory.path();
        for key in ["host", "client"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"])
                .arg(path.join(key));
            signals.run(&mut keygen)?;
        }
        let user = signals.output(Command::new("id").arg("-un"))?;
        let user = String::from_utf8_lossy(&user).trim().to_owned();
        let port = free_port()?;
        write_configuration(path, port, &user)?;
        if rustix::process::geteuid().is_root() {
            // Where sshd locks up what it has not yet authenticated. Gone after a reboot, and made
            // by the service's unit, which does not run here.
            std::fs::create_dir_all("/run/sshd").context("can't create /run/sshd")?;
        }
        let server = Guarded::spawn(
            [
                sshd()?.as_os_str(),
                "-D".as_ref(),
                "-e".as_ref(),
                "-f".as_ref(),
                path.join("sshd_config").as_os_str(),
            ],
            |command| {
                command.stdin(Stdio::null()).stdout(Stdio::null());
                if let Ok(log) = std::fs::File::create(path.join("sshd.log")) {
                    command.stderr(log);
                }
            },
        )?;
        wait_for(signals, "the sshd on loopback", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        let config = path.join("ssh_config");
        let master = Guarded::spawn(
            [
                "ssh".as_ref(),
                "-F".as_ref(),
                config.as_os_str(),
                "-o".as_ref(),
                "ControlMaster=yes".as_ref(),
                "-N".as_ref(),
                "bench".as_ref(),
            ],
            |command| {
                command.stdin(Stdio::null());
            },
        )?;
        wait_for(signals, "OpenSSH's master connection", || {
            let mut check = Command::new("ssh");
            check.arg("-F").arg(&config).args(["-O", "check", "bench"]);
            process::tidy(&mut check, Duration::from_secs(5)).is_some()
        })?;
        let name = format!("{PREFIX}host");
        let identity = path.join("client");
        banger.run(&[
            "vm",
            "adopt",
            &name,
            &format!("ssh://{user}@127.0.0.1:{port}"),
            "--identity",
            &identity.to_string_lossy(),
        ])?;
        Ok(Self {
            master,
            _server: server,
            directory,
            name,
        })
    }

    /// banger's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ssh HOST COMMAND` over the live connection.
    pub fn ssh(&self, remote: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.directory.path().join("ssh_config"))
            .args(["bench", remote]);
        command
    }

    /// The same on a terminal: `ssh -t`.
    pub fn ssh_on_terminal(&self, remote: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.directory.path().join("ssh_config"))
            .args(["-t", "bench", remote]);
        command
    }

    /// An error where the live connection was lost: `ssh` would have connected anew each time, and
    /// what was measured would be no floor.
    pub fn check(&self) -> Result<()> {
        let socket = self.directory.path().join("m");
        if self.master.is_running() && socket.exists() {
            Ok(())
        } else {
            bail!("OpenSSH's master connection was lost while it was measured")
        }
    }
}

fn write_configuration(path: &Path, port: u16, user: &str) -> Result<()> {
    let shown = path.display();
    let public = |name: &str| {
        std::fs::read_to_string(path.join(name)).with_context(|| format!("can't read {name}"))
    };
    let files = [
        ("authorized_keys", public("client.pub")?),
        (
            "known_hosts",
            format!("[127.0.0.1]:{port} {}", public("host.pub")?),
        ),
        (
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {shown}/host\n\
                 AuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nUsePAM no\n\
                 StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
                 PrintMotd no\nUseDNS no\nPermitUserRC no\nSetEnv HOME={shown}/home\n"
            ),
        ),
        (
            "ssh_config",
            format!(
                "Host bench\n HostName 127.0.0.1\n Port {port}\n User {user}\n\
                 \x20IdentityFile {shown}/client\n IdentitiesOnly yes\n\
                 \x20UserKnownHostsFile {shown}/known_hosts\n StrictHostKeyChecking yes\n\
                 \x20BatchMode yes\n ControlPath {shown}/m\n ControlMaster no\n LogLevel ERROR\n"
            ),
        ),
    ];
    // An empty home: bash reads ~/.bashrc for each command of sshd's, and that of a developer may
    // take longer than everything that is measured here.
    std::fs::create_dir(path.join("home")).context("can't make a home")?;
    for (name, text) in files {
        std::fs::write(path.join(name), text).with_context(|| format!("can't write {name}"))?;
    }
    Ok(())
}

/// sshd wants to be started by its absolute path.
fn sshd() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join("sshd"))
        .find(|file| file.is_absolute() && file.is_file())
        .context("there is no sshd; `cargo xtask setup` installs it")
}

/// A port of loopback that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("can't listen on loopback")?;
    Ok(listener
        .local_addr()
        .context("a socket has no address")?
        .port())
}

fn wait_for(signals: &Signals, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !ready() {
        signals.check()?;
        if Instant::now() > end {
            bail!("{what} does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
