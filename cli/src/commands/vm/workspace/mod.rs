//! `banger vm workspace …`

mod export;
mod patch;
mod prepare;

pub use prepare::SourceArgs;

use crate::context::Context;
use crate::error::Outcome;
use crate::text;
use banger_core::escape;
use banger_core::protocol::workspace::{PrepareMode, Prepared};
use clap::{Args, Subcommand};

/// Working copies: a repository into a machine, work out of it
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm workspace export my-vm --output work.patch")]
pub struct Workspace {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Prepare(prepare::Prepare),
    Export(export::Export),
}

impl Workspace {
    pub fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Prepare(command) => command.run(context),
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
    for note in &prepared.notes {
        text += &format!("  note: {}\n", escape::text(note.as_bytes()));
    }
    text
}
