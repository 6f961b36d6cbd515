//! What sessions wrote: which part of it, and its way to the client.

use super::{Open, Sessions, relay};
use crate::guest_script;
use crate::plugin::Follow;
use crate::store::VmRecord;
use crate::stream::Connection;
use banger_core::protocol::session::{OutputFrom, Session, SessionLogs};
use banger_core::session::{OutputStream, StdinKind};
use banger_core::{Failure, Kind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

impl Sessions {
    /// Opens a stream with a session's output so far, or until it ends.
    ///
    /// # Errors
    /// Where the guest can't be asked; kind `Gone` where the log no longer has what is asked for.
    pub async fn logs(
        self: &Arc<Self>,
        vm: &VmRecord,
        request: &SessionLogs,
    ) -> Result<OutputFrom, Failure> {
        check(request)?;
        let session = self.get(vm, &request.session).await?;
        if !self.machines.is_running(vm).await? {
            return self.logs_of_stopped(vm, &session, request).await;
        }
        let open = self.open_session(vm, session).await?;
        let streams = streams(&open.session, request.stream);
        let stdout_offset = open.begin(OutputStream::Stdout, &streams, request).await?;
        let stderr_offset = open.begin(OutputStream::Stderr, &streams, request).await?;
        check_kept(&open.session, stdout_offset, stderr_offset)?;
        let follow = match request.follow {
            true => Follow::UntilEnd,
            false => Follow::No,
        };
        let mut scripts = Vec::new();
        for stream in &streams {
            let offset = match stream {
                OutputStream::Stdout => stdout_offset,
                OutputStream::Stderr => stderr_offset,
            };
            scripts.push(
                open.backend
                    .attach_output(&open.reference, *stream, offset, follow)?,
            );
        }
        let processes = guest_script::start_together(&open.guest.remote, &scripts).await?;
        let outputs = streams.into_iter().zip(processes).collect();
        let session_id = open.session.id;
        let stream = self.streams.open(move |connection| async move {
            let Connection { reader, mut writer } = connection;
            let (_, nothing_taken) = mpsc::channel(1);
            let end = tokio::select! {
                end = relay::outputs(&mut writer, outputs, nothing_taken) => end,
                () = reader.hung_up() => None,
            };
            if let Some(end) = end {
                writer.finish(end.map(|()| 0)).await;
            }
        });
        Ok(OutputFrom {
            stream,
            session_id,
            stdout_offset,
            stderr_offset,
        })
    }
}

/// Refuses a request that says twice where to begin.
fn check(request: &SessionLogs) -> Result<(), Failure> {
    let ways = [
        request.tail.is_some(),
        request.since_ms.is_some(),
        request.stdout_offset.is_some() || request.stderr_offset.is_some(),
    ];
    match ways.into_iter().filter(|way| *way).count() {
        0 | 1 => Ok(()),
        _ => Err(Failure::new(
            Kind::Usage,
            "a log begins at its last lines, at a time or at an offset: give one of them",
        )),
    }
}

/// The streams that a session has, of those that were asked for.
pub(super) fn streams(session: &Session, only: Option<OutputStream>) -> Vec<OutputStream> {
    let all = match session.stdin {
        StdinKind::Tty => &[OutputStream::Stdout][..],
        StdinKind::None | StdinKind::Pipe => &[OutputStream::Stdout, OutputStream::Stderr],
    };
    all.iter()
        .copied()
        .filter(|stream| only.is_none_or(|only| only == *stream))
        .collect()
}

/// Fails where the logs no longer have what comes from these offsets on.
///
/// # Errors
/// Kind `Gone`.
pub(super) fn check_kept(session: &Session, stdout: u64, stderr: u64) -> Result<(), Failure> {
    let snapshot = &session.snapshot;
    for (name, asked, start) in [
        ("stdout", stdout, snapshot.stdout_start),
        ("stderr", stderr, snapshot.stderr_start),
    ] {
        if asked < start {
            return Err(Failure::new(
                Kind::Gone,
                format!(
                    "{} bytes of {name} are no longer kept: it begins at byte {start} now",
                    start - asked
                ),
            )
            .hint("begin there; `--log-limit` at a session's start sets how much is kept"));
        }
    }
    Ok(())
}

impl Open {
    /// Where a stream begins for a request: never before what is kept, unless an offset says so.
    async fn begin(
        &self,
        stream: OutputStream,
        streams: &[OutputStream],
        request: &SessionLogs,
    ) -> Result<u64, Failure> {
        let snapshot = &self.session.snapshot;
        let (asked, start) = match stream {
            OutputStream::Stdout => (request.stdout_offset, snapshot.stdout_start),
            OutputStream::Stderr => (request.stderr_offset, snapshot.stderr_start),
        };
        if !streams.contains(&stream) {
            return Ok(start);
        }
        match (asked, request.tail, request.since_ms) {
            // Beyond the end there is nothing yet; who follows waits for it.
            (Some(offset), _, _) if request.follow => Ok(offset),
            (Some(offset), _, _) => Ok(offset.min(match stream {
                OutputStream::Stdout => snapshot.stdout_bytes,
                OutputStream::Stderr => snapshot.stderr_bytes,
            })),
            (None, Some(lines), _) => {
                let script = self
                    .backend
                    .offset_of_lines(&self.reference, stream, lines)?;
                Ok(self.number(&script).await?.max(start))
            }
            (None, None, Some(age)) => {
                let age = Duration::from_millis(age);
                let script = self.backend.offset_since(&self.reference, stream, age)?;
                Ok(self.number(&script).await?.max(start))
            }
            (None, None, None) => Ok(start),
        }
    }

    /// Runs a script that prints a number.
    async fn number(&self, script: &banger_core::Script) -> Result<u64, Failure> {
        let output = guest_script::run(&self.guest.remote, script).await?;
        match u8::try_from(output.exit_code).unwrap_or(u8::MAX) {
            0 => std::str::from_utf8(&output.stdout)
                .ok()
                .and_then(|text| text.trim_end().parse().ok())
                .ok_or_else(|| Failure::new(Kind::Guest, "the guest did not print a number")),
            code => Err(guest_script::failure(
                code,
                &output.stderr,
                "reading the log",
            )),
        }
    }
}
