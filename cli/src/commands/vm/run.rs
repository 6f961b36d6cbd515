//! `banger vm run`

use super::Shape;
use super::workspace::{SourceArgs, describe};
use crate::context::Context;
use crate::error::Outcome;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{VmRun, VmRunReply};
use banger_core::protocol::workspace::DEFAULT_GUEST_PATH;
use clap::Args;

/// Put a git repository into a fresh machine
///
/// The machine is created and started, and the repository goes in: its HEAD, and your working tree as
/// it is, with what is staged, untracked files and submodules. What git ignores stays here. It is a
/// copy: nothing that happens in the machine touches your files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm run
  banger vm run ~/src/project --name fix-login --memory 4G")]
pub struct Run {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    shape: Shape,
}

impl Run {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmRun {
            create: self.shape.into(),
            prepare: self.source.request(String::new(), false)?,
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
