//! Colours, for terminals whose user has not asked for none.

use std::io::IsTerminal;

/// Whether to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With escape sequences.
    Coloured,
}

impl Style {
    /// The style for an output: coloured on a terminal, unless `NO_COLOR` is set or the terminal
    /// is dumb.
    pub fn of(output: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if output.is_terminal() && !refused {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// A column's head.
    pub fn head(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// The word that begins an error.
    pub fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// The word that begins a hint.
    pub fn hint(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// Something that is as it should be.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is no more.
    pub fn gone(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Something that could be better.
    pub fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }
}
