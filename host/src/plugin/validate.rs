//! What a plugin returns, checked before anyone else sees it.
//!
//! Each function gives back the checked value or says in a few words what is wrong with it.
//! Nothing is repaired: a plugin that breaks the contract is told so.

use super::bindings::types;
use super::error::Fault;
use banger_core::{GuestPath, Script, escape};
use std::time::Duration;

/// Standard input that a script brings along, in bytes.
const SCRIPT_STDIN_LIMIT: usize = 4 << 20;
/// Commands that something needs.
const NEEDS_LIMIT: usize = 64;

/// Bytes made fit for a message: escaped and cut.
pub fn shown(bytes: &[u8]) -> String {
    shown_to(bytes, 200)
}

fn shown_to(bytes: &[u8], limit: usize) -> String {
    // An escaped byte takes at least a character: more input can't be shown anyway.
    let text = escape::text(&bytes[..bytes.len().min(4 * limit)]);
    if text.chars().count() > limit {
        text.chars().take(limit - 1).chain(['…']).collect()
    } else {
        text
    }
}

/// A plugin's refusal, escaped and cut.
pub fn refusal(refusal: &types::Refusal) -> Fault {
    let message = shown_to(refusal.message.trim_end_matches('.').as_bytes(), 500);
    Fault::Refused {
        message: if message.is_empty() {
            "it can't be done, and the plugin does not say why".into()
        } else {
            message
        },
        hint: shown_to(refusal.hint.as_bytes(), 500),
    }
}

/// A script that can really be run.
pub fn script(script: types::Script) -> Result<Script, String> {
    if script.stdin.len() > SCRIPT_STDIN_LIMIT {
        return Err(format!(
            "the script's stdin is {} bytes long; at most {SCRIPT_STDIN_LIMIT} are allowed",
            script.stdin.len()
        ));
    }
    let mut names: Vec<&str> = script.env.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = shown(pair[0].as_bytes());
        return Err(format!("the script's environment has `{name}` twice"));
    }
    let script = Script {
        body: script.body,
        args: script.args,
        env: script.env,
        stdin: script.stdin,
        timeout: match script.timeout_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms.into())),
        },
    };
    match script.command_line() {
        Ok(_) => Ok(script),
        Err(error) => Err(error.to_string()),
    }
}

/// One line of text for people, without control characters.
pub fn line(text: &str, limit: usize, what: &str) -> Result<(), String> {
    if text.len() > limit {
        Err(format!(
            "{what} is {} bytes long; at most {limit} are allowed",
            text.len()
        ))
    } else if escape::text(text.as_bytes()) != text {
        Err(format!(
            "{what} holds control characters: `{}`",
            shown(text.as_bytes())
        ))
    } else {
        Ok(())
    }
}

/// A semantic version: `1.2.3`, perhaps followed by `-…` or `+…`.
pub fn version(text: &str) -> Result<(), String> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let numbers: Vec<&str> = text[..end].split('.').collect();
    let valid = text.len() <= 64
        && numbers.len() == 3
        && numbers
            .iter()
            .all(|n| !n.is_empty() && n.len() <= 9 && n.bytes().all(|b| b.is_ascii_digit()))
        && text[end..]
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-+.".contains(&b));
    if valid {
        Ok(())
    } else {
        Err(format!(
            "`{}` is no version like 1.2.3",
            shown(text.as_bytes())
        ))
    }
}

/// Whether a version's numbers are greater than another's.
pub fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let end = text.find(['-', '+']).unwrap_or(text.len());
        text[..end]
            .split('.')
            .map(|n| n.parse().unwrap_or(0))
            .collect()
    };
    numbers(version) > numbers(than)
}

/// Commands that the guest must have: names to be found in PATH.
pub fn needs(commands: &[String]) -> Result<(), String> {
    if commands.len() > NEEDS_LIMIT {
        return Err(format!(
            "it needs {} commands; at most {NEEDS_LIMIT} may be",
            commands.len()
        ));
    }
    for command in commands {
        let valid = (1..=64).contains(&command.len())
            && !command.starts_with('-')
            && command
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.+[".contains(&b));
        if !valid {
            return Err(format!(
                "`{}` is no name of a command",
                shown(command.as_bytes())
            ));
        }
    }
    Ok(())
}

/// A path below a directory.
pub fn path_below(path: &str, directory: &GuestPath) -> Result<GuestPath, String> {
    let path: GuestPath = path
        .parse()
        .map_err(|error: banger_core::path::InvalidGuestPath| {
            // The message shows the path, which may be long.
            shown(error.to_string().as_bytes())
        })?;
    let parent = directory.as_bytes();
    let below = path
        .as_bytes()
        .strip_prefix(parent)
        .is_some_and(|rest| parent == b"/" && !rest.is_empty() || rest.starts_with(b"/"));
    if below {
        Ok(path)
    } else {
        let shown = shown(path.as_bytes());
        Err(format!("`{shown}` is not below `{directory}`"))
    }
}

/// A guest path as the text that an interface wants.
pub fn utf8(path: &GuestPath) -> Result<&str, Fault> {
    path.as_str().ok_or_else(|| Fault::Unaskable {
        detail: format!("the path `{}` is not UTF-8", shown(path.as_bytes())),
    })
}

/// A commit's full id.
pub fn commit(text: &str) -> Result<(), String> {
    let valid = matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if valid {
        Ok(())
    } else {
        Err(format!(
            "`{}` is no full id of a commit",
            shown(text.as_bytes())
        ))
    }
}

/// A path in a repository: relative, and within it.
pub fn repository_path(path: &[u8]) -> Result<(), String> {
    let valid = (1..=4096).contains(&path.len())
        && !path.contains(&0)
        && path
            .split(|b| *b == b'/')
            .all(|part| !matches!(part, b"" | b"." | b".."));
    if valid {
        Ok(())
    } else {
        Err(format!("`{}` is no path in a repository", shown(path)))
    }
}
