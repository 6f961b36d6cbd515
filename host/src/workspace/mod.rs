//! Working copies: into the guest, and the work back out.
//!
//! The host reads the user's repository and carries bytes; what happens in the guest is the
//! workspace plugin's.

mod apply;
mod export;
mod meter;
mod prepare;
mod saved;
mod status;

use crate::dirs::Dirs;
use crate::plugin::Registry;
use crate::repository::Repository;
use crate::store::{Store, VmRecord};
use crate::stream::Streams;
use crate::vm::{Guest, Machines};
use banger_core::protocol::workspace::{DEFAULT_GUEST_PATH, Prepare, Prepared};
use banger_core::{Failure, GuestPath, Kind, VmId};
use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The kind of working copy that is made.
const KIND: &str = "git";

/// Held by whoever changes a working copy.
type Lock = Arc<tokio::sync::Mutex<()>>;

/// Brings repositories in and work out.
pub struct Workspaces {
    machines: Arc<Machines>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    streams: Streams,
    dirs: Dirs,
    /// One change at a time of each working copy.
    locks: Mutex<HashMap<(VmId, GuestPath), Lock>>,
}

impl Workspaces {
    /// Working copies in these machines.
    pub fn new(
        machines: Arc<Machines>,
        store: Arc<Store>,
        registry: Arc<Registry>,
        streams: Streams,
        dirs: Dirs,
    ) -> Self {
        Self {
            machines,
            store,
            registry,
            streams,
            dirs,
            locks: Mutex::default(),
        }
    }

    /// The user's repository, before anything is made for it: what can't work is said early.
    ///
    /// # Errors
    /// Where no plugin makes such working copies, the path is no repository with a commit, or the
    /// branch can't be started.
    pub async fn examine(&self, request: &Prepare) -> Result<Repository, Failure> {
        self.registry.workspace(KIND)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(request.path.0.clone()));
        let repository = Repository::find(&path).await?;
        repository.head().await?;
        if let Some(branch) = &request.branch {
            repository.check_branch(branch).await?;
        }
        Ok(repository)
    }

    fn lock(&self, vm: &VmId, path: &GuestPath) -> Lock {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry((vm.clone(), path.clone())).or_default())
    }

    /// What was put in at this place. Without one it is the usual place, or the only one: an
    /// adopted host may have another home.
    fn recorded(
        &self,
        vm: &VmRecord,
        guest: &Guest,
        asked: Option<&GuestPath>,
    ) -> Result<Prepared, Failure> {
        let wanted = guest_path(guest, asked)?;
        let mut workspaces = self.store.workspaces(&vm.id)?;
        let found = workspaces
            .iter()
            .position(|workspace| workspace.guest_path == wanted)
            .or((asked.is_none() && workspaces.len() == 1).then_some(0));
        match found {
            Some(found) => Ok(workspaces.swap_remove(found)),
            None => Err(Failure::new(
                Kind::NotFound,
                format!("no working copy was put into `{}` at `{wanted}`", vm.name),
            )
            .hint(format!(
                "`banger vm show {}` lists what was; --guest-path names another place",
                vm.name
            ))),
        }
    }

    /// The same result, where an unreachable guest turns out to be a stopped one.
    async fn explained<T>(&self, vm: &VmRecord, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.machines.explain(vm, failure).await),
        }
    }
}

/// Where in the guest: what was asked for, else `repo` in the home.
fn guest_path(guest: &Guest, asked: Option<&GuestPath>) -> Result<GuestPath, Failure> {
    match asked {
        Some(path) => Ok(path.clone()),
        None => {
            let name = DEFAULT_GUEST_PATH.rsplit('/').next().unwrap_or_default();
            guest
                .home
                .join(name)
                .map_err(|error| Failure::from_error(Kind::Internal, &error))
        }
    }
}
