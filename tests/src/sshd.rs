//! A real OpenSSH server on loopback for tests, as root or as an ordinary user.
//!
//! Sessions run as the current user, with `HOME` set to a temporary directory; their working
//! directory is still the user's own home.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use banger_host::ssh::{HostKey, HostKeyPolicy, Identity, KeyPair, Target};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const DEADLINE: Duration = Duration::from_secs(20);

/// What a test wants of its server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of its configuration; the first of a keyword wins, these come first.
    pub config: Vec<String>,
    /// Whether `bin` in `HOME` comes first in `PATH`.
    pub own_programs: bool,
}

impl Options {
    /// With this many sessions allowed on one connection.
    #[must_use]
    pub fn max_sessions(self, count: u32) -> Self {
        self.line(&format!("MaxSessions {count}"))
    }

    /// With one more line of configuration.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }
}

/// A running server. Dropping it kills it and its connections.
pub struct Sshd {
    directory: tempfile::TempDir,
    port: u16,
    client: KeyPair,
    host: KeyPair,
    child: Option<Child>,
}

impl Sshd {
    /// A server with OpenSSH's own limits: 10 sessions on a connection.
    ///
    /// # Errors
    /// There is no sshd, or it does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// A server with these options.
    ///
    /// # Errors
    /// There is no sshd, or it does not start.
    pub fn start_with(options: &Options) -> Result<Self> {
        let mut server = Self::prepare(options)?;
        server.resume()?;
        Ok(server)
    }

    /// A server that is configured, has its port and does not run yet; see [`Sshd::resume`].
    ///
    /// # Errors
    /// Its files can't be written.
    pub fn prepare(options: &Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("banger-sshd-").tempdir()?;
        let root = directory.path();
        fs::create_dir(root.join("home"))?;
        let client = KeyPair::generate("client")?;
        let host = KeyPair::generate("host")?;
        write_private(&root.join("host_key"), &host.private_text)?;
        write_private(&root.join("client_key"), &client.private_text)?;
        fs::write(
            root.join("authorized_keys"),
            format!("{}\n", client.public_line),
        )?;
        let mut server = Self {
            directory,
            port: 0,
            client,
            host,
            child: None,
        };
        server.port = free_port()?;
        server.configure(options)?;
        Ok(server)
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let root = self.directory.path().display();
        let mut text = String::new();
        for line in &options.config {
            text.push_str(line);
            text.push('\n');
        }
        let path = match options.own_programs {
            true => format!(" PATH={root}/home/bin:/usr/local/bin:/usr/bin:/bin"),
            false => String::new(),
        };
        text.push_str(&format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host_key\n\
             AuthorizedKeysFile {root}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
             PubkeyAuthentication yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             PrintMotd no\nUseDNS no\nLogLevel VERBOSE\nMaxStartups 100\n\
             SetEnv HOME={root}/home{path}\n",
            port = self.port
        ));
        fs::write(self.directory.path().join("sshd_config"), text)?;
        Ok(())
    }

    /// Starts it, again on the same port after [`Sshd::stop`], and waits until it listens.
    ///
    /// # Errors
    /// There is no sshd, or it does not start.
    pub fn resume(&mut self) -> Result<()> {
        self.spawn()?;
        match self.until_listening() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.stop();
                Err(error.context(self.log()))
            }
        }
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// There is no sshd.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the server runs already");
        }
        let program = program()?;
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").context("cannot create /run/sshd")?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let child = Command::new(&program)
            .args(["-D", "-e", "-f"])
            .arg(self.directory.path().join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Connects until the greeting comes: sshd has no other way to say that it listens.
    fn until_listening(&mut self) -> Result<()> {
        let port = self.port;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let begun = std::time::Instant::now();
            while begun.elapsed() < DEADLINE {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                    let mut line = String::new();
                    if stream.set_read_timeout(Some(DEADLINE)).is_ok()
                        && BufReader::new(stream).read_line(&mut line).is_ok()
                        && line.starts_with("SSH-2.0-")
                    {
                        let _ = sender.send(());
                        return;
                    }
                }
                std::thread::yield_now();
            }
        });
        receiver
            .recv_timeout(DEADLINE)
            .context("sshd did not greet")
    }

    /// Stops the server and every connection to it. Its port stays its own.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let group = pid(&child);
        // Each connection's process leads a session of its own once it is logged in.
        self.kill_tree(group);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }

    /// Cuts every connection by killing the process that serves it, and everything that it has
    /// started and not detached; the server goes on listening.
    pub fn cut_connections(&self) {
        if let Some(child) = &self.child {
            for connection in children(pid(child)) {
                let sessions = children(connection);
                let _ = kill_process(connection, Signal::KILL);
                for session in sessions {
                    self.kill_tree(session);
                    let _ = kill_process(session, Signal::KILL);
                }
            }
        }
    }

    /// Cuts every connection as a network would: sshd's own processes are killed, and what they
    /// have started finds its input at an end.
    pub fn cut_network(&self) {
        fn cut(process: Pid) {
            let name = fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
            if name.is_ok_and(|name| name.starts_with("sshd")) {
                let below = children(process);
                let _ = kill_process(process, Signal::KILL);
                below.into_iter().for_each(cut);
            }
        }
        if let Some(child) = &self.child {
            children(pid(child)).into_iter().for_each(cut);
        }
    }

    fn kill_tree(&self, root: Pid) {
        for child in children(root) {
            self.kill_tree(child);
            let _ = kill_process(child, Signal::KILL);
        }
    }

    /// How many connections it serves now.
    pub fn connections(&self) -> usize {
        self.child
            .as_ref()
            .map_or(0, |child| children(pid(child)).len())
    }

    /// How many processes serve its connections or were started by them, and are not detached.
    pub fn processes(&self) -> usize {
        fn below(root: Pid) -> usize {
            children(root)
                .into_iter()
                .map(|child| 1 + below(child))
                .sum()
        }
        self.child.as_ref().map_or(0, |child| below(pid(child)))
    }

    /// How many logins it has accepted since it was made.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("sshd.log")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOME` of its sessions.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// The private key that may log in, as a file for `ssh -i`.
    pub fn client_key_path(&self) -> PathBuf {
        self.directory.path().join("client_key")
    }

    /// The private key that may log in.
    pub fn identity(&self) -> Identity {
        self.client.identity.clone()
    }

    /// The key that it shows.
    pub fn host_key(&self) -> HostKey {
        self.host.host_key.clone()
    }

    /// The user that it lets in: the one who runs the test.
    ///
    /// # Errors
    /// The user has no name.
    pub fn user() -> Result<String> {
        let output = Command::new("id").arg("-un").output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Shows another host key from the next [`Sshd::resume`] on.
    ///
    /// # Errors
    /// The key can't be made or written.
    pub fn change_host_key(&mut self) -> Result<()> {
        self.host = KeyPair::generate("host")?;
        let path = self.directory.path().join("host_key");
        fs::remove_file(&path)?;
        write_private(&path, &self.host.private_text)
    }

    /// How to log in, with the right key pinned.
    ///
    /// # Errors
    /// The user has no name.
    pub fn target(&self) -> Result<Target> {
        Ok(Target {
            host: "127.0.0.1".into(),
            port: self.port,
            user: Self::user()?,
            identity: self.identity(),
            host_key: HostKeyPolicy::Pinned(self.host_key()),
        })
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// sshd re-executes itself and so wants an absolute path.
fn program() -> Result<PathBuf> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .context("there is no sshd: install openssh-server")
}

/// A port that nobody listens on. The kernel hands such ports out in a random order, so that two
/// tests at once get the same one only by bad luck.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())?;
    Ok(())
}

/// The direct children of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero();
    let Ok(text) = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) else {
        return Vec::new();
    };
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}
