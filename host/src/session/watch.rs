//! Keeps an eye on the sessions of a machine for as long as somebody wants to know.
//!
//! A backend's `watch` script says at once which session may have changed; that session is asked
//! after then. Besides, all are asked after from time to time: for the sizes of their logs, and for
//! what a script can't say, that its machine or a supervisor was killed.

use super::Sessions;
use crate::guest_script;
use crate::plugin::SessionBackend;
use crate::ssh::ProcessEvent;
use crate::store::VmRecord;
use banger_core::protocol::session::Session;
use banger_core::{Failure, SessionId, VmId};
use futures_util::future::join_all;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How long to wait before a guest that could not be watched is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest line of a watch: an id.
const LINE_LIMIT: usize = 64;

/// The machines that are watched.
#[derive(Debug, Default)]
pub struct Watches(Mutex<HashMap<VmId, Vec<Weak<Wish>>>>);

/// That somebody wants to know; it ends when dropped.
#[derive(Debug)]
pub struct Wish {
    /// How often all sessions are asked after.
    every: Duration,
}

impl Watches {
    /// Adds a wish; says whether it is the machine's first.
    fn add(&self, vm: &VmId, wish: &Arc<Wish>) -> bool {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !watches.contains_key(vm);
        let wishes = watches.entry(vm.clone()).or_default();
        wishes.retain(|wish| wish.strong_count() > 0);
        wishes.push(Arc::downgrade(wish));
        is_first
    }

    /// How often a machine's sessions are asked after; `None`, and no more watched, where nobody
    /// wants to know.
    fn every(&self, vm: &VmId) -> Option<Duration> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let every = watches
            .get(vm)?
            .iter()
            .filter_map(Weak::upgrade)
            .map(|wish| wish.every)
            .min();
        if every.is_none() {
            watches.remove(vm);
        }
        every
    }
}

impl Sessions {
    /// Has a machine's sessions watched while the wish lives, and asked after this often.
    pub(super) fn watch(self: &Arc<Self>, vm: &VmRecord, every: Duration) -> Arc<Wish> {
        let wish = Arc::new(Wish { every });
        if self.watches.add(&vm.id, &wish) {
            let (sessions, vm) = (Arc::clone(self), vm.clone());
            tokio::spawn(async move { sessions.keep_watch(&vm).await });
        }
        wish
    }

    async fn keep_watch(self: &Arc<Self>, vm: &VmRecord) {
        while let Some(every) = self.watches.every(&vm.id) {
            let mut changes = self.changes.listen();
            let backends = self.backends_to_watch(vm);
            // A session that is started meanwhile may be the first of its backend.
            let another = async {
                loop {
                    match changes.recv().await {
                        Ok(change) => {
                            let session = &change.session;
                            if session.vm_id == vm.id
                                && !session.state().is_final()
                                && !backends.contains(&session.backend)
                            {
                                return;
                            }
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            let watching = async {
                join_all(
                    backends
                        .iter()
                        .map(|backend| self.watch_backend_again(vm, backend)),
                )
                .await;
                // None of them ever ends; there may be none.
                std::future::pending::<()>().await;
            };
            let looking = async {
                let mut every = every;
                loop {
                    self.look(vm).await;
                    tokio::time::sleep(every).await;
                    match self.watches.every(&vm.id) {
                        Some(now) => every = now,
                        None => return,
                    }
                    if self.backends_to_watch(vm) != backends {
                        return;
                    }
                }
            };
            tokio::select! {
                () = watching => {}
                () = looking => {}
                () = another => {}
            }
        }
    }

    /// Asks after all sessions of a machine.
    async fn look(&self, vm: &VmRecord) {
        let asked = match self.store.sessions(&vm.id) {
            Ok(sessions) => self.refresh(vm, running(sessions)).await.map(drop),
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = asked {
            tracing::debug!(vm = %vm.name, error = %failure, "sessions could not be asked after");
        }
    }

    fn backends_to_watch(&self, vm: &VmRecord) -> BTreeSet<String> {
        let sessions = self.store.sessions(&vm.id).unwrap_or_default();
        running(sessions)
            .into_iter()
            .map(|one| one.backend)
            .collect()
    }

    async fn watch_backend_again(&self, vm: &VmRecord, name: &str) {
        loop {
            if let Err(failure) = self.watch_backend(vm, name).await {
                tracing::debug!(vm = %vm.name, error = %failure, "sessions can't be watched");
            }
            tokio::time::sleep(RETRY_AFTER).await;
            // The machine may have stopped.
            self.look(vm).await;
        }
    }

    /// Asks after each session that the guest names, until the connection is lost.
    async fn watch_backend(&self, vm: &VmRecord, name: &str) -> Result<(), Failure> {
        let backend: SessionBackend = self.registry.session_backend(name)?;
        let guest = self.machines.guest(vm).await?;
        let script = backend.watch(&guest.state_root()?)?;
        let mut process = guest_script::start(&guest.remote, &script).await?;
        let mut begun = Vec::new();
        while let Some(event) = process.output().next().await {
            let bytes = match event {
                ProcessEvent::Stdout(bytes) => bytes,
                ProcessEvent::Stderr(_) => continue,
                ProcessEvent::Exit(exit) => {
                    guest_script::exit_code(exit)?;
                    break;
                }
            };
            begun.extend_from_slice(&bytes);
            let whole = begun
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            let lines: Vec<u8> = begun.drain(..whole).collect();
            if begun.len() > LINE_LIMIT {
                return Err(Failure::new(
                    banger_core::Kind::Guest,
                    "the guest names no sessions",
                ));
            }
            let named: BTreeSet<&[u8]> = lines
                .split_inclusive(|b| *b == b'\n')
                .map(<[u8]>::trim_ascii)
                .collect();
            let mut sessions = Vec::new();
            for line in named {
                if line.is_empty() {
                    // The first line: what has happened before it may have been missed.
                    sessions.extend(running(self.store.sessions(&vm.id)?));
                } else if let Some(id) = parse_id(line) {
                    sessions.extend(self.store.session_by_id(&id)?);
                }
            }
            sessions.retain(|one| one.vm_id == vm.id);
            self.refresh(vm, sessions).await?;
        }
        Ok(())
    }
}

fn parse_id(line: &[u8]) -> Option<SessionId> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Those that may still change by themselves.
fn running(sessions: Vec<Session>) -> Vec<Session> {
    sessions
        .into_iter()
        .filter(|one| !one.state().is_final())
        .collect()
}
