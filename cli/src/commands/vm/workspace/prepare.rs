//! `banger vm workspace prepare`

use crate::context::Context;
use crate::error::{CommandError, Outcome};
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::workspace::{self, PrepareMode, Prepared, Untracked};
use banger_core::{ByteString, GuestPath};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Put a git repository into a machine
///
/// Its tree there is as here: what is modified, staged, deleted or untracked, and submodules. Where it
/// has been put before, only what changed is sent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm workspace prepare my-vm ~/src/project
  banger vm workspace prepare my-vm --mode full-copy --branch agent/fix
  banger vm workspace prepare my-vm --include-ignored .env")]
pub struct Prepare {
    /// The machine's name or id
    vm: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Overwrite what is there; work in it that was not exported is saved first
    #[arg(long)]
    force: bool,
    /// With --force: give that work up instead
    #[arg(long, requires = "force")]
    discard: bool,
}

/// What goes in, and where.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The repository, or a directory in it
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Where it goes in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
    /// How much of the history goes in
    #[arg(long, value_enum, default_value = "shallow-overlay")]
    mode: Mode,
    /// Whether files that git does not know go in
    #[arg(long, value_enum, default_value = "include")]
    untracked: UntrackedFiles,
    /// Ignored files that go in all the same; `*` matches no slash, `**` does
    #[arg(long, value_name = "GLOB")]
    include_ignored: Vec<String>,
    /// Start on this new branch in the machine
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// The last 50 commits of the branch
    ShallowOverlay,
    /// All of it, with all branches and tags
    FullCopy,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UntrackedFiles {
    /// They do
    Include,
    /// They don't
    Exclude,
}

impl SourceArgs {
    /// As a request.
    pub fn request(self, vm: String, force: bool) -> Result<workspace::Prepare, CommandError> {
        Ok(workspace::Prepare {
            vm,
            path: ByteString(value::absolute(&self.path)?.into_os_string().into_vec()),
            guest_path: self.guest_path,
            mode: match self.mode {
                Mode::ShallowOverlay => PrepareMode::ShallowOverlay,
                Mode::FullCopy => PrepareMode::FullCopy,
            },
            untracked: match self.untracked {
                UntrackedFiles::Include => Untracked::Include,
                UntrackedFiles::Exclude => Untracked::Exclude,
            },
            include_ignored: self.include_ignored,
            branch: self.branch,
            force,
            discard: false,
        })
    }
}

impl Prepare {
    pub fn run(self, context: &Context) -> Outcome {
        let request = workspace::Prepare {
            discard: self.discard,
            ..self.source.request(self.vm, self.force)?
        };
        context.answer(Call::WorkspacePrepare(request), |prepared: &Prepared| {
            super::describe(prepared)
        })
    }
}
