//! The checks that a guest must pass before something is launched in it.

use crate::guest_script;
use crate::plugin::{PreflightRequest, Registry, Verdict};
use crate::vm::Guest;
use banger_core::{Failure, GuestPath};
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// Runs every check of every preflight plugin, in order.
///
/// # Errors
/// The first check that did not pass, with its stage.
pub async fn check(
    registry: &Registry,
    guest: &Guest,
    cwd: &GuestPath,
    program: &[u8],
    commands: &[String],
) -> Result<(), Failure> {
    let request = PreflightRequest {
        cwd: cwd.clone(),
        program: program.to_vec(),
        commands: commands.to_vec(),
    };
    let mut checks = Vec::new();
    for plugin in registry.preflights() {
        for check in plugin.checks(&request)? {
            checks.push((plugin, check));
        }
    }
    // At once: each costs a round trip. The first in order that did not pass is told.
    let outputs = join_all(
        checks
            .iter()
            .map(|(_, check)| guest_script::run(&guest.remote, &check.script)),
    );
    for ((plugin, check), output) in checks.iter().zip(outputs.await) {
        match plugin.read_check(&check.id, &request, &output?)? {
            Verdict::Passed => {}
            Verdict::Failed(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Names of commands as people write them: trimmed, each once.
///
/// # Errors
/// Kind `Invalid` for one that can be no command's name.
pub fn required_commands(asked: &[String]) -> Result<Vec<String>, Failure> {
    let mut seen = BTreeSet::new();
    let mut commands = Vec::new();
    for command in asked {
        let command = command.trim();
        if command.is_empty()
            || command.starts_with('-')
            || command.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(Failure::new(
                banger_core::Kind::Invalid,
                format!(
                    "`{}` can be no command's name",
                    banger_core::escape::text(command.as_bytes())
                ),
            )
            .hint("give one name to each --require"));
        }
        if seen.insert(command) {
            commands.push(command.to_owned());
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_commands_are_trimmed_and_come_once() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            required_commands(&names(&[" git", "node ", "git"])),
            Ok(names(&["git", "node"]))
        );
        for bad in ["", " ", "a b", "-x", "a\nb"] {
            assert!(required_commands(&names(&[bad])).is_err(), "{bad:?}");
        }
    }
}
