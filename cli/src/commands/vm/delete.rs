//! `banger vm delete`

use super::workspace::saved_as;
use crate::context::Context;
use crate::error::{self, CommandError, Outcome};
use banger_core::Kind;
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{VmDelete, VmDeleted};
use clap::Args;

/// Delete machines, with their disks and all that is on them
///
/// Work in their working copies that was not exported is saved on this machine first, and where it is
/// is said. A machine that is stopped can't be asked: it is deleted if there was no such work when
/// it was stopped. An adopted host is forgotten and stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm delete my-vm other-vm

Those that can be deleted are; the exit code is that of the first that could not.")]
pub struct Delete {
    /// Their names or ids
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
    /// Save nothing: work that was not exported is lost
    #[arg(long)]
    discard: bool,
}

impl Delete {
    pub fn run(self, context: &Context) -> Outcome {
        let mut client = context.client()?;
        let mut code = 0;
        let mut deleted = Vec::new();
        let mut saved = Vec::new();
        for vm in self.vms {
            let request = VmDelete {
                vm: vm.clone(),
                discard: self.discard,
            };
            match client.call::<VmDeleted>(Call::VmDelete(request)) {
                Ok(reply) => {
                    if !context.output.json {
                        // Also with --quiet: it is the only trace of the work.
                        for one in &reply.value.saved {
                            context.output.print(&format!("{}\n", saved_as(one)))?;
                        }
                        let name = escape::text(vm.as_bytes());
                        context.output.print(&format!("{name} is deleted\n"))?;
                    }
                    saved.extend(reply.value.saved);
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
            let reply = serde_json::json!({ "deleted": deleted, "saved": saved });
            context.output.print_json(&reply)?;
        }
        Ok(code)
    }
}
