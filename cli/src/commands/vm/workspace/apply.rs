//! `banger vm workspace apply`

use super::export::files;
use crate::context::Context;
use crate::error::Outcome;
use crate::{text, value};
use banger_core::protocol::Call;
use banger_core::protocol::workspace::{self, Applied};
use banger_core::{ByteString, GuestPath, escape};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Make a branch of the work in the repository that was put in
///
/// The branch begins at the commit that was put in and has the machine's commits as they are; what
/// is not committed there is one more commit. Your checkout and your index are not touched, and
/// nothing of the machine's is run or checked out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm workspace apply my-vm
  banger vm workspace apply my-vm --three-way --branch fix
  banger vm workspace apply my-vm --check")]
pub struct Apply {
    /// The machine's name or id
    vm: String,
    /// The repository, or a directory in it [default: the one that was put in]
    path: Option<PathBuf>,
    /// The new branch [default: banger/VM]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Merge the work into the commit that is checked out here now
    #[arg(long)]
    three_way: bool,
    /// Only say whether it can be done
    #[arg(long)]
    check: bool,
    /// Where the working copy is in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
    /// The most that the machine may send, such as 512M or 4G [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = value::mebibytes)]
    limit: Option<u64>,
}

impl Apply {
    pub fn run(self, context: &Context) -> Outcome {
        let path = self.path.as_deref().map(value::absolute).transpose()?;
        let request = workspace::Apply {
            vm: self.vm,
            guest_path: self.guest_path,
            path: path.map(|path| ByteString(path.into_os_string().into_vec())),
            branch: self.branch,
            three_way: self.three_way,
            check: self.check,
            limit_bytes: self.limit.map(value::bytes),
        };
        context.answer(Call::WorkspaceApply(request), |applied: &Applied| {
            describe(applied)
        })
    }
}

fn describe(applied: &Applied) -> String {
    let Some(commit) = &applied.commit else {
        return format!(
            "nothing to apply: nothing differs from {}\n",
            text::short_commit(&applied.base_commit)
        );
    };
    let mut what = text::plural(applied.commits.into(), "commit");
    if applied.uncommitted {
        what += " and one of what was not committed";
    }
    let mut text = match &applied.branch {
        Some(branch) => format!(
            "branch {} at {}",
            escape::text(branch.as_bytes()),
            text::short_commit(commit)
        ),
        None => "it can be applied".to_owned(),
    };
    text += &format!(": {what}, {}\n", files(&applied.changes, applied.more));
    if let Some(into) = &applied.merged_into {
        text += &format!("  merged into {}\n", text::short_commit(into));
    }
    for note in &applied.notes {
        text += &format!("  note: {}\n", escape::text(note.as_bytes()));
    }
    text
}
