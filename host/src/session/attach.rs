//! Clients that are attached to sessions: output from an offset on, input that tells what of it was
//! taken, terminals.

use super::writer::Lease;
use super::{Open, Sessions, logs, relay};
use crate::guest_script;
use crate::plugin::{Follow, Role};
use crate::ssh::{Process, Terminal};
use crate::store::VmRecord;
use crate::stream::Connection;
use banger_core::protocol::session::{
    AttachTerminal, OutputFrom, Session, SessionAttach, TerminalSize,
};
use banger_core::session::{OutputStream, SessionState, StdinKind};
use banger_core::{Failure, Kind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Counts of taken input that may wait for a client.
const COUNTS: usize = 16;
/// How long a session may take to end after its input has.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// The most columns or rows of a terminal: tmux's own limit.
const SIDE_LIMIT: u16 = 10_000;
/// The length of a terminal's type.
const TERM_LIMIT: usize = 64;

impl Sessions {
    /// Opens a stream that is attached to a session. Its exit code comes last.
    ///
    /// # Errors
    /// Kind `Conflict` where another writer is attached; `Gone` where the log no longer has what
    /// is asked for.
    pub async fn attach(
        self: &Arc<Self>,
        vm: &VmRecord,
        request: &SessionAttach,
    ) -> Result<OutputFrom, Failure> {
        let session = self.get(vm, &request.session).await?;
        if session.state().is_final() && !self.machines.is_running(vm).await? {
            return self.attach_to_stopped(vm, session, request).await;
        }
        let takes_input = session.state() == SessionState::Running
            && session.stdin != StdinKind::None
            && !request.observe;
        let lease = match takes_input {
            true => Some(self.writers.take(&session, request)?),
            false => None,
        };
        let open = self.open_session(vm, session).await?;
        match &request.terminal {
            Some(terminal) => self.attach_terminal(vm, open, lease, terminal).await,
            None => self.attach_streams(vm, open, lease, request).await,
        }
    }

    async fn attach_streams(
        self: &Arc<Self>,
        vm: &VmRecord,
        open: Open,
        lease: Option<Lease>,
        request: &SessionAttach,
    ) -> Result<OutputFrom, Failure> {
        let snapshot = &open.session.snapshot;
        let stdout_offset = request.stdout_offset.unwrap_or(snapshot.stdout_bytes);
        let stderr_offset = request.stderr_offset.unwrap_or(snapshot.stderr_bytes);
        logs::check_kept(&open.session, stdout_offset, stderr_offset)?;
        let streams = logs::streams(&open.session, None);
        let mut scripts = Vec::new();
        for stream in &streams {
            let offset = match stream {
                OutputStream::Stdout => stdout_offset,
                OutputStream::Stderr => stderr_offset,
            };
            scripts.push(open.backend.attach_output(
                &open.reference,
                *stream,
                offset,
                Follow::UntilEnd,
            )?);
        }
        if let Some(lease) = &lease {
            scripts.push(open.backend.attach_input(&open.reference, &lease.writer)?);
        }
        let mut processes = guest_script::start_together(&open.guest.remote, &scripts).await?;
        let input = match (&lease, scripts.last()) {
            (Some(_), Some(script)) => {
                let mut process = processes.pop();
                if let Some(process) = &mut process {
                    process
                        .stdin()
                        .write_all(script.stdin.clone().into())
                        .await?;
                }
                process
            }
            _ => None,
        };
        let outputs: Vec<(OutputStream, Process)> = streams.into_iter().zip(processes).collect();
        let session_id = open.session.id.clone();
        let (sessions, vm) = (Arc::clone(self), vm.clone());
        let stream = self.streams.open(move |connection| async move {
            sessions
                .serve(&vm, open.session, connection, outputs, input, lease)
                .await;
        });
        Ok(OutputFrom {
            stream,
            session_id,
            stdout_offset,
            stderr_offset,
        })
    }

    async fn serve(
        &self,
        vm: &VmRecord,
        session: Session,
        connection: Connection,
        processes: Vec<(OutputStream, Process)>,
        input: Option<Process>,
        lease: Option<Lease>,
    ) {
        let Connection {
            mut reader,
            mut writer,
        } = connection;
        let mut input = input.map(Process::into_split);
        let (taken, counts) = mpsc::channel(COUNTS);
        let outward = async {
            match relay::outputs(&mut writer, processes, counts).await? {
                Ok(()) => Some(self.ending(vm, session).await),
                Err(failure) => Some(Err(failure)),
            }
        };
        let inward = async {
            let Some((input, output)) = &mut input else {
                reader.hung_up().await;
                return Ok(());
            };
            let (signals, _) = mpsc::unbounded_channel();
            tokio::select! {
                () = relay::serve_input(&mut reader, input, &signals) => Ok(()),
                counted = relay::count_taken(output, taken) => {
                    counted?;
                    // The client has ended its input, and goes on reading.
                    reader.hung_up().await;
                    Ok(())
                }
            }
        };
        let replaced = async {
            match &lease {
                Some(lease) => lease.taken_over().await,
                None => std::future::pending().await,
            }
        };
        let end = {
            tokio::pin!(outward);
            tokio::select! {
                end = &mut outward => end,
                failure = replaced => Some(Err(failure)),
                gone = inward => match gone {
                    Ok(()) => None,
                    // Input ends with the session, whose output has to come first.
                    Err(failure) => tokio::time::timeout(LAST_OUTPUT, &mut outward)
                        .await
                        .unwrap_or(Some(Err(failure))),
                },
            }
        };
        if let Some((input, output)) = input {
            tokio::spawn(relay::wind_down(input, output));
        }
        let end = end.or_else(|| reader.failure().map(Err));
        if let Some(end) = end {
            writer.finish(end).await;
        }
    }

    /// Opens a stream that shows a session on the client's terminal.
    async fn attach_terminal(
        self: &Arc<Self>,
        vm: &VmRecord,
        open: Open,
        lease: Option<Lease>,
        terminal: &AttachTerminal,
    ) -> Result<OutputFrom, Failure> {
        if open.session.stdin != StdinKind::Tty {
            return Err(Failure::new(
                Kind::Conflict,
                format!("the session `{}` has no terminal", open.session.name),
            )
            .hint("attach without one; `--stdin tty` at its start gives a session a terminal"));
        }
        if !is_term(&terminal.term) {
            return Err(
                Failure::new(Kind::Invalid, "that can be no terminal's type")
                    .hint("1 to 64 letters, digits and `+-._`, as in TERM"),
            );
        }
        check_size(terminal.size)?;
        let role = match lease {
            Some(_) => Role::Writer,
            None => Role::Observer,
        };
        let script = open.backend.attach_terminal(&open.reference, role)?;
        let line = guest_script::command_line(&script)?;
        let on = Terminal {
            term: terminal.term.clone(),
            columns: terminal.size.columns,
            rows: terminal.size.rows,
        };
        let process = open.guest.remote.start_on_terminal(&line, on).await?;
        let (stdout_offset, stderr_offset) = (
            open.session.snapshot.stdout_bytes,
            open.session.snapshot.stderr_bytes,
        );
        let session_id = open.session.id.clone();
        let (sessions, vm) = (Arc::clone(self), vm.clone());
        let stream = self.streams.open(move |connection| async move {
            sessions
                .serve_terminal(&vm, open.session, connection, process, lease)
                .await;
        });
        Ok(OutputFrom {
            stream,
            session_id,
            stdout_offset,
            stderr_offset,
        })
    }

    async fn serve_terminal(
        &self,
        vm: &VmRecord,
        session: Session,
        connection: Connection,
        process: Process,
        lease: Option<Lease>,
    ) {
        let Connection {
            mut reader,
            mut writer,
        } = connection;
        let (mut input, mut output) = process.into_split();
        let outward = async {
            match relay::terminal(&mut writer, &mut output).await? {
                Ok(()) => Some(self.ending(vm, session).await),
                Err(failure) => Some(Err(failure)),
            }
        };
        let inward = async {
            match &lease {
                Some(lease) => {
                    let (signals, _) = mpsc::unbounded_channel();
                    tokio::select! {
                        () = relay::serve_input(&mut reader, &mut input, &signals) => None,
                        failure = lease.taken_over() => Some(Err(failure)),
                    }
                }
                // Who only looks on still has a size.
                None => {
                    relay::serve_size(&mut reader, &input).await;
                    None
                }
            }
        };
        let end = tokio::select! {
            end = outward => end,
            end = inward => end,
        };
        let end = end.or_else(|| reader.failure().map(Err));
        if let Some(end) = end {
            writer.finish(end).await;
        }
    }

    /// The exit code of a session whose output has ended.
    pub(super) async fn ending(&self, vm: &VmRecord, session: Session) -> Result<u8, Failure> {
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
}

/// Fails for a size that no terminal has.
///
/// # Errors
/// Kind `Invalid`.
pub(super) fn check_size(size: TerminalSize) -> Result<(), Failure> {
    let fits = |number| (1..=SIDE_LIMIT).contains(&number);
    if fits(size.columns) && fits(size.rows) {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Invalid,
        format!("a terminal cannot be {}x{}", size.columns, size.rows),
    )
    .hint(format!("1 to {SIDE_LIMIT} columns and rows")))
}

fn is_term(term: &str) -> bool {
    (1..=TERM_LIMIT).contains(&term.len())
        && term
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
}
