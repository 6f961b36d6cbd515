//! From nothing to SSH: `vm start` beside the bare qemu command line with the same disks.

use super::figure::{Aim, Figure, fine, median, spread};
use super::loopback::free_port;
use super::{Bench, PREFIX};
use crate::demo::git;
use crate::process::{self, Guarded};
use crate::screen;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any boot.
const LIMIT: Duration = Duration::from_secs(180);

/// `vm start` and the qemu that it runs.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let name = format!("{PREFIX}vm");
    let repository = repository(bench)?;
    // Makes the image where there is none; the first boot also makes keys and file systems.
    bench
        .banger
        .run(&["vm", "run", &repository.to_string_lossy(), "--name", &name])?;
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

fn repository(bench: &Bench<'_>) -> Result<PathBuf> {
    let path = bench.scratch.join("repository");
    for arguments in [
        &["init", "--quiet"][..],
        &["commit", "--quiet", "--allow-empty", "-m", "Nothing"][..],
    ] {
        std::fs::create_dir_all(&path)
            .with_context(|| format!("can't create {}", path.display()))?;
        let mut command = git();
        command.current_dir(&path).args(arguments);
        bench.signals.run(&mut command)?;
    }
    Ok(path)
}

/// How banger runs its machine.
#[derive(Debug)]
struct Machine {
    /// The command line of its qemu.
    words: Vec<String>,
    /// The machine's directory.
    directory: PathBuf,
    /// The port of loopback that is the guest's port 22.
    port: u16,
}

impl Machine {
    /// Looks at the one machine that runs in a home.
    fn observe(home: &Path) -> Result<Self> {
        let running: Vec<(u32, Vec<String>)> = process::all()
            .into_iter()
            .filter(|(_, words)| {
                let home = home.to_string_lossy();
                words
                    .first()
                    .is_some_and(|word| word.contains("qemu-system"))
                    && words.iter().any(|word| word.contains(home.as_ref()))
            })
            .collect();
        let [(_, words)] = running.as_slice() else {
            bail!("{} qemu processes run, and not one", running.len());
        };
        Self::read(words.clone(), &home.join("state/vms"))
    }

    /// Finds the machine's directory and port in a command line.
    fn read(words: Vec<String>, machines: &Path) -> Result<Self> {
        let prefix = format!("{}/", machines.display());
        let directory = words
            .iter()
            .find_map(|word| {
                let (_, rest) = word.split_once(&prefix)?;
                let id = rest.split(['/', ',']).next()?;
                Some(machines.join(id))
            })
            .context("qemu's command line names no machine's directory")?;
        let port = words
            .iter()
            .find_map(|word| {
                let (_, rest) = word.split_once("hostfwd=tcp:127.0.0.1:")?;
                rest.split('-').next()?.parse().ok()
            })
            .context("qemu's command line forwards no port of loopback")?;
        Ok(Self {
            words,
            directory,
            port,
        })
    }

    /// The command line with another directory and port, in the foreground.
    fn command_line(&self, directory: &Path, port: u16) -> Vec<String> {
        let from = format!("{}", self.directory.display());
        let to = format!("{}", directory.display());
        let from_port = format!("127.0.0.1:{}-", self.port);
        let to_port = format!("127.0.0.1:{port}-");
        self.words
            .iter()
            .filter(|word| *word != "-daemonize")
            .map(|word| word.replace(&from, &to).replace(&from_port, &to_port))
            .collect()
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
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let mut cp = Command::new("cp");
                cp.args(["--sparse=always", "--reflink=auto", "--"])
                    .arg(entry.path())
                    .arg(&copy);
                bench.signals.run(&mut cp)?;
            }
        }
        let port = free_port()?;
        let words = self.command_line(&copy, port);
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
        let words = [
            "qemu-system-x86_64",
            "-daemonize",
            "-drive",
            "file=/h/state/vms/vm1/root.qcow2,if=virtio",
            "-kernel",
            "/h/data/images/base/vmlinuz",
            "-netdev",
            "user,id=n,hostfwd=tcp:127.0.0.1:40022-:22",
        ];
        let machine = Machine::read(
            words.iter().map(|word| (*word).to_owned()).collect(),
            Path::new("/h/state/vms"),
        )
        .expect("is read");
        assert_eq!(machine.directory, Path::new("/h/state/vms/vm1"));
        assert_eq!(
            machine.command_line(Path::new("/copy"), 7),
            [
                "qemu-system-x86_64",
                "-drive",
                "file=/copy/root.qcow2,if=virtio",
                "-kernel",
                "/h/data/images/base/vmlinuz",
                "-netdev",
                "user,id=n,hostfwd=tcp:127.0.0.1:7-:22",
            ]
        );
    }
}
