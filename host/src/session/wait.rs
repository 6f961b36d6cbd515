//! Waiting for sessions to end.

use super::Sessions;
use crate::store::VmRecord;
use crate::task::Task;
use banger_core::protocol::session::Session;
use banger_core::{Failure, Kind};
use std::sync::Arc;
use std::time::Duration;

/// How often a session is looked after while nothing is heard of it.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long to wait before a guest that could not be asked is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Sessions {
    /// Waits until a session has ended.
    ///
    /// # Errors
    /// Kind `TimedOut`; or there is no such session.
    pub async fn wait(
        self: &Arc<Self>,
        vm: &VmRecord,
        name_or_id: &str,
        limit: Option<Duration>,
        task: &Task,
    ) -> Result<Session, Failure> {
        let ended = task.until_cancelled(self.until_ended(vm, name_or_id));
        match limit {
            None => ended.await,
            Some(limit) => tokio::time::timeout(limit, ended)
                .await
                .unwrap_or_else(|_| {
                    Err(Failure::new(
                        Kind::TimedOut,
                        format!("the session has not ended within {} ms", limit.as_millis()),
                    )
                    .hint("it goes on; wait again, or stop it"))
                }),
        }
    }

    async fn until_ended(
        self: &Arc<Self>,
        vm: &VmRecord,
        name_or_id: &str,
    ) -> Result<Session, Failure> {
        let id = self.find(vm, name_or_id).await?.id;
        // Listened to before the session is asked after: nothing can happen in between.
        let mut changes = self.changes.listen();
        let _watch = self.watch(vm, LOOK_EVERY);
        loop {
            match self.get(vm, id.as_str()).await {
                Ok(session) if session.state().is_final() => return Ok(session),
                Ok(_) => {}
                Err(failure) if failure.kind == Kind::Unreachable => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                Err(failure) => {
                    // Its machine may have been deleted, which says more than that its files are gone.
                    self.machines.find(vm.id.as_str())?;
                    return Err(failure);
                }
            }
            let ended = async {
                loop {
                    match changes.recv().await {
                        Ok(change) if change.is_of(&id) && change.kind.is_some() => return,
                        Ok(_) => {}
                        // Some were missed.
                        Err(_) => return,
                    }
                }
            };
            // The watch asks as well; this is for when it can't.
            let _ = tokio::time::timeout(LOOK_EVERY, ended).await;
        }
    }
}
