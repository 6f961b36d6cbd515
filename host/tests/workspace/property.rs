//! Random repositories: tree and index of the copy are the user's, in every mode, also the second and
//! third time. Other seeds: `BANGER_SEED`; more cases: `BANGER_CASES`.

use crate::world::{Options, World, assert_same, git, git_command, put, set_mode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names that something somewhere takes for something else.
const NAMES: &[&[u8]] = &[
    b"plain",
    b"two words",
    b"-dash",
    b"--",
    b"line\nfeed",
    b"\n",
    b"tab\t",
    b"quote'\"`",
    b"$(touch no)",
    b"*",
    b"[a]",
    b"back\\slash",
    b":(top)",
    b"!bang",
    b"#hash",
    b"trailing ",
    b" leading",
    b"~",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"CON",
    b"worktree",
    b"index",
    b"meta",
    b".gitignore2",
    b".banger-x",
    b"a=b",
    b"\x01\x7f",
];

struct Random(StdRng);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn path(&mut self) -> PathBuf {
        let mut path = PathBuf::new();
        for _ in 0..=self.below(3) {
            path.push(OsString::from_vec(NAMES[self.below(NAMES.len())].to_vec()));
        }
        path
    }

    fn content(&mut self) -> Vec<u8> {
        match self.below(6) {
            0 => Vec::new(),
            1 => (0..self.below(9000)).map(|_| self.0.random()).collect(),
            2 => b"one\r\ntwo\r\n".repeat(self.below(9)),
            3 => b"$Id$\n".to_vec(),
            _ => format!("{}\n", self.below(50))
                .repeat(self.below(40))
                .into_bytes(),
        }
    }

    /// Puts something at a path, whatever is in the way.
    fn write(&mut self, top: &Path) {
        let path = top.join(self.path());
        let mut at = top.to_owned();
        for part in path.strip_prefix(top).expect("below") {
            at.push(part);
            let metadata = fs::symlink_metadata(&at);
            if at != path && metadata.is_ok_and(|metadata| !metadata.is_dir()) {
                fs::remove_file(&at).expect("removed");
            }
        }
        clear(&path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        if self.one_in(6) {
            let target = OsString::from_vec(NAMES[self.below(NAMES.len())].to_vec());
            symlink(target, &path).expect("linked");
        } else {
            put(&path, self.content());
            if self.one_in(4) {
                set_mode(&path, 0o755);
            }
        }
    }

    fn any_file(&mut self, top: &Path) -> Option<PathBuf> {
        let files: Vec<PathBuf> = crate::world::tree(top).into_keys().collect();
        (!files.is_empty()).then(|| files[self.below(files.len())].clone())
    }

    /// One thing that a user may do.
    fn act(&mut self, top: &Path) {
        match self.below(12) {
            0..=4 => self.write(top),
            5 => {
                if let Some(file) = self.any_file(top) {
                    clear(&top.join(file));
                }
            }
            6 => {
                git(top, &["add", "-A"]);
            }
            7 | 8 => {
                if let Some(file) = self.any_file(top) {
                    let staged = git_command(top)
                        .args(["--literal-pathspecs", "add", "--"])
                        .arg(file)
                        .output();
                    drop(staged.expect("git runs"));
                }
            }
            9 => {
                if let Some(file) = self.any_file(top) {
                    let option = ["--cached", "--force"][self.below(2)];
                    let removed = git_command(top)
                        .args(["--literal-pathspecs", "rm", "-q", option, "--"])
                        .arg(file)
                        .output();
                    drop(removed.expect("git runs"));
                }
            }
            10 => {
                if let Some(file) = self.any_file(top) {
                    let announced = git_command(top)
                        .args(["--literal-pathspecs", "add", "-N", "--"])
                        .arg(file)
                        .output();
                    drop(announced.expect("git runs"));
                }
            }
            _ => {
                if let Some(file) = self.any_file(top) {
                    let path = top.join(file);
                    if !path.is_symlink() {
                        set_mode(&path, [0o644, 0o755][self.below(2)]);
                    }
                }
            }
        }
    }

    /// A commit of what is there, now and then a merge, with conflicts or without.
    fn commit(&mut self, top: &Path) {
        git(top, &["add", "-A"]);
        git(top, &["commit", "-q", "--allow-empty", "-m", "some"]);
        if self.one_in(3) {
            git(top, &["checkout", "-q", "-B", "side", "HEAD~0"]);
            self.write(top);
            git(top, &["add", "-A"]);
            git(top, &["commit", "-q", "--allow-empty", "-m", "side"]);
            git(top, &["checkout", "-q", "main"]);
            self.write(top);
            git(top, &["add", "-A"]);
            git(top, &["commit", "-q", "--allow-empty", "-m", "main"]);
            let merged = git_command(top).args(["merge", "-q", "side"]).output();
            if !merged.expect("git runs").status.success() && self.one_in(2) {
                git(top, &["add", "-A"]);
                git(top, &["commit", "-q", "--allow-empty", "-m", "merged"]);
            }
        }
    }
}

fn clear(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

/// Where attributes went, git takes files for unchanged that it would not if it looked: it has to look.
fn look_again(top: &Path) {
    for path in crate::world::tree(top).into_keys() {
        let path = top.join(path);
        if !path.is_symlink() {
            let file = fs::File::options().append(true).open(&path).expect("open");
            file.set_modified(std::time::UNIX_EPOCH).expect("set");
        }
    }
}

fn conflicted(top: &Path) -> bool {
    !git(top, &["ls-files", "--unmerged"]).is_empty()
}

fn case(seed: u64) {
    let mut random = Random(StdRng::seed_from_u64(seed));
    let world = World::with(&[
        "--object-format",
        ["sha1", "sha1", "sha256"][random.below(3)],
    ]);
    let user = world.user();
    if random.one_in(4) {
        put(
            user.join(".gitattributes"),
            "* text=auto\n*line* eol=crlf\ntwo* ident\n",
        );
    }
    for _ in 0..random.below(12) {
        random.write(&user);
    }
    random.commit(&user);
    let submodule = random.one_in(4).then(|| {
        let at = user.join("-sub");
        if !conflicted(&user) {
            fs::create_dir_all(&at).expect("made");
            let format = git(&user, &["rev-parse", "--show-object-format"]);
            git(
                &at,
                &["init", "-q", "-b", "main", "--object-format", &format],
            );
            random.write(&at);
            random.commit(&at);
            put(
                user.join(".gitmodules"),
                "[submodule \"s\"]\n\tpath = -sub\n\turl = ./s\n",
            );
            git(&user, &["add", "-A"]);
            git(&user, &["commit", "-qm", "with a submodule"]);
        }
        at
    });
    let submodule = submodule.filter(|at| at.join(".git").exists());
    let options = match random.below(3) {
        0 => Options::full(),
        1 => Options {
            depth: Some(1),
            ..Options::shallow()
        },
        _ => Options::shallow(),
    };
    for round in 0..3 {
        for _ in 0..random.below(10) {
            random.act(&user);
        }
        if let Some(submodule) = &submodule {
            random.act(submodule);
        }
        if round == 2 && !conflicted(&user) {
            random.commit(&user);
            random.act(&user);
        }
        if !user.join(".gitattributes").exists() {
            look_again(&user);
        }
        world.prepare(&options).ok();
        assert_same(&user, &world.copy());
        if let Some(submodule) = &submodule {
            let name = submodule.strip_prefix(&user).expect("below");
            assert_same(submodule, &world.copy().join(name));
        }
    }
}

#[test]
fn any_repository_goes_in_exactly() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let cases = number("BANGER_CASES").unwrap_or(70);
    let first = number("BANGER_SEED").unwrap_or(0);
    let next = std::sync::atomic::AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= first + cases {
                        break;
                    }
                    if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
                        eprintln!("BANGER_SEED={seed} BANGER_CASES=1 shows it");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
