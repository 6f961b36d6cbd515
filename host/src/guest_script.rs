//! Runs the scripts that plugins made, with whatever the host streams in and out of them.

use crate::ssh::{Bytes, Exit, Process, ProcessEvent, Remote};
use banger_core::{Failure, Kind, Output, Script};
use std::time::Duration;

/// Bytes kept of each stream of a script that is run to its end, as the contract says.
pub const OUTPUT_LIMIT: usize = 1 << 20;
/// Bytes kept of the standard error of a script that streams.
const ERROR_LIMIT: usize = 16 << 10;

/// Runs a script to its end.
///
/// # Errors
/// Where it could not be run to its end; an exit code other than 0 is no error.
pub async fn run(remote: &Remote, script: &Script) -> Result<Output, Failure> {
    run_to(remote, script, OUTPUT_LIMIT).await
}

/// The same, keeping so many bytes of each stream.
///
/// # Errors
/// As [`run`].
pub async fn run_to(remote: &Remote, script: &Script, limit: usize) -> Result<Output, Failure> {
    Ok(remote.run(script, limit).await?)
}

/// Starts a script whose streams the caller serves. What its stdin begins with is not written.
///
/// # Errors
/// Where it could not be started.
pub async fn start(remote: &Remote, script: &Script) -> Result<Process, Failure> {
    Ok(remote.start(&command_line(script)?).await?)
}

/// Starts scripts that one reader serves; see [`Remote::start_together`].
///
/// # Errors
/// Where one could not be started.
pub async fn start_together(remote: &Remote, scripts: &[Script]) -> Result<Vec<Process>, Failure> {
    let lines = scripts
        .iter()
        .map(command_line)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(remote.start_together(&lines).await?)
}

/// A script as one command line.
///
/// # Errors
/// Where it is too long.
pub fn command_line(script: &Script) -> Result<Vec<u8>, Failure> {
    script
        .command_line()
        .map_err(|error| Failure::from_error(Kind::Plugin, &error))
}

/// The mark that ends a stream which must arrive whole; the script learns it from its environment.
#[derive(Debug, Clone)]
pub struct EndMark(String);

impl EndMark {
    /// A mark of its own for one script, told to it.
    pub fn tell(script: &mut Script) -> Self {
        let mark = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>());
        script
            .env
            .push(("BANGER_END_MARK".into(), mark.clone().into_bytes()));
        Self(mark)
    }

    /// As the last bytes of a stream.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As the name of the last member of an archive.
    pub fn member(&self) -> String {
        format!(".banger-{}", self.0)
    }
}

/// Serves a streaming script for as long as it may take.
///
/// # Errors
/// The future's own, or kind `TimedOut`.
pub async fn within<T>(
    limit: Option<Duration>,
    serving: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match limit {
        None => serving.await,
        Some(limit) => tokio::time::timeout(limit, serving)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    Kind::TimedOut,
                    format!("the guest did not finish within {} s", limit.as_secs()),
                ))
            }),
    }
}

/// The exit code of a process that ended: 128 + n where signal n ended it.
///
/// # Errors
/// Where the connection was lost, or nobody said how it ended.
pub fn exit_code(exit: Exit) -> Result<u8, Failure> {
    match exit {
        Exit::Code(code) => Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Exit::Signal { name, .. } => Ok(128 + signal_number(&name)),
        Exit::Unknown => Err(Failure::new(
            Kind::Guest,
            "the command ended, and the guest did not say how",
        )),
        Exit::Failed(error) => Err(error.into()),
    }
}

fn signal_number(name: &str) -> u8 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        _ => 15,
    }
}

/// The end of a streaming script's standard error, for messages.
#[derive(Debug, Default)]
pub struct ErrorTail(Vec<u8>);

impl ErrorTail {
    /// Adds bytes and forgets the oldest.
    pub fn push(&mut self, bytes: &Bytes) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > ERROR_LIMIT {
            self.0.drain(..self.0.len() - ERROR_LIMIT);
        }
    }

    /// The failure of a script that ended with this code: its last line is the sentence.
    pub fn failure(&self, code: u8, what: &str) -> Failure {
        failure(code, &self.0, what)
    }
}

/// The failure of a script that ended with this code. Code 3 is how a script refuses: what it was
/// asked for does not fit the state of things.
pub fn failure(code: u8, stderr: &[u8], what: &str) -> Failure {
    let last = stderr
        .split(|b| *b == b'\n')
        .rev()
        .find(|line| !line.iter().all(u8::is_ascii_whitespace))
        // On a terminal a line ends in a carriage return, too.
        .map(<[u8]>::trim_ascii_end)
        .unwrap_or_default();
    let kind = match code {
        3 => Kind::Conflict,
        4 => Kind::TimedOut,
        5 => Kind::Gone,
        _ => Kind::Guest,
    };
    let message = if last.is_empty() {
        format!("{what} failed with exit code {code}")
    } else {
        banger_core::escape::text(last)
    };
    let failure = Failure::new(kind, message);
    // What the sentence says already is not said twice.
    match stderr.trim_ascii() == last {
        true => failure,
        false => failure.detail(stderr),
    }
}

/// Waits for the end of a script whose output no longer matters, and which must end well.
///
/// # Errors
/// As [`exit_code`]; for another code than 0 what the script said, or that `what` failed.
pub async fn finish(output: &mut crate::ssh::ProcessOutput, what: &str) -> Result<(), Failure> {
    let mut errors = ErrorTail::default();
    while let Some(event) = output.next().await {
        match event {
            ProcessEvent::Stdout(_) => {}
            ProcessEvent::Stderr(bytes) => errors.push(&bytes),
            ProcessEvent::Exit(exit) => {
                return match exit_code(exit)? {
                    0 => Ok(()),
                    code => Err(errors.failure(code, what)),
                };
            }
        }
    }
    exit_code(Exit::Unknown).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sentence() {
        let failed = failure(
            3,
            b"warning: x\n/root/repo exists already\n \n",
            "receiving",
        );
        assert_eq!(failed.kind, Kind::Conflict);
        assert_eq!(failed.message, "/root/repo exists already");
        assert_eq!(
            failure(1, b"", "receiving").message,
            "receiving failed with exit code 1"
        );
    }

    #[test]
    fn the_tail_of_errors_is_bounded() {
        let mut tail = ErrorTail::default();
        for _ in 0..100 {
            tail.push(&Bytes::from(vec![b'x'; 1000]));
        }
        tail.push(&Bytes::from_static(b"\nend\n"));
        assert!(tail.0.len() <= ERROR_LIMIT);
        assert_eq!(tail.failure(1, "it").message, "end");
    }
}
