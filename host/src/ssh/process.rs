//! A process in the guest: its input, its output, its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client};
use tokio_util::sync::CancellationToken;

use super::error::SshError;
use super::link::{Link, OpenChannel};
use super::pool::Pool;

/// How a process ended.
#[derive(Debug, Clone)]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(u32),
    /// A signal ended it.
    Signal {
        /// The signal's name without `SIG`, escaped.
        name: String,
        /// Whether it dumped core.
        core_dumped: bool,
        /// What the server says about it, escaped; mostly empty.
        message: String,
    },
    /// The server closed the channel without a status.
    Unknown,
    /// Output and status are incomplete: the connection was lost or closed, or the server refused
    /// to run the command.
    Failed(SshError),
}

/// What comes from a process.
#[derive(Debug)]
pub enum ProcessEvent {
    /// Some of its standard output; not empty.
    Stdout(Bytes),
    /// Some of its standard error; not empty.
    Stderr(Bytes),
    /// Its end. Always the last event, exactly once.
    Exit(Exit),
}

/// Where a channel's connection goes when the channel is done.
pub(super) enum Home {
    /// It has other channels.
    Shared,
    /// It is a lane's, which keeps it.
    Lane(Arc<Lane>),
}

/// A connection for the processes of one reader, which may take its time: what it does not read
/// holds up these processes and no others. It is kept for the next lane when all have ended.
pub(super) struct Lane {
    pub(super) link: Arc<Link>,
    pub(super) pool: Weak<Pool>,
    /// Whether a channel was left open: only closing the connection ends it then.
    abandoned: AtomicBool,
}

impl Lane {
    pub(super) fn new(link: Arc<Link>, pool: Weak<Pool>) -> Arc<Self> {
        Arc::new(Self {
            link,
            pool,
            abandoned: AtomicBool::new(false),
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::Relaxed)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.keep(&self.link);
        }
    }
}

/// A terminal that a process shall run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its type, as in `TERM`.
    pub term: String,
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// An open channel. Dropping the last reference closes it.
struct ChannelGuard {
    id: ChannelId,
    write: Arc<ChannelWriteHalf<client::Msg>>,
    closed: CancellationToken,
    link: Arc<Link>,
    home: Home,
}

impl ChannelGuard {
    /// What a failed send on this channel means.
    fn send_error(&self) -> SshError {
        if self.link.closing.is_cancelled() {
            self.link.closed_error()
        } else if self.closed.is_cancelled() {
            SshError::InputClosed
        } else {
            self.link.lost_error()
        }
    }

    /// Awaits a send, but not beyond the end of channel or connection: without its window being
    /// extended, a send to an ended channel would wait for ever.
    async fn send(
        &self,
        sending: impl Future<Output = Result<(), russh::Error>>,
    ) -> Result<(), SshError> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(self.send_error()),
            () = self.link.closing.cancelled() => Err(self.send_error()),
            sent = sending => sent.map_err(|_| self.send_error()),
            () = self.link.ledger.lost.cancelled() => Err(self.send_error()),
        }
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        let open = self.link.ledger.forget(self.id);
        match &self.home {
            Home::Shared if open => {
                let write = Arc::clone(&self.write);
                // Where the connection is gone there is nothing left to close.
                self.link.runtime.spawn(async move {
                    let _ = write.close().await;
                });
            }
            Home::Lane(lane) if open => {
                lane.abandoned.store(true, Ordering::Relaxed);
                let write = Arc::clone(&self.write);
                self.link.runtime.spawn(async move {
                    let _ = write.close().await;
                });
            }
            Home::Shared | Home::Lane(_) => {}
        }
    }
}

/// A running process. Dropping it (both halves, once split) closes its channel: its streams end,
/// but sshd does not kill it.
#[derive(Debug)]
pub struct Process {
    input: ProcessInput,
    output: ProcessOutput,
}

impl Process {
    /// Runs a command line on a fresh channel. Does not wait for the server's consent: a refusal
    /// comes as [`Exit::Failed`].
    pub(super) async fn exec(
        opened: OpenChannel,
        link: Arc<Link>,
        home: Home,
        command_line: Vec<u8>,
        terminal: Option<Terminal>,
    ) -> Result<Self, SshError> {
        let id = opened.channel.id();
        let (read, write) = opened.channel.split();
        let channel = Arc::new(ChannelGuard {
            id,
            write: Arc::new(write),
            closed: opened.closed,
            link,
            home,
        });
        let starting = async {
            if let Some(Terminal {
                term,
                columns,
                rows,
            }) = terminal
            {
                // Without an answer: where there is none to be had, the program says so itself.
                let (columns, rows) = (columns.into(), rows.into());
                channel
                    .write
                    .request_pty(false, &term, columns, rows, 0, 0, &[])
                    .await?;
            }
            channel.write.exec(true, command_line).await
        };
        channel.send(starting).await.map_err(|error| match error {
            SshError::InputClosed => SshError::ExecRefused {
                endpoint: channel.link.endpoint.to_string(),
            },
            other => other,
        })?;
        Ok(Self {
            input: ProcessInput {
                channel: Arc::clone(&channel),
                open: true,
            },
            output: ProcessOutput {
                read,
                channel,
                status: None,
                eof: false,
                ended: false,
            },
        })
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> &mut ProcessInput {
        &mut self.input
    }

    /// Its output and end.
    pub fn output(&mut self) -> &mut ProcessOutput {
        &mut self.output
    }

    /// Both directions apart, to be used by different tasks.
    pub fn into_split(self) -> (ProcessInput, ProcessOutput) {
        (self.input, self.output)
    }

    /// Asks sshd to signal the process; see [`ProcessInput::signal`].
    ///
    /// # Errors
    /// The connection is lost or the process has ended.
    pub async fn signal(&self, name: &str) -> Result<(), SshError> {
        self.input.signal(name).await
    }
}

/// The way to a process's standard input. Dropping it ends the input, as `close` does.
pub struct ProcessInput {
    channel: Arc<ChannelGuard>,
    open: bool,
}

impl ProcessInput {
    /// Sends all of these bytes; waits while the guest does not take more. Not to be called again
    /// after it was cancelled, for how much was sent is then unknown.
    ///
    /// # Errors
    /// The process has ended, or the connection is lost or closed.
    pub async fn write_all(&mut self, bytes: Bytes) -> Result<(), SshError> {
        if !self.open {
            return Err(SshError::InputClosed);
        }
        self.channel
            .send(self.channel.write.data_bytes(bytes))
            .await
    }

    /// Ends the input: the process reads EOF after what was written. A process that has ended
    /// already is no error.
    ///
    /// # Errors
    /// The connection is lost or closed.
    pub async fn close(&mut self) -> Result<(), SshError> {
        if !self.open {
            return Ok(());
        }
        self.open = false;
        match self.channel.send(self.channel.write.eof()).await {
            Err(SshError::InputClosed) => Ok(()),
            other => other,
        }
    }

    /// Tells the terminal's new size, for a process that runs on one.
    ///
    /// # Errors
    /// The process has ended, or the connection is lost or closed.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), SshError> {
        let (columns, rows) = (columns.into(), rows.into());
        self.channel
            .send(self.channel.write.window_change(columns, rows, 0, 0))
            .await
    }

    /// Asks sshd to send the process a signal, by its name without `SIG`. There is no answer.
    /// OpenSSH obliges only where it separates privileges, which it does not do for root: to
    /// signal a root process reliably, run `kill`.
    ///
    /// # Errors
    /// The process has ended, or the connection is lost or closed.
    pub async fn signal(&self, name: &str) -> Result<(), SshError> {
        let signal = match name {
            "ABRT" => Sig::ABRT,
            "ALRM" => Sig::ALRM,
            "FPE" => Sig::FPE,
            "HUP" => Sig::HUP,
            "ILL" => Sig::ILL,
            "INT" => Sig::INT,
            "KILL" => Sig::KILL,
            "PIPE" => Sig::PIPE,
            "QUIT" => Sig::QUIT,
            "SEGV" => Sig::SEGV,
            "TERM" => Sig::TERM,
            "USR1" => Sig::USR1,
            other => Sig::Custom(other.to_owned()),
        };
        self.channel.send(self.channel.write.signal(signal)).await
    }
}

impl Drop for ProcessInput {
    fn drop(&mut self) {
        if self.open && !self.channel.closed.is_cancelled() {
            let channel = Arc::clone(&self.channel);
            self.channel.link.runtime.spawn(async move {
                let _ = channel.send(channel.write.eof()).await;
            });
        }
    }
}

impl fmt::Debug for ProcessInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessInput({})", self.channel.id)
    }
}

/// The way from a process. Dropping it discards what the process still writes.
pub struct ProcessOutput {
    read: ChannelReadHalf,
    channel: Arc<ChannelGuard>,
    status: Option<Exit>,
    eof: bool,
    ended: bool,
}

impl ProcessOutput {
    /// The next event; `None` after [`ProcessEvent::Exit`]. The exit comes after all output,
    /// whatever their order on the wire. May be cancelled and called again.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        if self.ended {
            return None;
        }
        loop {
            let message = tokio::select! {
                biased;
                message = self.read.wait() => message,
                () = self.channel.link.closing.cancelled() => None,
            };
            match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => {
                    return Some(ProcessEvent::Stdout(data));
                }
                // 1 is the only type of extended data that exists: standard error.
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) if !data.is_empty() => {
                    return Some(ProcessEvent::Stderr(data));
                }
                Some(ChannelMsg::Eof) => self.eof = true,
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    self.status = Some(Exit::Code(exit_status));
                }
                Some(ChannelMsg::ExitSignal {
                    signal_name,
                    core_dumped,
                    error_message,
                    ..
                }) => {
                    self.status = Some(Exit::Signal {
                        name: signal_name_of(&signal_name),
                        core_dumped,
                        message: banger_core::escape::text(error_message.as_bytes()),
                    });
                }
                Some(ChannelMsg::Failure) => {
                    return Some(self.end(Exit::Failed(SshError::ExecRefused {
                        endpoint: self.channel.link.endpoint.to_string(),
                    })));
                }
                Some(ChannelMsg::Close) => {
                    self.channel.link.ledger.closed(self.channel.id);
                    let exit = self.status.take().unwrap_or(Exit::Unknown);
                    return Some(self.end(exit));
                }
                None => {
                    let exit = self.lost().await;
                    return Some(self.end(exit));
                }
                Some(_) => {}
            }
        }
    }

    fn end(&mut self, exit: Exit) -> ProcessEvent {
        self.ended = true;
        ProcessEvent::Exit(exit)
    }

    /// The exit of a process whose connection ended before its channel did.
    async fn lost(&mut self) -> Exit {
        let link = &self.channel.link;
        if self.eof
            && let Some(status) = self.status.take()
        {
            return status;
        }
        if link.closing.is_cancelled() {
            return Exit::Failed(link.closed_error());
        }
        // The queue ends a moment before the reason is known.
        link.ledger.lost.cancelled().await;
        Exit::Failed(link.lost_error())
    }
}

fn signal_name_of(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => banger_core::escape::text(name.as_bytes()),
        known => format!("{known:?}"),
    }
}

impl fmt::Debug for ProcessOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessOutput({})", self.channel.id)
    }
}
