//! From nothing to SSH: `vm start` beside the bare qemu command line with the same disks.

use super::figure::{Aim, Figure, fine, median, spread};
use super::loopback::free_port;
use super::{Bench, PREFIX};
use crate::process::{self, Guarded, Process};
use crate::screen;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any boot.
const LIMIT: Duration = Duration::from_secs(180);

/// `vm start` and the qemu that it runs.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let name = format!("{PREFIX}vm");
    // The first boot also makes keys and file systems.
    bench.banger.run(&["image", "build"])?;
    bench.banger.run(&["vm", "create", "--name", &name])?;
    bench.banger.run(&["vm", "start", &name])?;
    let machine = Machine::observe(bench.banger.home())?;
    bench.banger.run(&["vm", "stop", &name])?;

    let mut ours = Vec::new();
    let mut floor = Vec::new();
    for run in 1..=bench.runs {
        floor.push(machine.boot_bare(bench)?);
        let mut command = bench.banger.command(&["vm", "start", &name]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        ours.push(bench.signals.time(&mut command)?);
        let mut command = bench.banger.command(&["vm", "stop", &name]);
        bench.signals.run(command.stdout(Stdio::null()))?;
        if let (Some(floor), Some(ours)) = (floor.last(), ours.last()) {
            screen::say(format!(
                "run {run}: qemu to banner {}, vm start {}",
                fine(*floor),
                fine(*ours)
            ));
        }
    }
    bench.banger.run(&["vm", "delete", &name])?;
    Ok(vec![Figure {
        name: "boot to SSH".into(),
        ours: fine(median(&ours)),
        floor: fine(median(&floor)),
        value: median(&ours).as_secs_f64() / median(&floor).as_secs_f64(),
        aim: Some(Aim::AtMost(1.1, "")),
        how: format!(
            "`vm start` as a whole process until it returns, so logged in over SSH, median of {}, \
             alternating with the same qemu command line on copies of the same disks, from its \
             start until it shows the SSH banner; banger {}, qemu {}",
            ours.len(),
            spread(&ours),
            spread(&floor)
        ),
    }])
}

/// How banger runs its machine.
#[derive(Debug)]
struct Machine {
    /// The command line of its qemu, with paths relative to its directory.
    words: Vec<String>,
    /// The machine's directory.
    directory: PathBuf,
}

impl Machine {
    /// Looks at the one machine that runs in a home.
    fn observe(home: &Path) -> Result<Self> {
        let running: Vec<Process> = process::all()
            .into_iter()
            .filter(|process| process.is_qemu() && process.works_under(home))
            .collect();
        let [process] = running.as_slice() else {
            bail!("{} qemu processes run, and not one", running.len());
        };
        Ok(Self {
            words: process.words.clone(),
            directory: process.directory().context("qemu has ended")?,
        })
    }

    /// The command line for another directory, which forwards a port at once: banger has qemu do
    /// that when it runs already.
    fn command_line(&self, directory: &Path, port: u16) -> Result<Vec<String>> {
        let from = self.directory.to_string_lossy();
        let to = directory.to_string_lossy();
        let mut words: Vec<String> = self
            .words
            .iter()
            .map(|word| word.replace(from.as_ref(), &to))
            .collect();
        let network = words
            .iter_mut()
            .find(|word| word.starts_with("user,id="))
            .context("qemu's command line has no user network")?;
        network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{port}-:22"));
        Ok(words)
    }

    /// Runs a copy of the machine without banger. Returns the time until the SSH banner.
    fn boot_bare(&self, bench: &Bench<'_>) -> Result<Duration> {
        let copy = bench.scratch.join("bare");
        let _ = std::fs::remove_dir_all(&copy);
        std::fs::create_dir_all(&copy)
            .with_context(|| format!("can't create {}", copy.display()))?;
        // A new copy each time: a disk that was cut off is checked at the next boot.
        let entries = std::fs::read_dir(&self.directory)
            .with_context(|| format!("can't read {}", self.directory.display()))?;
        for entry in entries {
            let entry = entry.context("can't read the machine's directory")?;
            let metadata = entry.metadata().context("can't read a file's metadata")?;
            if metadata.is_file() && metadata.nlink() > 1 {
                // Shared with the image, so nobody writes to it.
                std::fs::hard_link(entry.path(), copy.join(entry.file_name()))
                    .with_context(|| format!("can't link {}", entry.path().display()))?;
            } else if metadata.is_file() {
                let mut cp = Command::new("cp");
                cp.args(["--sparse=always", "--reflink=auto", "--"])
                    .arg(entry.path())
                    .arg(&copy);
                bench.signals.run(&mut cp)?;
            }
        }
        let port = free_port()?;
        let words = self.command_line(&copy, port)?;
        let start = Instant::now();
        let qemu = Guarded::spawn(words, |command| {
            command
                .current_dir(&copy)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
        })?;
        let deadline = start + LIMIT;
        let mut attempts = Attempts::new(port);
        while !attempts.banner() {
            bench.signals.check()?;
            if !qemu.is_running() {
                bail!("qemu ended before the guest was up");
            }
            if Instant::now() > deadline {
                bail!("the guest showed no SSH banner within {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(start.elapsed())
    }
}

/// Connections to a guest that is not up yet. qemu accepts each at once, and passes it on when the
/// guest's network answers; those that came too early are tried again by its TCP with growing
/// pauses, so a new one is opened beside them from time to time.
struct Attempts {
    address: SocketAddr,
    open: Vec<TcpStream>,
    opened: Option<Instant>,
}

impl Attempts {
    const PAUSE: Duration = Duration::from_millis(200);
    const MOST: usize = 5;

    fn new(port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            open: Vec::new(),
            opened: None,
        }
    }

    /// Whether one of them has shown the banner.
    fn banner(&mut self) -> bool {
        if self.opened.is_none_or(|at| at.elapsed() >= Self::PAUSE) {
            if let Ok(stream) = TcpStream::connect_timeout(&self.address, Self::PAUSE) {
                if stream.set_nonblocking(true).is_ok() {
                    self.open.push(stream);
                }
                self.opened = Some(Instant::now());
            }
            if self.open.len() > Self::MOST {
                self.open.remove(0);
            }
        }
        let mut seen = false;
        self.open.retain_mut(|stream| {
            let mut buffer = [0; 4];
            match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(count) => {
                    seen |= b"SSH-".starts_with(buffer.get(..count).unwrap_or_default());
                    true
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_moved_elsewhere() {
        let machine = Machine {
            words: ["qemu", "-pidfile", "/h/vm1/pid", "-netdev", "user,id=net"]
                .map(str::to_owned)
                .to_vec(),
            directory: "/h/vm1".into(),
        };
        assert_eq!(
            machine.command_line(Path::new("/copy"), 7).expect("moved"),
            [
                "qemu",
                "-pidfile",
                "/copy/pid",
                "-netdev",
                "user,id=net,hostfwd=tcp:127.0.0.1:7-:22",
            ]
        );
    }
}
