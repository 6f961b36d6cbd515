//! `banger vm run`

use super::Shape;
use super::workspace::describe;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{VmRun, VmRunReply};
use banger_core::protocol::workspace::{DEFAULT_GUEST_PATH, Prepare, PrepareMode};
use banger_core::{ByteString, GuestPath};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Put a git repository into a fresh machine
///
/// The machine is created and started, and the repository goes in: its HEAD, and over it what
/// differs in your working tree, untracked files included. What git ignores stays here. It is a
/// copy: nothing that happens in the machine touches your files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm run
  banger vm run ~/src/project --name fix-login --memory 4G")]
pub struct Run {
    /// The repository, or a directory in it
    #[arg(default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    shape: Shape,
    /// Where it goes in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
}

impl Run {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmRun {
            create: self.shape.into(),
            prepare: Prepare {
                vm: String::new(),
                path: ByteString(value::absolute(&self.path)?.into_os_string().into_vec()),
                guest_path: self.guest_path,
                mode: PrepareMode::default(),
                force: false,
                discard: false,
            },
        };
        context.answer(Call::VmRun(request), render)
    }
}

fn render(reply: &VmRunReply) -> String {
    let name = &reply.vm.name;
    let at = &reply.workspace.guest_path;
    let guest_path = if at.as_bytes() == DEFAULT_GUEST_PATH.as_bytes() {
        String::new()
    } else {
        format!(" --guest-path {}", crate::text::quote(at.as_bytes()))
    };
    format!(
        "{name} is running\n{}\nnext:
  banger vm session start {name} -- CMD…
  banger vm ssh {name}
  banger vm workspace export {name}{guest_path} --output {name}.patch
  banger vm delete {name}\n",
        describe(&reply.workspace)
    )
}
