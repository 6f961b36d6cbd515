//! Sessions: started, found again, watched, talked to and ended.
//!
//! How a session lives in the guest is its backend's business, which is a plugin; the guest owns
//! the truth. Here that truth is asked for, compared with what was known, and recorded.

mod attach;
mod launch;
pub mod preflight;
pub mod relay;
pub mod stopped;

use crate::guest_script;
use crate::plugin::{self, Registry, SessionBackend};
use crate::store::{Store, VmRecord};
use crate::stream::Streams;
use crate::task::Task;
use crate::vm::{Guest, Machines};
use banger_core::protocol::session::{Session, SessionStop};
use banger_core::session::{SessionState, Snapshot};
use banger_core::{Failure, GuestPath, Kind, SessionId, escape};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between TERM and KILL.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Ids in one inspect: their text must fit a command line.
const IDS_AT_ONCE: usize = 1000;
/// How long to wait before a guest that could not be asked is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// All sessions of this user.
pub struct Sessions {
    machines: Arc<Machines>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    streams: Streams,
    /// Sessions that have a writer attached.
    writers: Arc<Mutex<HashSet<SessionId>>>,
}

impl Sessions {
    /// The sessions in these machines.
    pub fn new(
        machines: Arc<Machines>,
        store: Arc<Store>,
        registry: Arc<Registry>,
        streams: Streams,
    ) -> Self {
        Self {
            machines,
            store,
            registry,
            streams,
            writers: Arc::default(),
        }
    }

    /// The record of a session.
    ///
    /// # Errors
    /// Kind `NotFound`.
    pub fn find(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        self.store.session(&vm.id, name_or_id)?.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                format!(
                    "the VM `{}` has no session `{}`",
                    vm.name,
                    escape::text(name_or_id.as_bytes())
                ),
            )
            .hint(format!(
                "`banger vm session list {}` shows those that it has",
                vm.name
            ))
        })
    }

    /// A machine's sessions as they are now. Those of a guest that can't be asked are returned
    /// as they were known last.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, vm: &VmRecord) -> Result<Vec<Session>, Failure> {
        let known = self.store.sessions(&vm.id)?;
        match self.refresh(vm, known.clone()).await {
            Ok(sessions) => Ok(sessions),
            Err(failure) => {
                tracing::warn!(vm = %vm.name, error = %failure, "sessions could not be refreshed");
                Ok(known)
            }
        }
    }

    /// A session as it is now.
    ///
    /// # Errors
    /// Kind `NotFound`; or the guest can't be asked.
    pub async fn get(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        let session = self.find(vm, name_or_id)?;
        self.observe(vm, session).await
    }

    async fn observe(&self, vm: &VmRecord, session: Session) -> Result<Session, Failure> {
        let fallback = session.clone();
        Ok(self
            .refresh(vm, vec![session])
            .await?
            .pop()
            .unwrap_or(fallback))
    }

    /// Asks the guest about sessions and records what has changed.
    async fn refresh(
        &self,
        vm: &VmRecord,
        mut sessions: Vec<Session>,
    ) -> Result<Vec<Session>, Failure> {
        if sessions.iter().all(is_settled) {
            return Ok(sessions);
        }
        let mut seen: BTreeMap<SessionId, Snapshot> = BTreeMap::new();
        if self.machines.is_running(vm).await? {
            let guest = self.machines.guest(vm).await?;
            let backends: HashSet<String> = sessions
                .iter()
                .map(|session| session.backend.clone())
                .collect();
            for name in backends {
                let backend = self.registry.session_backend(&name)?;
                let ids: Vec<SessionId> = sessions
                    .iter()
                    .filter(|session| session.backend == name && !is_settled(session))
                    .map(|session| session.id.clone())
                    .collect();
                for ids in ids.chunks(IDS_AT_ONCE) {
                    for snapshot in inspect(&backend, &guest, ids).await? {
                        seen.insert(snapshot.id.clone(), snapshot);
                    }
                }
            }
        }
        for session in &mut sessions {
            let observed = seen.remove(&session.id);
            let state = session.state().observed(observed.as_ref().map(|o| o.state));
            let mut snapshot = match observed {
                Some(observed) if !is_settled(session) => observed,
                _ => session.snapshot.clone(),
            };
            snapshot.state = state;
            snapshot.alive &= !state.is_final();
            if snapshot != session.snapshot {
                session.snapshot = snapshot;
                self.store.update_session(session)?;
            }
        }
        Ok(sessions)
    }

    /// Sends a signal to a session's process group.
    ///
    /// # Errors
    /// Where it does not run, or there is no such signal.
    pub async fn signal(
        &self,
        vm: &VmRecord,
        name_or_id: &str,
        signal: &str,
    ) -> Result<Session, Failure> {
        let open = self.open(vm, name_or_id).await?;
        let signal = signal.trim().to_ascii_uppercase();
        let signal = signal.strip_prefix("SIG").unwrap_or(&signal);
        let script = open.backend.signal(&open.reference, signal)?;
        open.run(&script, "sending the signal").await?;
        self.observe(vm, open.session).await
    }

    /// TERM, a grace, KILL. A session that has ended already is returned as it is.
    ///
    /// # Errors
    /// Where the guest can't be asked.
    pub async fn stop(&self, vm: &VmRecord, request: &SessionStop) -> Result<Session, Failure> {
        let session = self.get(vm, &request.session).await?;
        if session.state().is_final() {
            return Ok(session);
        }
        let open = self.open_session(vm, session).await?;
        let grace = request
            .grace_ms
            .map_or(STOP_GRACE, |ms| Duration::from_millis(ms.into()));
        let script = open.backend.stop(&open.reference, grace)?;
        open.run(&script, "stopping the session").await?;
        self.observe(vm, open.session).await
    }

    /// KILL at once. A session that has ended already is returned as it is.
    ///
    /// # Errors
    /// Where the guest can't be asked.
    pub async fn kill(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        let session = self.get(vm, name_or_id).await?;
        if session.state().is_final() {
            return Ok(session);
        }
        let open = self.open_session(vm, session).await?;
        let kill = open.backend.signal(&open.reference, "KILL")?;
        match open.run(&kill, "killing the session").await {
            // Refused: it has just ended, or is being launched, which the next script tells.
            Err(failure) if failure.kind != Kind::Conflict => return Err(failure),
            Ok(()) | Err(_) => {}
        }
        // Waits until the whole group is gone and the end is recorded.
        let stop = open.backend.stop(&open.reference, Duration::ZERO)?;
        open.run(&stop, "killing the session").await?;
        self.observe(vm, open.session).await
    }

    /// Forgets a session that has ended, here and in the guest.
    ///
    /// # Errors
    /// Kind `Conflict` where it still runs.
    pub async fn delete(&self, vm: &VmRecord, name_or_id: &str) -> Result<(), Failure> {
        let session = self.get(vm, name_or_id).await?;
        if self.machines.is_running(vm).await? {
            let open = self.open_session(vm, session).await?;
            let script = open.backend.remove(&open.reference)?;
            open.run(&script, "removing the session")
                .await
                .map_err(|failure| {
                    let stop = format!(
                        "`banger vm session stop {} {}` first",
                        vm.name, open.session.name
                    );
                    failure.hint(stop)
                })?;
            self.store.delete_session(&open.session.id)?;
        } else {
            self.store.delete_session(&session.id)?;
        }
        Ok(())
    }

    /// Waits until a session has ended.
    ///
    /// # Errors
    /// Kind `TimedOut`; or there is no such session.
    pub async fn wait(
        &self,
        vm: &VmRecord,
        name_or_id: &str,
        limit: Option<Duration>,
        task: &Task,
    ) -> Result<Session, Failure> {
        let ended = task.until_cancelled(async {
            loop {
                match self.get(vm, name_or_id).await {
                    Ok(session) if session.state().is_final() => return Ok(session),
                    Ok(session) => {
                        if self.until_ended(vm, &session).await.is_err() {
                            tokio::time::sleep(RETRY_AFTER).await;
                        }
                    }
                    Err(failure) if failure.kind == Kind::Unreachable => {
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        });
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

    /// A session with everything needed to act on it.
    async fn open(&self, vm: &VmRecord, name_or_id: &str) -> Result<Open, Failure> {
        let session = self.find(vm, name_or_id)?;
        self.open_session(vm, session).await
    }

    async fn open_session(&self, vm: &VmRecord, session: Session) -> Result<Open, Failure> {
        let guest = self.machines.guest(vm).await?;
        let backend = self.registry.session_backend(&session.backend)?;
        let reference = plugin::Session {
            id: session.id.clone(),
            state_root: guest.state_root()?,
            stdin_kind: session.stdin,
        };
        Ok(Open {
            session,
            guest,
            backend,
            reference,
        })
    }
}

/// Whether the guest has nothing more to tell of a session. One that was taken for lost while the
/// guest could not be asked may turn out to have ended well.
fn is_settled(session: &Session) -> bool {
    match session.state() {
        SessionState::Exited | SessionState::Failed => true,
        SessionState::Starting | SessionState::Running | SessionState::Lost => false,
    }
}

/// A session with everything needed to act on it.
struct Open {
    session: Session,
    guest: Guest,
    backend: SessionBackend,
    reference: plugin::Session,
}

impl Open {
    /// Runs a script that must end well.
    async fn run(&self, script: &banger_core::Script, what: &str) -> Result<(), Failure> {
        let output = guest_script::run(&self.guest.remote, script).await?;
        match u8::try_from(output.exit_code).unwrap_or(u8::MAX) {
            0 => Ok(()),
            code => Err(guest_script::failure(code, &output.stderr, what)),
        }
    }
}

/// What the guest says of these sessions.
async fn inspect(
    backend: &SessionBackend,
    guest: &Guest,
    ids: &[SessionId],
) -> Result<Vec<Snapshot>, Failure> {
    let root: GuestPath = guest.state_root()?;
    let script = backend.inspect(&root, ids)?;
    let output = guest_script::run(&guest.remote, &script).await?;
    Ok(backend.read_inspect(ids, &output)?)
}

/// What is known of a session that has just been asked for.
fn starting(id: &SessionId) -> Snapshot {
    Snapshot {
        id: id.clone(),
        state: SessionState::Starting,
        pid: None,
        exit_code: None,
        alive: false,
        last_error: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        stdout_start: 0,
        stderr_start: 0,
        started_at_ms: None,
        ended_at_ms: None,
    }
}
