//! The JSON-RPC 2.0 protocol of the daemon's socket: one message a line.
//!
//! The first request on a connection is `daemon.hello`. While a request runs, the daemon may send
//! `progress` notifications for it. Closing the connection, or its writing half, cancels what
//! still runs on it.

pub mod event;
pub mod image;
pub mod machine;
pub mod plugin;
pub mod session;
pub mod workspace;

use crate::{Failure, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of this protocol. It changes when an older client would misunderstand a reply.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest message, in bytes, without its line feed. Larger payloads go through a stream.
pub const MESSAGE_LIMIT: usize = 8 << 20;
/// The longest reply that a client takes: a list of many sessions with long commands.
pub const REPLY_LIMIT: usize = 64 << 20;

/// Everything a client can ask. Its name on the wire is `method`, its content `params`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", content = "params", deny_unknown_fields)]
pub enum Call {
    /// Who talks; must come first. Answers [`HelloReply`].
    #[serde(rename = "daemon.hello")]
    Hello(Hello),
    /// Answers [`DaemonInfo`].
    #[serde(rename = "daemon.info")]
    DaemonInfo(Empty),
    /// Ends the daemon; machines and sessions go on. Answers [`Empty`].
    #[serde(rename = "daemon.stop")]
    DaemonStop(Empty),
    /// Checks this machine. Answers [`DoctorReply`].
    #[serde(rename = "doctor.run")]
    Doctor(Empty),

    /// Create, start and prepare in one. Answers [`machine::VmRunReply`].
    #[serde(rename = "vm.run")]
    VmRun(machine::VmRun),
    /// Answers [`machine::Vm`].
    #[serde(rename = "vm.create")]
    VmCreate(machine::VmCreate),
    /// Answers [`machine::VmList`].
    #[serde(rename = "vm.list")]
    VmList(Empty),
    /// Answers [`machine::Vm`].
    #[serde(rename = "vm.get")]
    VmGet(machine::VmRef),
    /// Answers [`machine::Vm`].
    #[serde(rename = "vm.start")]
    VmStart(machine::VmRef),
    /// Answers [`machine::Vm`].
    #[serde(rename = "vm.stop")]
    VmStop(machine::VmStop),
    /// Saves work first that was not exported. Answers [`machine::VmDeleted`].
    #[serde(rename = "vm.delete")]
    VmDelete(machine::VmDelete),
    /// Answers [`machine::Vm`].
    #[serde(rename = "vm.adopt")]
    VmAdopt(machine::VmAdopt),
    /// Answers [`Stream`]: frames of stdin, stdout, stderr, then exit.
    #[serde(rename = "vm.exec")]
    VmExec(machine::VmExec),
    /// How to reach it with another SSH client. Answers [`machine::VmSsh`].
    #[serde(rename = "vm.ssh")]
    VmSsh(machine::VmRef),
    /// Where its console log is. Answers [`machine::VmLogs`].
    #[serde(rename = "vm.logs")]
    VmLogs(machine::VmRef),

    /// Answers [`workspace::Prepared`].
    #[serde(rename = "vm.workspace.prepare")]
    WorkspacePrepare(workspace::Prepare),
    /// Answers [`workspace::ExportReply`].
    #[serde(rename = "vm.workspace.export")]
    WorkspaceExport(workspace::Export),
    /// A patch to look at: it does not count as exported. Answers [`workspace::ExportReply`].
    #[serde(rename = "vm.workspace.diff")]
    WorkspaceDiff(workspace::Diff),
    /// Answers [`workspace::WorkspaceStatus`].
    #[serde(rename = "vm.workspace.status")]
    WorkspaceStatusCall(workspace::WorkspaceRef),
    /// The work as a new branch of the repository on the host. Answers [`workspace::Applied`].
    #[serde(rename = "vm.workspace.apply")]
    WorkspaceApply(workspace::Apply),

    /// Answers [`session::Session`].
    #[serde(rename = "guest.session.start")]
    SessionStart(session::SessionStart),
    /// Answers [`session::SessionList`].
    #[serde(rename = "guest.session.list")]
    SessionListCall(session::SessionListCall),
    /// Answers [`session::Session`].
    #[serde(rename = "guest.session.get")]
    SessionGet(session::SessionRef),
    /// Answers [`session::OutputFrom`]: frames of stdout and stderr, then exit 0.
    #[serde(rename = "guest.session.logs")]
    SessionLogs(session::SessionLogs),
    /// Answers [`session::OutputFrom`]: as [`Call::VmExec`], from the offsets on.
    #[serde(rename = "guest.session.attach")]
    SessionAttach(session::SessionAttach),
    /// Answers [`session::SessionSent`], or [`Stream`] where no message is given: the payload
    /// goes there as stdin frames, and exit 0 tells that all of it was written.
    #[serde(rename = "guest.session.send")]
    SessionSend(session::SessionSend),
    /// Answers [`session::Session`].
    #[serde(rename = "guest.session.signal")]
    SessionSignal(session::SessionSignal),
    /// TERM, a grace, KILL. Answers [`session::Session`].
    #[serde(rename = "guest.session.stop")]
    SessionStop(session::SessionStop),
    /// KILL at once. Answers [`session::Session`].
    #[serde(rename = "guest.session.kill")]
    SessionKill(session::SessionRef),
    /// Forgets an ended session and removes its directory. Answers [`Empty`].
    #[serde(rename = "guest.session.delete")]
    SessionDelete(session::SessionRef),
    /// Answers [`Empty`].
    #[serde(rename = "guest.session.resize")]
    SessionResize(session::SessionResize),
    /// Answers [`session::Session`] once it has ended.
    #[serde(rename = "guest.session.wait")]
    SessionWait(session::SessionWait),

    /// Answers [`event::Subscribed`], then sends notifications `event` until the connection
    /// closes.
    #[serde(rename = "events.subscribe")]
    Subscribe(event::Subscribe),

    /// Answers [`image::Image`].
    #[serde(rename = "image.build")]
    ImageBuild(image::ImageBuild),
    /// Answers [`image::ImageList`].
    #[serde(rename = "image.list")]
    ImageListCall(Empty),
    /// Answers [`image::Image`].
    #[serde(rename = "image.get")]
    ImageGet(image::ImageRef),
    /// Answers [`Empty`].
    #[serde(rename = "image.delete")]
    ImageDelete(image::ImageRef),

    /// Answers [`plugin::PluginList`].
    #[serde(rename = "plugin.list")]
    PluginListCall(Empty),
    /// Answers [`plugin::Plugin`].
    #[serde(rename = "plugin.get")]
    PluginGet(plugin::PluginRef),
}

/// A request as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Any number; the reply repeats it.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

impl Request {
    /// A request.
    pub fn new(id: u64, call: Call) -> Self {
        Self {
            jsonrpc: "2.0".into(),
            id,
            call,
        }
    }

    /// Reads one line. An `id` that can be read is returned with the error also.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure that says what is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, (Option<u64>, Failure)> {
        let value: serde_json::Value = serde_json::from_slice(line).map_err(|error| {
            (
                None,
                Failure::new(Kind::Usage, format!("a message is no JSON: {error}")),
            )
        })?;
        let id = value.get("id").and_then(serde_json::Value::as_u64);
        let fail = |message: String| (id, Failure::new(Kind::Usage, message));
        let method = value
            .get("method")
            .and_then(|m| m.as_str())
            .ok_or_else(|| fail("a request needs a `method`".into()))?;
        let id = id.ok_or_else(|| fail("a request needs an `id` that is a number ≥ 0".into()))?;
        if value.get("jsonrpc").and_then(|v| v.as_str()) != Some("2.0") {
            return Err(fail("a request needs `\"jsonrpc\": \"2.0\"`".into()));
        }
        let params = value
            .get("params")
            .cloned()
            .unwrap_or_else(|| serde_json::json!({}));
        let call = serde_json::from_value(serde_json::json!({"method": method, "params": params}))
            .map_err(|error| {
                fail(format!(
                    "`{}` is malformed: {}",
                    crate::escape::text(method.as_bytes()),
                    crate::escape::text(error.to_string().as_bytes())
                ))
            })?;
        Ok(Self {
            jsonrpc: "2.0".into(),
            id,
            call,
        })
    }
}

/// What the daemon writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// A request has failed.
    Error {
        /// Always `2.0`.
        jsonrpc: String,
        /// Of the request; none where it could not be read.
        id: Option<u64>,
        /// Why.
        error: RpcError,
    },
    /// A request is done.
    Reply {
        /// Always `2.0`.
        jsonrpc: String,
        /// Of the request.
        id: u64,
        /// What the call answers.
        result: serde_json::Value,
    },
    /// A request goes on, or something happened.
    Notification {
        /// Always `2.0`.
        jsonrpc: String,
        /// Which, and what it tells.
        #[serde(flatten)]
        notification: Notification,
    },
}

/// What the daemon tells without being asked each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", content = "params", rename_all = "kebab-case")]
pub enum Notification {
    /// How far a request is.
    Progress(Progress),
    /// What a subscription is for.
    Event(event::EventOf),
}

impl Message {
    /// The reply to a request.
    pub fn reply(id: u64, result: serde_json::Value) -> Self {
        Self::Reply {
            jsonrpc: "2.0".into(),
            id,
            result,
        }
    }

    /// The error of a request.
    pub fn error(id: Option<u64>, failure: Failure) -> Self {
        Self::Error {
            jsonrpc: "2.0".into(),
            id,
            error: RpcError {
                code: failure.kind.rpc_code(),
                message: failure.message.clone(),
                data: failure,
            },
        }
    }

    /// A request's progress.
    pub fn progress(progress: Progress) -> Self {
        Self::notification(Notification::Progress(progress))
    }

    /// A subscription's event.
    pub fn event(event: event::EventOf) -> Self {
        Self::notification(Notification::Event(event))
    }

    fn notification(notification: Notification) -> Self {
        Self::Notification {
            jsonrpc: "2.0".into(),
            notification,
        }
    }
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RpcError {
    /// -32000 less the exit code of the failure's kind.
    pub code: i32,
    /// The failure's sentence.
    pub message: String,
    /// The whole failure.
    pub data: Failure,
}

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The request's id.
    pub request: u64,
    /// What is being done, as a short stable word: `image`, `boot`, `workspace`, …
    pub stage: String,
    /// The same for a person.
    pub message: String,
    /// Units done, where they can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Units in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// No parameters, or nothing to answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// A client's first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the client.
    pub protocol: u32,
    /// Its name and version, for the log.
    pub client: String,
}

/// The daemon's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// [`PROTOCOL_VERSION`] of the daemon.
    pub protocol: u32,
    /// Its version.
    pub version: String,
}

/// What the daemon tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonInfo {
    /// Its version.
    pub version: String,
    /// Its protocol's version.
    pub protocol: u32,
    /// Its process.
    pub pid: u32,
    /// Milliseconds since 1970 when it started.
    pub started_at_ms: u64,
    /// Its socket.
    pub socket: String,
    /// Its log file.
    pub log: String,
    /// Resident memory in KiB.
    pub memory_kib: u64,
}

/// A stream to connect to; see [`crate::frame`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stream {
    /// Path of a unix socket.
    pub socket: String,
    /// To be written as its first line. It serves once, within 10 seconds.
    pub token: String,
}

/// The checks of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorReply {
    /// In the order in which to read them.
    pub checks: Vec<DoctorCheck>,
}

/// One check of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorCheck {
    /// A short stable word.
    pub id: String,
    /// How it is.
    pub status: DoctorStatus,
    /// What was found, and why.
    pub summary: String,
    /// What to do, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DoctorStatus {
    /// Good.
    Ok,
    /// It works, but not as well as it might.
    Warning,
    /// banger can't do its job until it is mended.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request::new(7, Call::VmGet(machine::VmRef { vm: "my-vm".into() }));
        let line = serde_json::to_vec(&request).expect("serialises");
        assert_eq!(Request::parse(&line), Ok(request));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_id() {
        for (line, id, word) in [
            (&b"{"[..], None, "JSON"),
            (br#"{"id":1}"#, Some(1), "method"),
            (br#"{"method":"vm.list"}"#, None, "id"),
            (br#"{"id":1,"method":"vm.list"}"#, Some(1), "jsonrpc"),
            (
                br#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#,
                Some(1),
                "no.such",
            ),
            (
                br#"{"jsonrpc":"2.0","id":1,"method":"vm.get","params":{"vm":"a","x":1}}"#,
                Some(1),
                "unknown field",
            ),
        ] {
            let (got, failure) = Request::parse(line).expect_err("malformed");
            assert_eq!(got, id);
            assert!(failure.message.contains(word), "{failure}");
        }
        let empty = br#"{"jsonrpc":"2.0","id":1,"method":"vm.list"}"#;
        assert_eq!(
            Request::parse(empty),
            Ok(Request::new(1, Call::VmList(Empty {})))
        );
    }
}
