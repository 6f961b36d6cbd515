//! Scripts and refusals as an author builds them.

/// A guest script under construction. Its text is static, so no value can be spliced into it:
/// values are arguments, environment or stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    body: &'static str,
    args: Vec<Vec<u8>>,
    env: Vec<(String, Vec<u8>)>,
    stdin: Vec<u8>,
    timeout_ms: u32,
}

impl Script {
    /// A script with this text, nothing else, and no time limit.
    pub const fn new(body: &'static str) -> Self {
        Self {
            body,
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            timeout_ms: 0,
        }
    }

    /// Adds the next positional argument. It may hold any byte but NUL.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Adds a number as the next positional argument, in decimal.
    #[must_use]
    pub fn number(self, value: u64) -> Self {
        self.arg(value.to_string())
    }

    /// Adds an environment variable. The name matches `[A-Za-z_][A-Za-z0-9_]*`.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds to what stdin begins with.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin.extend_from_slice(bytes);
        self
    }

    /// After how many milliseconds the host gives up; 0 for never.
    #[must_use]
    pub const fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = milliseconds;
        self
    }

    /// What it is made of.
    pub fn into_parts(self) -> ScriptParts {
        ScriptParts {
            body: self.body,
            args: self.args,
            env: self.env,
            stdin: self.stdin,
            timeout_ms: self.timeout_ms,
        }
    }
}

/// A [`Script`] that is finished, as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptParts {
    /// Static bash.
    pub body: &'static str,
    /// `$1` and on.
    pub args: Vec<Vec<u8>>,
    /// Environment variables.
    pub env: Vec<(String, Vec<u8>)>,
    /// What stdin begins with.
    pub stdin: Vec<u8>,
    /// Milliseconds; 0 for no limit.
    pub timeout_ms: u32,
}

/// Why something can't be done, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence, without a full stop at its end.
    pub message: String,
    /// What to do next, or empty.
    pub hint: String,
}

impl Refusal {
    /// A refusal with one sentence, without a full stop at its end, and no hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}
