//! Standard output and standard error: who reads them, and what may be written.

use crate::error::{CommandError, host};
use crate::style::Style;
use banger_core::Kind;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

/// How results are written.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Replies and errors as JSON.
    pub json: bool,
    /// No progress and no remarks.
    pub quiet: bool,
    /// For standard output.
    pub style: Style,
    /// For standard error.
    pub error_style: Style,
    /// Whether standard output is a terminal.
    pub to_terminal: bool,
}

impl Output {
    /// What the process's outputs are.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            style: Style::of(&std::io::stdout()),
            error_style: Style::of(&std::io::stderr()),
            to_terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Writes a result.
    ///
    /// # Errors
    /// [`CommandError::BrokenPipe`] where nobody reads it, a failure where it can't be written.
    pub fn print(&self, text: &str) -> Result<(), CommandError> {
        self.print_bytes(text.as_bytes())
    }

    /// The same for bytes.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|error| write_error(&error))
    }

    /// Writes a reply: on one line, or laid out where a person looks at it.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn print_json(&self, value: &serde_json::Value) -> Result<(), CommandError> {
        if self.to_terminal {
            self.print(&format!("{value:#}\n"))
        } else {
            self.print(&format!("{value}\n"))
        }
    }

    /// A remark for a person, on standard error; nothing where the user wants quiet or JSON.
    pub fn remark(&self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// What nobody may miss, on standard error, also where the user wants quiet.
    pub fn warn(&self, kind: Kind, text: &str) {
        let line = if self.json {
            let warning = serde_json::json!({ "kind": kind, "message": text });
            serde_json::json!({ "warning": warning }).to_string()
        } else {
            format!("{} {text}", self.error_style.warning("warning:"))
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// What to do next, on standard error.
    pub fn hint(&self, text: &str) {
        self.remark(&format!("{} {text}", self.error_style.hint("hint:")));
    }
}

/// What a failed write to standard output means.
pub fn write_error(error: &std::io::Error) -> CommandError {
    match error.kind() {
        ErrorKind::BrokenPipe => CommandError::BrokenPipe,
        _ => host("write to standard output", error).into(),
    }
}
