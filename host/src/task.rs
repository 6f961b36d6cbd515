//! One request while it runs: how it reports, and how it learns that nobody waits any more.

use banger_core::protocol::event::EventOf;
use banger_core::protocol::{Message, Progress};
use banger_core::{Failure, Kind};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Takes a request's progress. Must not block.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// A running request. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    request: u64,
    report: Report,
    cancel: CancellationToken,
    /// Cancelled once the reply is on its way.
    replied: CancellationToken,
    /// The way to the client, for what is told after the reply.
    messages: Option<mpsc::Sender<Message>>,
}

impl Task {
    /// A request with this id.
    pub fn new(request: u64, report: Report, cancel: CancellationToken) -> Self {
        Self {
            request,
            report,
            cancel,
            replied: CancellationToken::new(),
            messages: None,
        }
    }

    /// The same, which may tell its client of events once it has replied.
    #[must_use]
    pub fn with_messages(self, messages: mpsc::Sender<Message>) -> Self {
        Self {
            messages: Some(messages),
            ..self
        }
    }

    /// The request's id.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// Says that the reply is on its way.
    pub fn mark_replied(&self) {
        self.replied.cancel();
    }

    /// Resolves when the reply is on its way.
    pub async fn replied(&self) {
        self.replied.cancelled().await;
    }

    /// Tells the client of an event; whether it is still there. Waits while it does not read.
    pub async fn tell(&self, event: EventOf) -> bool {
        match &self.messages {
            Some(messages) => messages.send(Message::event(event)).await.is_ok(),
            None => false,
        }
    }

    /// A task of the daemon's own, which nobody watches.
    pub fn unwatched() -> Self {
        Self::new(0, Arc::new(|_| {}), CancellationToken::new())
    }

    /// Tells what is being done now.
    pub fn progress(&self, stage: &str, message: impl Into<String>) {
        (self.report)(Progress {
            request: self.request,
            stage: stage.into(),
            message: message.into(),
            done: None,
            total: None,
        });
    }

    /// Tells how far a countable stage is.
    pub fn progress_of(
        &self,
        stage: &str,
        message: impl Into<String>,
        done: u64,
        total: Option<u64>,
    ) {
        (self.report)(Progress {
            request: self.request,
            stage: stage.into(),
            message: message.into(),
            done: Some(done),
            total,
        });
    }

    /// Cancelled when the client went away.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Fails where the client went away.
    ///
    /// # Errors
    /// Kind `Cancelled`.
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            Err(cancelled())
        } else {
            Ok(())
        }
    }

    /// Drives a future that may be dropped at any point without harm.
    ///
    /// # Errors
    /// Its own, or kind `Cancelled`.
    pub async fn until_cancelled<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match self.cancel.run_until_cancelled(future).await {
            Some(result) => result,
            None => Err(cancelled()),
        }
    }
}

/// The failure of whoever was stopped.
pub fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, "cancelled")
}

/// Measures stages.
#[derive(Debug)]
pub struct StageClock {
    last: Instant,
    stages: Vec<banger_core::protocol::machine::StageTime>,
}

impl Default for StageClock {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            stages: Vec::new(),
        }
    }
}

impl StageClock {
    /// A stage has ended now; the next begins.
    pub fn lap(&mut self, stage: &str) {
        let now = Instant::now();
        self.stages.push(banger_core::protocol::machine::StageTime {
            stage: stage.into(),
            ms: u64::try_from((now - self.last).as_millis()).unwrap_or(u64::MAX),
        });
        self.last = now;
    }

    /// All stages so far.
    pub fn into_stages(self) -> Vec<banger_core::protocol::machine::StageTime> {
        self.stages
    }
}

/// Milliseconds since 1970; 0 where the clock is before.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
