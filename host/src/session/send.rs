//! Messages that are sent to sessions whole, and the end of their input.

use super::{Sessions, relay};
use crate::guest_script::{self, EndMark};
use crate::store::VmRecord;
use banger_core::protocol::Stream;
use banger_core::protocol::session::{SessionSend, SessionSent};
use banger_core::session::{SessionState, StdinKind};
use banger_core::{Failure, Kind};
use std::time::Duration;

/// For a program to read what is sent to it.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

impl Sessions {
    /// Sends a message whole, from the request or from a stream.
    ///
    /// # Errors
    /// Where the session takes no input or its program does not read in time.
    pub async fn send(
        &self,
        vm: &VmRecord,
        request: &SessionSend,
    ) -> Result<Result<SessionSent, Stream>, Failure> {
        let mut session = self.find(vm, &request.session).await?;
        // A script of a session that no longer runs refuses by itself.
        if session.state() != SessionState::Running {
            session = self.observe(vm, session).await?;
        }
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
        let closing = match request.close {
            true => Some(open.backend.close_input(&open.reference, timeout)?),
            false => None,
        };
        let mut script = open.backend.send(&open.reference, timeout)?;
        let end = EndMark::tell(&mut script);
        let limit = script.timeout;
        match &request.message {
            Some(message) if message.0.is_empty() && request.close => {
                if let Some(closing) = closing {
                    open.run(&closing, "closing the input")
                        .await
                        .map_err(advised)?;
                }
                Ok(Ok(SessionSent { bytes: 0 }))
            }
            Some(message) => {
                script.stdin.extend_from_slice(&message.0);
                script.stdin.extend_from_slice(end.as_bytes());
                open.run(&script, "sending").await.map_err(advised)?;
                if let Some(closing) = closing {
                    open.run(&closing, "closing the input")
                        .await
                        .map_err(advised)?;
                }
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
                    let mut end = match guest_script::within(limit, carrying).await {
                        Ok(Some(_)) => Ok(0),
                        Ok(None) => return,
                        Err(failure) => Err(failure),
                    };
                    if let (Ok(_), Some(closing)) = (&end, closing) {
                        end = open.run(&closing, "closing the input").await.map(|()| 0);
                    }
                    connection.writer.finish(end.map_err(advised)).await;
                })))
            }
        }
    }
}

/// With what to do next, where the guest's script told only what went wrong.
fn advised(failure: Failure) -> Failure {
    match (failure.kind, failure.hint.as_str()) {
        (Kind::TimedOut, "") => failure.hint(
            "what was written stays there; a longer `--timeout` waits for a program that is busy",
        ),
        (Kind::Conflict, "") => failure.hint("`banger vm session show` tells how it is"),
        _ => failure,
    }
}
