//! Runs a process to its end and keeps what it wrote.

use banger_core::Output;
use bytes::Bytes;

use super::error::SshError;
use super::process::{Exit, Process, ProcessEvent};

/// Feeds a process and collects its output, each stream cut at the limit. Reading goes on beyond
/// the limit, so that the process is never held back.
pub(super) async fn collect(
    process: Process,
    stdin: Bytes,
    limit_bytes: usize,
) -> Result<Output, SshError> {
    let (mut input, mut output) = process.into_split();
    let feed = async move {
        // A process that ends without reading its input is its own business, and of a lost
        // connection the reader tells.
        if !stdin.is_empty() {
            let _ = input.write_all(stdin).await;
        }
        let _ = input.close().await;
    };
    let read = async move {
        let mut collected = Output {
            exit_code: -1,
            ..Output::default()
        };
        while let Some(event) = output.next().await {
            match event {
                ProcessEvent::Stdout(bytes) => keep(&mut collected.stdout, &bytes, limit_bytes),
                ProcessEvent::Stderr(bytes) => keep(&mut collected.stderr, &bytes, limit_bytes),
                ProcessEvent::Exit(Exit::Failed(error)) => return Err(error),
                ProcessEvent::Exit(exit) => collected.exit_code = exit_code(&exit),
            }
        }
        Ok(collected)
    };
    tokio::join!(feed, read).1
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len()).min(bytes.len());
    kept.extend(bytes.iter().take(room));
}

/// 0 to 255; 128 + n for signal n; -1 where unknown.
fn exit_code(exit: &Exit) -> i32 {
    match exit {
        Exit::Code(code) => i32::try_from(*code).unwrap_or(-1),
        Exit::Signal { name, .. } => signal_number(name).map_or(-1, |number| 128 + number),
        Exit::Unknown | Exit::Failed(_) => -1,
    }
}

/// The numbers that are the same on every Linux that runs in a VM of ours (x86-64, arm64).
fn signal_number(name: &str) -> Option<i32> {
    let known = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("ABRT", 6),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    // OpenSSH writes the others as `SIG5@openssh.com` or the like.
    known
        .iter()
        .find(|(known, _)| *known == name.split('@').next().unwrap_or(name))
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_at_the_limit() {
        let mut kept = Vec::new();
        for part in [&b"abc"[..], b"def", b"ghi"] {
            keep(&mut kept, part, 5);
        }
        assert_eq!(kept, b"abcde");
    }

    #[test]
    fn exits_become_the_shells_codes() {
        let signal = |name: &str| Exit::Signal {
            name: name.into(),
            core_dumped: false,
            message: String::new(),
        };
        assert_eq!(exit_code(&Exit::Code(7)), 7);
        assert_eq!(exit_code(&signal("KILL")), 137);
        assert_eq!(exit_code(&signal("USR2@openssh.com")), 140);
        assert_eq!(exit_code(&signal("nonsense")), -1);
        assert_eq!(exit_code(&Exit::Unknown), -1);
    }
}
