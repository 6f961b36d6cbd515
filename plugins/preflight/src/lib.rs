//! The checks that any launch needs: the working directory is there, and so are the program and
//! the commands that it requires. It knows nothing of agents or backends.

banger_plugin::preflight!("../../wit");

use banger_plugin::Refusal;
use contract::{Check, Guest, Info, Metadata, Output, Request};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

#[cfg(target_arch = "wasm32")]
contract::bindings::export!(Plugin with_types_in contract::bindings);

const CWD: &str = include_str!("../scripts/cwd.sh");
const COMMANDS: &str = include_str!("../scripts/commands.sh");

/// The most that a check may take.
const CHECK_MS: u32 = 30_000;

impl Metadata for Plugin {
    fn describe() -> Info {
        Info {
            name: "preflight".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Checks the working directory and the commands before a launch".to_owned(),
            homepage: String::new(),
        }
    }
}

impl Guest for Plugin {
    fn checks(request: Request) -> Result<Vec<Check>, contract::Refusal> {
        let commands = wanted(&request).fold(
            banger_plugin::Script::new(COMMANDS).arg(request.cwd.clone()),
            |script, command| script.arg(command),
        );
        Ok(vec![
            Check {
                id: "cwd".to_owned(),
                summary: "the working directory exists".to_owned(),
                script: banger_plugin::Script::new(CWD)
                    .arg(request.cwd.clone())
                    .timeout_ms(CHECK_MS)
                    .into(),
            },
            Check {
                id: "commands".to_owned(),
                summary: "the program and the commands that it needs are installed".to_owned(),
                script: commands.timeout_ms(CHECK_MS).into(),
            },
        ])
    }

    fn read_check(id: String, request: Request, output: Output) -> Result<(), contract::Refusal> {
        match id.as_str() {
            "cwd" => read_cwd(&request, &output),
            "commands" => read_commands(&request, &output),
            other => Err(Refusal::new(format!(
                "there is no check `{}`",
                other.escape_default()
            ))),
        }
        .map_err(Into::into)
    }
}

/// The program first, then the commands, in the order in which the script numbers them.
fn wanted(request: &Request) -> impl Iterator<Item = &[u8]> {
    std::iter::once(request.program.as_slice()).chain(request.commands.iter().map(String::as_bytes))
}

fn read_cwd(request: &Request, output: &Output) -> Result<(), Refusal> {
    let why = match output.exit_code {
        0 => return Ok(()),
        10 => "does not exist",
        11 => "is not a directory",
        12 => "cannot be entered",
        _ => return Err(broken("cwd", output)),
    };
    Err(Refusal::new(format!(
        "the working directory {} {why} in the guest",
        text(&request.cwd)
    ))
    .hint("create it there, or choose another working directory"))
}

fn read_commands(request: &Request, output: &Output) -> Result<(), Refusal> {
    match output.exit_code {
        0 => return Ok(()),
        10 => {}
        _ => return Err(broken("commands", output)),
    }
    let names: Vec<&[u8]> = wanted(request).collect();
    let missing: Option<Vec<String>> = output
        .stdout
        .strip_suffix(b"\n")
        .unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let number: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
            names.get(number).map(|name| text(name))
        })
        .collect();
    let Some(mut missing) = missing else {
        return Err(broken("commands", output));
    };
    missing.dedup();
    let verb = if missing.len() == 1 { "is" } else { "are" };
    Err(Refusal::new(format!(
        "{} {verb} missing in the guest, or cannot be executed",
        missing.join(", ")
    ))
    .hint("install what is missing in the guest, or use an image that has it"))
}

/// What to say where a check's script did not come to an answer.
fn broken(id: &str, output: &Output) -> Refusal {
    Refusal::new(format!(
        "the check `{id}` could not be made (exit code {}): {}",
        output.exit_code,
        text(output.stderr.trim_ascii())
    ))
}

/// Bytes for a message, in backquotes and with nothing that a terminal would obey.
fn text(bytes: &[u8]) -> String {
    let mut shown = String::from("`");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown.push('`');
    shown
}
