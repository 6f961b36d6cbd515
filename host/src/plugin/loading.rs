//! From files to plugins that are ready: finding, reading, compiling, and which name counts.
//!
//! It reads `*.wasm` in one directory and nothing else, and it decides nothing about what two
//! plugins provide alike: that is the registry's.

use super::cache::{CodeCache, Sha256Digest};
use super::component::{Plugin, sha256};
use super::embedded::Embedded;
use super::engine::{COMPONENT_LIMIT, Runtime};
use super::error::{Fault, PluginError};
use super::registry::Origin;
use super::{Preflight, SessionBackend, Workspace};
use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A component that is yet to be loaded.
pub struct Candidate {
    /// The crate's or file's name.
    pub file: String,
    pub origin: Origin,
    pub bytes: Result<Cow<'static, [u8]>, Fault>,
    pub sha256: Sha256Digest,
}

/// One that was loaded, or why not.
pub struct Loaded {
    pub candidate: Candidate,
    pub provides: Result<Provides, PluginError>,
    pub overrides: bool,
}

/// What a sound plugin provides.
pub struct Provides {
    pub plugin: Arc<Plugin>,
    pub session_backend: Option<SessionBackend>,
    pub preflight: Option<Preflight>,
    pub workspace: Option<Workspace>,
}

impl Provides {
    fn load(
        runtime: &Runtime,
        cache: Option<&CodeCache>,
        candidate: &Candidate,
        bytes: &[u8],
    ) -> Result<Self, PluginError> {
        let plugin = Plugin::load(runtime, cache, &candidate.file, bytes, &candidate.sha256)?;
        Ok(Self {
            session_backend: SessionBackend::of(&plugin)?,
            preflight: Preflight::of(&plugin),
            workspace: Workspace::of(&plugin)?,
            plugin,
        })
    }
}

impl Candidate {
    pub fn embedded(embedded: &Embedded) -> Self {
        Self {
            file: embedded.name.to_owned(),
            origin: Origin::Embedded,
            sha256: sha256(embedded.bytes),
            bytes: Ok(Cow::Borrowed(embedded.bytes)),
        }
    }

    fn file(path: PathBuf) -> Self {
        let bytes = read(&path);
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        Self {
            file: super::validate::shown(name),
            sha256: bytes.as_deref().map_or([0; 32], sha256),
            bytes: bytes.map(Cow::Owned),
            origin: Origin::File(path),
        }
    }
}

impl Loaded {
    /// Whether it was loaded, and the plugin is such.
    pub fn is(&self, such: impl FnOnce(&Plugin) -> bool) -> bool {
        self.provides
            .as_ref()
            .is_ok_and(|provides| such(&provides.plugin))
    }
}

/// The user's plugins, by file name. No directory means no plugins.
pub fn user_candidates(directory: &Path) -> Vec<Candidate> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect();
    paths.sort();
    paths.into_iter().map(Candidate::file).collect()
}

/// Reads a component. A link to a build's output is fine; a FIFO or a device is not.
fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let read = || -> std::io::Result<Option<Vec<u8>>> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let limit = COMPONENT_LIMIT as u64 + 1;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok((bytes.len() <= COMPONENT_LIMIT).then_some(bytes))
    };
    match read() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Fault::TooLarge),
        Err(source) => Err(Fault::Read { source }),
    }
}

/// Loads the candidates, in their order. Compiling is spread over the processors; what comes from
/// the cache is not worth a thread.
pub fn load_all(
    runtime: &Runtime,
    cache: Option<&CodeCache>,
    candidates: Vec<Candidate>,
) -> Vec<Loaded> {
    let load = |candidate: &mut Candidate| {
        let bytes = std::mem::replace(&mut candidate.bytes, Ok(Cow::Borrowed(&[])));
        match bytes {
            Err(fault) => Err(fault.of(&candidate.file)),
            Ok(bytes) => {
                let provides = Provides::load(runtime, cache, candidate, &bytes);
                candidate.bytes = Ok(bytes);
                provides
            }
        }
    };
    let to_compile = candidates
        .iter()
        .filter(|candidate| !cache.is_some_and(|cache| cache.has(&candidate.sha256)))
        .count();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(to_compile);
    let slots: Vec<Mutex<(Option<Candidate>, Option<Loaded>)>> = candidates
        .into_iter()
        .map(|candidate| Mutex::new((Some(candidate), None)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mut candidate) = slot.0.take() {
                let provides = load(&mut candidate);
                slot.1 = Some(Loaded {
                    candidate,
                    provides,
                    overrides: false,
                });
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    slots
        .into_iter()
        .filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).1)
        .collect()
}

/// A user's plugin takes the place of the embedded one of its name; of two files with one name,
/// the first counts.
pub fn settle_names(loaded: &mut Vec<Loaded>) {
    let mut kept: Vec<Loaded> = Vec::with_capacity(loaded.len());
    for mut one in loaded.drain(..) {
        if let Ok(Provides { plugin, .. }) = &one.provides {
            match kept
                .iter()
                .position(|other| other.is(|o| o.name == plugin.name))
            {
                None => {}
                Some(index) if kept[index].candidate.origin == Origin::Embedded => {
                    kept.remove(index);
                    one.overrides = true;
                }
                Some(index) => {
                    let other = kept[index].candidate.file.clone();
                    one.provides = Err(Fault::NameTaken { other }.of(&one.candidate.file));
                }
            }
        }
        kept.push(one);
    }
    *loaded = kept;
}
