//! Who may write to a session by attach: one client at a time.

use banger_core::protocol::session::{Session, SessionAttach};
use banger_core::{Failure, Kind, SessionId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The length of a writer's name.
const NAME_LIMIT: usize = 32;

/// The sessions that have a writer.
#[derive(Debug, Clone, Default)]
pub struct Writers(Arc<Mutex<HashMap<SessionId, Holder>>>);

#[derive(Debug)]
struct Holder {
    writer: String,
    /// Cancelled when another takes its place.
    replaced: CancellationToken,
}

/// The right to write to a session, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    writers: Writers,
    session: SessionId,
    /// The client's name across its connections.
    pub writer: String,
    replaced: CancellationToken,
}

impl Writers {
    /// Takes the right for the client of this request. A client that comes back under its name
    /// takes its own place: the daemon may not have noticed yet that its old connection is gone.
    ///
    /// # Errors
    /// Kind `Conflict` where another has it and the request does not take it over; `Invalid` for a
    /// name that is none.
    pub fn take(&self, session: &Session, request: &SessionAttach) -> Result<Lease, Failure> {
        let writer = match &request.writer {
            Some(name) => checked(name)?.to_owned(),
            None => data_encoding::HEXLOWER.encode(&rand::random::<[u8; 8]>()),
        };
        let mut holders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = holders.get(&session.id) {
            if holder.writer != writer && !request.takeover {
                return Err(Failure::new(
                    Kind::Conflict,
                    format!("somebody is attached to `{}` already", session.name),
                )
                .hint(
                    "watch with `--observe`, write with `banger vm session send`, \
                     or take over with `--takeover`",
                ));
            }
            holder.replaced.cancel();
        }
        let replaced = CancellationToken::new();
        holders.insert(
            session.id.clone(),
            Holder {
                writer: writer.clone(),
                replaced: replaced.clone(),
            },
        );
        Ok(Lease {
            writers: self.clone(),
            session: session.id.clone(),
            writer,
            replaced,
        })
    }
}

impl Lease {
    /// Resolves when another client has taken its place.
    pub async fn taken_over(&self) -> Failure {
        self.replaced.cancelled().await;
        Failure::new(Kind::Conflict, "another client has taken over")
            .hint("watch with `--observe`, or take over in turn with `--takeover`")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut holders = self
            .writers
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Who took its place has cancelled it under the lock.
        if !self.replaced.is_cancelled() {
            holders.remove(&self.session);
        }
    }
}

fn checked(name: &str) -> Result<&str, Failure> {
    let is_name = (1..=NAME_LIMIT).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    is_name.then_some(name).ok_or_else(|| {
        Failure::new(Kind::Invalid, "that can be no writer's name")
            .hint("1 to 32 of `a` to `z` and `0` to `9`")
    })
}
