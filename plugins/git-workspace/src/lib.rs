//! Working copies of git repositories: fetched over the script's own stdin and stdout, brought
//! back as a patch, as mails or as a bundle. What runs in the guest stands in `scripts/`; the user's repository is the
//! host's business alone.

banger_plugin::workspace!("../../wit");

mod report;
mod scripts;

use contract::{
    ExportRequest, Guest, Info, Metadata, Output, ReceiveRequest, Refusal, Script, Status,
    Transport, WorkspaceInfo,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

#[cfg(target_arch = "wasm32")]
contract::bindings::export!(Plugin with_types_in contract::bindings);

impl Metadata for Plugin {
    fn describe() -> Info {
        Info {
            name: "git".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Working copies of git repositories".to_owned(),
            homepage: String::new(),
        }
    }
}

impl Guest for Plugin {
    fn info() -> WorkspaceInfo {
        WorkspaceInfo {
            kind: "git".to_owned(),
            transport: Transport::GitUploadPack,
            needs: vec!["git".to_owned()],
        }
    }

    fn receive(request: ReceiveRequest) -> Result<Script, Refusal> {
        scripts::receive(&request)
            .map(Into::into)
            .map_err(Into::into)
    }

    fn inspect(path: String, base: Option<String>) -> Result<Script, Refusal> {
        scripts::inspect(&path, base.as_deref())
            .map(Into::into)
            .map_err(Into::into)
    }

    fn read_inspect(output: Output) -> Result<Status, Refusal> {
        report::read(&output).map_err(Into::into)
    }

    fn export_work(request: ExportRequest) -> Result<Script, Refusal> {
        scripts::export(&request)
            .map(Into::into)
            .map_err(Into::into)
    }
}
