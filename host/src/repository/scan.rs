//! What a repository holds at one moment: how its working tree and its index differ from its head,
//! and the same of its submodules.

use super::Repository;
use crate::repository::snapshot::SnapshotError;
use banger_core::protocol::workspace::Untracked;
use banger_core::{Failure, Kind, escape};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;

/// Submodules in submodules.
const NESTING_LIMIT: usize = 16;
/// A pointer of Git LFS is shorter than this.
const POINTER_LIMIT: u64 = 1024;

/// An empty file, in either object format.
const EMPTY_BLOBS: [&[u8]; 2] = [
    b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    b"473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// What of a working tree is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Files that git does not know.
    pub untracked: Untracked,
    /// Globs of ignored files that are wanted all the same.
    pub include_ignored: Vec<String>,
    /// Whether all references are wanted.
    pub references: References,
}

/// Which references are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum References {
    /// None: the head is enough.
    #[default]
    None,
    /// All.
    All,
}

/// A path that differs from the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It is not there.
    Remove,
    /// What lies in the working tree.
    Read,
    /// An object that git has.
    Object {
        /// As git writes it: 100644, 100755, 120000 or 160000.
        mode: String,
        /// Its id.
        id: String,
    },
}

/// An entry of an index in conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// As git writes it.
    pub mode: String,
    /// The blob.
    pub id: String,
    /// 1 base, 2 ours, 3 theirs.
    pub stage: u8,
    /// Relative to the top.
    pub path: Vec<u8>,
}

/// A repository, or a submodule of it.
#[derive(Debug, Clone)]
pub struct Part {
    /// Below the outermost top; empty for that itself.
    pub path: Vec<u8>,
    /// Its name among the snapshot's references.
    pub key: String,
    /// Where it is.
    pub repository: Repository,
    /// The commit that is checked out.
    pub head: String,
    /// That commit's tree.
    pub tree: String,
    /// The branch; `None` where HEAD is detached.
    pub branch: Option<String>,
    /// How the working tree differs from the head.
    pub worktree: BTreeMap<Vec<u8>, Edit>,
    /// How the index differs from the head.
    pub index: BTreeMap<Vec<u8>, Edit>,
    /// Entries in conflict.
    pub conflicts: Vec<Conflict>,
    /// Entries that were only announced.
    pub intent_to_add: Vec<Vec<u8>>,
    /// Entries that git keeps out of the working tree.
    pub skip_worktree: Vec<Vec<u8>>,
    /// Entries that git does not look at.
    pub assume_unchanged: Vec<Vec<u8>>,
    /// Configuration that a copy must share.
    pub settings: Vec<(&'static str, Vec<u8>)>,
    /// Patterns of a sparse checkout.
    pub sparse_checkout: Option<Vec<u8>>,
    /// References and what they point to.
    pub references: Vec<(String, Vec<u8>)>,
    /// Modified and untracked files.
    pub changed: u64,
    /// Files that the head has and the working tree has not.
    pub deleted: u64,
    /// Staged paths.
    pub staged: u64,
}

/// A repository with its submodules at one moment.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The repository itself, then submodules, outer ones before inner.
    pub parts: Vec<Part>,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Whether the git of a copy may take its files for another tree than the one of their bytes:
    /// line ends and the like are converted, or entries are not looked at.
    pub is_converted: bool,
}

/// One entry of the index.
struct Entry<'a> {
    tag: u8,
    mode: &'a [u8],
    id: &'a [u8],
    path: &'a [u8],
}

impl Repository {
    /// The commit that is checked out.
    ///
    /// # Errors
    /// A repository without one.
    pub async fn head(&self) -> Result<String, Failure> {
        let head = self
            .git_line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .await
            .map_err(|_| self.no_commit())?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    fn no_commit(&self) -> Failure {
        Failure::new(
            Kind::Invalid,
            format!("the repository at `{}` has no commit yet", self.shown()),
        )
        .hint("make a first commit, then try again")
    }

    /// Whether a new branch of this name can be begun.
    ///
    /// # Errors
    /// A name that git does not allow.
    pub async fn check_branch(&self, name: &str) -> Result<(), Failure> {
        let shown = escape::text(name.as_bytes());
        let full = format!("refs/heads/{name}");
        if name.starts_with('-') || self.git(&["check-ref-format", &full]).await.is_err() {
            return Err(
                Failure::new(Kind::Invalid, format!("`{shown}` can't be a branch"))
                    .hint("--branch takes a name such as `agent/fix`"),
            );
        }
        if self
            .git(&["rev-parse", "--verify", "--quiet", &full])
            .await
            .is_ok()
        {
            return Err(Failure::new(
                Kind::Invalid,
                format!("there is a branch `{shown}` in {} already", self.shown()),
            )
            .hint("--branch starts a new one; choose another name"));
        }
        Ok(())
    }

    /// Reads what is there now, with submodules.
    ///
    /// # Errors
    /// [`SnapshotError::Changed`] where it changed meanwhile; else why it can't be read.
    pub async fn scan(&self, options: &ScanOptions) -> Result<Scan, SnapshotError> {
        let object_format = self
            .git_line(&["rev-parse", "--show-object-format"])
            .await?;
        let mut scan = Scan {
            parts: Vec::new(),
            object_format: String::from_utf8_lossy(&object_format).into_owned(),
            notes: Vec::new(),
            is_converted: false,
        };
        self.scan_into(&mut scan, Vec::new(), options, 0).await?;
        Ok(scan)
    }

    async fn scan_into(
        &self,
        scan: &mut Scan,
        path: Vec<u8>,
        options: &ScanOptions,
        nesting: usize,
    ) -> Result<(), SnapshotError> {
        if nesting > NESTING_LIMIT {
            return Err(Failure::new(
                Kind::Invalid,
                format!("submodules are nested too deep at `{}`", self.shown()),
            )
            .into());
        }
        let before = self.index_stamp();
        let untracked = match options.untracked {
            Untracked::Include => "--untracked-files=all",
            Untracked::Exclude => "--untracked-files=no",
        };
        let status_arguments = [
            "status",
            "--porcelain=v2",
            "-z",
            "--branch",
            "--no-renames",
            untracked,
            // Submodules are looked at one by one.
            "--ignore-submodules=dirty",
        ];
        let references = async {
            match options.references {
                References::None => Ok(Vec::new()),
                References::All => {
                    self.git(&["for-each-ref", "--format=%(objectname) %(refname)"])
                        .await
                }
            }
        };
        let branch = async {
            Ok(self
                .git_line(&["symbolic-ref", "--quiet", "HEAD"])
                .await
                .unwrap_or_default())
        };
        let (status, listing, branch, references) = tokio::try_join!(
            self.git(&status_arguments),
            self.git(&["ls-files", "-z", "--stage", "-v"]),
            branch,
            references,
        )?;
        let key = if path.is_empty() {
            "top".to_owned()
        } else {
            data_encoding::HEXLOWER.encode(&Sha256::digest(&path)[..8])
        };
        let mut part = Part {
            path: path.clone(),
            key,
            repository: self.clone(),
            head: String::new(),
            tree: String::new(),
            branch: branch
                .strip_prefix(b"refs/heads/")
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            worktree: BTreeMap::new(),
            index: BTreeMap::new(),
            conflicts: Vec::new(),
            intent_to_add: Vec::new(),
            skip_worktree: Vec::new(),
            assume_unchanged: Vec::new(),
            settings: self.settings(),
            sparse_checkout: self.sparse_checkout(),
            references: parse_references(&references),
            changed: 0,
            deleted: 0,
            staged: 0,
        };
        part.read_status(&status, &mut scan.notes)?;
        if part.head.is_empty() {
            return Err(self.no_commit().into());
        }
        let tree = format!("{}^{{tree}}", part.head);
        part.tree =
            String::from_utf8_lossy(&self.git_line(&["rev-parse", "--verify", &tree]).await?)
                .into_owned();

        let entries: Vec<Entry<'_>> = listing
            .split(|b| *b == 0)
            .filter(|line| !line.is_empty())
            .map(|line| parse_entry(line).ok_or_else(|| unreadable("ls-files", line)))
            .collect::<Result<_, _>>()?;
        part.read_flags(&entries);
        self.find_announced(&mut part, &entries).await?;
        self.add_ignored(&mut part, options, &mut scan.notes)
            .await?;
        let differing = part.worktree.len();
        self.find_converted(&mut part, &entries, &mut scan.notes)
            .await?;
        let has_attributes = || {
            self.common_dir.join("info/attributes").exists()
                || entries
                    .iter()
                    .any(|entry| entry.path.ends_with(b".gitattributes"))
                || part
                    .worktree
                    .keys()
                    .any(|path| path.ends_with(b".gitattributes"))
        };
        scan.is_converted |= part.worktree.len() != differing
            || !part.skip_worktree.is_empty()
            || !part.assume_unchanged.is_empty()
            || !part.worktree.is_empty()
                && (self.setting("core.autocrlf").is_some()
                    || self.setting("core.eol").is_some()
                    || has_attributes());
        if self.git_dir.join("MERGE_HEAD").exists() {
            scan.notes.push(
                "a merge is under way: its files and conflicts come along, that it is one does not"
                    .into(),
            );
        }

        let at = scan.parts.len();
        let submodules: Vec<Vec<u8>> = entries
            .iter()
            .filter(|entry| entry.mode == b"160000")
            .map(|entry| entry.path.to_vec())
            .collect();
        scan.parts.push(part);
        for name in submodules {
            let directory = self.top.join(OsStr::from_bytes(&name));
            if std::fs::symlink_metadata(directory.join(".git")).is_err() {
                continue;
            }
            let submodule = Self::find(&directory).await?;
            if submodule.top != directory {
                return Err(Failure::new(
                    Kind::Invalid,
                    format!(
                        "the submodule `{}` can't be read: its repository is {}",
                        escape::text(&name),
                        submodule.shown()
                    ),
                )
                .into());
            }
            let below = if path.is_empty() {
                name.clone()
            } else {
                [path.as_slice(), b"/", &name].concat()
            };
            let own = ScanOptions {
                include_ignored: Vec::new(),
                ..options.clone()
            };
            let child = scan.parts.len();
            Box::pin(submodule.scan_into(scan, below, &own, nesting + 1)).await?;
            let id = scan.parts[child].head.clone();
            let mode = "160000".to_owned();
            scan.parts[at]
                .worktree
                .insert(name, Edit::Object { mode, id });
        }
        if self.index_stamp() != before {
            return Err(SnapshotError::Changed(
                [path.as_slice(), b" (the index)"].concat(),
            ));
        }
        Ok(())
    }

    /// Tells whether the index was written meanwhile.
    fn index_stamp(&self) -> Option<(u64, i64, i64, u64)> {
        let metadata = std::fs::metadata(self.git_dir.join("index")).ok()?;
        Some((
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
        ))
    }

    /// Configuration without which git would see the copy with other eyes.
    fn settings(&self) -> Vec<(&'static str, Vec<u8>)> {
        [
            ("user.name", "user.name"),
            ("user.email", "user.email"),
            ("core.autocrlf", "core.autocrlf"),
            ("core.eol", "core.eol"),
            ("core.sparsecheckout", "core.sparseCheckout"),
            ("core.sparsecheckoutcone", "core.sparseCheckoutCone"),
        ]
        .into_iter()
        .filter_map(|(key, name)| Some((name, self.setting(key)?.to_vec())))
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }

    fn sparse_checkout(&self) -> Option<Vec<u8>> {
        let on = self.setting("core.sparsecheckout")?;
        on.eq_ignore_ascii_case(b"true")
            .then(|| std::fs::read(self.git_dir.join("info/sparse-checkout")).ok())?
    }

    /// Whether git has to fetch objects when they are wanted.
    pub fn is_partial(&self) -> bool {
        self.config.iter().any(|(key, _)| {
            key == b"extensions.partialclone"
                || (key.starts_with(b"remote.") && key.ends_with(b".promisor"))
        })
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.common_dir.join("objects")
    }

    /// The commits at which a shallow clone ends.
    pub(super) fn shallow(&self) -> Vec<u8> {
        std::fs::read(self.common_dir.join("shallow")).unwrap_or_default()
    }

    /// Finds announced entries whose files are gone: of these git status says that the head has an
    /// empty file, or only that they are staged as deleted.
    async fn find_announced(&self, part: &mut Part, entries: &[Entry<'_>]) -> Result<(), Failure> {
        let conflicted: HashSet<&[u8]> = part
            .conflicts
            .iter()
            .map(|one| one.path.as_slice())
            .collect();
        let mut found = Vec::new();
        let mut suspects = Vec::new();
        for entry in entries {
            let empty = EMPTY_BLOBS.contains(&entry.id);
            match part.index.get(entry.path) {
                Some(Edit::Remove) if empty && !conflicted.contains(entry.path) => {
                    found.push(entry.path.to_vec());
                }
                None if empty && part.worktree.get(entry.path) == Some(&Edit::Remove) => {
                    suspects.push(entry.path);
                }
                _ => {}
            }
        }
        if !suspects.is_empty() {
            let names = self
                .git(&[
                    "ls-tree",
                    "-r",
                    "-z",
                    "--name-only",
                    "--full-tree",
                    &part.head,
                ])
                .await?;
            let known: HashSet<&[u8]> = names.split(|b| *b == 0).collect();
            suspects.retain(|path| !known.contains(path));
            found.extend(suspects.into_iter().map(<[u8]>::to_vec));
        }
        drop(conflicted);
        part.intent_to_add.extend(found);
        part.intent_to_add.sort();
        part.intent_to_add.dedup();
        Ok(())
    }

    async fn add_ignored(
        &self,
        part: &mut Part,
        options: &ScanOptions,
        notes: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for glob in &options.include_ignored {
            let pattern = format!(":(top,glob){glob}");
            let found = self
                .git(&[
                    "ls-files",
                    "-z",
                    "--others",
                    "--ignored",
                    "--exclude-standard",
                    "--",
                    &pattern,
                ])
                .await
                .map_err(|failure| {
                    failure.hint("--include-ignored takes a glob such as `.env` or `**/*.local`")
                })?;
            let mut none = true;
            for path in found.split(|b| *b == 0).filter(|path| !path.is_empty()) {
                if path.ends_with(b"/") {
                    continue;
                }
                none = false;
                if part.worktree.insert(path.to_vec(), Edit::Read).is_none() {
                    part.changed += 1;
                }
            }
            if none {
                notes.push(format!(
                    "no ignored file matches `{}`",
                    escape::text(glob.as_bytes())
                ));
            }
        }
        Ok(())
    }

    /// Finds files that git takes for unchanged and that hold other bytes than git stores: line
    /// ends, keywords, encodings. What a filter made stays as git stores it, since filters don't
    /// run in the guest.
    async fn find_converted(
        &self,
        part: &mut Part,
        entries: &[Entry<'_>],
        notes: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let regular: Vec<&Entry<'_>> = entries
            .iter()
            .filter(|entry| entry.tag == b'H' && entry.mode.starts_with(b"100"))
            .collect();
        let (clean, dirty): (Vec<&Entry<'_>>, Vec<&Entry<'_>>) =
            regular.into_iter().partition(|entry| {
                !matches!(
                    part.worktree.get(entry.path),
                    Some(Edit::Read | Edit::Remove)
                )
            });
        let sizes = self.sizes(&clean).await?;
        let mut odd: Vec<&Entry<'_>> = Vec::new();
        for (entry, size) in clean.iter().zip(sizes) {
            let file = self.top.join(OsStr::from_bytes(entry.path));
            let on_disk = std::fs::symlink_metadata(file).map(|metadata| metadata.len());
            if let (Some(size), Ok(on_disk)) = (size, on_disk)
                && size != on_disk
            {
                odd.push(entry);
            }
        }
        let filters = self
            .filters_of(odd.iter().chain(&dirty).map(|entry| entry.path))
            .await?;
        let mut filtered = BTreeMap::<&[u8], u64>::new();
        for (entry, filter) in odd.iter().zip(&filters) {
            match filter {
                Some(filter) => *filtered.entry(filter).or_default() += 1,
                None => {
                    part.worktree.insert(entry.path.to_vec(), Edit::Read);
                }
            }
        }
        for (entry, filter) in dirty.iter().zip(filters.iter().skip(odd.len())) {
            if filter.as_deref() == Some(b"lfs")
                && part.worktree.get(entry.path) == Some(&Edit::Read)
                && self.is_stored_by_lfs(entry).await?
            {
                *filtered.entry(b"lfs").or_default() += 1;
                part.changed = part.changed.saturating_sub(1);
                part.worktree.insert(
                    entry.path.to_vec(),
                    Edit::Object {
                        mode: String::from_utf8_lossy(entry.mode).into_owned(),
                        id: String::from_utf8_lossy(entry.id).into_owned(),
                    },
                );
            }
        }
        for (filter, count) in filtered {
            notes.push(format!(
                "{count} file(s) behind the filter `{}` arrive as git stores them, such as LFS pointers: no filter is run",
                escape::text(filter)
            ));
        }
        Ok(())
    }

    /// The sizes of blobs; `None` for one that git does not have.
    async fn sizes(&self, entries: &[&Entry<'_>]) -> Result<Vec<Option<u64>>, Failure> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::with_capacity(entries.len() * 41);
        for entry in entries {
            ids.extend_from_slice(entry.id);
            ids.push(b'\n');
        }
        let output = self
            .git_with(
                &["cat-file", "--batch-check=%(objectsize)", "--buffer"],
                ids,
            )
            .await?;
        let sizes: Vec<Option<u64>> = output
            .split(|b| *b == b'\n')
            .take(entries.len())
            .map(|line| std::str::from_utf8(line).ok()?.parse().ok())
            .collect();
        if sizes.len() == entries.len() {
            Ok(sizes)
        } else {
            Err(unreadable("cat-file", &output))
        }
    }

    /// The filter that each path's attributes name.
    async fn filters_of(
        &self,
        paths: impl Iterator<Item = &[u8]>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let names: Vec<u8> = paths.flat_map(|path| [path, b"\0"].concat()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let output = self
            .git_with(&["check-attr", "-z", "--stdin", "filter"], names)
            .await?;
        let fields: Vec<&[u8]> = output.split(|b| *b == 0).collect();
        Ok(fields
            .chunks_exact(3)
            .map(|triple| match triple[2] {
                b"unspecified" | b"unset" | b"set" => None,
                name => Some(name.to_vec()),
            })
            .collect())
    }

    /// Whether a file that git takes for changed is the very one that its LFS pointer speaks of.
    async fn is_stored_by_lfs(&self, entry: &Entry<'_>) -> Result<bool, Failure> {
        if self.sizes(&[entry]).await?.first().copied().flatten() > Some(POINTER_LIMIT) {
            return Ok(false);
        }
        let id = String::from_utf8_lossy(entry.id).into_owned();
        let pointer = self.git(&["cat-file", "blob", &id]).await?;
        let Some(wanted) = pointer
            .split(|b| *b == b'\n')
            .find_map(|line| line.strip_prefix(b"oid sha256:"))
        else {
            return Ok(false);
        };
        let file = self.top.join(OsString::from_vec(entry.path.to_vec()));
        if !std::fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(false);
        }
        Ok(digest(&file)
            .await
            .is_ok_and(|digest| digest.as_bytes() == wanted))
    }
}

async fn digest(file: &Path) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(file).await?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok(data_encoding::HEXLOWER.encode(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn unreadable(command: &str, what: &[u8]) -> Failure {
    Failure::new(
        Kind::Internal,
        format!("git {command} printed what banger can't read"),
    )
    .detail(&what[..what.len().min(1000)])
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn parse_entry(line: &[u8]) -> Option<Entry<'_>> {
    let tab = line.iter().position(|b| *b == b'\t')?;
    let mut fields = line[..tab].split(|b| *b == b' ');
    Some(Entry {
        tag: *fields.next()?.first()?,
        mode: fields.next()?,
        id: fields.next()?,
        path: &line[tab + 1..],
    })
}

fn parse_references(output: &[u8]) -> Vec<(String, Vec<u8>)> {
    output
        .split(|b| *b == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|b| *b == b' ')?;
            let name = line[at + 1..].strip_prefix(b"refs/")?;
            // Ours, where the repository is a working copy itself.
            (!name.starts_with(b"banger/")).then(|| (text(&line[..at]), name.to_vec()))
        })
        .collect()
}

impl Part {
    /// Reads `git status --porcelain=v2 -z --branch --no-renames`.
    fn read_status(&mut self, output: &[u8], notes: &mut Vec<String>) -> Result<(), Failure> {
        for line in output.split(|b| *b == 0).filter(|line| !line.is_empty()) {
            let malformed = || unreadable("status", line);
            match line.first() {
                Some(b'#') => {
                    if let Some(head) = line.strip_prefix(b"# branch.oid ")
                        && head != b"(initial)"
                    {
                        self.head = text(head);
                    }
                }
                Some(b'?') => {
                    let path = line.strip_prefix(b"? ").ok_or_else(malformed)?;
                    if let Some(nested) = path.strip_suffix(b"/") {
                        notes.push(format!(
                            "`{}` is a repository of its own and no submodule: it does not come along; \
                             prepare it by itself, with --guest-path",
                            escape::text(nested)
                        ));
                    } else {
                        self.changed += 1;
                        let before = self.worktree.insert(path.to_vec(), Edit::Read);
                        // Staged as deleted, and there all the same.
                        if before == Some(Edit::Remove) {
                            self.deleted -= 1;
                        }
                    }
                }
                Some(b'1') => {
                    let fields: Vec<&[u8]> = line.splitn(9, |b| *b == b' ').collect();
                    let [_, states, _, in_head, in_index, in_worktree, _, id, path] = fields[..]
                    else {
                        return Err(malformed());
                    };
                    let [staged, unstaged] = *states else {
                        return Err(malformed());
                    };
                    if unstaged == b'A' || (staged == b'.' && in_head == b"000000") {
                        self.intent_to_add.push(path.to_vec());
                    }
                    self.changed_entry(staged, unstaged, in_index, in_worktree, id, path);
                }
                Some(b'u') => {
                    let fields: Vec<&[u8]> = line.splitn(11, |b| *b == b' ').collect();
                    let [_, _, _, m1, m2, m3, in_worktree, h1, h2, h3, path] = fields[..] else {
                        return Err(malformed());
                    };
                    self.staged += 1;
                    self.index.insert(path.to_vec(), Edit::Remove);
                    for (stage, mode, id) in [(1, m1, h1), (2, m2, h2), (3, m3, h3)] {
                        if mode != b"000000" {
                            self.conflicts.push(Conflict {
                                mode: text(mode),
                                id: text(id),
                                stage,
                                path: path.to_vec(),
                            });
                        }
                    }
                    self.in_worktree(in_worktree, path, Edit::Read);
                }
                _ => return Err(malformed()),
            }
        }
        Ok(())
    }

    fn changed_entry(
        &mut self,
        staged: u8,
        unstaged: u8,
        in_index: &[u8],
        in_worktree: &[u8],
        id: &[u8],
        path: &[u8],
    ) {
        let indexed = Edit::Object {
            mode: text(in_index),
            id: text(id),
        };
        if staged != b'.' {
            self.staged += 1;
            let edit = if in_index == b"000000" {
                Edit::Remove
            } else {
                indexed.clone()
            };
            self.index.insert(path.to_vec(), edit);
        }
        let gitlink = in_worktree == b"160000";
        let edit = if unstaged == b'.' || gitlink {
            indexed
        } else {
            Edit::Read
        };
        self.in_worktree(in_worktree, path, edit);
    }

    fn in_worktree(&mut self, mode: &[u8], path: &[u8], edit: Edit) {
        if mode == b"000000" {
            self.deleted += 1;
            self.worktree.insert(path.to_vec(), Edit::Remove);
        } else {
            self.changed += 1;
            self.worktree.insert(path.to_vec(), edit);
        }
    }

    /// Entries at whose files git does not look.
    fn read_flags(&mut self, entries: &[Entry<'_>]) {
        for entry in entries {
            let skipped = entry.tag.eq_ignore_ascii_case(&b'S');
            let assumed = entry.tag.is_ascii_lowercase();
            if skipped {
                self.skip_worktree.push(entry.path.to_vec());
            }
            if assumed {
                self.assume_unchanged.push(entry.path.to_vec());
            }
            if (skipped || assumed) && entry.mode != b"160000" {
                let file = self
                    .repository
                    .top
                    .join(OsString::from_vec(entry.path.to_vec()));
                let edit = match std::fs::symlink_metadata(file) {
                    Ok(metadata) if !metadata.is_dir() => Edit::Read,
                    _ => Edit::Remove,
                };
                self.worktree.insert(entry.path.to_vec(), edit);
            }
        }
    }
}
