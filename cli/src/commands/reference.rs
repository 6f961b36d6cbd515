//! `banger reference`, hidden: docs/cli.md, which a test compares with it.

use super::Cli;
use crate::context::Context;
use crate::error::Outcome;
use clap::{Args, Command, CommandFactory as _};
use std::fmt::Write as _;

const INTRODUCTION: &str = "# The commands of banger

This page is what `--help` says. It is made by `BANGER_BLESS=1 cargo test -p banger --test reference`,
and that test fails where the two differ. Exit codes are in [exit-codes.md](exit-codes.md).

What comes from the guest (the output of commands, logs, patches) reaches files and pipes byte for
byte. On a terminal, control characters and escape sequences in it are shown escaped, unless a
command has `--raw` and it is given. A session's terminal that is drawn on yours (`vm session attach`)
reaches it as it is, as with ssh.
";

/// Print docs/cli.md
#[derive(Debug, Args)]
pub struct Reference {}

impl Reference {
    pub fn run(self, context: &Context) -> Outcome {
        let mut command = Cli::command().term_width(100).disable_help_subcommand(true);
        command.build();
        let mut text = INTRODUCTION.to_owned();
        describe(&command, "banger", &mut text);
        context.output.print(&text)?;
        Ok(0)
    }
}

fn describe(command: &Command, path: &str, text: &mut String) {
    let help = command.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let help = help.join("\n");
    let _ = write!(text, "\n## {path}\n\n```text\n{}\n```\n", help.trim_end());
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        describe(sub, &format!("{path} {}", sub.get_name()), text);
    }
}
