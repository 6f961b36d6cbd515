//! A daemon with a script: it speaks the protocol on a real socket and answers as a test says,
//! also in ways that no daemon should.
#![allow(dead_code, reason = "each test program uses a part")]

use banger_core::frame::{Frame, HEADER_LENGTH, parse_header};
use banger_core::protocol::event::{Event, EventOf};
use banger_core::protocol::{
    Call, HelloReply, Message, PROTOCOL_VERSION, Progress, Request, Stream,
};
use banger_core::{Failure, Kind};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub mod pty;
pub mod sessions;

/// The fake daemon and the home of the banger that talks to it.
pub struct Fake {
    home: TempDir,
    /// The connections of the daemon that serves now.
    open: Mutex<Open>,
}

type Open = Arc<Mutex<Vec<UnixStream>>>;

/// One request and the way back.
pub struct Asked {
    /// What is asked.
    pub call: Call,
    id: u64,
    socket: UnixStream,
    reader: BufReader<UnixStream>,
    home: PathBuf,
}

impl Fake {
    /// Answers every request but the greeting as `answer` says.
    pub fn new(answer: impl Fn(&mut Asked) + Send + Sync + 'static) -> Self {
        Self::speaking(PROTOCOL_VERSION, answer)
    }

    /// The same with this version of the protocol.
    pub fn speaking(protocol: u32, answer: impl Fn(&mut Asked) + Send + Sync + 'static) -> Self {
        let home = tempfile::Builder::new()
            .prefix("banger")
            .tempdir()
            .expect("a directory");
        let runtime = home.path().join("runtime");
        std::fs::create_dir_all(&runtime).expect("a directory");
        let open = serve(home.path(), protocol, answer);
        Self {
            home,
            open: Mutex::new(open),
        }
    }

    /// The daemon dies, and another is there at once.
    pub fn replace(&self, answer: impl Fn(&mut Asked) + Send + Sync + 'static) {
        let next = serve(self.home.path(), PROTOCOL_VERSION, answer);
        let before = std::mem::replace(&mut *self.open.lock().expect("a lock"), next);
        cut(&before);
    }

    /// The daemon dies, and none is there.
    pub fn die(&self) {
        let _ = std::fs::remove_file(self.home.path().join("runtime/daemon.sock"));
        cut(&self.open.lock().expect("a lock"));
    }

    /// The home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `banger ARGS…` with nothing of the caller's environment.
    pub fn banger(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::from_std(self.command(arguments));
        command.timeout(DEADLINE);
        command
    }

    /// The same for the standard library.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.env_clear().env("BANGER_HOME", self.home.path());
        command.args(arguments).current_dir(self.home.path());
        command
    }

    /// The same, begun, with pipes.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    }
}

/// Begins to serve. The socket takes the place of another in one step.
fn serve(home: &Path, protocol: u32, answer: impl Fn(&mut Asked) + Send + Sync + 'static) -> Open {
    let socket = home.join("runtime/daemon.sock");
    let draft = home.join("runtime/draft.sock");
    let listener = UnixListener::bind(&draft).expect("a socket");
    std::fs::rename(&draft, socket).expect("renamed");
    let (answer, path, open) = (Arc::new(answer), home.to_owned(), Open::default());
    let kept = open.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let clone = socket.try_clone().expect("a clone");
            kept.lock().expect("a lock").push(clone);
            let (answer, path) = (answer.clone(), path.clone());
            std::thread::spawn(move || converse(socket, protocol, &*answer, &path));
        }
    });
    open
}

fn cut(open: &Open) {
    for socket in open.lock().expect("a lock").drain(..) {
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

fn converse(
    socket: UnixStream,
    protocol: u32,
    answer: &(impl Fn(&mut Asked) + ?Sized),
    home: &Path,
) {
    let mut reader = BufReader::new(socket.try_clone().expect("a clone"));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let request = Request::parse(line.as_bytes()).expect("a request");
        let mut asked = Asked {
            call: request.call,
            id: request.id,
            socket: socket.try_clone().expect("a clone"),
            reader,
            home: home.to_owned(),
        };
        if let Call::Hello(_) = asked.call {
            asked.reply(&HelloReply {
                protocol,
                version: "9.9.9".into(),
            });
        } else {
            answer(&mut asked);
        }
        reader = asked.reader;
    }
}

impl Asked {
    /// Answers.
    pub fn reply(&mut self, value: &impl serde::Serialize) {
        let json = serde_json::to_value(value).expect("JSON");
        self.message(&Message::reply(self.id, json));
    }

    /// Refuses.
    pub fn fail(&mut self, failure: Failure) {
        self.message(&Message::error(Some(self.id), failure));
    }

    /// The same from anywhere and at any time.
    pub fn later(&self) -> Later {
        Later {
            id: self.id,
            socket: self.socket.try_clone().expect("a clone"),
        }
    }

    /// Tells how far it is.
    pub fn progress(&mut self, stage: &str, message: &str) {
        self.message(&Message::progress(Progress {
            request: self.id,
            stage: stage.into(),
            message: message.into(),
            done: None,
            total: None,
        }));
    }

    fn message(&mut self, message: &Message) {
        self.raw(format!("{}\n", serde_json::to_string(message).expect("JSON")).as_bytes());
    }

    /// Writes any bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Waits until the client closes its side.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }

    /// A stream on which `talk` happens.
    pub fn stream(&mut self, talk: impl FnOnce(&mut Talk) + Send + 'static) -> Stream {
        let socket = self.home.join("runtime/stream.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a client");
            let mut talk_socket = Talk(socket);
            let mut token = [0; 8];
            talk_socket.0.read_exact(&mut token).expect("a token");
            assert_eq!(&token, b"token-1\n");
            talk(&mut talk_socket);
        });
        Stream {
            socket: socket.to_str().expect("UTF-8").into(),
            token: "token-1".into(),
        }
    }
}

/// A request that is answered later.
pub struct Later {
    id: u64,
    socket: UnixStream,
}

impl Later {
    /// Answers.
    pub fn reply(&mut self, value: &impl serde::Serialize) {
        let json = serde_json::to_value(value).expect("JSON");
        self.message(&Message::reply(self.id, json));
    }

    /// Refuses.
    pub fn fail(&mut self, failure: Failure) {
        self.message(&Message::error(Some(self.id), failure));
    }

    /// Tells of an event, where the request was a subscription.
    pub fn event(&mut self, event: Event) {
        let subscription = self.id;
        self.message(&Message::event(EventOf {
            subscription,
            event,
        }));
    }

    fn message(&mut self, message: &Message) {
        let line = format!("{}\n", serde_json::to_string(message).expect("JSON"));
        let _ = self.socket.write_all(line.as_bytes());
    }
}

/// The daemon's end of a stream.
pub struct Talk(UnixStream);

impl Talk {
    /// Writes a frame.
    pub fn write(&mut self, frame: Frame) {
        let _ = self.0.write_all(&frame.encode());
    }

    /// Reads a frame; none where the client has gone.
    pub fn read(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER_LENGTH];
        self.0.read_exact(&mut header).ok()?;
        let (kind, length) = parse_header(header).expect("a header");
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame::decode(kind, payload).expect("a frame"))
    }

    /// Writes any bytes; whether they went out.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }
}

/// Sends a signal to a child.
pub fn kill(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a process"), signal).expect("a signal");
}

/// Reads a child's standard error up to a line that contains this.
pub fn read_until(child: &mut Child, word: &str) -> BufReader<std::process::ChildStderr> {
    let mut reader = BufReader::new(child.stderr.take().expect("a pipe"));
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).expect("text"), 0, "no `{word}`");
        if line.contains(word) {
            return reader;
        }
    }
}

/// A failure for tests.
pub fn gone() -> Failure {
    Failure::new(Kind::NotFound, "there is no VM `x`").hint("`banger vm list` lists them")
}
