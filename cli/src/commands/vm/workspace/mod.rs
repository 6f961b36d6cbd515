//! `banger vm workspace …`

mod apply;
mod diff;
mod export;
mod patch;
mod prepare;
mod status;

pub use prepare::SourceArgs;

use crate::context::Context;
use crate::error::Outcome;
use crate::text;
use banger_core::escape;
use banger_core::protocol::workspace::{ExportFormat, PrepareMode, Prepared, Saved};
use banger_core::workspace::{Submodule, empty_tree};
use clap::{Args, Subcommand};

/// Working copies: a repository into a machine, work out of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm workspace status my-vm
  banger vm workspace apply my-vm
  banger vm workspace export my-vm --output work.patch")]
pub struct Workspace {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Prepare(prepare::Prepare),
    Status(status::Status),
    Diff(diff::Diff),
    Apply(apply::Apply),
    Export(export::Export),
}

impl Workspace {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Prepare(command) => command.run(context),
            Verb::Status(command) => command.run(context),
            Verb::Diff(command) => command.run(context),
            Verb::Apply(command) => command.run(context),
            Verb::Export(command) => command.run(context),
        }
    }
}

/// What is where, and what to know about it; several lines.
pub fn describe(prepared: &Prepared) -> String {
    let branch = match &prepared.branch {
        Some(branch) => escape::text(branch.as_bytes()),
        None => "detached".into(),
    };
    let mut text = format!(
        "{} holds {} ({branch}) of {}\n",
        prepared.guest_path,
        text::short_commit(&prepared.head_commit),
        prepared.path,
    );
    let mut facts = Vec::new();
    if prepared.mode == PrepareMode::FullCopy {
        facts.push("all of its history".to_owned());
    }
    for (count, noun, what) in [
        (prepared.files_laid_over, "file", " changed or new"),
        (prepared.files_deleted, "file", " deleted"),
        (prepared.files_staged, "file", " staged"),
        (prepared.submodules, "submodule", ""),
    ] {
        if count > 0 {
            facts.push(format!("{}{what}", text::plural(count, noun)));
        }
    }
    facts.push(format!("{} sent", text::bytes(prepared.bytes_sent)));
    text += &format!("  {}\n", facts.join(", "));
    for saved in &prepared.saved {
        text += &format!("  {}\n", saved_as(saved));
    }
    for note in &prepared.notes {
        text += &format!("  note: {}\n", escape::text(note.as_bytes()));
    }
    text
}

/// That a submodule's work did not come along, and how to get it; lines without an end.
pub fn left_behind(vm: &str, top: &[u8], base: &str, submodules: &[Submodule]) -> Vec<String> {
    let one = |submodule: &Submodule| {
        let path = [top, b"/", submodule.path.as_ref()].concat();
        let base = submodule.base.as_deref().unwrap_or(empty_tree(base));
        format!(
            "the submodule {} has work of its own, which is not in it: `banger vm workspace export {} \
             --guest-path {} --base-commit {} --format bundle --output FILE`",
            submodule.path,
            text::quote(vm.as_bytes()),
            text::quote(&path),
            escape::text(base.as_bytes()),
        )
    };
    submodules.iter().map(one).collect()
}

/// Where work was saved, and how to get it back.
pub fn saved_as(saved: &Saved) -> String {
    let file = text::quote(saved.file.as_ref());
    let how = match saved.format {
        ExportFormat::Patch => format!("git apply {file}"),
        ExportFormat::Mbox => format!("git am {file}"),
        ExportFormat::Bundle => format!("git fetch {file} refs/banger/work:refs/heads/NAME"),
    };
    format!(
        "work in {} that was not exported is saved: `{how}` brings it back",
        saved.guest_path
    )
}
