//! `banger vm session start`

use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::session::{Session, SessionStart};
use banger_core::session::StdinKind;
use banger_core::{ByteString, GuestPath, SessionName};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use std::ffi::OsString;

/// Start a command that goes on when you leave
///
/// It outlives this command, the connection and the daemon. What it writes is kept in the machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session start my-vm -- make test
  banger vm session start my-vm --name agent --env MODE=fast --require node -- node agent.js")]
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
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::tag)]
    tag: Vec<(String, String)>,
    /// What runs it [default: the first that offers this kind of standard input]
    #[arg(long)]
    backend: Option<String>,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stdin {
    /// A pipe that stays open, for `send` and `attach`
    Pipe,
    /// Nothing
    None,
}

impl Start {
    pub fn run(self, context: &Context) -> Outcome {
        let request = SessionStart {
            vm: self.vm,
            command: value::byte_strings(self.command),
            name: self.name,
            backend: self.backend,
            cwd: self.cwd,
            env: self.env,
            require: self.require,
            stdin: match self.stdin {
                Stdin::Pipe => StdinKind::Pipe,
                Stdin::None => StdinKind::None,
            },
            tags: self.tag.into_iter().collect(),
            log_limit_bytes: None,
            terminal: None,
        };
        let reply = context.call::<Session>(Call::SessionStart(request))?;
        context.write(&reply, super::state_line)?;
        let Session { vm, name, .. } = &reply.value;
        context
            .output
            .hint(&format!("`banger vm session logs {vm} {name} --follow`"));
        Ok(0)
    }
}
