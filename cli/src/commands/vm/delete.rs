//! `banger vm delete`

use crate::context::Context;
use crate::error::{self, CommandError, Outcome};
use banger_core::Kind;
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::Empty;
use banger_core::protocol::machine::VmRef;
use clap::Args;

/// Delete machines, with their disks and all that is on them
///
/// Export work first: `banger vm workspace export`. An adopted host is forgotten and stays as it
/// is.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm delete my-vm other-vm

Those that can be deleted are; the exit code is that of the first that could not.")]
pub struct Delete {
    /// Their names or ids
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
}

impl Delete {
    pub fn run(self, context: &Context) -> Outcome {
        let mut client = context.client()?;
        let mut code = 0;
        let mut deleted = Vec::new();
        for vm in self.vms {
            match client.call::<Empty>(Call::VmDelete(VmRef { vm: vm.clone() })) {
                Ok(_) => {
                    if !context.output.json {
                        let name = escape::text(vm.as_bytes());
                        context.output.print(&format!("{name} is deleted\n"))?;
                    }
                    deleted.push(vm);
                }
                // The connection is of no use any more.
                Err(failure) if matches!(failure.kind, Kind::Cancelled | Kind::Daemon) => {
                    return Err(CommandError::Failure(failure));
                }
                Err(failure) => {
                    let its = error::report(&failure, &context.output, false);
                    code = if code == 0 { its } else { code };
                }
            }
        }
        if context.output.json {
            let reply = serde_json::json!({ "deleted": deleted });
            context.output.print_json(&reply)?;
        }
        Ok(code)
    }
}
