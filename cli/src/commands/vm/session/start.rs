//! `banger vm session start`

use super::Which;
use super::attach::{self, How, Part, Since};
use crate::attach::screen;
use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionStart, TerminalSize};
use banger_core::session::StdinKind;
use banger_core::{ByteString, Failure, GuestPath, Kind, SessionName};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use std::ffi::OsString;

/// Start a command that goes on when you leave
///
/// It outlives this command, the connection and the daemon. What it writes is kept in the machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session start my-vm -- make test
  banger vm session start my-vm --name agent --env MODE=fast --require node -- node agent.js
  banger vm session start my-vm --tty --attach -- bash

Exit code with --attach: as of `attach`.")]
pub struct Start {
    /// The machine's name or id
    vm: String,
    /// Its name [default: made from the program's]
    #[arg(long)]
    name: Option<SessionName>,
    /// Where it runs [default: the working copy, if there is one, else the home]
    #[arg(long, value_name = "DIR",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    cwd: Option<GuestPath>,
    /// Add a variable to its environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE",
        value_parser = OsStringValueParser::new().try_map(value::variable))]
    env: Vec<(String, ByteString)>,
    /// A command that must be there before it is launched; may be repeated
    #[arg(long, value_name = "CMD")]
    require: Vec<String>,
    /// What its standard input is
    #[arg(long, value_enum, default_value_t = Stdin::Pipe)]
    stdin: Stdin,
    /// Short for --stdin tty
    #[arg(long, short, conflicts_with = "stdin")]
    tty: bool,
    /// Its terminal's size until somebody attaches [default: that of yours, else 80x24]
    #[arg(long, value_name = "COLSxROWS", value_parser = value::terminal_size)]
    size: Option<TerminalSize>,
    /// How much each of its logs keeps, such as 64M or 1G, or none for no limit: what is older goes
    /// [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = value::bytes_or_none)]
    log_limit: Option<u64>,
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::tag)]
    tag: Vec<(String, String)>,
    /// What runs it [default: the first that offers this kind of standard input]
    #[arg(long)]
    backend: Option<String>,
    /// Attach to it right away
    #[arg(long)]
    attach: bool,
    #[command(flatten)]
    how: How,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stdin {
    /// A pipe that stays open, for `send` and `attach`
    Pipe,
    /// A terminal: for programs that draw, and for shells
    Tty,
    /// Nothing
    None,
}

impl Start {
    pub fn run(self, context: &Context) -> Outcome {
        let stdin = match self.stdin {
            _ if self.tty => StdinKind::Tty,
            Stdin::Pipe => StdinKind::Pipe,
            Stdin::Tty => StdinKind::Tty,
            Stdin::None => StdinKind::None,
        };
        if self.size.is_some() && stdin != StdinKind::Tty {
            let failure = Failure::new(Kind::Usage, "--size is for a session with a terminal");
            return Err(failure.hint("add --tty").into());
        }
        let terminal = (stdin == StdinKind::Tty).then(|| self.size.or_else(screen::size));
        let request = SessionStart {
            vm: self.vm,
            command: value::byte_strings(self.command),
            name: self.name,
            backend: self.backend,
            cwd: self.cwd,
            env: self.env,
            require: self.require,
            stdin,
            tags: self.tag.into_iter().collect(),
            log_limit_bytes: self.log_limit,
            terminal: terminal.flatten(),
        };
        let reply = context.call::<Session>(Call::SessionStart(request))?;
        let Session { vm, name, .. } = &reply.value;
        if self.attach {
            let line = super::state_line(&reply.value);
            context.output.remark(line.trim_end());
            let which = Which {
                vm: vm.to_string(),
                session: name.to_string(),
            };
            return attach::attach(context, which, &self.how, Part::Write, Since::Start);
        }
        context.write(&reply, super::state_line)?;
        let next = match stdin {
            StdinKind::Tty => format!("`banger vm session attach {vm} {name}`"),
            _ => format!("`banger vm session logs {vm} {name} --follow`"),
        };
        context.output.hint(&next);
        Ok(0)
    }
}
