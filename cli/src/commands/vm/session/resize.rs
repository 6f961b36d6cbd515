//! `banger vm session resize`

use super::Which;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::escape;
use banger_core::protocol::session::{SessionResize, TerminalSize};
use banger_core::protocol::{Call, Empty};
use clap::Args;

/// Give a session's terminal another size, until somebody attaches
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm session resize my-vm agent 120x40")]
pub struct Resize {
    #[command(flatten)]
    which: Which,
    /// Columns and rows
    #[arg(value_name = "COLSxROWS", value_parser = value::terminal_size)]
    size: TerminalSize,
}

impl Resize {
    pub fn run(self, context: &Context) -> Outcome {
        let name = escape::text(self.which.session.as_bytes());
        let TerminalSize { columns, rows } = self.size;
        let call = Call::SessionResize(SessionResize {
            vm: self.which.vm,
            session: self.which.session,
            size: self.size,
        });
        context.answer(call, |_: &Empty| format!("{name} is {columns}x{rows}\n"))
    }
}
