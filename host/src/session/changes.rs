//! What happens to sessions, told within the daemon.

use banger_core::SessionId;
use banger_core::protocol::event::EventKind;
use banger_core::protocol::session::Session;
use banger_core::session::SessionState;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Changes that may wait for one listener.
const WAITING: usize = 1024;

/// Something is true of a session that was not before.
#[derive(Debug, Clone)]
pub struct Change {
    /// What, where it is more than its logs' sizes.
    pub kind: Option<EventKind>,
    /// What is known of it now.
    pub session: Arc<Session>,
}

impl Change {
    /// Whether it is about this session.
    pub fn is_of(&self, id: &SessionId) -> bool {
        self.session.id == *id
    }
}

/// Tells every listener of every change.
#[derive(Debug, Clone)]
pub struct Changes(broadcast::Sender<Change>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Changes {
    /// What happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }

    /// Tells that a session was in the state `before` and is now as given.
    pub fn tell(&self, before: SessionState, session: &Session) {
        let session = Arc::new(session.clone());
        let mut kinds = kinds(before, session.state()).peekable();
        if kinds.peek().is_none() {
            self.send(None, &session);
        }
        for kind in kinds {
            self.send(Some(kind), &session);
        }
    }

    /// Tells that a session was deleted.
    pub fn tell_deleted(&self, session: &Session) {
        self.send(Some(EventKind::Deleted), &Arc::new(session.clone()));
    }

    fn send(&self, kind: Option<EventKind>, session: &Arc<Session>) {
        // Mostly nobody listens.
        let _ = self.0.send(Change {
            kind,
            session: Arc::clone(session),
        });
    }
}

/// What has happened between two states. A program that ended before anybody looked has started
/// as well.
fn kinds(before: SessionState, now: SessionState) -> impl Iterator<Item = EventKind> {
    use SessionState::{Exited, Failed, Lost, Running, Starting};
    let (first, second) = match (before, now) {
        (Starting, Exited) => (Some(EventKind::Started), Some(EventKind::Exited)),
        (Starting | Lost, Running) => (Some(EventKind::Started), None),
        (Running | Lost, Exited) => (Some(EventKind::Exited), None),
        (Starting | Running | Lost, Failed) => (Some(EventKind::Failed), None),
        (Starting | Running, Lost) => (Some(EventKind::Lost), None),
        (Starting, Starting)
        | (Running, Starting | Running)
        | (Lost, Starting | Lost)
        | (Exited | Failed, _) => (None, None),
    };
    first.into_iter().chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionState::{Exited, Failed, Lost, Running, Starting};

    #[test]
    fn a_change_of_state_is_told_once_and_sizes_are_told_without_a_name() {
        let told = |before, now| kinds(before, now).collect::<Vec<_>>();
        assert_eq!(
            told(Starting, Exited),
            [EventKind::Started, EventKind::Exited]
        );
        assert_eq!(told(Running, Lost), [EventKind::Lost]);
        for state in [Starting, Running, Exited, Failed, Lost] {
            assert_eq!(told(state, state), [], "{state:?}");
        }
    }
}
