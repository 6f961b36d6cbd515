//! Streams of sessions: logs, attached clients, what is sent.

use super::{Open, Sessions, inspect, relay};
use crate::guest_script::{self, EndMark};
use crate::plugin::Follow;
use crate::ssh::{Process, ProcessEvent};
use crate::store::VmRecord;
use crate::stream::Connection;
use crate::vm::Guest;
use banger_core::protocol::Stream;
use banger_core::protocol::session::{
    Session, SessionAttach, SessionLogs, SessionSend, SessionSent,
};
use banger_core::session::{OutputStream, SessionState, StdinKind};
use banger_core::{Failure, Kind, SessionId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// For a program to read what is sent to it.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes from a log's end within which `--tail -f` looks for lines.
const TAIL_WINDOW: u64 = 1 << 20;

impl Sessions {
    /// Opens a stream with a session's output so far, or until it ends.
    ///
    /// # Errors
    /// Where the guest can't be asked.
    pub async fn logs(
        self: &Arc<Self>,
        vm: &VmRecord,
        request: &SessionLogs,
    ) -> Result<Stream, Failure> {
        let session = self.get(vm, &request.session).await?;
        let open = self.open_session(vm, session).await?;
        let mut processes = Vec::new();
        for stream in wanted(&open.session, request.stream) {
            let script = match (request.tail, request.follow) {
                (None, true) => {
                    open.backend
                        .attach_output(&open.reference, stream, 0, Follow::UntilEnd)?
                }
                (None, false) => {
                    open.backend
                        .attach_output(&open.reference, stream, 0, Follow::No)?
                }
                (Some(lines), false) => open.backend.tail(&open.reference, stream, lines)?,
                (Some(lines), true) => {
                    let offset = open.offset_of_last_lines(stream, lines).await?;
                    open.backend
                        .attach_output(&open.reference, stream, offset, Follow::UntilEnd)?
                }
            };
            processes.push((
                stream,
                guest_script::start(&open.guest.remote, &script).await?,
            ));
        }
        Ok(self.streams.open(move |connection| async move {
            let Connection { reader, mut writer } = connection;
            let end = tokio::select! {
                end = relay::outputs(&mut writer, processes) => end,
                () = reader.hung_up() => None,
            };
            if let Some(end) = end {
                writer.finish(end.map(|()| 0)).await;
            }
        }))
    }

    /// Opens a stream that is attached to a session. Its exit code comes last.
    ///
    /// # Errors
    /// Kind `Conflict` where another writer is attached.
    pub async fn attach(
        self: &Arc<Self>,
        vm: &VmRecord,
        request: &SessionAttach,
    ) -> Result<Stream, Failure> {
        let session = self.get(vm, &request.session).await?;
        let open = self.open_session(vm, session).await?;
        let writes = !request.observe
            && open.session.state() == SessionState::Running
            && open.session.stdin != StdinKind::None;
        let lease = match writes {
            true => Some(Lease::take(&self.writers, &open.session)?),
            false => None,
        };
        let mut processes = Vec::new();
        for stream in wanted(&open.session, None) {
            let (asked, now) = match stream {
                OutputStream::Stdout => (request.stdout_offset, open.session.snapshot.stdout_bytes),
                OutputStream::Stderr => (request.stderr_offset, open.session.snapshot.stderr_bytes),
            };
            let script = open.backend.attach_output(
                &open.reference,
                stream,
                asked.unwrap_or(now),
                Follow::UntilEnd,
            )?;
            processes.push((
                stream,
                guest_script::start(&open.guest.remote, &script).await?,
            ));
        }
        let input = match &lease {
            Some(_) => {
                let script = open.backend.attach_input(&open.reference, "w")?;
                let mut process = guest_script::start(&open.guest.remote, &script).await?;
                process.stdin().write_all(script.stdin.into()).await?;
                Some(process)
            }
            None => None,
        };
        let (sessions, vm) = (Arc::clone(self), vm.clone());
        Ok(self.streams.open(move |connection| async move {
            sessions
                .serve(&vm, open.session, connection, processes, input)
                .await;
            drop(lease);
        }))
    }

    async fn serve(
        &self,
        vm: &VmRecord,
        session: Session,
        connection: Connection,
        processes: Vec<(OutputStream, Process)>,
        input: Option<Process>,
    ) {
        let Connection {
            mut reader,
            mut writer,
        } = connection;
        let outward = async {
            match relay::outputs(&mut writer, processes).await? {
                Ok(()) => Some(self.ending(vm, session).await),
                Err(failure) => Some(Err(failure)),
            }
        };
        let inward = async {
            match input {
                Some(process) => {
                    let mut input = process.into_split().0;
                    let (signals, _) = tokio::sync::mpsc::unbounded_channel();
                    relay::serve_input(&mut reader, &mut input, &signals).await;
                }
                None => reader.hung_up().await,
            }
        };
        let end = tokio::select! {
            end = outward => end,
            () = inward => None,
        };
        if let Some(end) = end {
            writer.finish(end).await;
        }
    }

    /// The exit code of a session whose output has ended.
    async fn ending(&self, vm: &VmRecord, session: Session) -> Result<u8, Failure> {
        let session = self.observe(vm, session).await?;
        match (session.state(), session.snapshot.exit_code) {
            (_, Some(code)) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            (state, None) => Err(Failure::new(
                Kind::Guest,
                format!("the session `{}` is {}", session.name, state.as_str()),
            )
            .hint(format!(
                "`banger vm session show {} {}` tells more",
                vm.name, session.name
            ))),
        }
    }

    /// Sends a message whole, from the request or from a stream.
    ///
    /// # Errors
    /// Where the session takes no input or its program does not read in time.
    pub async fn send(
        &self,
        vm: &VmRecord,
        request: &SessionSend,
    ) -> Result<Result<SessionSent, Stream>, Failure> {
        let session = self.get(vm, &request.session).await?;
        if session.state() != SessionState::Running {
            return Err(Failure::new(
                Kind::Conflict,
                format!(
                    "the session `{}` is {}",
                    session.name,
                    session.state().as_str()
                ),
            )
            .hint("only a running session takes input"));
        }
        if session.stdin == StdinKind::None {
            return Err(Failure::new(
                Kind::Conflict,
                format!("the session `{}` has no standard input", session.name),
            )
            .hint("start it with `--stdin pipe`"));
        }
        let open = self.open_session(vm, session).await?;
        let timeout = request
            .timeout_ms
            .map_or(SEND_TIMEOUT, |ms| Duration::from_millis(ms.into()));
        let mut script = open.backend.send(&open.reference, timeout)?;
        let end = EndMark::tell(&mut script);
        let limit = script.timeout;
        match &request.message {
            Some(message) => {
                script.stdin.extend_from_slice(&message.0);
                script.stdin.extend_from_slice(end.as_bytes());
                open.run(&script, "sending").await?;
                Ok(Ok(SessionSent {
                    bytes: message.0.len() as u64,
                }))
            }
            None => {
                let mut process = guest_script::start(&open.guest.remote, &script).await?;
                process.stdin().write_all(script.stdin.into()).await?;
                Ok(Err(self.streams.open(move |mut connection| async move {
                    let carrying = async {
                        relay::payload(&mut connection, process, &end)
                            .await
                            .transpose()
                    };
                    let end = match guest_script::within(limit, carrying).await {
                        Ok(Some(_)) => Ok(0),
                        Ok(None) => return,
                        Err(failure) => Err(failure),
                    };
                    connection.writer.finish(end).await;
                })))
            }
        }
    }

    /// Returns when a session's output has ended, which is when the session has.
    pub(super) async fn until_ended(
        &self,
        vm: &VmRecord,
        session: &Session,
    ) -> Result<(), Failure> {
        let open = self.open_session(vm, session.clone()).await?;
        let stream = OutputStream::Stdout;
        let offset = session.snapshot.stdout_bytes;
        let script =
            open.backend
                .attach_output(&open.reference, stream, offset, Follow::UntilEnd)?;
        let mut process = guest_script::start(&open.guest.remote, &script).await?;
        guest_script::finish(process.output(), "waiting").await
    }
}

/// The streams that a session has, of those that were asked for.
fn wanted(session: &Session, only: Option<OutputStream>) -> Vec<OutputStream> {
    match (only, session.stdin) {
        (Some(stream), _) => vec![stream],
        (None, StdinKind::Tty) => vec![OutputStream::Stdout],
        (None, StdinKind::None | StdinKind::Pipe) => {
            vec![OutputStream::Stdout, OutputStream::Stderr]
        }
    }
}

impl Open {
    /// Where a stream's last lines begin, counted from where it ends now.
    async fn offset_of_last_lines(&self, stream: OutputStream, lines: u64) -> Result<u64, Failure> {
        let ids = [self.session.id.clone()];
        let size = inspect(&self.backend, &self.guest, &ids)
            .await?
            .first()
            .map_or(0, |snapshot| match stream {
                OutputStream::Stdout => snapshot.stdout_bytes,
                OutputStream::Stderr => snapshot.stderr_bytes,
            });
        let from = size.saturating_sub(TAIL_WINDOW);
        let script = self
            .backend
            .attach_output(&self.reference, stream, from, Follow::No)?;
        let mut window = read(&self.guest, &script, size - from).await?;
        window.truncate(usize::try_from(size - from).unwrap_or(usize::MAX));
        Ok(from + start_of_last_lines(&window, lines) as u64)
    }
}

/// Reads at most so many bytes of what a script prints.
async fn read(guest: &Guest, script: &banger_core::Script, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut process = guest_script::start(&guest.remote, script).await?;
    process.stdin().close().await?;
    let mut bytes = Vec::new();
    while let Some(event) = process.output().next().await {
        match event {
            ProcessEvent::Stdout(more) => bytes.extend_from_slice(&more),
            ProcessEvent::Stderr(_) => {}
            ProcessEvent::Exit(exit) => {
                guest_script::exit_code(exit)?;
                break;
            }
        }
        if bytes.len() as u64 >= limit {
            break;
        }
    }
    Ok(bytes)
}

/// Where the last lines begin; a line feed at the end belongs to the last line.
fn start_of_last_lines(bytes: &[u8], lines: u64) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let wanted = usize::try_from(lines - 1).unwrap_or(usize::MAX);
    body.iter()
        .enumerate()
        .rev()
        .filter(|(_, b)| **b == b'\n')
        .nth(wanted)
        .map_or(0, |(at, _)| at + 1)
}

/// The right to write to a session, given back when dropped.
struct Lease {
    writers: Arc<Mutex<HashSet<SessionId>>>,
    session: SessionId,
}

impl Lease {
    fn take(writers: &Arc<Mutex<HashSet<SessionId>>>, session: &Session) -> Result<Self, Failure> {
        let mut taken = writers.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(session.id.clone()) {
            return Err(Failure::new(
                Kind::Conflict,
                format!("somebody is attached to `{}` already", session.name),
            )
            .hint("watch with `--observe`, or write with `banger vm session send`"));
        }
        Ok(Self {
            writers: Arc::clone(writers),
            session: session.id.clone(),
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::start_of_last_lines;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        for (lines, expected) in [
            (0, ""),
            (1, "three\n"),
            (2, "two\nthree\n"),
            (9, "one\ntwo\nthree\n"),
        ] {
            let start = start_of_last_lines(text, lines);
            assert_eq!(&text[start..], expected.as_bytes());
        }
        assert_eq!(start_of_last_lines(b"a\nb", 1), 2);
        assert_eq!(start_of_last_lines(b"", 3), 0);
    }
}
