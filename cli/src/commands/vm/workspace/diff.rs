//! `banger vm workspace diff`

use super::export::receive;
use super::patch::{Coloured, PatchOutput};
use crate::context::Context;
use crate::error::Outcome;
use crate::stream::Input;
use crate::style::Style;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::workspace::{self, ExportReply};
use banger_core::{Failure, GuestPath, Kind};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

/// Show what differs from what was put in
///
/// The same patch as `export` prints, coloured on a terminal. Looking at it does not count as an
/// export.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm workspace diff my-vm
  banger vm workspace diff my-vm | less")]
pub struct Diff {
    /// The machine's name or id
    vm: String,
    /// The commit or ref in the machine to compare with [default: the commit that was put in]
    #[arg(long, value_name = "REF")]
    base_commit: Option<String>,
    /// Where the working copy is in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
    /// The most that the machine may send, such as 512M or 4G [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = value::mebibytes)]
    limit: Option<u64>,
}

impl Diff {
    pub fn run(self, context: &Context) -> Outcome {
        if context.output.json {
            let message = "a diff is no JSON";
            return Err(Failure::new(Kind::Usage, message)
                .hint("`banger vm workspace status --json` lists what differs")
                .into());
        }
        let reply = context.call::<ExportReply>(Call::WorkspaceDiff(workspace::Diff {
            vm: self.vm,
            guest_path: self.guest_path,
            base_commit: self.base_commit,
            limit_bytes: self.limit.map(value::bytes),
        }))?;
        let patch = &reply.value.patch;
        match context.output.style {
            Style::Coloured => {
                let mut sink = Coloured::new(context.output);
                receive(context, patch, Input::Nothing, &mut sink)?;
            }
            Style::Plain => receive(context, patch, Input::Nothing, &mut PatchOutput::new())?,
        }
        Ok(0)
    }
}
