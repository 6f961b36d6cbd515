//! Sessions: started, found again, watched, talked to and ended.
//!
//! How a session lives in the guest is its backend's business, which is a plugin; the guest owns
//! the truth. Here that truth is asked for, compared with what was known, and recorded.

mod attach;
mod changes;
mod discover;
pub mod events;
mod launch;
mod logs;
pub mod preflight;
pub mod relay;
mod send;
pub mod stopped;
mod wait;
mod watch;
mod writer;

use crate::guest_script;
use crate::plugin::{self, Registry, SessionBackend};
use crate::store::{Store, VmRecord};
use crate::stream::Streams;
use crate::vm::{Guest, Machines};
use banger_core::protocol::session::{Session, SessionListCall, SessionResize, SessionStop};
use banger_core::session::{SessionState, Snapshot};
use banger_core::{Failure, GuestPath, Kind, SessionId, escape};
use changes::Changes;
use discover::Discovered;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use watch::Watches;
use writer::Writers;

/// Between TERM and KILL.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Ids in one inspect: their text must fit a command line.
const IDS_AT_ONCE: usize = 1000;

/// What is told of a session that its guest has forgotten.
const NOT_KNOWN: &str = "the guest knows nothing of it any more: its directory was removed, or the \
                         machine was killed before it was on the disk";

/// All sessions of this user.
pub struct Sessions {
    machines: Arc<Machines>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    streams: Streams,
    writers: Writers,
    changes: Changes,
    watches: Watches,
    discovered: Discovered,
    /// Held while a record is read, compared and written.
    recording: Mutex<()>,
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
            writers: Writers::default(),
            changes: Changes::default(),
            watches: Watches::default(),
            discovered: Discovered::default(),
            recording: Mutex::default(),
        }
    }

    /// The record of a session; where there is none, the guest is asked whether it has one.
    ///
    /// # Errors
    /// Kind `NotFound`.
    pub async fn find(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        if let Some(session) = self.store.session(&vm.id, name_or_id)? {
            return Ok(session);
        }
        self.discover(vm).await?;
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

    /// The sessions that a request asks for, as they are now, by machine, then oldest first. Those
    /// of a guest that can't be asked are returned as they were known last.
    ///
    /// # Errors
    /// Kind `NotFound` where there is no such machine.
    pub async fn list(&self, request: &SessionListCall) -> Result<Vec<Session>, Failure> {
        let vms = match &request.vm {
            Some(vm) => vec![self.machines.find(vm)?],
            None => self.machines.records()?,
        };
        let mut sessions = Vec::new();
        for of_vm in join_all(vms.iter().map(|vm| self.list_of(vm))).await {
            sessions.extend(of_vm?.into_iter().filter(|session| {
                has_tags(session, &request.tags)
                    && (request.states.is_empty() || request.states.contains(&session.state()))
            }));
        }
        Ok(sessions)
    }

    async fn list_of(&self, vm: &VmRecord) -> Result<Vec<Session>, Failure> {
        let asked = async {
            self.discover(vm).await?;
            self.refresh(vm, self.store.sessions(&vm.id)?).await
        };
        match asked.await {
            Ok(sessions) => Ok(sessions),
            Err(failure) => {
                tracing::warn!(vm = %vm.name, error = %failure, "sessions could not be refreshed");
                Ok(self.store.sessions(&vm.id)?)
            }
        }
    }

    /// A session as it is now.
    ///
    /// # Errors
    /// Kind `NotFound`; or the guest can't be asked.
    pub async fn get(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        let session = self.find(vm, name_or_id).await?;
        self.observe(vm, session).await
    }

    /// A session as it is now, or as it was known last where the guest can't be asked.
    ///
    /// # Errors
    /// Kind `NotFound`.
    pub async fn get_known(&self, vm: &VmRecord, name_or_id: &str) -> Result<Session, Failure> {
        let session = self.find(vm, name_or_id).await?;
        match self.observe(vm, session.clone()).await {
            Err(failure) if failure.kind == Kind::Unreachable => Ok(session),
            answer => answer,
        }
    }

    async fn observe(&self, vm: &VmRecord, session: Session) -> Result<Session, Failure> {
        let known = session.clone();
        if may_lose_more(&known) {
            let asked = self.ask_after(vm, vec![session], may_lose_more).await;
            return Ok(asked.ok().and_then(|mut one| one.pop()).unwrap_or(known));
        }
        Ok(self
            .refresh(vm, vec![session])
            .await?
            .pop()
            .unwrap_or(known))
    }

    /// Asks the guest about sessions and records what has changed. Those that were deleted
    /// meanwhile are left out.
    async fn refresh(
        &self,
        vm: &VmRecord,
        sessions: Vec<Session>,
    ) -> Result<Vec<Session>, Failure> {
        self.ask_after(vm, sessions, |one| !is_settled(one)).await
    }

    /// Asks the guest about some of these sessions; see [`Sessions::refresh`].
    async fn ask_after(
        &self,
        vm: &VmRecord,
        sessions: Vec<Session>,
        wanted: fn(&Session) -> bool,
    ) -> Result<Vec<Session>, Failure> {
        let open: Vec<&Session> = sessions.iter().filter(|one| wanted(one)).collect();
        if open.is_empty() {
            return Ok(sessions);
        }
        let names: BTreeSet<&str> = open.iter().map(|one| one.backend.as_str()).collect();
        let mut seen: BTreeMap<SessionId, Snapshot> = BTreeMap::new();
        // What a backend that is no longer there would tell is not known to have changed.
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        let guest = match self.machines.is_running(vm).await? {
            true => Some(self.machines.guest(vm).await?),
            false => None,
        };
        for name in names {
            let Ok(backend) = self.registry.session_backend(name) else {
                continue;
            };
            let of_backend = open.iter().filter(|one| one.backend == name);
            let snapshots = match &guest {
                Some(guest) => {
                    let ids: Vec<SessionId> = of_backend.map(|one| one.id.clone()).collect();
                    inspect(&backend, guest, &ids).await?
                }
                None => {
                    let of_backend: Vec<&Session> = of_backend.copied().collect();
                    self.snapshots_of_stopped(vm, &backend, &of_backend).await?
                }
            };
            asked.insert(name);
            seen.extend(snapshots.into_iter().map(|one| (one.id.clone(), one)));
        }
        let observed = open
            .iter()
            .filter(|one| asked.contains(one.backend.as_str()))
            .map(|one| (one.id.clone(), seen.remove(&one.id)))
            .collect();
        let mut recorded = self.record_observed(observed)?;
        Ok(sessions
            .into_iter()
            .filter_map(|session| match recorded.remove(&session.id) {
                Some(recorded) => recorded,
                None => Some(session),
            })
            .collect())
    }

    /// Compares what was seen of sessions with their records, stores what is new and tells of it.
    /// Answers with the records; `None` for a session that was deleted.
    fn record_observed(
        &self,
        observed: Vec<(SessionId, Option<Snapshot>)>,
    ) -> Result<BTreeMap<SessionId, Option<Session>>, Failure> {
        let _recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut recorded = BTreeMap::new();
        let mut changed = Vec::new();
        let mut before = Vec::new();
        for (id, observed) in observed {
            let Some(mut session) = self.store.session_by_id(&id)? else {
                recorded.insert(id, None);
                continue;
            };
            let known = session.state();
            let state = known.observed(observed.as_ref().map(|one| one.state));
            let is_unknown = observed.is_none();
            let mut snapshot = match observed {
                Some(observed) if !is_settled(&session) => observed,
                Some(observed) => with_logs_of(session.snapshot.clone(), &observed),
                None => session.snapshot.clone(),
            };
            if state == SessionState::Lost && snapshot.last_error.is_none() {
                snapshot.last_error = Some("nothing of it is left in the guest".into());
            }
            snapshot.state = state;
            if is_unknown && state == SessionState::Lost && snapshot.last_error.is_none() {
                snapshot.last_error = Some(NOT_KNOWN.into());
            }
            snapshot.alive &= !state.is_final();
            if snapshot != session.snapshot {
                session.snapshot = snapshot;
                changed.push(session.clone());
                before.push(known);
            }
            recorded.insert(id, Some(session));
        }
        if !changed.is_empty() {
            self.store.update_observed(&changed)?;
        }
        for (known, session) in before.into_iter().zip(&changed) {
            self.changes.tell(known, session);
        }
        Ok(recorded)
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
            self.changes.tell_deleted(&open.session);
        } else {
            // Its directory goes when the guest is looked into next (see `discover`).
            self.store.delete_session_here(&session)?;
            self.changes.tell_deleted(&session);
        }
        Ok(())
    }

    /// Tells that the sessions of a machine are gone, which has been deleted with these.
    pub fn forget_all(&self, sessions: &[Session]) {
        for session in sessions {
            self.changes.tell_deleted(session);
        }
    }

    /// The sessions of a machine, as they were known last.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn known(&self, vm: &VmRecord) -> Result<Vec<Session>, Failure> {
        Ok(self.store.sessions(&vm.id)?)
    }

    /// Tells a terminal session its size while nobody is attached.
    ///
    /// # Errors
    /// Where it has no terminal or does not run.
    pub async fn resize(&self, vm: &VmRecord, request: &SessionResize) -> Result<(), Failure> {
        let open = self.open(vm, &request.session).await?;
        attach::check_size(request.size)?;
        let (columns, rows) = (request.size.columns, request.size.rows);
        let script = open.backend.resize(&open.reference, columns, rows)?;
        open.run(&script, "resizing the terminal").await
    }

    /// A session with everything needed to act on it.
    async fn open(&self, vm: &VmRecord, name_or_id: &str) -> Result<Open, Failure> {
        let session = self.find(vm, name_or_id).await?;
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

/// Whether the beginning of an ended session's log may still go: what outgrew its limit is freed by
/// and by, in blocks, and not while somebody reads it.
fn may_lose_more(session: &Session) -> bool {
    let written = session.snapshot.stdout_bytes | session.snapshot.stderr_bytes;
    session.state() == SessionState::Exited && written >= 4096
}

/// What is known of an ended session, with what its logs have now.
fn with_logs_of(known: Snapshot, now: &Snapshot) -> Snapshot {
    Snapshot {
        stdout_bytes: known.stdout_bytes.max(now.stdout_bytes),
        stderr_bytes: known.stderr_bytes.max(now.stderr_bytes),
        stdout_start: known.stdout_start.max(now.stdout_start),
        stderr_start: known.stderr_start.max(now.stderr_start),
        ..known
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
    let mut snapshots = Vec::new();
    for ids in ids.chunks(IDS_AT_ONCE) {
        let script = backend.inspect(&root, ids)?;
        let output = guest_script::run(&guest.remote, &script).await?;
        snapshots.extend(backend.read_inspect(ids, &output)?);
    }
    Ok(snapshots)
}

/// Whether a session has all of these labels.
fn has_tags(session: &Session, tags: &BTreeMap<String, String>) -> bool {
    tags.iter()
        .all(|(key, value)| session.tags.get(key) == Some(value))
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
