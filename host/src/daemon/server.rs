//! The JSON-RPC socket: reads requests, writes replies, cancels what nobody waits for.

use super::Daemon;
use crate::stream::is_same_user;
use crate::task::Task;
use banger_core::protocol::{Call, HelloReply, MESSAGE_LIMIT, Message, PROTOCOL_VERSION, Request};
use banger_core::{Failure, Kind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for a client that does not read. Its progress is dropped then, and its
/// replies wait.
const WAITING_MESSAGES: usize = 64;
/// Requests of one connection that run at once, but for those that only wait. Further ones are not
/// read before: a client that asks and does not read its replies costs no more than these.
const REQUESTS_AT_ONCE: usize = 32;

/// Accepts connections until the future is dropped; requests end with `open`.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener, open: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) if is_same_user(&socket) => {
                let (daemon, cancel) = (Arc::clone(&daemon), open.child_token());
                tokio::spawn(async move { connection(daemon, socket, cancel).await });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(daemon: Arc<Daemon>, socket: UnixStream, cancel: CancellationToken) {
    let (reader, writer) = socket.into_split();
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    let writing = tokio::spawn(write_messages(writer, receiver));
    let _cancel_on_return = cancel.clone().drop_guard();
    tokio::select! {
        () = read_requests(daemon, reader, sender, cancel.clone()) => {}
        () = cancel.cancelled() => {}
    }
    // The client has closed its writing half: it waits for no more than the news of what was
    // cancelled. The writer ends when the last request has answered.
    cancel.cancel();
    let _ = writing.await;
}

async fn read_requests(
    daemon: Arc<Daemon>,
    reader: OwnedReadHalf,
    sender: mpsc::Sender<Message>,
    cancel: CancellationToken,
) {
    let mut reader = BufReader::new(reader);
    let mut greeted = false;
    let places = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MESSAGE_LIMIT as u64 + 1;
        match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
            }
            Ok(_) => {
                if line.len() > MESSAGE_LIMIT {
                    let failure = Failure::new(
                        Kind::Usage,
                        format!("a message is longer than {MESSAGE_LIMIT} bytes"),
                    )
                    .hint("send large payloads through a stream");
                    let _ = sender.send(Message::error(None, failure)).await;
                }
                return;
            }
        }
        let request = match Request::parse(&line) {
            Ok(request) => request,
            Err((id, failure)) => {
                if sender.send(Message::error(id, failure)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        match (&request.call, greeted) {
            (Call::Hello(hello), _) => {
                tracing::debug!(client = %hello.client, "a client greets");
                let reply = if hello.protocol == PROTOCOL_VERSION {
                    greeted = true;
                    answer(
                        request.id,
                        Ok(HelloReply {
                            protocol: PROTOCOL_VERSION,
                            version: env!("CARGO_PKG_VERSION").into(),
                        }),
                    )
                } else {
                    let failure = Failure::new(
                        Kind::Daemon,
                        format!(
                            "the client speaks protocol {}, the daemon {PROTOCOL_VERSION}",
                            hello.protocol
                        ),
                    )
                    .hint(
                        "`banger daemon stop`; the next command starts a daemon of its own version",
                    );
                    Message::error(Some(request.id), failure)
                };
                if sender.send(reply).await.is_err() {
                    return;
                }
            }
            // Whoever replaces a daemon of another version can't greet it.
            (Call::DaemonStop(_), false) | (_, true) => {
                let place = match &request.call {
                    Call::SessionWait(_) | Call::Subscribe(_) | Call::DaemonStop(_) => None,
                    // Closed never.
                    _ => Arc::clone(&places).acquire_owned().await.ok(),
                };
                let (daemon, sender) = (Arc::clone(&daemon), sender.clone());
                let report = sender.clone();
                let task = Task::new(
                    request.id,
                    Arc::new(move |progress| {
                        let _ = report.try_send(Message::progress(progress));
                    }),
                    cancel.clone(),
                )
                .with_messages(sender.clone());
                let running = daemon.running.token();
                tokio::spawn(async move {
                    let _running = running;
                    let id = request.id;
                    // In a task of its own, so that a defect in one request is an error of that
                    // request alone.
                    let of_handler = task.clone();
                    let handled =
                        tokio::spawn(async move { daemon.handle(request.call, &of_handler).await })
                            .await;
                    let reply = match handled {
                        Ok(result) => answer(id, result),
                        Err(error) => {
                            tracing::error!(%error, "a request panicked");
                            let failure = Failure::new(Kind::Internal, "the daemon has a defect")
                                .hint(
                                    "its log tells more: `banger daemon status` shows where it is",
                                );
                            Message::error(Some(id), failure)
                        }
                    };
                    let _ = sender.send(reply).await;
                    drop(place);
                    task.mark_replied();
                });
            }
            (_, false) => {
                let failure = Failure::new(
                    Kind::Usage,
                    "the first request of a connection must be `daemon.hello`",
                );
                if sender
                    .send(Message::error(Some(request.id), failure))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}

/// The message that answers a request.
fn answer(id: u64, result: Result<impl serde::Serialize, Failure>) -> Message {
    match result.and_then(|value| {
        serde_json::to_value(value).map_err(|error| Failure::from_error(Kind::Internal, &error))
    }) {
        Ok(value) => Message::reply(id, value),
        Err(failure) => Message::error(Some(id), failure),
    }
}

async fn write_messages(mut writer: OwnedWriteHalf, mut receiver: mpsc::Receiver<Message>) {
    while let Some(message) = receiver.recv().await {
        let Ok(mut line) = serde_json::to_vec(&message) else {
            continue;
        };
        line.push(b'\n');
        if writer.write_all(&line).await.is_err() {
            // Nobody reads. What still runs must not wait for room.
            receiver.close();
            while receiver.recv().await.is_some() {}
            return;
        }
    }
}
