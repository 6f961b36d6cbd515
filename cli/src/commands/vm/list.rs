//! `banger vm list`

use crate::context::{Context, NONE};
use crate::error::Outcome;
use crate::table::Table;
use crate::text;
use banger_core::protocol::Call;
use banger_core::protocol::machine::VmList;
use clap::Args;

/// List the machines
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm list")]
pub struct List {}

impl List {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<VmList>(Call::VmList(NONE))?;
        context.write(&reply, |reply| {
            let mut table =
                Table::new(["NAME", "STATE", "DRIVER", "IMAGE", "CPUS", "MEMORY", "AGE"]);
            for vm in &reply.vms {
                table.row([
                    vm.name.to_string(),
                    super::state(vm.state).into(),
                    super::driver(vm.driver).into(),
                    vm.image.as_ref().map_or("-".into(), ToString::to_string),
                    super::processors(vm.cpus),
                    text::mebibytes(vm.memory_mib.into()),
                    text::age(vm.created_at_ms),
                ]);
            }
            table.render(context.output.style)
        })?;
        if reply.value.vms.is_empty() {
            context
                .output
                .hint("no machines: `banger vm run` puts a repository into a fresh one");
        }
        Ok(0)
    }
}
