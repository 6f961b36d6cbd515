//! Counts what is sent to a guest, and tells of it.

use crate::ssh::{Bytes, ProcessInput};
use crate::task::Task;
use banger_core::Failure;
use std::time::{Duration, Instant};

/// How often a running transfer is reported.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Counts what is sent, and tells now and then.
pub(super) struct Meter<'a> {
    task: &'a Task,
    pub(super) label: &'static str,
    pub(super) bytes: u64,
    began: Instant,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(task: &'a Task, label: &'static str) -> Self {
        Self {
            task,
            label,
            bytes: 0,
            began: Instant::now(),
            told: None,
        }
    }

    pub(super) async fn send(
        &mut self,
        input: &mut ProcessInput,
        bytes: Bytes,
    ) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        input.write_all(bytes).await?;
        if self.told.is_none_or(|told| told.elapsed() >= REPORT_EVERY) {
            self.told = Some(Instant::now());
            let seconds = self.began.elapsed().as_secs_f64().max(0.001);
            let rate = self.bytes as f64 / seconds / f64::from(1 << 20);
            self.task.progress_of(
                "workspace",
                format!("{}, {rate:.1} MiB/s", self.label),
                self.bytes,
                None,
            );
        }
        Ok(())
    }
}
