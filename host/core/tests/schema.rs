//! Is `docs/protocol.schema.json` what the types say? `BANGER_BLESS=1` writes it.
//!
//! Parameters are described as they are read, replies as they are written: a field with a default
//! may be left out of the former and is always in the latter.

use banger_core::frame::Frame;
use banger_core::protocol::event::{Subscribe, Subscribed};
use banger_core::protocol::{
    Call, DaemonInfo, DoctorReply, Empty, Hello, HelloReply, Notification, PROTOCOL_VERSION,
    RpcError, Stream, image, machine, plugin, session, workspace,
};
use banger_core::{Failure, Kind};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::path::Path;

/// How a type is described.
type Describe = fn(&mut SchemaGenerator) -> Schema;

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A method of the socket.
struct Method {
    name: &'static str,
    params: Describe,
    /// What it may answer.
    results: &'static [Describe],
    stream: Option<StreamOf>,
}

/// The frames of the stream that a reply promises.
struct StreamOf {
    /// Where in the result its socket and token are: a JSON pointer.
    at: &'static str,
    client: &'static [&'static str],
    daemon: &'static [&'static str],
}

/// What each method answers. A method that is missing here, or whose parameters are another type,
/// does not compile.
macro_rules! methods {
    ($($name:literal: $variant:ident($params:ty) -> $($result:ty)|+ $(, $stream:expr)?;)*) => {
        const METHODS: &[Method] = &[$(Method {
            name: $name,
            params: describe::<$params>,
            results: &[$(describe::<$result>),+],
            stream: methods!(@stream $($stream)?),
        }),*];

        fn is_known(call: &Call) -> bool {
            match call {
                $(Call::$variant(params) => { let _: &$params = params; })*
            }
            true
        }
    };
    (@stream) => { None };
    (@stream $stream:expr) => { Some($stream) };
}

methods! {
    "daemon.hello": Hello(Hello) -> HelloReply;
    "daemon.info": DaemonInfo(Empty) -> DaemonInfo;
    "daemon.stop": DaemonStop(Empty) -> Empty;
    "doctor.run": Doctor(Empty) -> DoctorReply;
    "vm.run": VmRun(machine::VmRun) -> machine::VmRunReply;
    "vm.create": VmCreate(machine::VmCreate) -> machine::Vm;
    "vm.list": VmList(Empty) -> machine::VmList;
    "vm.get": VmGet(machine::VmRef) -> machine::Vm;
    "vm.start": VmStart(machine::VmRef) -> machine::Vm;
    "vm.stop": VmStop(machine::VmStop) -> machine::Vm;
    "vm.delete": VmDelete(machine::VmDelete) -> machine::VmDeleted;
    "vm.adopt": VmAdopt(machine::VmAdopt) -> machine::Vm;
    "vm.exec": VmExec(machine::VmExec) -> Stream, StreamOf {
        at: "",
        client: &["stdin", "stdin-end", "signal"],
        daemon: &["stdout", "stderr", "exit", "error"],
    };
    "vm.ssh": VmSsh(machine::VmRef) -> machine::VmSsh;
    "vm.logs": VmLogs(machine::VmRef) -> machine::VmLogs;
    "vm.workspace.prepare": WorkspacePrepare(workspace::Prepare) -> workspace::Prepared;
    "vm.workspace.export": WorkspaceExport(workspace::Export) -> workspace::ExportReply, StreamOf {
        at: "/patch",
        client: &["stdin-end"],
        daemon: &["stdout", "exit", "error"],
    };
    "vm.workspace.diff": WorkspaceDiff(workspace::Diff) -> workspace::ExportReply, StreamOf {
        at: "/patch",
        client: &[],
        daemon: &["stdout", "exit", "error"],
    };
    "vm.workspace.status": WorkspaceStatusCall(workspace::WorkspaceRef) -> workspace::WorkspaceStatus;
    "vm.workspace.apply": WorkspaceApply(workspace::Apply) -> workspace::Applied;
    "guest.session.start": SessionStart(session::SessionStart) -> session::Session;
    "guest.session.list": SessionListCall(session::SessionListCall) -> session::SessionList;
    "guest.session.get": SessionGet(session::SessionRef) -> session::Session;
    "guest.session.logs": SessionLogs(session::SessionLogs) -> session::OutputFrom, StreamOf {
        at: "",
        client: &[],
        daemon: &["stdout", "stderr", "exit", "error"],
    };
    "guest.session.attach": SessionAttach(session::SessionAttach) -> session::OutputFrom, StreamOf {
        at: "",
        client: &["stdin", "stdin-end", "resize"],
        daemon: &["stdout", "stderr", "input-taken", "exit", "error"],
    };
    "guest.session.send": SessionSend(session::SessionSend) -> session::SessionSent | Stream,
        StreamOf { at: "", client: &["stdin", "stdin-end"], daemon: &["exit", "error"] };
    "guest.session.signal": SessionSignal(session::SessionSignal) -> session::Session;
    "guest.session.stop": SessionStop(session::SessionStop) -> session::Session;
    "guest.session.kill": SessionKill(session::SessionRef) -> session::Session;
    "guest.session.delete": SessionDelete(session::SessionRef) -> Empty;
    "guest.session.resize": SessionResize(session::SessionResize) -> Empty;
    "guest.session.wait": SessionWait(session::SessionWait) -> session::Session;
    "events.subscribe": Subscribe(Subscribe) -> Subscribed;
    "image.build": ImageBuild(image::ImageBuild) -> image::Image;
    "image.list": ImageListCall(Empty) -> image::ImageList;
    "image.get": ImageGet(image::ImageRef) -> image::Image;
    "image.delete": ImageDelete(image::ImageRef) -> Empty;
    "plugin.list": PluginListCall(Empty) -> plugin::PluginList;
    "plugin.get": PluginGet(plugin::PluginRef) -> plugin::Plugin;
}

/// A frame's word, who sends it, and what its payload is.
fn frame_row(frame: &Frame) -> (&'static str, &'static str, &'static str) {
    match frame {
        Frame::Stdin(_) => ("stdin", "client", "bytes"),
        Frame::StdinEnd => ("stdin-end", "client", "none"),
        Frame::Stdout(_) => ("stdout", "daemon", "bytes"),
        Frame::Stderr(_) => ("stderr", "daemon", "bytes"),
        Frame::Resize { .. } => ("resize", "client", "columns u16, rows u16, big-endian"),
        Frame::Signal(_) => ("signal", "client", "the signal's name without SIG"),
        Frame::Exit(_) => ("exit", "daemon", "u8; the last frame"),
        Frame::Error(_) => ("error", "daemon", "a Failure as JSON; the last frame"),
        Frame::InputTaken(_) => ("input-taken", "daemon", "u64 big-endian"),
    }
}

fn frames() -> Vec<Frame> {
    let mut frames = vec![
        Frame::Stdin(vec![]),
        Frame::StdinEnd,
        Frame::Stdout(vec![]),
        Frame::Stderr(vec![]),
        Frame::Resize {
            columns: 80,
            rows: 24,
        },
        Frame::Signal("INT".into()),
        Frame::Exit(0),
        Frame::Error(Failure::new(Kind::Gone, "gone")),
        Frame::InputTaken(0),
    ];
    frames.sort_by_key(number);
    frames
}

fn number(frame: &Frame) -> u8 {
    frame.encode().first().copied().unwrap_or_default()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// Both sets of definitions, which must not differ where they share a name.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, schema) in from {
        if let Some(before) = into.get(&name) {
            assert_eq!(before, &schema, "{name} is read and written in two forms");
        }
        into.insert(name, schema);
    }
}

/// Descriptions are written for rustdoc, whose links mean nothing here.
fn unlink(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    value => unlink(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unlink),
        _ => {}
    }
}

/// The variants of an enum that is tagged by `method`: name and schema.
fn tagged<T: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let schema = T::json_schema(generator).to_value();
    let variants = schema["oneOf"].as_array().expect("variants").clone();
    variants
        .into_iter()
        .map(|variant| {
            let method = &variant["properties"]["method"]["const"];
            (method.as_str().expect("a method").to_owned(), variant)
        })
        .collect()
}

fn schema() -> Value {
    let mut read = SchemaSettings::draft2020_12().into_generator();
    let mut written = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let calls = tagged::<Call>(&mut read);

    let mut methods = Map::new();
    let mut requests = Vec::new();
    for method in METHODS {
        let description = calls
            .iter()
            .find(|(name, _)| name == method.name)
            .map(|(_, variant)| variant["description"].clone())
            .expect("in Call");
        let params = (method.params)(&mut read).to_value();
        // What answers nothing now may gain fields, as every reply may.
        let mut results: Vec<Value> = method
            .results
            .iter()
            .map(|result| result(&mut written).to_value())
            .map(|result| match result == reference("Empty") {
                true => json!({"type": "object"}),
                false => result,
            })
            .collect();
        let result = match results.len() {
            1 => results.remove(0),
            _ => json!({"anyOf": results}),
        };
        let mut entry = json!({
            "description": description,
            "params": params,
            "result": result,
        });
        if let Some(stream) = &method.stream {
            entry["stream"] = json!({
                "at": stream.at, "client": stream.client, "daemon": stream.daemon,
            });
        }
        methods.insert(method.name.into(), entry);
        requests.push(json!({
            "title": method.name,
            "type": "object",
            "properties": {
                "jsonrpc": {"const": "2.0"},
                "id": {"type": "integer", "minimum": 0},
                "method": {"const": method.name},
                "params": params,
            },
            "required": ["jsonrpc", "id", "method"],
        }));
    }
    let notifications: Map<String, Value> = tagged::<Notification>(&mut written)
        .into_iter()
        .map(|(name, variant)| {
            let entry = json!({
                "description": variant["description"],
                "params": variant["properties"]["params"],
            });
            (name, entry)
        })
        .collect();
    let error = written.subschema_for::<RpcError>().to_value();

    let mut definitions = written.take_definitions(true);
    definitions.remove("Empty");
    merge(&mut definitions, read.take_definitions(true));
    for (request, method) in requests.iter_mut().zip(METHODS) {
        // Parameters may be left out where none is required.
        let name = methods[method.name]["params"]["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next())
            .expect("a reference");
        if definitions[name].get("required").is_some() {
            request["required"] = json!(["jsonrpc", "id", "method", "params"]);
        }
    }
    definitions.insert(
        "Request".into(),
        json!({
            "description": "What a client writes: one line.",
            "oneOf": requests,
        }),
    );
    definitions.insert(
        "Reply".into(),
        json!({
            "description": "A request is done; `methods` has the form of its result.",
            "type": "object",
            "properties": {
                "jsonrpc": {"const": "2.0"},
                "id": {"type": "integer", "minimum": 0},
                "result": {"type": "object"},
            },
            "required": ["jsonrpc", "id", "result"],
        }),
    );
    definitions.insert(
        "ErrorReply".into(),
        json!({
            "description": "A request has failed; `id` is null where it could not be read.",
            "type": "object",
            "properties": {
                "jsonrpc": {"const": "2.0"},
                "id": {"type": ["integer", "null"], "minimum": 0},
                "error": error,
            },
            "required": ["jsonrpc", "id", "error"],
        }),
    );
    let tells: Vec<Value> = notifications
        .iter()
        .map(|(name, entry)| {
            json!({
                "title": name,
                "type": "object",
                "properties": {
                    "jsonrpc": {"const": "2.0"},
                    "method": {"const": name},
                    "params": entry["params"],
                },
                "required": ["jsonrpc", "method", "params"],
            })
        })
        .collect();
    definitions.insert(
        "Notification".into(),
        json!({
            "description": "What the daemon tells unasked.",
            "oneOf": tells,
        }),
    );
    let frames: Vec<Value> = frames()
        .iter()
        .map(|frame| {
            let (name, from, payload) = frame_row(frame);
            json!({"type": number(frame), "name": name, "from": from, "payload": payload})
        })
        .collect();

    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("The protocol of banger's daemon, version {PROTOCOL_VERSION}"),
        "description": "Generated from the types: `BANGER_BLESS=1 cargo test -p banger-core --test \
                        schema`. It validates a message, which is one line on daemon.sock. \
                        `methods` has each method's parameters and result, `notifications` what \
                        the daemon tells unasked, `frames` what travels on stream.sock; a \
                        method's `stream` says where in the result the socket and the token are, \
                        and which frames either side sends. Unknown parameters are refused; \
                        replies may gain fields.",
        "anyOf": [
            reference("Request"), reference("Reply"), reference("ErrorReply"),
            reference("Notification"),
        ],
        "methods": methods,
        "notifications": notifications,
        "frames": frames,
        "$defs": definitions,
    });
    unlink(&mut document);
    document
}

#[test]
fn the_committed_schema_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.schema.json");
    let mut text = serde_json::to_string_pretty(&schema()).expect("JSON");
    text.push('\n');
    if std::env::var_os("BANGER_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/protocol.schema.json is not what the types say: \
         BANGER_BLESS=1 cargo test -p banger-core --test schema"
    );
}

#[test]
fn every_method_is_there_under_its_name_and_with_its_parameters() {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let calls: Vec<(String, Value)> = tagged::<Call>(&mut generator)
        .into_iter()
        .map(|(name, variant)| (name, variant["properties"]["params"].clone()))
        .collect();
    let table: Vec<(String, Value)> = METHODS
        .iter()
        .map(|method| {
            (
                method.name.to_owned(),
                (method.params)(&mut generator).to_value(),
            )
        })
        .collect();
    assert_eq!(table, calls);
    assert!(is_known(&Call::VmList(Empty {})));
}

#[test]
fn every_frame_is_there_and_streams_name_only_frames() {
    let frames = frames();
    let numbers: Vec<u8> = frames.iter().map(number).collect();
    assert_eq!(numbers, (1..=9).collect::<Vec<u8>>());
    let sent_by = |side: &str| -> Vec<&str> {
        frames
            .iter()
            .map(frame_row)
            .filter(|(_, from, _)| *from == side)
            .map(|(name, _, _)| name)
            .collect()
    };
    for stream in METHODS.iter().filter_map(|method| method.stream.as_ref()) {
        for (side, names) in [("client", stream.client), ("daemon", stream.daemon)] {
            assert!(names.iter().all(|name| sent_by(side).contains(name)));
        }
    }
}
