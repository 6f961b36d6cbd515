//! `banger vm workspace prepare`

use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::workspace::{self, PrepareMode, Prepared};
use banger_core::{ByteString, GuestPath};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Put a git repository into a machine
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm workspace prepare my-vm ~/src/project")]
pub struct Prepare {
    /// The machine's name or id
    vm: String,
    /// The repository, or a directory in it
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Where it goes in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
    /// Overwrite a working copy that is there; work in it that was not exported is saved first
    #[arg(long)]
    force: bool,
    /// With --force: give that work up instead
    #[arg(long, requires = "force")]
    discard: bool,
}

impl Prepare {
    pub fn run(self, context: &Context) -> Outcome {
        let request = workspace::Prepare {
            vm: self.vm,
            path: ByteString(value::absolute(&self.path)?.into_os_string().into_vec()),
            guest_path: self.guest_path,
            mode: PrepareMode::default(),
            force: self.force,
            discard: self.discard,
        };
        context.answer(Call::WorkspacePrepare(request), |prepared: &Prepared| {
            super::describe(prepared)
        })
    }
}
