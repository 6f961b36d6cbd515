//! Sessions that the database does not know, found again in the guest.
//!
//! The database may be new, or an older copy. What a session was started with is kept in the guest
//! as its host record; whoever can write there may have changed it, so it is read as anything else
//! that a guest says.

use super::{Sessions, starting};
use crate::guest_script;
use crate::plugin::{self, HOST_RECORD_LIMIT, SessionBackend};
use crate::store::{StoreError, VmRecord};
use crate::vm::Guest;
use banger_core::protocol::session::Session;
use banger_core::session::StdinKind;
use banger_core::{ByteString, Failure, GuestPath, Kind, SessionId, SessionName, VmId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Machines that were asked since this daemon started: while they ran, and while they were stopped.
#[derive(Debug, Default)]
pub struct Discovered(Mutex<HashSet<(VmId, bool)>>);

/// What the guest keeps of a session for a host that has forgotten it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    name: SessionName,
    stdin: StdinKind,
    command: Vec<ByteString>,
    cwd: GuestPath,
    tags: BTreeMap<String, String>,
    created_at_ms: u64,
}

impl HostRecord {
    /// A session's record as bytes. A long command is cut, and labels are left out, where they do
    /// not fit.
    pub fn of(session: &Session) -> Vec<u8> {
        let mut record = Self {
            name: session.name.clone(),
            stdin: session.stdin,
            command: session.command.clone(),
            cwd: session.cwd.clone(),
            tags: session.tags.clone(),
            created_at_ms: session.created_at_ms,
        };
        loop {
            let json = serde_json::to_vec(&record).unwrap_or_default();
            if json.len() <= HOST_RECORD_LIMIT {
                return json;
            }
            if record.command.len() > 1 {
                record.command.truncate(record.command.len() / 2);
            } else if !record.tags.is_empty() {
                record.tags.clear();
            } else {
                // A name and a path are short.
                record.command = Vec::new();
            }
        }
    }
}

impl Sessions {
    /// Enters the sessions that a machine's guest knows and the database does not; once for each
    /// machine while the daemon lives (and once for its disk), since what is started later goes
    /// through it.
    ///
    /// # Errors
    /// Where the guest can't be reached now. One that answers, and can't tell, has none.
    pub(super) async fn discover(&self, vm: &VmRecord) -> Result<(), Failure> {
        let runs = self.machines.is_running(vm).await?;
        if self.discovered.contains(&vm.id, runs) {
            return Ok(());
        }
        let guest = match runs {
            true => Some(self.machines.guest(vm).await?),
            false => None,
        };
        match self.ask_for_sessions(vm, guest).await {
            Ok(()) => self.discovered.insert(&vm.id, runs),
            Err(failure) if matches!(failure.kind, Kind::Unreachable | Kind::Conflict) => {
                return Err(failure);
            }
            Err(failure) => {
                tracing::warn!(vm = %vm.name, error = %failure, "sessions can't be looked for");
            }
        }
        Ok(())
    }

    async fn ask_for_sessions(&self, vm: &VmRecord, guest: Option<Guest>) -> Result<(), Failure> {
        let state_root = match &guest {
            Some(guest) => guest.state_root()?,
            None => self.machines.stopped_guest(vm).await?.state_root,
        };
        for backend in self.registry.session_backends() {
            let records = match &guest {
                Some(guest) => host_records(backend, guest).await?,
                None => self.host_records_of_stopped(vm, backend).await?,
            };
            for (id, record) in records {
                if self.store.session_by_id(&id)?.is_some() {
                    continue;
                }
                if !self.store.was_deleted_here(&id)? {
                    self.enter(vm, backend, &state_root, id, &record)?;
                } else if let Some(guest) = &guest {
                    let reference = plugin::Session {
                        id: id.clone(),
                        state_root: state_root.clone(),
                        stdin_kind: StdinKind::None,
                    };
                    let script = backend.remove(&reference)?;
                    if guest_script::run(&guest.remote, &script).await?.exit_code == 0 {
                        self.store.delete_session_there(&id)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(
        &self,
        vm: &VmRecord,
        backend: &SessionBackend,
        state_root: &GuestPath,
        id: SessionId,
        record: &[u8],
    ) -> Result<(), Failure> {
        let Ok(record) = serde_json::from_slice::<HostRecord>(record) else {
            tracing::warn!(vm = %vm.name, %id, "the guest's record of a session can't be read");
            return Ok(());
        };
        let reference = plugin::Session {
            id: id.clone(),
            state_root: state_root.clone(),
            stdin_kind: record.stdin,
        };
        let mut session = Session {
            snapshot: starting(&id),
            name: record.name,
            vm: vm.name.clone(),
            vm_id: vm.id.clone(),
            backend: backend.info().name.to_string(),
            stdin: record.stdin,
            command: record.command,
            cwd: record.cwd,
            state_dir: backend.paths(&reference)?.state_dir.to_string(),
            tags: record.tags,
            created_at_ms: record.created_at_ms,
            failure: None,
            id,
        };
        match self.store.insert_session(&session) {
            Err(StoreError::Taken { .. }) => {
                // Another has taken the name meanwhile.
                session.name = session
                    .id
                    .as_str()
                    .parse()
                    .map_err(|error| Failure::from_error(Kind::Internal, &error))?;
                match self.store.insert_session(&session) {
                    Ok(()) | Err(StoreError::Taken { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            entered => entered?,
        }
        tracing::info!(vm = %vm.name, session = %session.name, "a session was found again in its guest");
        Ok(())
    }
}

impl Discovered {
    fn contains(&self, vm: &VmId, runs: bool) -> bool {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.contains(&(vm.clone(), runs))
    }

    fn insert(&self, vm: &VmId, runs: bool) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert((vm.clone(), runs));
    }
}

async fn host_records(
    backend: &SessionBackend,
    guest: &Guest,
) -> Result<Vec<(SessionId, Vec<u8>)>, Failure> {
    let script = backend.host_records(&guest.state_root()?)?;
    let output = guest_script::run(&guest.remote, &script).await?;
    Ok(backend.read_host_records(&output)?)
}
