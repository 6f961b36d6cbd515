//! A guest script as data, and the one place where a value becomes shell text.

use std::time::Duration;

/// The longest command line that [`Script::command_line`] makes, in bytes. Linux refuses a
/// single argument of 128 KiB or more, and sshd hands the whole line to the shell as one.
pub const COMMAND_LINE_LIMIT: usize = 120 * 1024;

/// A bash script with its values apart from its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// Static bash.
    pub body: String,
    /// `$1` and on; none holds a NUL byte.
    pub args: Vec<Vec<u8>>,
    /// Variables added to the guest's environment.
    pub env: Vec<(String, Vec<u8>)>,
    /// What stdin begins with.
    pub stdin: Vec<u8>,
    /// How long it may take; `None` for as long as its streams live.
    pub timeout: Option<Duration>,
}

/// What a script that has ended left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// 0 to 255; 128 + n where signal n ended it; -1 where unknown.
    pub exit_code: i32,
    /// Standard output, cut at the limit of whoever ran the script.
    pub stdout: Vec<u8>,
    /// Standard error, cut likewise.
    pub stderr: Vec<u8>,
}

/// Why a script has no command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A NUL byte can't stand in an argument of a process.
    #[error("{what} holds a NUL byte")]
    Nul {
        /// Which value.
        what: String,
    },
    /// The name of an environment variable is not `[A-Za-z_][A-Za-z0-9_]*`.
    #[error("`{name}` is no name for an environment variable")]
    EnvironmentName {
        /// The name, escaped.
        name: String,
    },
    /// Longer than [`COMMAND_LINE_LIMIT`].
    #[error("the command is {length} bytes long; at most {COMMAND_LINE_LIMIT} fit")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

impl Script {
    /// The line for the guest's login shell that runs this script: bash gets body, arguments and
    /// environment unchanged, whatever bytes they hold.
    ///
    /// # Errors
    /// A NUL byte, a bad variable name, or a line over [`COMMAND_LINE_LIMIT`].
    pub fn command_line(&self) -> Result<Vec<u8>, ScriptError> {
        let mut line = b"exec ".to_vec();
        if !self.env.is_empty() {
            line.extend_from_slice(b"env ");
            for (name, value) in &self.env {
                if !is_variable_name(name) {
                    return Err(ScriptError::EnvironmentName {
                        name: crate::escape::text(name.as_bytes()),
                    });
                }
                line.extend_from_slice(name.as_bytes());
                line.push(b'=');
                quote(value, &mut line).map_err(|Nul| ScriptError::Nul { what: name.clone() })?;
                line.push(b' ');
            }
        }
        line.extend_from_slice(b"bash -c ");
        quote(self.body.as_bytes(), &mut line).map_err(|Nul| ScriptError::Nul {
            what: "the script".into(),
        })?;
        line.extend_from_slice(b" banger");
        for (index, arg) in self.args.iter().enumerate() {
            line.push(b' ');
            quote(arg, &mut line).map_err(|Nul| ScriptError::Nul {
                what: format!("argument {}", index + 1),
            })?;
        }
        if line.len() > COMMAND_LINE_LIMIT {
            return Err(ScriptError::TooLong { length: line.len() });
        }
        Ok(line)
    }
}

/// A line that runs a program with these arguments as the login shell's replacement, byte for byte.
///
/// # Errors
/// A NUL byte, or a line over [`COMMAND_LINE_LIMIT`].
pub fn program_line(command: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, ScriptError> {
    let mut line = Vec::new();
    for (index, word) in command.iter().enumerate() {
        if index > 0 {
            line.push(b' ');
        }
        quote(word.as_ref(), &mut line).map_err(|Nul| ScriptError::Nul {
            what: format!("argument {index}"),
        })?;
    }
    if line.len() > COMMAND_LINE_LIMIT {
        return Err(ScriptError::TooLong { length: line.len() });
    }
    Ok(line)
}

/// Whether a name can stand left of `=` in a shell.
pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Nul;

/// The quoting function: single quotes, and each single quote of the value as `'\''`.
fn quote(value: &[u8], line: &mut Vec<u8>) -> Result<(), Nul> {
    if value.contains(&0) {
        return Err(Nul);
    }
    line.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => line.extend_from_slice(b"'\\''"),
            other => line.push(*other),
        }
    }
    line.push(b'\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt as _;

    fn run(line: &[u8]) -> Vec<u8> {
        let output = std::process::Command::new("bash")
            .arg("-c")
            .arg(std::ffi::OsStr::from_bytes(line))
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_reach_the_script_unchanged(
            args in prop::collection::vec(prop::collection::vec(1u8..=255, 0..40), 0..6),
            value in prop::collection::vec(1u8..=255, 0..40),
        ) {
            let script = Script {
                body: "printf '%s\\0' \"$VALUE\" \"$@\"".into(),
                args: args.clone(),
                env: vec![("VALUE".into(), value.clone())],
                ..Script::default()
            };
            let mut expected = Vec::new();
            for part in std::iter::once(&value).chain(&args) {
                expected.extend_from_slice(part);
                expected.push(0);
            }
            prop_assert_eq!(run(&script.command_line().expect("no NUL in it")), expected);
        }
    }

    #[test]
    fn a_program_that_looks_like_an_option_is_run_as_it_is() {
        assert_eq!(
            run(&program_line(&["printf", "%s", "-n $(id)\n'"]).expect("valid")),
            b"-n $(id)\n'"
        );
    }

    #[test]
    fn what_cannot_travel_is_refused() {
        let mut script = Script {
            args: vec![b"a\0b".to_vec()],
            ..Script::default()
        };
        assert!(matches!(
            script.command_line(),
            Err(ScriptError::Nul { .. })
        ));
        script.args = vec![vec![b'x'; COMMAND_LINE_LIMIT]];
        assert!(matches!(
            script.command_line(),
            Err(ScriptError::TooLong { .. })
        ));
        script.args.clear();
        script.env = vec![("A B".into(), vec![])];
        assert!(matches!(
            script.command_line(),
            Err(ScriptError::EnvironmentName { .. })
        ));
    }
}
