//! Every plugin that banger knows, and which of them provides what.
//!
//! A bad plugin never stops the others: it is listed with its error. Nothing is downloaded,
//! watched or written here, except the cache of compiled code.

use super::cache::CodeCache;
use super::embedded::Embedded;
use super::engine::Runtime;
use super::error::{Fault, PluginError};
use super::loading::{Candidate, Loaded, Provides, load_all, settle_names, user_candidates};
use super::{CodeOrigin, Preflight, SessionBackend, Workspace};
use banger_core::{Failure, Kind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The plugins. Cloning it is cheap.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    list: Vec<PluginInfo>,
    session_backends: Vec<SessionBackend>,
    preflights: Vec<Preflight>,
    workspaces: Vec<Workspace>,
    compiled: usize,
    cache_problem: Option<String>,
}

/// Where a plugin is from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The binary.
    Embedded,
    /// A file of the user's.
    File(PathBuf),
}

/// A line of `banger plugin list`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PluginInfo {
    /// Its name; the file's name without `.wasm` where it could not be asked.
    pub name: String,
    /// Its version; empty where it could not be asked.
    pub version: String,
    /// What it is for.
    pub summary: String,
    /// A URL, or empty.
    pub homepage: String,
    /// What it exports, as `session-backend@0.1.0`.
    pub interfaces: Vec<String>,
    /// What it adds, as `backend ssh`.
    pub provides: Vec<String>,
    /// Where it is from.
    pub origin: Origin,
    /// The component's SHA-256, in hexadecimal.
    pub sha256: String,
    /// The component's size in bytes.
    pub size: u64,
    /// Whether it takes the place of a first-party plugin of the same name.
    pub overrides: bool,
    /// Why it is not used.
    pub error: Option<Failure>,
}

impl Registry {
    /// Loads all plugins: the embedded ones, and `*.wasm` of the user's directory, where one with
    /// the name of an embedded one takes its place.
    ///
    /// # Errors
    /// Where the engine does not start on this machine. A bad plugin is no error.
    pub fn load(
        embedded: &'static [Embedded],
        user_plugins: Option<&Path>,
        cache: Option<&Path>,
    ) -> Result<Self, Failure> {
        let runtime = Runtime::new().map_err(|fault| Failure::from(fault.of("engine")))?;
        Ok(Self::load_on(runtime, embedded, user_plugins, cache))
    }

    /// The same on an engine that runs already, as after a plugin was added.
    pub fn load_on(
        runtime: Runtime,
        embedded: &'static [Embedded],
        user_plugins: Option<&Path>,
        cache: Option<&Path>,
    ) -> Self {
        let (cache, cache_problem) = match cache.map(|path| CodeCache::open(path, runtime.engine()))
        {
            None => (None, None),
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(problem)) => {
                tracing::warn!(%problem, "plugins are compiled at each start");
                (None, Some(problem))
            }
        };
        let mut candidates: Vec<Candidate> = embedded.iter().map(Candidate::embedded).collect();
        candidates.extend(user_plugins.into_iter().flat_map(user_candidates));
        let mut loaded = load_all(&runtime, cache.as_ref(), candidates);
        let compiled = loaded
            .iter()
            .filter(|one| one.is(|plugin| plugin.code == CodeOrigin::Compiled))
            .count();
        if let Some(cache) = cache.filter(|_| compiled > 0) {
            cache.prune();
        }
        settle_names(&mut loaded);
        let mut inner = Inner {
            runtime,
            list: Vec::new(),
            session_backends: Vec::new(),
            preflights: Vec::new(),
            workspaces: Vec::new(),
            compiled,
            cache_problem,
        };
        for one in loaded {
            inner.enter(one);
        }
        inner.list.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The engine, for [`Registry::load_on`].
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Every plugin, by name; also those that can't be used.
    pub fn list(&self) -> &[PluginInfo] {
        &self.inner.list
    }

    /// How many plugins had to be compiled because the cache did not have them.
    pub fn compiled(&self) -> usize {
        self.inner.compiled
    }

    /// Why compiled code is not kept between two starts; for `banger doctor`.
    pub fn cache_problem(&self) -> Option<&str> {
        self.inner.cache_problem.as_deref()
    }

    /// Every session backend.
    pub fn session_backends(&self) -> &[SessionBackend] {
        &self.inner.session_backends
    }

    /// The session backend of that name.
    ///
    /// # Errors
    /// Kind `Plugin` where none has it.
    pub fn session_backend(&self, name: &str) -> Result<SessionBackend, Failure> {
        self.inner
            .session_backends
            .iter()
            .find(|backend| backend.info().name.as_str() == name)
            .cloned()
            .ok_or_else(|| missing("session backend", name))
    }

    /// Every plugin that has checks for a launch.
    pub fn preflights(&self) -> &[Preflight] {
        &self.inner.preflights
    }

    /// Every kind of working copy.
    pub fn workspaces(&self) -> &[Workspace] {
        &self.inner.workspaces
    }

    /// The kind of working copy of that name.
    ///
    /// # Errors
    /// Kind `Plugin` where no plugin has it.
    pub fn workspace(&self, kind: &str) -> Result<Workspace, Failure> {
        self.inner
            .workspaces
            .iter()
            .find(|workspace| workspace.info().kind.as_str() == kind)
            .cloned()
            .ok_or_else(|| missing("workspace kind", kind))
    }
}

impl Inner {
    /// Enters a plugin into the list, and what it provides unless another one provides it.
    fn enter(&mut self, one: Loaded) {
        let conflict = one
            .provides
            .as_ref()
            .ok()
            .and_then(|new| self.conflict(new));
        let mut info = one.info();
        if let Some(error) = conflict {
            info.error = Some(error.into());
            info.provides.clear();
        } else if let Ok(new) = one.provides {
            self.session_backends.extend(new.session_backend);
            self.preflights.extend(new.preflight);
            self.workspaces.extend(new.workspace);
        }
        self.list.push(info);
    }

    fn conflict(&self, new: &Provides) -> Option<PluginError> {
        let taken = |what, name: &str, other: &str| {
            new.plugin.error(Fault::Provided {
                what,
                name: name.to_owned(),
                other: other.to_owned(),
            })
        };
        if let Some(backend) = &new.session_backend
            && let name = &backend.info().name
            && let Some(other) = self
                .session_backends
                .iter()
                .find(|o| o.info().name == *name)
        {
            return Some(taken("session backend", name.as_str(), other.plugin()));
        }
        if let Some(workspace) = &new.workspace
            && let kind = &workspace.info().kind
            && let Some(other) = self.workspaces.iter().find(|o| o.info().kind == *kind)
        {
            return Some(taken("workspace kind", kind.as_str(), other.plugin()));
        }
        None
    }
}

impl Provides {
    /// What it adds, in the words of the command line.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(backend) = &self.session_backend {
            names.push(format!("backend {}", backend.info().name));
        }
        if self.preflight.is_some() {
            names.push("preflight".to_owned());
        }
        if let Some(workspace) = &self.workspace {
            names.push(format!("workspace {}", workspace.info().kind));
        }
        names
    }
}

impl Loaded {
    /// Its line in the list.
    fn info(&self) -> PluginInfo {
        let size = self
            .candidate
            .bytes
            .as_ref()
            .map_or(0, |bytes| bytes.len() as u64);
        let sha256 = match size {
            0 => String::new(),
            _ => data_encoding::HEXLOWER.encode(&self.candidate.sha256),
        };
        let file = &self.candidate.file;
        let unknown = PluginInfo {
            name: file.strip_suffix(".wasm").unwrap_or(file).to_owned(),
            version: String::new(),
            summary: String::new(),
            homepage: String::new(),
            interfaces: Vec::new(),
            provides: Vec::new(),
            origin: self.candidate.origin.clone(),
            sha256,
            size,
            overrides: self.overrides,
            error: None,
        };
        match &self.provides {
            Err(error) => PluginInfo {
                error: Some(error.into()),
                ..unknown
            },
            Ok(provides @ Provides { plugin, .. }) => PluginInfo {
                provides: provides.names(),
                name: plugin.name.to_string(),
                version: plugin.version.clone(),
                summary: plugin.summary.clone(),
                homepage: plugin.homepage.clone(),
                interfaces: plugin
                    .interfaces
                    .iter()
                    .map(|interface| format!("{}@{}", interface.name, interface.version))
                    .collect(),
                ..unknown
            },
        }
    }
}

fn missing(what: &str, name: &str) -> Failure {
    let name = super::validate::shown(name.as_bytes());
    Failure::new(
        Kind::Plugin,
        format!("no plugin provides the {what} `{name}`"),
    )
    .hint("`banger plugin list` shows what each plugin provides")
}
