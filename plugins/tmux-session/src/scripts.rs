//! The guest scripts that are this backend's own, with their arguments.

use banger_guest_session::scripts::PROMPT_MS;
use banger_plugin::Script;

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
pub const SUPERVISOR: &str = body!("state.sh", "program.sh"; "terminfo.sh", "monitor.sh");

/// Who looks at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Types, and gives the terminal its size.
    Writer,
    /// Only looks.
    Observer,
}

/// Shows the session on the script's terminal.
pub fn attach_terminal(dir: &str, client: Client) -> Script {
    Script::new(body!("state.sh"; "terminfo.sh", "screen.sh", "attach-terminal.sh"))
        .arg(dir)
        .arg(match client {
            Client::Writer => "write",
            Client::Observer => "observe",
        })
}

/// Types stdin into the session, as one of its writers.
pub fn attach_input(dir: &str, writer: &str) -> Script {
    Script::new(body!("state.sh"; "screen.sh", "attach-input.sh"))
        .arg(dir)
        .arg(writer)
}

/// Types the rest of stdin into the session in one piece.
pub fn send(dir: &str, timeout_ms: u32) -> Script {
    Script::new(body!("state.sh"; "screen.sh", "send.sh"))
        .arg(dir)
        .number(timeout_ms.into())
        .timeout_ms(timeout_ms.saturating_add(PROMPT_MS))
}

/// Gives the terminal another size.
pub fn resize(dir: &str, columns: u16, rows: u16) -> Script {
    Script::new(body!("state.sh"; "screen.sh", "resize.sh"))
        .arg(dir)
        .number(columns.into())
        .number(rows.into())
        .timeout_ms(PROMPT_MS)
}

/// Ends the session, by force after the grace, and its tmux server.
pub fn stop(dir: &str, grace_ms: u32) -> Script {
    Script::new(body!("state.sh", "stop.sh"; "stop-server.sh"))
        .arg(dir)
        .number(grace_ms.into())
        .timeout_ms(grace_ms.saturating_add(PROMPT_MS))
}
