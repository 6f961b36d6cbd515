//! Makes work disks.

use banger_core::GuestPath;
use banger_host::machine::work_disk::{WorkDisk, WorkDiskError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where the guest has the disk.
pub const MOUNT_POINT: &str = "/root";

/// A directory tree, and the image that is made of it.
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("tree")).expect("made");
        Self { dir }
    }

    /// A path of the tree, whose parent exists.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.dir.path().join("tree").join(name);
        std::fs::create_dir_all(path.parent().expect("not the root")).expect("made");
        path
    }

    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("written");
    }

    pub fn image(&self) -> PathBuf {
        self.dir.path().join("work.ext4")
    }

    /// Makes the image as `machine/qemu.rs` does.
    pub fn make(&self, mib: u64) -> PathBuf {
        let image = self.image();
        let file = std::fs::File::create(&image).expect("created");
        file.set_len(mib << 20).expect("sized");
        run(program("mkfs.ext4")
            .args(["-q", "-F", "-L", "banger-work", "-m", "0"])
            .args([
                "-E",
                "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            ])
            .arg("-d")
            .arg(self.dir.path().join("tree"))
            .arg(&image));
        image
    }

    pub async fn open(&self) -> Result<WorkDisk, WorkDiskError> {
        WorkDisk::open(&self.image(), guest(MOUNT_POINT)).await
    }

    /// Lets debugfs do something with the image, and returns what it says.
    pub fn debugfs(&self, commands: &str) -> String {
        let mut child = program("debugfs")
            .args(["-w", "-f", "-"])
            .arg(self.image())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("debugfs starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(commands.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("ended");
        String::from_utf8(output.stdout).expect("text")
    }
}

pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", banger_host::machine::tool::search_path());
    command
}

pub fn run(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn guest(path: &str) -> GuestPath {
    path.parse().expect("a path")
}

/// Numbers that look random, the same each time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next() as u8)
            .take(length)
            .collect()
    }
}
