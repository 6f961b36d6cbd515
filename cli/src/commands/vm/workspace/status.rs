//! `banger vm workspace status`

use super::export::{changes, files};
use super::left_behind;
use crate::context::Context;
use crate::error::Outcome;
use crate::{text, value};
use banger_core::protocol::Call;
use banger_core::protocol::workspace::{WorkspaceRef, WorkspaceStatus};
use banger_core::{GuestPath, escape};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

/// List what differs from what was put in
///
/// Committed, staged, unstaged and untracked alike, and whether it was exported or applied.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm workspace status my-vm")]
pub struct Status {
    /// The machine's name or id
    vm: String,
    /// Where the working copy is in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
}

impl Status {
    pub fn run(self, context: &Context) -> Outcome {
        let request = WorkspaceRef {
            vm: self.vm,
            guest_path: self.guest_path,
        };
        let vm = request.vm.clone();
        context.answer(
            Call::WorkspaceStatusCall(request),
            |status: &WorkspaceStatus| {
                let more = left_behind(
                    &vm,
                    status.guest_path.as_bytes(),
                    &status.base_commit,
                    &status.submodules,
                );
                describe(status)
                    + &more
                        .iter()
                        .map(|line| format!("{line}\n"))
                        .collect::<String>()
            },
        )
    }
}

fn describe(status: &WorkspaceStatus) -> String {
    let branch = match &status.branch {
        Some(branch) => format!("on {}", escape::text(branch.as_bytes())),
        None => "detached".into(),
    };
    let commits = text::plural(status.commits.into(), "commit");
    let exported = if status.unexported {
        "not exported yet"
    } else {
        "nothing that is not exported"
    };
    format!(
        "{} {branch}: {commits} since {}, {}; {exported}\n{}",
        status.guest_path,
        text::short_commit(&status.base_commit),
        files(&status.changes, status.more),
        changes(&status.changes, status.more),
    )
}
