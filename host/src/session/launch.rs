//! Starts sessions.

use super::discover::HostRecord;
use super::{Sessions, preflight, starting};
use crate::guest_script;
use crate::plugin::{self, HOST_RECORD_LIMIT, LaunchRequest, SessionBackend};
use crate::store::VmRecord;
use crate::task::{Task, now_ms};
use crate::vm::Guest;
use banger_core::protocol::session::{Session, SessionStart, TerminalSize};
use banger_core::script::is_variable_name;
use banger_core::session::{SessionState, Snapshot, StdinKind};
use banger_core::{Failure, GuestPath, Kind, SessionId, SessionName, escape};
use std::sync::PoisonError;
use std::time::Duration;

/// The terminal's size where nobody has said one.
const TERMINAL_SIZE: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

/// For how long, and how often, a launch is looked after whose end nobody heard.
const LOOK_FOR: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a launch script ends with where it did not get all that was streamed to it.
const UPLOAD_CUT: u8 = 6;

/// Bytes of all labels as JSON. They are part of the host record.
const TAGS_LIMIT: usize = HOST_RECORD_LIMIT / 2;

/// Bytes that each log keeps where nobody has said it.
const LOG_LIMIT: u64 = 512 << 20;

impl Sessions {
    /// Starts a session and returns once its program runs.
    ///
    /// # Errors
    /// A check that did not pass, or a launch that failed: the session stays, `failed`, with what
    /// is known of it, until another is started under its name. Where the guest could not be asked,
    /// nothing is left.
    pub async fn start(
        &self,
        vm: &VmRecord,
        request: &SessionStart,
        task: &Task,
    ) -> Result<Session, Failure> {
        let Some(program) = request
            .command
            .first()
            .filter(|program| !program.0.is_empty())
        else {
            return Err(Failure::new(Kind::Usage, "a session needs a command")
                .hint("`banger vm session start VM -- COMMAND…`"));
        };
        if let Some(word) = request.command.iter().find(|word| word.0.contains(&0)) {
            return Err(Failure::new(
                Kind::Invalid,
                format!("a word of the command holds a NUL byte: `{word}`"),
            ));
        }
        for (name, value) in &request.env {
            if !is_variable_name(name) || value.0.contains(&0) {
                return Err(Failure::new(
                    Kind::Invalid,
                    format!(
                        "`{}` can be no variable of the environment",
                        escape::text(name.as_bytes())
                    ),
                )
                .hint("a name is a letter or `_`, then letters, digits and `_`"));
            }
        }
        check_tags(request)?;
        if let Some(size) = request.terminal {
            super::attach::check_size(size)?;
        }
        let backend = self.backend(request)?;
        let mut commands = preflight::required_commands(&request.require)?;
        for command in &backend.info().needs {
            if !commands.contains(command) {
                commands.push(command.clone());
            }
        }
        let replaced = self.replaceable(vm, request)?;
        let guest = self.machines.guest(vm).await?;
        let cwd = match &request.cwd {
            Some(cwd) => cwd.clone(),
            None => self.default_cwd(vm, &guest)?,
        };
        let checked = task
            .until_cancelled(preflight::check(
                &self.registry,
                &guest,
                &cwd,
                &program.0,
                &commands,
            ))
            .await;
        let checked = match checked {
            Err(failure) if failure.stage.is_empty() => {
                return Err(self.machines.explain(vm, failure).await);
            }
            checked => checked,
        };
        task.check()?;
        if let Some(replaced) = replaced {
            // It never ran: whoever mends what was wrong starts it again under its name.
            self.delete(vm, replaced.id.as_str()).await?;
        }
        let session = self.record(vm, request, &backend, &guest, cwd)?;
        if let Err(failure) = checked {
            return Err(self.record_failed(vm, session, failure)?);
        }
        // From here on the launch goes to its end even if the client has gone: the session is
        // in the database, and a launch cut short would leave it in doubt.
        let reference = plugin::Session {
            id: session.id.clone(),
            state_root: guest.state_root()?,
            stdin_kind: session.stdin,
        };
        match launch(&backend, &guest, reference, request, &session).await {
            Ok(snapshot) => {
                let observed = match snapshot {
                    Some(snapshot) => self
                        .record_observed(vec![(session.id.clone(), Some(snapshot))])?
                        .remove(&session.id)
                        .flatten(),
                    None => None,
                };
                match observed {
                    Some(session) => Ok(session),
                    None => Ok(self.observe(vm, session.clone()).await.unwrap_or(session)),
                }
            }
            Err(Unlaunched::Told(failure)) => {
                let session = self.observe(vm, session.clone()).await.unwrap_or(session);
                Err(self.record_failed(vm, session, failure)?)
            }
            Err(Unlaunched::Unheard(failure)) => self.look_after(vm, session, failure).await,
        }
    }

    /// Looks what became of a launch that nobody heard the end of. It may still go to its end: only
    /// what the guest says is taken for a failure, since one that has failed is never asked after
    /// again.
    async fn look_after(
        &self,
        vm: &VmRecord,
        session: Session,
        failure: Failure,
    ) -> Result<Session, Failure> {
        let deadline = tokio::time::Instant::now() + LOOK_FOR;
        loop {
            let now = match self.observe(vm, session.clone()).await {
                Ok(now) => now,
                Err(_) => break,
            };
            match now.state() {
                SessionState::Running | SessionState::Exited => return Ok(now),
                SessionState::Lost => return Err(self.record_failed(vm, now, failure)?),
                SessionState::Failed => {
                    let failure = match &now.snapshot.last_error {
                        Some(why) => Failure::new(Kind::Launch, why.to_string()).stage("launch"),
                        None => failure,
                    };
                    return Err(self.record_failed(vm, now, failure)?);
                }
                SessionState::Starting if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                SessionState::Starting => break,
            }
        }
        self.record_unheard(&session.id, &failure)?;
        let show = format!(
            "`banger vm session show {} {}` tells whether it was started",
            vm.name, session.name
        );
        Err(failure.hint(show))
    }

    /// Keeps why nobody knows whether a session was started, until the guest tells.
    fn record_unheard(&self, id: &SessionId, failure: &Failure) -> Result<(), Failure> {
        let _recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mut session) = self.store.session_by_id(id)?
            && session.state() == SessionState::Starting
        {
            session.snapshot.last_error = Some(failure.message.as_str().into());
            self.store.update_session(&session)?;
        }
        Ok(())
    }

    /// The session whose name is asked for, where it never ran.
    fn replaceable(
        &self,
        vm: &VmRecord,
        request: &SessionStart,
    ) -> Result<Option<Session>, Failure> {
        let Some(name) = &request.name else {
            return Ok(None);
        };
        match self.store.session(&vm.id, name.as_str())? {
            Some(session) if session.state() != SessionState::Failed => Err(Failure::new(
                Kind::Conflict,
                format!("the VM `{}` has a session `{name}` already", vm.name),
            )
            .hint("choose another name, or delete that session first")),
            other => Ok(other),
        }
    }

    /// Keeps why a session did not start, and says where it can be read.
    fn record_failed(
        &self,
        vm: &VmRecord,
        mut session: Session,
        mut failure: Failure,
    ) -> Result<Failure, Failure> {
        let show = format!(
            "`banger vm session show {} {}` tells more",
            vm.name, session.name
        );
        failure.hint = match failure.hint.as_str() {
            "" => show,
            hint => format!("{hint}; {show}"),
        };
        let before = session.state();
        if matches!(before, SessionState::Starting | SessionState::Lost) {
            session.snapshot.state = SessionState::Failed;
        }
        session.failure = Some(failure.clone());
        self.store.update_session(&session)?;
        self.changes.tell(before, &session);
        Ok(failure)
    }

    /// The backend that was asked for, or the first that offers this kind of standard input.
    fn backend(&self, request: &SessionStart) -> Result<SessionBackend, Failure> {
        let word = match request.stdin {
            StdinKind::None => "none",
            StdinKind::Pipe => "pipe",
            StdinKind::Tty => "tty",
        };
        if let Some(name) = &request.backend {
            let backend = self.registry.session_backend(name)?;
            if !backend.info().stdin_kinds.contains(&request.stdin) {
                return Err(Failure::new(
                    Kind::Invalid,
                    format!("the session backend `{name}` has no --stdin {word}"),
                )
                .hint("`banger plugin list` shows the others"));
            }
            return Ok(backend);
        }
        self.registry
            .session_backends()
            .iter()
            .find(|backend| backend.info().stdin_kinds.contains(&request.stdin))
            .cloned()
            .ok_or_else(|| {
                Failure::new(
                    Kind::Plugin,
                    format!("no plugin provides a session backend with --stdin {word}"),
                )
                .hint("`banger plugin list` shows what there is")
            })
    }

    /// The working copy where there is one, else the home.
    fn default_cwd(&self, vm: &VmRecord, guest: &Guest) -> Result<GuestPath, Failure> {
        let workspaces = self.store.workspaces(&vm.id)?;
        Ok(match workspaces.as_slice() {
            [only] => only.guest_path.clone(),
            [] => guest.home.clone(),
            [first, ..] => {
                let usual = guest.home.join("repo").ok();
                workspaces
                    .iter()
                    .find(|workspace| Some(&workspace.guest_path) == usual.as_ref())
                    .unwrap_or(first)
                    .guest_path
                    .clone()
            }
        })
    }

    /// Records a session that is about to be launched.
    fn record(
        &self,
        vm: &VmRecord,
        request: &SessionStart,
        backend: &SessionBackend,
        guest: &Guest,
        cwd: GuestPath,
    ) -> Result<Session, Failure> {
        let id = SessionId::from_random(rand::random());
        let reference = plugin::Session {
            id: id.clone(),
            state_root: guest.state_root()?,
            stdin_kind: request.stdin,
        };
        let paths = backend.paths(&reference)?;
        let mut session = Session {
            snapshot: starting(&id),
            name: name_for(request, &id, 0),
            id,
            vm: vm.name.clone(),
            vm_id: vm.id.clone(),
            backend: backend.info().name.to_string(),
            stdin: request.stdin,
            command: request.command.clone(),
            cwd,
            state_dir: paths.state_dir.to_string(),
            tags: request.tags.clone(),
            created_at_ms: now_ms(),
            failure: None,
        };
        // A name that was made up must not fail because it is taken.
        for attempt in 1.. {
            match self.store.insert_session(&session) {
                Ok(()) => break,
                Err(crate::store::StoreError::Taken { .. })
                    if request.name.is_none() && attempt < 1000 =>
                {
                    session.name = name_for(request, &session.id, attempt);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(session)
    }
}

/// The name that was asked for, else the program's, with a number where that is taken.
fn name_for(request: &SessionStart, id: &SessionId, attempt: u32) -> SessionName {
    if let Some(name) = &request.name {
        return name.clone();
    }
    let program = request.command.first().map_or(&[][..], AsRef::as_ref);
    let base = program.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let base: String = base
        .iter()
        .map(|b| match b {
            b'a'..=b'z' | b'0'..=b'9' => char::from(*b),
            b'A'..=b'Z' => char::from(b.to_ascii_lowercase()),
            _ => '-',
        })
        .take(40)
        .collect();
    let base = base.trim_matches('-');
    let name = match (base, attempt) {
        ("", _) => id.to_string(),
        (base, 0) => base.to_owned(),
        (base, attempt) => format!("{base}-{}", attempt + 1),
    };
    // An id is a valid name as well, should the program's have made none.
    name.parse().unwrap_or_else(|_| {
        #[expect(clippy::unwrap_used, reason = "twelve hexadecimal digits are a label")]
        id.as_str().parse().unwrap()
    })
}

/// Refuses labels that the guest could not keep whole for a host that has forgotten the session.
fn check_tags(request: &SessionStart) -> Result<(), Failure> {
    let length = serde_json::to_vec(&request.tags).map_or(usize::MAX, |json| json.len());
    if length > TAGS_LIMIT {
        return Err(Failure::new(
            Kind::Invalid,
            format!("the session's labels have {length} bytes; at most {TAGS_LIMIT} are kept"),
        ));
    }
    if request.tags.contains_key("") {
        return Err(Failure::new(Kind::Invalid, "a label has no key"));
    }
    Ok(())
}

/// Why a session was not launched, as far as is known.
enum Unlaunched {
    /// It was refused, here or in the guest.
    Told(Failure),
    /// The connection was lost, or the guest did not answer in time: it may have been.
    Unheard(Failure),
}

async fn launch(
    backend: &SessionBackend,
    guest: &Guest,
    reference: plugin::Session,
    request: &SessionStart,
    session: &Session,
) -> Result<Option<Snapshot>, Unlaunched> {
    let size = request.terminal.unwrap_or(TERMINAL_SIZE);
    let script = backend.launch(&LaunchRequest {
        session: reference,
        command: request.command.iter().map(|word| word.0.clone()).collect(),
        environment: request
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.0.clone()))
            .collect(),
        cwd: session.cwd.clone(),
        columns: size.columns,
        rows: size.rows,
        log_limit: request.log_limit_bytes.unwrap_or(LOG_LIMIT),
        host_record: HostRecord::of(session),
        options: Vec::new(),
    });
    let script = script.map_err(|error| Unlaunched::Told(error.into()))?;
    let output =
        guest_script::run(&guest.remote, &script)
            .await
            .map_err(|failure| match failure.kind {
                Kind::Unreachable | Kind::TimedOut | Kind::Guest => Unlaunched::Unheard(failure),
                _ => Unlaunched::Told(failure),
            })?;
    match u8::try_from(output.exit_code).unwrap_or(u8::MAX) {
        // What it printed saves asking; where it can't be read, the guest is asked.
        0 => Ok(backend
            .read_inspect(std::slice::from_ref(&session.id), &output)
            .ok()
            .and_then(|mut snapshots| snapshots.pop())),
        code => {
            let mut failure = guest_script::failure(code, &output.stderr, "the launch");
            failure.kind = Kind::Launch;
            Err(Unlaunched::Told(failure.stage(match code {
                UPLOAD_CUT => "upload",
                _ => "launch",
            })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_from_the_program() {
        let id = SessionId::from_random([1; 6]);
        for (program, attempt, expected) in [
            ("/usr/bin/My_Agent", 0, "my-agent"),
            ("bash", 2, "bash-3"),
            ("$(rm)", 0, "rm"),
            ("ü", 0, "010101010101"),
        ] {
            let request = SessionStart {
                vm: "v".into(),
                command: vec![program.into()],
                name: None,
                backend: None,
                cwd: None,
                env: vec![],
                require: vec![],
                stdin: StdinKind::Pipe,
                tags: Default::default(),
                log_limit_bytes: None,
                terminal: None,
            };
            assert_eq!(name_for(&request, &id, attempt).as_str(), expected);
        }
    }
}
