//! A plugin's checks before a launch.
//!
//! It makes scripts and reads their output; it runs nothing, and decides nothing about the launch.

use super::bindings::preflight as wit;
use super::component::Plugin;
use super::error::PluginError;
use super::session_backend::{forbidden, to_output};
use super::validate;
use banger_core::{Failure, GuestPath, Kind, Output, PluginName, Script};
use std::sync::Arc;

/// Checks that a plugin may want for one launch.
const CHECKS_LIMIT: usize = 64;

/// The checks that a plugin provides. Cloning it is cheap.
#[derive(Clone)]
pub struct Preflight {
    plugin: Arc<Plugin>,
    indices: wit::GuestIndices,
}

/// What will be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightRequest {
    /// The working directory.
    pub cwd: GuestPath,
    /// The program: a name to find in PATH, or a path.
    pub program: Vec<u8>,
    /// Further commands that must be found in PATH.
    pub commands: Vec<String>,
}

/// A check to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its id: a failed launch names its stage `preflight-<id>`.
    pub id: String,
    /// What is checked, in a few words.
    pub summary: String,
    /// The script.
    pub script: Script,
}

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The launch may go on.
    Passed,
    /// It may not: a failure of kind `Launch` with sentence, hint and stage.
    Failed(Failure),
}

impl Preflight {
    pub(super) fn of(plugin: &Arc<Plugin>) -> Option<Self> {
        let indices = plugin.preflight.clone()?;
        Some(Self {
            plugin: Arc::clone(plugin),
            indices,
        })
    }

    /// The plugin's name and version, for people.
    pub fn plugin(&self) -> &str {
        &self.plugin.label
    }

    /// The checks for this launch, in order.
    ///
    /// # Errors
    /// The plugin's fault or refusal.
    pub fn checks(&self, request: &PreflightRequest) -> Result<Vec<Check>, PluginError> {
        const FUNCTION: &str = "preflight.checks";
        let (request, input) = to_request(request);
        let checks = self
            .plugin
            .call(FUNCTION, input, |store, instance| {
                self.indices
                    .load(&mut *store, instance)?
                    .call_checks(store, &request)
            })?
            .map_err(|refusal| self.plugin.error(validate::refusal(&refusal)))?;
        from_checks(checks).map_err(|detail| forbidden(&self.plugin, FUNCTION, detail))
    }

    /// Whether the check with this id passed, from what its script left.
    ///
    /// # Errors
    /// The plugin's fault. A check that did not pass is no error.
    pub fn read_check(
        &self,
        id: &str,
        request: &PreflightRequest,
        output: &Output,
    ) -> Result<Verdict, PluginError> {
        let (request, input) = to_request(request);
        let input = input + id.len() + output.stdout.len() + output.stderr.len();
        let output = to_output(output);
        let answer = self
            .plugin
            .call("preflight.read-check", input, |store, instance| {
                self.indices
                    .load(&mut *store, instance)?
                    .call_read_check(store, id, &request, &output)
            })?;
        Ok(match answer {
            Ok(()) => Verdict::Passed,
            Err(refusal) => {
                let failure = Failure::from(self.plugin.error(validate::refusal(&refusal)));
                Verdict::Failed(
                    Failure {
                        kind: Kind::Launch,
                        ..failure
                    }
                    .stage(format!("preflight-{}", validate::shown(id.as_bytes()))),
                )
            }
        })
    }
}

fn to_request(request: &PreflightRequest) -> (wit::Request, usize) {
    let input = request.cwd.as_bytes().len()
        + request.program.len()
        + request.commands.iter().map(String::len).sum::<usize>();
    let request = wit::Request {
        cwd: request.cwd.as_bytes().to_vec(),
        program: request.program.clone(),
        commands: request.commands.clone(),
    };
    (request, input)
}

fn from_checks(checks: Vec<wit::Check>) -> Result<Vec<Check>, String> {
    if checks.len() > CHECKS_LIMIT {
        return Err(format!(
            "{} checks; at most {CHECKS_LIMIT} are allowed",
            checks.len()
        ));
    }
    let mut checked: Vec<Check> = Vec::with_capacity(checks.len());
    for check in checks {
        // The rule for a check's id is the one for names.
        check
            .id
            .parse::<PluginName>()
            .map_err(|error| error.to_string())?;
        if checked.iter().any(|other| other.id == check.id) {
            return Err(format!("the check `{}` twice", check.id));
        }
        validate::line(&check.summary, 200, "a check's summary")?;
        let script =
            validate::script(check.script).map_err(|e| format!("check `{}`: {e}", check.id))?;
        checked.push(Check {
            id: check.id,
            summary: check.summary,
            script,
        });
    }
    Ok(checked)
}
