//! Subscriptions: what happens to sessions, for a client that listens.

use super::changes::Change;
use super::watch::Wish;
use super::{Sessions, has_tags};
use crate::store::VmRecord;
use crate::task::{Task, now_ms};
use banger_core::protocol::event::{Event, EventKind, EventOf, Subscribe, Subscribed};
use banger_core::protocol::session::Session;
use banger_core::{Failure, SessionId, VmId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// A session counts as idle after this long without output, where nobody has said otherwise.
const IDLE: Duration = Duration::from_secs(30);
/// The shortest such time.
const IDLE_LEAST: Duration = Duration::from_secs(1);

/// What a client wants to hear of.
struct Subscription {
    task: Task,
    vm: Option<VmRecord>,
    session: Option<SessionId>,
    tags: BTreeMap<String, String>,
    idle: Duration,
    /// Sessions that run, and since when they have been quiet.
    quiet: HashMap<SessionId, Quiet>,
    watched: HashMap<VmId, Arc<Wish>>,
}

struct Quiet {
    session: Arc<Session>,
    since: Instant,
    told: bool,
}

impl Sessions {
    /// Sends a client what happens to sessions from now on, until it goes away.
    ///
    /// # Errors
    /// Kind `NotFound` where there is no such machine or session.
    pub async fn subscribe(
        self: &Arc<Self>,
        request: &Subscribe,
        task: &Task,
    ) -> Result<Subscribed, Failure> {
        let vm = match &request.vm {
            Some(vm) => Some(self.machines.find(vm)?),
            None => None,
        };
        let session = match (&vm, &request.session) {
            (Some(vm), Some(session)) => Some(self.find(vm, session).await?.id),
            (_, None) => None,
            (None, Some(_)) => {
                return Err(Failure::new(
                    banger_core::Kind::Usage,
                    "a session is named together with its VM",
                ));
            }
        };
        let idle = request.idle_ms.map_or(IDLE, Duration::from_millis);
        let mut subscription = Subscription {
            task: task.clone(),
            vm,
            session,
            tags: request.tags.clone(),
            idle: idle.max(IDLE_LEAST),
            quiet: HashMap::new(),
            watched: HashMap::new(),
        };
        let mut changes = self.changes.listen();
        subscription.watch_all(self)?;
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            // The reply comes first.
            subscription.task.replied().await;
            let cancel = subscription.task.cancel().clone();
            let telling = async {
                let tick = (subscription.idle / 4).min(Duration::from_secs(2));
                let mut ticks = tokio::time::interval(tick);
                loop {
                    let told = tokio::select! {
                        change = changes.recv() => match change {
                            Ok(change) => subscription.hear(change).await,
                            Err(RecvError::Lagged(_)) => subscription.lagged(&sessions).await,
                            Err(RecvError::Closed) => return,
                        },
                        _ = ticks.tick() => subscription.look(&sessions).await,
                    };
                    if !told {
                        return;
                    }
                }
            };
            cancel.run_until_cancelled(telling).await;
        });
        Ok(Subscribed {
            subscription: task.request(),
        })
    }
}

impl Subscription {
    fn wants(&self, session: &Session) -> bool {
        self.vm.as_ref().is_none_or(|vm| vm.id == session.vm_id)
            && self.session.as_ref().is_none_or(|id| *id == session.id)
            && has_tags(session, &self.tags)
    }

    /// Has every machine watched that may have something to tell, and takes up its sessions.
    fn watch_all(&mut self, sessions: &Arc<Sessions>) -> Result<(), Failure> {
        let vms = match &self.vm {
            Some(vm) => vec![vm.clone()],
            None => sessions.machines.records()?,
        };
        self.watched
            .retain(|id, _| vms.iter().any(|vm| vm.id == *id));
        let every = (self.idle / 3).clamp(Duration::from_secs(1), Duration::from_secs(10));
        for vm in vms {
            if self.watched.contains_key(&vm.id) {
                continue;
            }
            for session in sessions.store.sessions(&vm.id)? {
                self.take_up(Arc::new(session));
            }
            self.watched
                .insert(vm.id.clone(), sessions.watch(&vm, every));
        }
        Ok(())
    }

    fn take_up(&mut self, session: Arc<Session>) {
        if !session.state().is_final() && self.wants(&session) {
            let quiet = Quiet {
                session: Arc::clone(&session),
                since: Instant::now(),
                told: false,
            };
            self.quiet.entry(session.id.clone()).or_insert(quiet);
        }
    }

    /// Tells of a change; whether the client is still there.
    async fn hear(&mut self, Change { kind, session }: Change) -> bool {
        if !self.wants(&session) {
            return true;
        }
        let id = session.id.clone();
        let is_over = session.state().is_final() || kind == Some(EventKind::Deleted);
        let mut resumed = false;
        if let Some(quiet) = self.quiet.get_mut(&id) {
            if written(&quiet.session) != written(&session) {
                quiet.since = Instant::now();
                resumed = std::mem::take(&mut quiet.told);
            }
            quiet.session = Arc::clone(&session);
        } else {
            self.take_up(Arc::clone(&session));
        }
        if is_over {
            self.quiet.remove(&id);
        }
        (!resumed || self.tell(EventKind::OutputResumed, &session).await)
            && match kind {
                Some(kind) => self.tell(kind, &session).await,
                None => true,
            }
    }

    /// Tells which sessions have become idle; whether the client is still there.
    async fn look(&mut self, sessions: &Arc<Sessions>) -> bool {
        if let Err(failure) = self.watch_all(sessions) {
            tracing::warn!(error = %failure, "a subscription may miss events");
        }
        let mut idle = Vec::new();
        for quiet in self.quiet.values_mut() {
            if !quiet.told && quiet.since.elapsed() >= self.idle {
                quiet.told = true;
                idle.push(Arc::clone(&quiet.session));
            }
        }
        for session in idle {
            if !self.tell(EventKind::OutputIdle, &session).await {
                return false;
            }
        }
        true
    }

    /// Says of each session that it may have changed unseen; whether the client is still there.
    async fn lagged(&mut self, sessions: &Arc<Sessions>) -> bool {
        let mut all = Vec::new();
        for vm in self.watched.keys() {
            all.extend(sessions.store.sessions(vm).unwrap_or_default());
        }
        self.quiet.clear();
        for session in all {
            let session = Arc::new(session);
            if self.wants(&session) {
                self.take_up(Arc::clone(&session));
                if !self.tell(EventKind::Lagged, &session).await {
                    return false;
                }
            }
        }
        true
    }

    async fn tell(&self, kind: EventKind, session: &Session) -> bool {
        let event = Event {
            kind,
            at_ms: now_ms(),
            vm: session.vm.clone(),
            vm_id: session.vm_id.clone(),
            session: session.name.clone(),
            session_id: session.id.clone(),
            tags: session.tags.clone(),
            state: session.state(),
            exit_code: session.snapshot.exit_code,
            stdout_bytes: session.snapshot.stdout_bytes,
            stderr_bytes: session.snapshot.stderr_bytes,
        };
        self.task
            .tell(EventOf {
                subscription: self.task.request(),
                event,
            })
            .await
    }
}

/// Bytes ever written.
fn written(session: &Session) -> (u64, u64) {
    (session.snapshot.stdout_bytes, session.snapshot.stderr_bytes)
}
