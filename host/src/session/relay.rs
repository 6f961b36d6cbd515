//! Carries bytes between a client's stream and processes in the guest.

use crate::guest_script;
use crate::ssh::{Bytes, Exit, Process, ProcessEvent, ProcessInput, ProcessOutput, SshError};
use crate::stream::{Connection, FrameReader, FrameWriter};
use banger_core::frame::Frame;
use banger_core::session::OutputStream;
use banger_core::{Failure, Kind};
use tokio::sync::mpsc;

/// Pieces of output that may wait for a client.
const PIECES: usize = 4;

/// `vm.exec`: the client's stdin in, stdout and stderr apart out, signals through, the exit code
/// last. When the client goes away, the command's input ends and sshd is asked for TERM, which it does
/// not send for root.
pub async fn exec(connection: Connection, process: Process) {
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    let (mut input, mut output) = process.into_split();
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
        tokio::select! {
            end = downward => end,
            () = serve_input(&mut reader, &mut input) => None,
        }
    };
    match end {
        Some(end) => writer.finish(end).await,
        // The client has gone. What still runs would have nobody to talk to.
        None => drop(input.signal("TERM").await),
    }
}

/// Carries a client's frames to a process, until the client goes away.
pub async fn serve_input(reader: &mut FrameReader, input: &mut ProcessInput) {
    let mut open = true;
    while let Some(frame) = reader.next().await {
        match frame {
            Frame::Stdin(bytes) if open => {
                tokio::select! {
                    // A process that reads no more may still print.
                    written = input.write_all(bytes.into()) => open = written.is_ok(),
                    () = reader.hung_up() => return,
                }
            }
            Frame::StdinEnd => {
                open = false;
                let _ = input.close().await;
            }
            Frame::Signal(name) => {
                let _ = input.signal(&name).await;
            }
            _ => {}
        }
    }
}

/// Carries the output of one or two processes, each one stream of a session, until all have ended.
/// `None` where the client has gone; else whether every process ran to its end.
pub async fn outputs(
    writer: &mut FrameWriter,
    processes: Vec<(OutputStream, Process)>,
) -> Option<Result<(), Failure>> {
    // Dropping the set ends the processes' channels.
    let mut running = tokio::task::JoinSet::new();
    let (sender, mut pieces) = mpsc::channel::<(OutputStream, Bytes)>(PIECES);
    for (stream, process) in processes {
        running.spawn(carry(stream, process, sender.clone()));
    }
    drop(sender);
    while let Some((stream, bytes)) = pieces.recv().await {
        let frame = match stream {
            OutputStream::Stdout => Frame::Stdout(bytes),
            OutputStream::Stderr => Frame::Stderr(bytes),
        };
        if writer.write(frame).await.is_err() {
            return None;
        }
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Some(Err(failure)),
            Err(error) => return Some(Err(Failure::from_error(Kind::Internal, &error))),
        }
    }
    Some(Ok(()))
}

async fn carry(
    stream: OutputStream,
    mut process: Process,
    sender: mpsc::Sender<(OutputStream, Bytes)>,
) -> Result<(), Failure> {
    process.stdin().close().await?;
    let mut errors = guest_script::ErrorTail::default();
    let mut output: ProcessOutput = process.into_split().1;
    while let Some(event) = output.next().await {
        match event {
            ProcessEvent::Stdout(bytes) => {
                if sender.send((stream, bytes)).await.is_err() {
                    return Ok(());
                }
            }
            ProcessEvent::Stderr(bytes) => errors.push(&bytes),
            ProcessEvent::Exit(exit) => {
                return match guest_script::exit_code(exit)? {
                    0 => Ok(()),
                    code => Err(errors.failure(code, "reading the log")),
                };
            }
        }
    }
    Ok(())
}

/// Carries a client's stdin to a process until the client ends it or goes away, then waits for
/// the process. Returns how many bytes were carried.
///
/// # Errors
/// `None` where the client went away before its end of file. Dropping the input ends it, so the guest
/// takes what was carried for the whole payload.
pub async fn payload(
    connection: &mut Connection,
    process: Process,
) -> Option<Result<u64, Failure>> {
    let (mut input, mut output) = process.into_split();
    let mut bytes_carried = 0_u64;
    let carried = async {
        loop {
            match connection.reader.next().await {
                Some(Frame::Stdin(bytes)) => {
                    bytes_carried += bytes.len() as u64;
                    match input.write_all(bytes.into()).await {
                        // The script's own end tells why.
                        Ok(()) | Err(SshError::InputClosed) => {}
                        Err(error) => return Some(Err(Failure::from(error))),
                    }
                }
                Some(Frame::StdinEnd) => return Some(input.close().await.map_err(Failure::from)),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let ended = guest_script::finish(&mut output, "sending");
    tokio::pin!(ended);
    let ended = tokio::select! {
        carried = carried => match carried {
            None => return None,
            Some(Err(failure)) => return Some(Err(failure)),
            Some(Ok(())) => tokio::select! {
                ended = &mut ended => ended,
                () = connection.reader.hung_up() => return None,
            },
        },
        ended = &mut ended => ended,
    };
    Some(ended.map(|()| bytes_carried))
}
