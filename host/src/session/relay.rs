//! Carries bytes between a client's stream and processes in the guest.
//!
//! What the processes are for is the business of whoever started them.

use crate::guest_script::{self, EndMark};
use crate::ssh::{Bytes, Process, ProcessEvent, ProcessInput, SshError};
use crate::stream::{Connection, FrameReader, FrameWriter};
use banger_core::frame::Frame;
use banger_core::session::OutputStream;
use banger_core::{Failure, Kind};
use tokio::sync::mpsc;

/// Pieces of output that may wait for a client.
const PIECES: usize = 4;

/// Carries a client's frames to a process, until the client goes away. Signals are sent on as
/// their names.
pub async fn serve_input(
    reader: &mut FrameReader,
    input: &mut ProcessInput,
    signals: &mpsc::UnboundedSender<String>,
) {
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
            // Nobody listens where signals mean nothing.
            Frame::Signal(name) => drop(signals.send(name)),
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
    let mut errors = guest_script::ErrorTail::default();
    // Its stdin stays open: the end of it would end a script that follows.
    while let Some(event) = process.output().next().await {
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
/// `None` where the client went away before its end of file: nothing is written then.
pub async fn payload(
    connection: &mut Connection,
    process: Process,
    end: &EndMark,
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
                Some(Frame::StdinEnd) => {
                    // Where the script reads no more, its own end tells why.
                    let _ = input
                        .write_all(Bytes::copy_from_slice(end.as_bytes()))
                        .await;
                    let _ = input.close().await;
                    return Some(Ok(()));
                }
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
