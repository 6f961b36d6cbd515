//! A fake daemon that has one session, and plays its connections one after the other.

use super::{Asked, Fake, Talk};
use banger_core::Failure;
use banger_core::protocol::Call;
use banger_core::protocol::event::{Event, EventKind};
use banger_core::protocol::session::{OutputFrom, Session, SessionAttach, SessionLogs};
use banger_core::session::{SessionState, Snapshot, StdinKind};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// How the next request to attach, or for logs, goes.
pub enum Turn {
    /// It is refused.
    Fail(Failure),
    /// It gets a stream that begins at these bytes of stdout and stderr.
    Talk(u64, u64, Box<dyn FnOnce(&mut Talk) + Send>),
}

/// A stream that begins at the first bytes.
pub fn talk(talk: impl FnOnce(&mut Talk) + Send + 'static) -> Turn {
    talk_from(0, 0, talk)
}

/// A stream that begins at these bytes of stdout and stderr.
pub fn talk_from(stdout: u64, stderr: u64, talk: impl FnOnce(&mut Talk) + Send + 'static) -> Turn {
    Turn::Talk(stdout, stderr, Box::new(talk))
}

/// What was asked.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Call>>>);

impl Heard {
    /// Everything.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().expect("a lock").clone()
    }

    /// The requests to attach.
    pub fn attaches(&self) -> Vec<SessionAttach> {
        let calls = self.calls().into_iter();
        let attach = |call| match call {
            Call::SessionAttach(attach) => Some(attach),
            _ => None,
        };
        calls.filter_map(attach).collect()
    }

    /// The requests for logs.
    pub fn logs(&self) -> Vec<SessionLogs> {
        let calls = self.calls().into_iter();
        let logs = |call| match call {
            Call::SessionLogs(logs) => Some(logs),
            _ => None,
        };
        calls.filter_map(logs).collect()
    }

    /// Where the streams were asked from.
    pub fn offsets(&self) -> Vec<(Option<u64>, Option<u64>)> {
        let offsets = |attach: SessionAttach| (attach.stdout_offset, attach.stderr_offset);
        self.attaches().into_iter().map(offsets).collect()
    }
}

/// A daemon with this session, whose streams take these turns.
pub fn playing(session: Session, turns: Vec<Turn>) -> (Fake, Heard) {
    let (answer, heard) = player(session, turns);
    (Fake::new(answer), heard)
}

/// How such a daemon answers.
pub fn player(
    session: Session,
    turns: Vec<Turn>,
) -> (impl Fn(&mut Asked) + Send + Sync + 'static, Heard) {
    let heard = Heard::default();
    let (kept, turns) = (heard.clone(), Mutex::new(VecDeque::from(turns)));
    let answer = move |asked: &mut Asked| {
        kept.0.lock().expect("a lock").push(asked.call.clone());
        match &asked.call {
            Call::SessionGet(_) | Call::SessionStart(_) => asked.reply(&session),
            Call::SessionAttach(_) | Call::SessionLogs(_) => {
                let turn = turns.lock().expect("a lock").pop_front();
                match turn.expect("a turn") {
                    Turn::Fail(failure) => asked.fail(failure),
                    Turn::Talk(stdout_offset, stderr_offset, talk) => {
                        let stream = asked.stream(talk);
                        asked.reply(&OutputFrom {
                            stream,
                            session_id: session.id.clone(),
                            stdout_offset,
                            stderr_offset,
                        });
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    };
    (answer, heard)
}

/// A session that runs.
pub fn session(name: &str, stdin: StdinKind) -> Session {
    let id: banger_core::SessionId = "0123456789ab".parse().expect("an id");
    Session {
        id: id.clone(),
        name: name.parse().expect("a name"),
        vm: "x".parse().expect("a name"),
        vm_id: "0123456789ab".parse().expect("an id"),
        backend: "ssh".into(),
        stdin,
        command: vec!["sh".into()],
        cwd: banger_core::GuestPath::try_from(b"/root".to_vec()).expect("a path"),
        state_dir: "/var/x".into(),
        tags: Default::default(),
        created_at_ms: 0,
        snapshot: Snapshot {
            id,
            state: SessionState::Running,
            pid: Some(7),
            exit_code: None,
            alive: true,
            last_error: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_start: 0,
            stderr_start: 0,
            started_at_ms: None,
            ended_at_ms: None,
        },
        failure: None,
    }
}

/// The same, ended.
pub fn ended(name: &str, code: i32) -> Session {
    let mut session = session(name, StdinKind::Pipe);
    session.snapshot.state = SessionState::Exited;
    session.snapshot.exit_code = Some(code);
    session.snapshot.alive = false;
    session
}

/// An event of a session.
pub fn event(name: &str, kind: EventKind) -> Event {
    let Session {
        vm,
        vm_id,
        name,
        id,
        tags,
        ..
    } = session(name, StdinKind::Pipe);
    Event {
        kind,
        at_ms: 951_782_400_000,
        vm,
        vm_id,
        session: name,
        session_id: id,
        tags,
        state: SessionState::Exited,
        exit_code: (kind == EventKind::Exited).then_some(3),
        stdout_bytes: 1,
        stderr_bytes: 2,
    }
}
