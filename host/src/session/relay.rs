//! Carries bytes between a client's stream and processes in the guest.
//!
//! What the processes are for is the business of whoever started them.

use crate::guest_script::{self, EndMark};
use crate::ssh::{Bytes, Process, ProcessEvent, ProcessInput, ProcessOutput, SshError};
use crate::stream::{Connection, FrameReader, FrameWriter};
use banger_core::frame::Frame;
use banger_core::session::OutputStream;
use banger_core::{Failure, Kind};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces of output that may wait for a client.
const PIECES: usize = 4;
/// How long a script may take to end.
const WIND_DOWN: Duration = Duration::from_secs(2);
/// The longest decimal number of 64 bits.
const NUMBER_LIMIT: usize = 20;

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
            // A process without a terminal has no size.
            Frame::Resize { columns, rows } => {
                let _ = input.resize(columns, rows).await;
            }
            // Nobody listens where signals mean nothing.
            Frame::Signal(name) => drop(signals.send(name)),
            _ => {}
        }
    }
}

/// Carries the sizes of a client's terminal to a process, and nothing else, until the client goes
/// away.
pub async fn serve_size(reader: &mut FrameReader, input: &ProcessInput) {
    while let Some(frame) = reader.next().await {
        if let Frame::Resize { columns, rows } = frame {
            let _ = input.resize(columns, rows).await;
        }
    }
}

/// Carries what a process draws on its terminal, until it has ended.
///
/// `None` where the client has gone; else whether it ran to its end.
pub async fn terminal(
    writer: &mut FrameWriter,
    output: &mut ProcessOutput,
) -> Option<Result<(), Failure>> {
    let mut last = guest_script::ErrorTail::default();
    while let Some(event) = output.next().await {
        match event {
            ProcessEvent::Stdout(bytes) => {
                last.push(&bytes);
                if writer.write(Frame::Stdout(bytes)).await.is_err() {
                    return None;
                }
            }
            ProcessEvent::Stderr(bytes) => last.push(&bytes),
            ProcessEvent::Exit(exit) => {
                return Some(match guest_script::exit_code(exit) {
                    Ok(0) => Ok(()),
                    Ok(code) => Err(last.failure(code, "showing the terminal")),
                    Err(failure) => Err(failure),
                });
            }
        }
    }
    Some(Ok(()))
}

/// Carries the output of processes, each one stream of a session, until all have ended. What
/// `taken` tells of the session's input goes to the client in between.
///
/// `None` where the client has gone; else whether every process ran to its end.
pub async fn outputs(
    writer: &mut FrameWriter,
    processes: Vec<(OutputStream, Process)>,
    mut taken: mpsc::Receiver<u64>,
) -> Option<Result<(), Failure>> {
    // When this is dropped, the processes are told to end, and nobody waits for them.
    let leaving = CancellationToken::new();
    let _leaving = leaving.clone().drop_guard();
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let mut running = processes.len();
    for (stream, process) in processes {
        tokio::spawn(carry(stream, process, sender.clone(), leaving.clone()));
    }
    drop(sender);
    while running > 0 {
        let frame = tokio::select! {
            // Input first: output may never pause.
            biased;
            Some(bytes) = taken.recv() => Frame::InputTaken(bytes),
            piece = pieces.recv() => match piece {
                Some(Piece::Bytes(OutputStream::Stdout, bytes)) => Frame::Stdout(bytes),
                Some(Piece::Bytes(OutputStream::Stderr, bytes)) => Frame::Stderr(bytes),
                Some(Piece::Ended(Ok(()))) => {
                    running -= 1;
                    continue;
                }
                // At once: the other may go on for days.
                Some(Piece::Ended(Err(failure))) => return Some(Err(failure)),
                None => {
                    let failure = Failure::new(Kind::Internal, "a task that reads a log has ended");
                    return Some(Err(failure));
                }
            },
        };
        if writer.write(frame).await.is_err() {
            return None;
        }
    }
    Some(Ok(()))
}

/// What comes from one of several processes.
enum Piece {
    Bytes(OutputStream, Bytes),
    /// The last: whether it ran to its end.
    Ended(Result<(), Failure>),
}

async fn carry(
    stream: OutputStream,
    mut process: Process,
    sender: mpsc::Sender<Piece>,
    leaving: CancellationToken,
) {
    let mut errors = guest_script::ErrorTail::default();
    // Its stdin stays open: the end of it would end a script that follows.
    loop {
        let event = tokio::select! {
            event = process.output().next() => event,
            () = leaving.cancelled() => None,
        };
        let Some(event) = event else { break };
        match event {
            ProcessEvent::Stdout(bytes) => {
                if sender.send(Piece::Bytes(stream, bytes)).await.is_err() {
                    break;
                }
            }
            ProcessEvent::Stderr(bytes) => errors.push(&bytes),
            ProcessEvent::Exit(exit) => {
                let ended = match guest_script::exit_code(exit) {
                    Ok(0) => Ok(()),
                    // By a signal, such as a guest sends that is out of memory. The session goes
                    // on, and so can its reader, from where it was.
                    Ok(129..) => Err(Failure::new(
                        Kind::Unreachable,
                        "what reads the session's log in the guest was killed",
                    )
                    .hint("read on from the byte where it ended")),
                    Ok(code) => Err(errors.failure(code, "reading the log")),
                    Err(failure) => Err(failure),
                };
                // Where the client has gone, nobody wants to know.
                let _ = sender.send(Piece::Ended(ended)).await;
                return;
            }
        }
    }
    let (input, output) = process.into_split();
    wind_down(input, output).await;
}

/// Lets a script end that does so when its stdin does. A connection whose scripts have all ended
/// serves the next client; one that is left with open channels is closed.
pub async fn wind_down(mut input: ProcessInput, mut output: ProcessOutput) {
    let ending = async {
        input.close().await.ok();
        while output.next().await.is_some() {}
    };
    // Where it does not end, its channel is closed.
    let _ = tokio::time::timeout(WIND_DOWN, ending).await;
}

/// Passes on what a script that copies to a session's input tells of how much the input has taken:
/// decimal numbers, a line each.
///
/// # Errors
/// Why it ended, where it did not end well.
pub async fn count_taken(
    output: &mut ProcessOutput,
    taken: mpsc::Sender<u64>,
) -> Result<(), Failure> {
    let mut errors = guest_script::ErrorTail::default();
    let mut begun = Vec::new();
    while let Some(event) = output.next().await {
        match event {
            ProcessEvent::Stdout(bytes) => {
                begun.extend_from_slice(&bytes);
                while let Some(end) = begun.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = begun.drain(..=end).collect();
                    let number = std::str::from_utf8(&line)
                        .ok()
                        .and_then(|line| line.trim_end().parse().ok());
                    let Some(number) = number else {
                        return Err(no_number());
                    };
                    if taken.send(number).await.is_err() {
                        return Ok(());
                    }
                }
                if begun.len() > NUMBER_LIMIT {
                    return Err(no_number());
                }
            }
            ProcessEvent::Stderr(bytes) => errors.push(&bytes),
            ProcessEvent::Exit(exit) => {
                return match guest_script::exit_code(exit)? {
                    0 => Ok(()),
                    code => Err(errors.failure(code, "writing to the session")),
                };
            }
        }
    }
    Ok(())
}

fn no_number() -> Failure {
    Failure::new(
        Kind::Guest,
        "the guest did not say how much of the input was taken",
    )
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
