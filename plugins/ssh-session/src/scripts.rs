//! The guest scripts that are this backend's own, with their arguments.

use banger_guest_session::scripts::PROMPT_MS;
use banger_plugin::{Refusal, Script};

/// A script's text: parts that all backends share, then this one's own.
macro_rules! body {
    ($($shared:literal),+; $($own:literal),+) => {
        concat!(
            $(include_str!(concat!("../../guest-session/scripts/", $shared)),)+
            $(include_str!(concat!("../scripts/", $own))),+
        )
    };
}

/// What stays in the guest as the session's `script`.
pub const SUPERVISOR: &str = body!("state.sh", "program.sh"; "monitor.sh");

/// Why a terminal can't be had here.
pub fn no_terminal() -> Refusal {
    Refusal::new("the backend `ssh` gives a session pipes, no terminal")
        .hint("use the backend `tmux`, or launch it with a pipe as its stdin")
}

/// Copies stdin to the session's input, as one of its writers.
pub fn attach_input(dir: &str, writer: &str) -> Script {
    Script::new(body!("state.sh"; "input.sh", "attach-input.sh"))
        .arg(dir)
        .arg(writer)
}

/// Closes the session's input.
pub fn close_input(dir: &str, timeout_ms: u32) -> Script {
    Script::new(body!("state.sh"; "input.sh", "close-input.sh"))
        .arg(dir)
        .number(timeout_ms.into())
        .timeout_ms(timeout_ms.saturating_add(PROMPT_MS))
}

/// Writes the rest of stdin to the session's input in one piece.
pub fn send(dir: &str, timeout_ms: u32) -> Script {
    Script::new(body!("state.sh"; "input.sh", "send.sh"))
        .arg(dir)
        .number(timeout_ms.into())
        .timeout_ms(timeout_ms.saturating_add(PROMPT_MS))
}
