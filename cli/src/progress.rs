//! How far a request is, on standard error: one live line on a terminal, else a line a stage.

use banger_core::{escape, protocol};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often a live line is drawn anew.
pub const INTERVAL: Duration = Duration::from_millis(100);

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quiet,
    Lines,
    Live,
}

/// Shows the progress of one request after the other.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    stage: Option<Stage>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    text: String,
    since: Instant,
}

impl Progress {
    /// Nothing where quiet is asked for.
    pub fn new(quiet: bool) -> Self {
        let mode = if quiet {
            Mode::Quiet
        } else if std::io::stderr().is_terminal() {
            Mode::Live
        } else {
            Mode::Lines
        };
        Self { mode, stage: None }
    }

    /// How long to wait before the next [`Progress::draw`]; for ever where nothing moves.
    pub fn pause(&self) -> Option<Duration> {
        (self.mode == Mode::Live && self.stage.is_some()).then_some(INTERVAL)
    }

    /// Notes what the daemon tells.
    pub fn note(&mut self, progress: &protocol::Progress) {
        let text = describe(progress);
        match &mut self.stage {
            Some(stage) if stage.name == progress.stage => {
                // Without a terminal each step is a line, and what is merely counted is not.
                if self.mode == Mode::Lines
                    && progress.done.is_none()
                    && step(&stage.text) != step(&text)
                {
                    let _ = writeln!(std::io::stderr(), "{text}");
                }
                if progress.done.is_none() || self.mode == Mode::Live {
                    stage.text = text;
                }
            }
            _ => {
                self.finish();
                if self.mode == Mode::Lines {
                    let _ = writeln!(std::io::stderr(), "{text}");
                }
                self.stage = Some(Stage {
                    name: progress.stage.clone(),
                    text,
                    since: Instant::now(),
                });
            }
        }
        self.draw();
    }

    /// Tells that the user's wish to stop was heard.
    pub fn cancelling(&mut self) {
        self.finish();
        if self.mode != Mode::Quiet {
            let _ = writeln!(std::io::stderr(), "cancelling…");
        }
    }

    /// Draws the live line.
    pub fn draw(&self) {
        let (Mode::Live, Some(stage)) = (self.mode, &self.stage) else {
            return;
        };
        let elapsed = stage.since.elapsed();
        let step = usize::try_from(elapsed.as_millis() / INTERVAL.as_millis()).unwrap_or(0);
        let spinner = SPINNER.get(step % SPINNER.len()).copied().unwrap_or('-');
        let line = fit(&stage.text, elapsed, width());
        let _ = write!(std::io::stderr(), "\r\x1b[K{spinner} {line}");
    }

    /// Ends the live line: the stage is over.
    pub fn finish(&mut self) {
        if let (Mode::Live, Some(stage)) = (self.mode, self.stage.take()) {
            let line = fit(&stage.text, stage.since.elapsed(), width());
            let _ = writeln!(std::io::stderr(), "\r\x1b[K  {line}");
        }
        self.stage = None;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What a message is about: what stands before a colon; details follow.
fn step(text: &str) -> &str {
    text.split(':').next().unwrap_or(text)
}

/// The terminal's width; one that says 0 does not know.
fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col.max(20)),
        _ => 80,
    }
}

/// The text and the time on one line: a line that wraps could not be drawn over.
fn fit(text: &str, elapsed: Duration, width: usize) -> String {
    let time = format!("  {:.1} s", elapsed.as_secs_f64());
    let room = width.saturating_sub(time.len() + 3);
    crate::text::cut(text, room) + &time
}

fn describe(progress: &protocol::Progress) -> String {
    let mut text = escape::text(progress.message.as_bytes());
    match (progress.done, progress.total) {
        (Some(done), Some(total)) if total > 0 => {
            let percent = u128::from(done.min(total)) * 100 / u128::from(total);
            text += &format!(" ({percent} %)");
        }
        (Some(done), _) => text += &format!(" ({done})"),
        (None, _) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_is_escaped_and_counted() {
        let mut progress = protocol::Progress {
            request: 1,
            stage: "image".into(),
            message: "un\x1bpack".into(),
            done: Some(1),
            total: Some(3),
        };
        assert_eq!(describe(&progress), "un\\x1bpack (33 %)");
        progress.total = Some(0);
        assert_eq!(describe(&progress), "un\\x1bpack (1)");
        progress.done = Some(u64::MAX);
        progress.total = Some(u64::MAX);
        assert_eq!(describe(&progress), "un\\x1bpack (100 %)");
    }

    #[test]
    fn a_line_never_wraps() {
        let line = fit(&"ä".repeat(200), Duration::from_secs(3), 40);
        assert!(line.chars().count() <= 38, "{line}");
        assert!(line.ends_with("3.0 s"));
    }
}
