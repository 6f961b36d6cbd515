//! Sessions of machines that are stopped, read from their work disks.

use super::Sessions;
use crate::plugin::SessionBackend;
use crate::store::VmRecord;
use banger_core::protocol::session::{OutputFrom, Session, SessionLogs};
use banger_core::session::Snapshot;
use banger_core::{Failure, GuestPath, Kind, SessionId};
use std::sync::Arc;

/// Where the sessions of banger's own machines have their directories.
pub(super) fn state_root_of_stopped() -> Result<GuestPath, Failure> {
    "/root/.local/state/banger/sessions"
        .parse()
        .map_err(|error| Failure::from_error(Kind::Internal, &error))
}

impl Sessions {
    pub(super) async fn snapshots_of_stopped(
        &self,
        _vm: &VmRecord,
        _backend: &SessionBackend,
        _ids: &[SessionId],
    ) -> Result<Vec<Snapshot>, Failure> {
        Ok(Vec::new())
    }

    pub(super) async fn host_records_of_stopped(
        &self,
        _vm: &VmRecord,
        _backend: &SessionBackend,
    ) -> Result<Vec<(SessionId, Vec<u8>)>, Failure> {
        Ok(Vec::new())
    }

    pub(super) async fn logs_of_stopped(
        self: &Arc<Self>,
        vm: &VmRecord,
        _session: Session,
        _request: &SessionLogs,
    ) -> Result<OutputFrom, Failure> {
        match self.machines.guest(vm).await {
            Err(failure) => Err(failure),
            Ok(_) => Err(Failure::new(Kind::Conflict, "it has just started")),
        }
    }
}
