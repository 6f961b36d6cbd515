//! A plugin's kind of working copy: how it comes into the guest and how the work comes back.
//!
//! These are the guest's halves. The user's repository is read elsewhere, and never by a plugin.

use super::bindings::types;
use super::bindings::workspace as wit;
use super::component::Plugin;
use super::engine::Usage;
use super::error::PluginError;
use super::session_backend::{forbidden, to_output};
use super::validate;
use banger_core::protocol::workspace::ExportFormat;
use banger_core::workspace::{Change, ChangeKind, Status, Submodule};
use banger_core::{ByteString, GuestPath, Output, PluginName, Script};
use std::sync::Arc;
use wasmtime::Store;

/// Changes that one working copy may have.
const CHANGES_LIMIT: usize = 100_000;
/// Submodules of one working copy that may have work of their own.
const SUBMODULES_LIMIT: usize = 1_000;

/// A kind of working copy that a plugin provides. Cloning it is cheap.
#[derive(Clone)]
pub struct Workspace {
    plugin: Arc<Plugin>,
    indices: wit::GuestIndices,
    info: Arc<WorkspaceInfo>,
}

/// How the host serves the source to [`Workspace::receive`]'s script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Stdin and stdout are connected to `git upload-pack`.
    GitUploadPack,
}

/// What a kind of working copy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceInfo {
    /// The kind, "git".
    pub kind: PluginName,
    /// How the source is served.
    pub transport: Transport,
    /// Commands that the guest must have.
    pub needs: Vec<String>,
}

/// What to bring into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveRequest {
    /// Where to.
    pub path: GuestPath,
    /// The snapshot's commit.
    pub snapshot: String,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// Commits of history to bring; `None` for all, with all references.
    pub depth: Option<u32>,
    /// Start on this new branch.
    pub branch: Option<String>,
    /// What this is a copy of.
    pub origin: String,
    /// What happens to work that is there already.
    pub existing: Existing,
    /// The tree that was last exported.
    pub exported: Option<String>,
}

/// What happens to work that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the script fails.
    Keep,
    /// It is overwritten once everything has arrived.
    Overwrite,
}

type Answer = Result<types::Script, types::Refusal>;

impl Workspace {
    /// Asks a plugin for its kind of working copy; `None` where it has none.
    pub(super) fn of(plugin: &Arc<Plugin>) -> Result<Option<Self>, PluginError> {
        const FUNCTION: &str = "workspace.info";
        let Some(indices) = plugin.workspace.clone() else {
            return Ok(None);
        };
        let info = plugin.call(FUNCTION, 0, |store, instance| {
            indices.load(&mut *store, instance)?.call_info(store)
        })?;
        let checked = (|| {
            validate::needs(&info.needs)?;
            Ok(WorkspaceInfo {
                kind: info.kind.parse().map_err(|error| format!("{error}"))?,
                transport: match info.transport {
                    wit::Transport::GitUploadPack => Transport::GitUploadPack,
                },
                needs: info.needs,
            })
        })();
        let info = checked.map_err(|detail| forbidden(plugin, FUNCTION, detail))?;
        Ok(Some(Self {
            plugin: Arc::clone(plugin),
            indices,
            info: Arc::new(info),
        }))
    }

    /// What it needs.
    pub fn info(&self) -> &WorkspaceInfo {
        &self.info
    }

    /// The plugin's name and version, for people.
    pub fn plugin(&self) -> &str {
        &self.plugin.label
    }

    /// The script that makes the working copy equal to the user's; its stdin and stdout are the
    /// transport's.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn receive(&self, request: &ReceiveRequest) -> Result<Script, PluginError> {
        let request = wit::ReceiveRequest {
            path: self.utf8(&request.path)?.to_owned(),
            snapshot: request.snapshot.clone(),
            object_format: request.object_format.clone(),
            depth: request.depth,
            branch: request.branch.clone(),
            origin: request.origin.clone(),
            overwrite: match request.existing {
                Existing::Keep => false,
                Existing::Overwrite => true,
            },
            exported: request.exported.clone(),
        };
        self.script("workspace.receive", 0, |guest, store| {
            guest.call_receive(store, &request)
        })
    }

    /// The script that tells the state of the working copy, compared with a commit or a ref.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn inspect(&self, path: &GuestPath, base: Option<&str>) -> Result<Script, PluginError> {
        let path = self.utf8(path)?;
        let input = base.map_or(0, str::len);
        self.script("workspace.inspect", input, |guest, store| {
            guest.call_inspect(store, path, base)
        })
    }

    /// What an `inspect` script told.
    ///
    /// # Errors
    /// The plugin's fault or refusal; also where a path leaves the repository.
    pub fn read_inspect(&self, output: &Output) -> Result<Status, PluginError> {
        const FUNCTION: &str = "workspace.read-inspect";
        let input = output.stdout.len() + output.stderr.len();
        let output = to_output(output);
        let status = self
            .call(FUNCTION, input, |guest, store| {
                guest.call_read_inspect(store, &output)
            })?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        from_status(status).map_err(|detail| forbidden(&self.plugin, FUNCTION, detail))
    }

    /// The script that prints a report, which [`Workspace::read_inspect`] reads, and after it the
    /// work since a base. The report comes after its length in decimal digits and a line feed.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn export(
        &self,
        path: &GuestPath,
        base: Option<&str>,
        format: ExportFormat,
    ) -> Result<Script, PluginError> {
        let request = wit::ExportRequest {
            path: self.utf8(path)?.to_owned(),
            base: base.map(str::to_owned),
            format: match format {
                ExportFormat::Patch => wit::ExportFormat::Patch,
                ExportFormat::Mbox => wit::ExportFormat::Mbox,
                ExportFormat::Bundle => wit::ExportFormat::Bundle,
            },
        };
        let input = base.map_or(0, str::len);
        self.script("workspace.export-work", input, |guest, store| {
            guest.call_export_work(store, &request)
        })
    }

    fn utf8<'a>(&self, path: &'a GuestPath) -> Result<&'a str, PluginError> {
        validate::utf8(path).map_err(|fault| self.plugin.error(fault))
    }

    fn call<T>(
        &self,
        function: &'static str,
        input: usize,
        call: impl FnOnce(wit::Guest, &mut Store<Usage>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        self.plugin.call(function, input, |store, instance| {
            let guest = self.indices.load(&mut *store, instance)?;
            call(guest, store)
        })
    }

    fn script(
        &self,
        function: &'static str,
        input: usize,
        call: impl FnOnce(wit::Guest, &mut Store<Usage>) -> wasmtime::Result<Answer>,
    ) -> Result<Script, PluginError> {
        let script = self
            .call(function, input, call)?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        validate::script(script).map_err(|detail| forbidden(&self.plugin, function, detail))
    }
}

fn from_status(status: wit::Status) -> Result<Status, String> {
    if status.changes.len() > CHANGES_LIMIT {
        let count = status.changes.len();
        return Err(format!(
            "{count} changes; at most {CHANGES_LIMIT} are allowed"
        ));
    }
    validate::commit(&status.base)?;
    validate::commit(&status.tree)?;
    if let Some(head) = &status.head {
        validate::commit(head)?;
    }
    if let Some(branch) = &status.branch {
        validate::line(branch, 255, "the branch's name")?;
    }
    let changes = status
        .changes
        .into_iter()
        .map(from_change)
        .collect::<Result<_, _>>()?;
    if status.submodules.len() > SUBMODULES_LIMIT {
        let count = status.submodules.len();
        return Err(format!(
            "{count} submodules; at most {SUBMODULES_LIMIT} are allowed"
        ));
    }
    let submodules = status
        .submodules
        .into_iter()
        .map(|one| {
            validate::repository_path(&one.path)?;
            one.base.as_deref().map(validate::commit).transpose()?;
            Ok(Submodule {
                path: ByteString(one.path),
                base: one.base,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Status {
        head: status.head,
        branch: status.branch,
        base: status.base,
        tree: status.tree,
        commits: status.commits,
        changes,
        more: status.more,
        submodules,
    })
}

fn from_change(change: wit::Change) -> Result<Change, String> {
    let kind = match change.kind {
        wit::ChangeKind::Added => ChangeKind::Added,
        wit::ChangeKind::Modified => ChangeKind::Modified,
        wit::ChangeKind::Deleted => ChangeKind::Deleted,
        wit::ChangeKind::Renamed => ChangeKind::Renamed,
        wit::ChangeKind::TypeChanged => ChangeKind::TypeChanged,
    };
    validate::repository_path(&change.path)?;
    if let Some(old_path) = &change.old_path {
        validate::repository_path(old_path)?;
    }
    if (kind == ChangeKind::Renamed) != change.old_path.is_some() {
        let path = validate::shown(&change.path);
        return Err(format!(
            "`{path}` has a former path just when it is renamed; not so here"
        ));
    }
    Ok(Change {
        kind,
        path: ByteString(change.path),
        old_path: change.old_path.map(ByteString),
    })
}
