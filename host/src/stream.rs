//! The stream socket: one-time tokens, and frames over the connections that show one.
//!
//! What a stream means is the business of whoever opened it; here bytes are only carried.

use banger_core::frame::{self, Frame, FrameError, HEADER_LENGTH, PAYLOAD_LIMIT};
use banger_core::protocol::Stream;
use banger_core::{Failure, Kind};
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// How long a token is good for, and how long a connection may take to show one.
const TOKEN_LIFE: Duration = Duration::from_secs(10);
/// How often a blocked relay looks whether its client is still there.
const HANGUP_CHECK: Duration = Duration::from_millis(250);
/// Bytes of a token's line.
const TOKEN_LENGTH: usize = 32;

type Handler = Box<dyn FnOnce(Connection) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Streams that were announced and not yet connected to.
#[derive(Clone)]
pub struct Streams {
    socket: PathBuf,
    waiting: Arc<Mutex<HashMap<String, Handler>>>,
}

impl Streams {
    /// Streams over the socket at this path, which [`Streams::serve`] listens on.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            waiting: Arc::default(),
        }
    }

    /// Announces a stream: `handler` runs when its client connects, and is dropped where none
    /// does within ten seconds. Must be called on a runtime.
    pub fn open<F>(&self, handler: impl FnOnce(Connection) -> F + Send + 'static) -> Stream
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = data_encoding::HEXLOWER.encode(&rand::random::<[u8; TOKEN_LENGTH / 2]>());
        self.lock().insert(
            token.clone(),
            Box::new(move |connection| Box::pin(handler(connection))),
        );
        let (streams, expired) = (self.clone(), token.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TOKEN_LIFE).await;
            streams.lock().remove(&expired);
        });
        Stream {
            socket: self.socket.to_string_lossy().into_owned(),
            token,
        }
    }

    /// Accepts connections for ever. Only the daemon's own user is let in.
    pub async fn serve(&self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    let streams = self.clone();
                    tokio::spawn(async move { streams.accept(socket).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a stream connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn accept(&self, mut socket: UnixStream) {
        if !is_same_user(&socket) {
            return;
        }
        let mut line = [0; TOKEN_LENGTH + 1];
        let read = tokio::time::timeout(TOKEN_LIFE, socket.read_exact(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) {
            return;
        }
        let handler = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.strip_suffix('\n'))
            .and_then(|token| self.lock().remove(token));
        let mut connection = Connection::new(socket);
        match handler {
            Some(handler) => handler(connection).await,
            None => {
                let failure = Failure::new(Kind::NotFound, "there is no such stream")
                    .hint("a token serves once, within 10 seconds");
                connection.writer.finish(Err(failure)).await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handler>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the other end of a socket runs as the same user.
pub fn is_same_user(socket: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match socket.peer_cred() {
        Ok(peer) if peer.uid() == own => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "a connection of another user was refused");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a connection of an unknown user was refused");
            false
        }
    }
}

/// A client's stream.
pub struct Connection {
    /// What the client sends.
    pub reader: FrameReader,
    /// What it gets.
    pub writer: FrameWriter,
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        let (reader, writer) = socket.into_split();
        Self {
            reader: FrameReader {
                socket: BufReader::with_capacity(128 << 10, reader),
                malformed: None,
            },
            writer: FrameWriter {
                socket: writer,
                buffer: Vec::new(),
            },
        }
    }
}

/// Reads a client's frames.
pub struct FrameReader {
    socket: BufReader<OwnedReadHalf>,
    malformed: Option<FrameError>,
}

impl FrameReader {
    /// The next frame; `None` when the client has closed the stream, also where it did so in the
    /// middle of a frame, and when it wrote what is none.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER_LENGTH];
        self.socket.read_exact(&mut header).await.ok()?;
        let frame = match frame::parse_header(header) {
            Ok((kind, length)) => {
                let mut payload = vec![0; length];
                self.socket.read_exact(&mut payload).await.ok()?;
                Frame::decode(kind, payload)
            }
            Err(error) => Err(error),
        };
        frame.map_err(|error| self.malformed = Some(error)).ok()
    }

    /// What is wrong with what the client wrote, where that ended the stream.
    pub fn failure(&self) -> Option<Failure> {
        let error = self.malformed.as_ref()?;
        Some(Failure::from_error(Kind::Usage, error).hint("docs/protocol.md tells the frames"))
    }

    /// Resolves when the client has closed the stream, however much of it is still unread.
    pub async fn hung_up(&self) {
        loop {
            match self.socket.get_ref().ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(HANGUP_CHECK).await;
        }
    }
}

/// Writes frames to a client.
pub struct FrameWriter {
    socket: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// Writes one frame; bytes longer than a frame can hold are split.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn write<B: AsRef<[u8]>>(&mut self, frame: Frame<B>) -> std::io::Result<()> {
        self.buffer.clear();
        let bytes = match &frame {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => bytes.as_ref(),
            _ => &[],
        };
        if bytes.len() > PAYLOAD_LIMIT {
            let is_stdout = matches!(frame, Frame::Stdout(_));
            for piece in bytes.chunks(PAYLOAD_LIMIT) {
                let piece = if is_stdout {
                    Frame::Stdout(piece)
                } else {
                    Frame::Stderr(piece)
                };
                self.buffer.extend_from_slice(&piece.encode());
            }
        } else if let Some((header, bytes)) = frame.as_parts() {
            self.buffer.extend_from_slice(&header);
            self.buffer.extend_from_slice(bytes);
        } else {
            self.buffer = frame.encode();
        }
        self.socket.write_all(&self.buffer).await
    }

    /// Writes the last frame: an exit code or why there is none.
    pub async fn finish(&mut self, end: Result<u8, Failure>) {
        let frame: Frame = match end {
            Ok(code) => Frame::Exit(code),
            Err(failure) => Frame::Error(failure),
        };
        // A client that has gone does not need to be told.
        let _ = self.write(frame).await;
        let _ = self.socket.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn served() -> (tempfile::TempDir, Streams) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("stream.sock");
        let streams = Streams::new(&path);
        let listener = UnixListener::bind(&path).expect("bound");
        let server = streams.clone();
        tokio::spawn(async move { server.serve(listener).await });
        (dir, streams)
    }

    async fn connect(stream: &Stream) -> Connection {
        let mut socket = UnixStream::connect(&stream.socket).await.expect("connects");
        socket
            .write_all(format!("{}\n", stream.token).as_bytes())
            .await
            .expect("written");
        Connection::new(socket)
    }

    #[tokio::test]
    async fn a_token_serves_once() {
        let (_dir, streams) = served().await;
        let stream = streams.open(|mut connection| async move {
            connection.writer.finish(Ok(7)).await;
        });
        assert_eq!(
            connect(&stream).await.reader.next().await,
            Some(Frame::Exit(7))
        );
        let again = connect(&stream).await.reader.next().await;
        assert!(matches!(again, Some(Frame::Error(_))), "{again:?}");
    }

    #[tokio::test]
    async fn long_output_is_split_and_arrives_whole() {
        let (_dir, streams) = served().await;
        let data: Vec<u8> = (0..3 * PAYLOAD_LIMIT + 5).map(|n| n as u8).collect();
        let sent = data.clone();
        let stream = streams.open(|mut connection| async move {
            connection
                .writer
                .write(Frame::Stdout(&sent))
                .await
                .expect("written");
            connection.writer.finish(Ok(0)).await;
        });
        let mut client = connect(&stream).await;
        let mut got = Vec::new();
        while let Some(Frame::Stdout(bytes)) = client.reader.next().await {
            got.extend_from_slice(&bytes);
        }
        assert!(got == data);
    }

    #[tokio::test]
    async fn a_hangup_is_seen_behind_unread_bytes() {
        let (_dir, streams) = served().await;
        let (tell, told) = tokio::sync::oneshot::channel();
        let stream = streams.open(|connection| async move {
            connection.reader.hung_up().await;
            let _ = tell.send(());
        });
        let mut client = connect(&stream).await;
        client
            .writer
            .write(Frame::Stdin(vec![0; 1000]))
            .await
            .expect("written");
        drop(client);
        tokio::time::timeout(Duration::from_secs(5), told)
            .await
            .expect("in time")
            .expect("told");
    }
}
