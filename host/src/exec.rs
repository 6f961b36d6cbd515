//! `vm.exec`: one command in the guest, its streams apart, signals through, its exit code last.

use crate::guest_script;
use crate::session::relay;
use crate::ssh::{Exit, Process, ProcessEvent};
use crate::stream::{Connection, Streams};
use crate::vm::Guest;
use banger_core::frame::Frame;
use banger_core::protocol::Stream;
use banger_core::{ByteString, Failure, Kind, Script, script};
use std::time::Duration;
use tokio::sync::mpsc;

/// The variable by which a command and its children are found again.
const MARK: &str = "BANGER_EXEC";
/// For signals to reach their processes.
const SIGNAL_LIMIT: Duration = Duration::from_secs(20);

/// Starts a command and opens the stream of its input and output. A client that goes away takes
/// the command with it: sshd tells a program of neither that nor, for root, of any signal, so the
/// command carries a mark in its environment by which its processes are found.
///
/// # Errors
/// A command that can't travel, or a guest that can't be reached.
pub async fn exec(
    guest: Guest,
    command: &[ByteString],
    streams: &Streams,
) -> Result<Stream, Failure> {
    if command.is_empty() {
        return Err(Failure::new(Kind::Usage, "`vm.exec` needs a command"));
    }
    let mark = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 8]>());
    let mut line = format!("{MARK}={mark} ").into_bytes();
    line.extend(
        script::program_line(command)
            .map_err(|error| Failure::from_error(Kind::Invalid, &error))?,
    );
    let process = guest.remote.start(&line).await?;
    Ok(streams.open(move |connection| serve(guest, mark, connection, process)))
}

async fn serve(guest: Guest, mark: String, connection: Connection, process: Process) {
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    let (mut input, mut output) = process.into_split();
    let (sender, mut signals) = mpsc::unbounded_channel::<String>();
    let end = {
        let downward = async {
            while let Some(event) = output.next().await {
                let written = match event {
                    ProcessEvent::Stdout(bytes) => writer.write(Frame::Stdout(bytes)).await,
                    ProcessEvent::Stderr(bytes) => writer.write(Frame::Stderr(bytes)).await,
                    ProcessEvent::Exit(exit) => return Some(guest_script::exit_code(exit)),
                };
                if written.is_err() {
                    return None;
                }
            }
            Some(guest_script::exit_code(Exit::Unknown))
        };
        let signalling = async {
            while let Some(name) = signals.recv().await {
                signal(&guest, &mark, &name).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            end = downward => end,
            () = relay::serve_input(&mut reader, &mut input, &sender) => None,
            () = signalling => None,
        }
    };
    match end {
        Some(end) => writer.finish(end).await,
        None => {
            if let Some(failure) = reader.failure() {
                writer.finish(Err(failure)).await;
            }
            // The program may still end by itself, once its input and output are closed.
            drop((input, output));
            signal(&guest, &mark, "TERM").await;
        }
    }
}

/// Sends a signal to every process that carries the mark.
async fn signal(guest: &Guest, mark: &str, name: &str) {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return;
    }
    let script = Script {
        body: include_str!("exec-signal.sh").into(),
        args: vec![format!("{MARK}={mark}").into_bytes(), name.into()],
        timeout: Some(SIGNAL_LIMIT),
        ..Script::default()
    };
    if let Err(failure) = guest_script::run(&guest.remote, &script).await {
        tracing::debug!(error = %failure, "a command could not be signalled");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_script_signals_what_carries_the_mark_and_nothing_else() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/exec-signal.sh");
        // Where shellcheck is not installed, the run below speaks.
        if let Ok(lint) = Command::new("shellcheck")
            .args(["-s", "bash", path])
            .output()
        {
            assert!(lint.status.success(), "{lint:?}");
        }
        let sleeper = |mark: &str| {
            Command::new("sleep")
                .arg("1000")
                .env(super::MARK, mark)
                .stdin(Stdio::null())
                .spawn()
                .expect("sleep runs")
        };
        let mark = std::process::id().to_string();
        let (mut marked, mut other) = (sleeper(&mark), sleeper(&format!("{mark}0")));
        let status = Command::new("bash")
            .args(["-c", include_str!("exec-signal.sh"), "banger"])
            .args([format!("{}={mark}", super::MARK), "USR1".into()])
            .status()
            .expect("bash runs");
        assert!(status.success());
        assert_eq!(marked.wait().expect("ends").signal(), Some(10));
        assert!(other.try_wait().expect("can be asked").is_none());
        other.kill().expect("ends");
        other.wait().expect("ends");
    }
}
