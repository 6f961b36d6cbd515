//! `banger vm session attach`

use super::Which;
use crate::attach::screen::{self, RawTerminal, Screen};
use crate::attach::{Ask, DetachKey, Ended, Face, Following, Kept, Keys, Link, OnBreak};
use crate::context::Context;
use crate::error::Outcome;
use crate::terminal::{Terminal, Trust};
use crate::text;
use banger_core::protocol::Call;
use banger_core::protocol::session::{
    AttachTerminal, Session, SessionAttach, SessionRef, TerminalSize,
};
use banger_core::session::StdinKind;
use banger_core::{ByteString, Kind, escape};
use clap::Args;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::IsTerminal as _;

/// See what a session writes from now on, and write to it
///
/// A session that has a terminal (started with --tty) is drawn on yours: every key goes to it, and
/// what it writes reaches your terminal as it is, as with ssh. Only the detach key is yours. Where
/// standard input or output is no terminal, or with --no-tty, its bytes are passed on instead.
///
/// To any other session, what you type goes line by line, and Ctrl-C detaches.
///
/// Where the connection breaks, also because the daemon or the network went away, attach says so,
/// connects again and goes on at the very byte where it was. Input reaches the session once: what it
/// has not taken is kept, at most 1 MiB, and sent again. Only keys typed on a terminal while the
/// connection is lost are refused, with a bell.
///
/// One may write at a time; any number may observe.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm session attach my-vm agent
  banger vm session attach my-vm agent --observe
  banger vm session attach my-vm agent --takeover --detach-key ctrl-q

Exit code: the session's where it ends; 0 where you detach; 125 where banger itself fails, also where
another takes the input over.")]
pub struct Attach {
    #[command(flatten)]
    which: Which,
    /// Only look on; Ctrl-C leaves, and on a terminal session the detach key too
    #[arg(long)]
    observe: bool,
    /// Become the writer also where another is attached, whose attach ends then
    #[arg(long, conflicts_with = "observe")]
    takeover: bool,
    #[command(flatten)]
    how: How,
}

/// How to attach.
#[derive(Debug, Args)]
pub struct How {
    /// What leaves a session that is drawn on the terminal: ctrl- and a letter or one of @ \ ] ^ _ ?;
    /// or none
    #[arg(long, value_name = "KEY", default_value = "ctrl-]")]
    detach_key: DetachKey,
    /// Pass a terminal session's bytes on instead of drawing it
    #[arg(long)]
    no_tty: bool,
    /// Let escape sequences through where the output is a terminal and the session has none
    #[arg(long)]
    raw: bool,
}

/// What the client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Look on.
    Observe,
    /// Write.
    Write,
    /// Write, also where another does.
    TakeOver,
}

/// From where on output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// What is written from now on.
    Now,
    /// All that there is.
    Start,
}

impl Attach {
    pub fn run(self, context: &Context) -> Outcome {
        let part = match (self.observe, self.takeover) {
            (true, _) => Part::Observe,
            (false, true) => Part::TakeOver,
            (false, false) => Part::Write,
        };
        attach(context, self.which, &self.how, part, Since::Now)
    }
}

/// Attaches until the session ends or the user leaves.
///
/// # Errors
/// Why it can't go on.
pub fn attach(context: &Context, which: Which, how: &How, part: Part, since: Since) -> Outcome {
    let Which { vm, session } = which.clone();
    let mut client = context.client()?;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if has_terminal && !how.no_tty {
        let call = Call::SessionGet(SessionRef::from(which));
        let session = client.call::<Session>(call)?.value;
        (session.stdin == StdinKind::Tty).then(our_terminal)
    } else {
        None
    };
    let offset = (since == Since::Start && terminal.is_none()).then_some(0);
    let is_drawn = terminal.is_some();
    let ask = Ask::Attach(SessionAttach {
        vm: vm.clone(),
        session: session.clone(),
        observe: part == Part::Observe,
        takeover: part == Part::TakeOver,
        writer: (part != Part::Observe).then(writer_name),
        terminal,
        stdout_offset: offset,
        stderr_offset: offset,
    });
    let link = Link::open(client, ask.clone(), None)?;
    let shown = escape::text(session.as_bytes());
    let key = how.detach_key;
    let keys = match (part, is_drawn) {
        (Part::Observe, false) => Keys::Ignored,
        (Part::Observe, true) => Keys::Watching(key),
        (_, false) => Keys::Kept(Kept::default()),
        (_, true) => Keys::Typed(key),
    };
    context.output.hint(&hint(&keys, &shown));
    let (face, raw) = if is_drawn {
        (Face::Screen(Screen::default()), Some(RawTerminal::enter()?))
    } else {
        let terminal = Terminal::new(Trust::from_flag(how.raw));
        (Face::Bytes(terminal), None)
    };
    let following = Following::new(context, ask, link, keys, face, OnBreak::Reconnect)?;
    let ended = following.run();
    // What follows is said on a terminal as it was.
    drop(raw);
    match ended? {
        Ended::Exit(code) => {
            let line = if is_drawn { "\n" } else { "" };
            context
                .output
                .remark(&format!("{line}{shown} ended with exit code {code}"));
            Ok(code)
        }
        Ended::Left { untaken } => {
            let again = command(&vm, &session, &[]);
            context.output.remark(&format!(
                "\ndetached; {shown} goes on: `{again}` comes back"
            ));
            if untaken > 0 {
                let untaken = text::plural(untaken as u64, "byte");
                let note = format!("{untaken} of input had not been taken, and may be lost");
                context.output.warn(Kind::Cancelled, &note);
            }
            Ok(0)
        }
    }
}

fn hint(keys: &Keys, session: &str) -> String {
    match keys {
        Keys::Ignored => format!("observing {session}; Ctrl-C leaves, it goes on"),
        Keys::Kept(_) => format!("attached to {session}; Ctrl-C detaches, it goes on"),
        Keys::Typed(key) if key.is_some() => {
            format!("attached to {session}; {key} detaches, it goes on")
        }
        Keys::Typed(_) => format!("attached to {session}; no key detaches; every key goes to it"),
        Keys::Watching(key) if key.is_some() => {
            format!("observing {session}; Ctrl-C or {key} leaves, it goes on")
        }
        Keys::Watching(_) => format!("observing {session}; Ctrl-C leaves, it goes on"),
    }
}

fn command(vm: &str, session: &str, options: &[&str]) -> String {
    let words = ["banger", "vm", "session", "attach", vm, session];
    let words = words.iter().chain(options);
    let words: Vec<ByteString> = words.map(|word| ByteString::from(*word)).collect();
    text::command_line(&words)
}

fn our_terminal() -> AttachTerminal {
    AttachTerminal {
        size: screen::size().unwrap_or(TerminalSize {
            columns: 80,
            rows: 24,
        }),
        term: std::env::var("TERM")
            .ok()
            .filter(|term| is_terminal_type(term))
            .unwrap_or("xterm-256color".into()),
    }
}

fn is_terminal_type(term: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    (1..=64).contains(&term.len()) && term.bytes().all(allowed)
}

/// 16 random characters: no two attaches share a name. The standard library's hash keys are
/// random, which is enough for a name that is no secret.
fn writer_name() -> String {
    const CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = Vec::new();
    for _ in 0..2 {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.write_u128(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_nanos()),
        );
        random.extend(hasher.finish().to_ne_bytes());
    }
    let character = |byte: &u8| {
        let place = usize::from(*byte) % CHARACTERS.len();
        CHARACTERS.get(place).copied().map_or('a', char::from)
    };
    random.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_have_names_of_their_own() {
        let (one, other) = (writer_name(), writer_name());
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(one.chars().all(allowed), "{one}");
    }

    #[test]
    fn only_what_names_a_terminal_is_passed_on() {
        assert!(is_terminal_type("xterm-256color") && is_terminal_type("st+x._"));
        assert!(!is_terminal_type("") && !is_terminal_type("a b") && !is_terminal_type("ä"));
        assert!(!is_terminal_type(&"x".repeat(65)));
    }
}
