//! A user's repository and a guest's copy of it.

use banger_core::protocol::workspace::Untracked;
use banger_core::{Failure, Script};
use banger_host::plugin::{Existing, ReceiveRequest, Registry, embedded};
use banger_host::repository::{References, Repository, Scan, ScanOptions, Snapshot};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::load(embedded(), None, None).expect("the engine starts"));

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// git with nothing of whoever runs the tests.
pub fn git_command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
        .args(["-c", "protocol.file.allow=always", "-c", "gc.auto=0"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000");
    command
}

#[track_caller]
pub fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = git_command(dir).args(arguments).output().expect("git runs");
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

pub fn put(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

pub fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[derive(Clone, Default)]
pub struct Options {
    pub scan: ScanOptions,
    pub depth: Option<u32>,
    pub branch: Option<String>,
    pub force: bool,
    pub exported: Option<String>,
}

impl Options {
    pub fn shallow() -> Self {
        Self {
            depth: Some(50),
            ..Self::default()
        }
    }

    pub fn full() -> Self {
        Self {
            scan: ScanOptions {
                references: References::All,
                ..ScanOptions::default()
            },
            ..Self::default()
        }
    }

    pub fn force(self) -> Self {
        Self {
            force: true,
            ..self
        }
    }

    pub fn tracked_only(mut self) -> Self {
        self.scan.untracked = Untracked::Exclude;
        self
    }
}

/// What became of it.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stderr: String,
    pub bytes: u64,
    pub scan: Scan,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.code, 3, "{}", self.stderr);
        self.stderr
            .trim_end()
            .lines()
            .next_back()
            .unwrap_or_default()
            .to_owned()
    }
}

pub struct World {
    pub root: tempfile::TempDir,
}

impl World {
    /// An empty repository.
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(init: &[&str]) -> Self {
        let root = tempfile::Builder::new()
            .prefix("w 'odd':\"$(x)\\")
            .tempdir()
            .expect("made");
        let mut world = Self { root };
        // To look at what went wrong.
        world
            .root
            .disable_cleanup(std::env::var_os("BANGER_KEEP").is_some());
        fs::create_dir(world.user()).expect("made");
        git(
            &world.user(),
            &[&["init", "-q", "-b", "main"], init].concat(),
        );
        world
    }

    pub fn committed(files: &[(&str, &str)]) -> Self {
        let world = Self::new();
        for (name, content) in files {
            put(world.user().join(name), content);
        }
        world.commit("first");
        world
    }

    pub fn commit(&self, message: &str) {
        git(&self.user(), &["add", "-A"]);
        git(
            &self.user(),
            &["commit", "-q", "--allow-empty", "-m", message],
        );
    }

    pub fn user(&self) -> PathBuf {
        self.root.path().join("user")
    }

    pub fn copy(&self) -> PathBuf {
        self.root.path().join("copy of it\n")
    }

    /// The host's half: the snapshot.
    pub fn snapshot(&self, user: &Path, options: &Options) -> Result<(Scan, Snapshot), Failure> {
        let repository = RUNTIME.block_on(Repository::find(user))?;
        let scan = RUNTIME.block_on(repository.scan(&options.scan))?;
        let kept = self.root.path().join("kept/one");
        let snapshot = Snapshot::make(&scan, &kept, &AtomicBool::new(false))?;
        Ok((scan, snapshot))
    }

    /// The guest's script for it.
    pub fn script(&self, user: &Path, snapshot: &Snapshot, options: &Options) -> Script {
        REGISTRY
            .workspace("git")
            .expect("embedded")
            .receive(&ReceiveRequest {
                path: self
                    .copy()
                    .into_os_string()
                    .into_vec()
                    .try_into()
                    .expect("a path"),
                snapshot: snapshot.id.clone(),
                object_format: if snapshot.id.len() == 40 {
                    "sha1"
                } else {
                    "sha256"
                }
                .into(),
                depth: options.depth,
                branch: options.branch.clone(),
                origin: format!("{:?} {}", options.depth, user.display()).replace('\n', " "),
                existing: if options.force {
                    Existing::Overwrite
                } else {
                    Existing::Keep
                },
                exported: options.exported.clone(),
            })
            .expect("a script")
    }

    pub fn try_prepare_from(&self, user: &Path, options: &Options) -> Result<Done, Failure> {
        let (scan, snapshot) = self.snapshot(user, options)?;
        let script = self.script(user, &snapshot, options);
        let (mut guest, mut served) = start(&script, &snapshot);
        let bytes = join(&mut guest, &mut served, u64::MAX);
        let mut stderr = String::new();
        drop(
            guest
                .stderr
                .take()
                .expect("a pipe")
                .read_to_string(&mut stderr),
        );
        let code = guest.wait().expect("ends").code().unwrap_or(-1);
        let _ = served.wait();
        if code == 0 {
            snapshot.keep(&self.root.path().join("kept/one"))?;
        }
        Ok(Done {
            code,
            stderr,
            bytes,
            scan,
        })
    }

    pub fn try_prepare(&self, options: &Options) -> Result<Done, Failure> {
        self.try_prepare_from(&self.user(), options)
    }

    #[track_caller]
    pub fn prepare(&self, options: &Options) -> Done {
        self.try_prepare(options).expect("the repository is read")
    }

    #[track_caller]
    pub fn assert_same(&self) {
        assert_same(&self.user(), &self.copy());
    }
}

/// Both ends, not yet joined.
pub fn start(script: &Script, snapshot: &Snapshot) -> (std::process::Child, std::process::Child) {
    let guest = Command::new("bash")
        .arg("-c")
        .arg(OsStr::from_bytes(script.body.as_ref()))
        .arg("banger")
        .args(
            script
                .args
                .iter()
                .map(|arg| OsString::from_vec(arg.clone())),
        )
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash runs");
    let served = RUNTIME.block_on(async { snapshot.upload_pack().into_std() });
    let mut served = served;
    let served = served
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git runs");
    (guest, served)
}

/// Carries bytes between them, at most so many upward; how many it were.
pub fn join(guest: &mut std::process::Child, served: &mut std::process::Child, limit: u64) -> u64 {
    let mut down = guest.stdout.take().expect("a pipe");
    let mut to_server = served.stdin.take().expect("a pipe");
    let downward = std::thread::spawn(move || drop(std::io::copy(&mut down, &mut to_server)));
    let mut up = served.stdout.take().expect("a pipe");
    let mut to_guest = guest.stdin.take().expect("a pipe");
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    while count < limit {
        let room = usize::try_from(limit - count)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Ok(read) = up.read(&mut buffer[..room]) else {
            break;
        };
        if read == 0 || to_guest.write_all(&buffer[..read]).is_err() {
            break;
        }
        count += read as u64;
    }
    drop(to_guest);
    drop(up);
    if limit == u64::MAX {
        downward.join().expect("ends");
    }
    count
}

/// Files as they lie there, without git's own: path, kind, content.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (char, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.file_name() == Some(OsStr::new(".git")) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).expect("there");
            let relative = path.strip_prefix(root).expect("below").to_owned();
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                found.insert(relative, ('l', target.into_os_string().into_vec()));
            } else {
                let kind = if metadata.permissions().mode() & 0o100 != 0 {
                    'x'
                } else {
                    'f'
                };
                found.insert(relative, (kind, fs::read(&path).expect("readable")));
            }
        }
    }
    found
}

/// What git says of a working copy: index with all its flags, state, head.
pub fn seen(root: &Path) -> [String; 5] {
    let git = |arguments: &[&str]| git(root, arguments);
    [
        git(&["ls-files", "-v", "--stage"]),
        git(&[
            "status",
            "--porcelain=v2",
            "--untracked-files=all",
            "--ignore-submodules=none",
        ]),
        git(&["rev-parse", "HEAD", "--abbrev-ref", "HEAD"]),
        git(&["diff", "--cached", "--raw", "--abbrev=40", "--no-renames"]),
        git(&["diff", "--raw", "--abbrev=40", "--no-renames"]),
    ]
}

/// The guest's tree and index are the host's.
#[track_caller]
pub fn assert_same(user: &Path, copy: &Path) {
    let (wanted, got) = (tree(user), tree(copy));
    let differing: Vec<_> = wanted
        .iter()
        .filter(|(path, what)| got.get(*path) != Some(*what))
        .map(|(path, _)| path)
        .chain(got.keys().filter(|path| !wanted.contains_key(*path)))
        .collect();
    assert!(differing.is_empty(), "files differ: {differing:?}");
    for (wanted, got) in seen(user).into_iter().zip(seen(copy)) {
        assert_eq!(got, wanted, "what git says (left: the copy)");
    }
}
