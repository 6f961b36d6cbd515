//! `banger vm show`

use crate::context::Context;
use crate::error::Outcome;
use crate::style::Style;
use crate::{table, text};
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{Vm, VmRef};
use clap::Args;

/// Show a machine
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm show my-vm")]
pub struct Show {
    /// Its name or its id
    vm: String,
}

impl Show {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmRef { vm: self.vm };
        context.answer(Call::VmGet(request), |vm: &Vm| {
            render(vm, context.output.style)
        })
    }
}

fn render(vm: &Vm, style: Style) -> String {
    let safe = |text: &str| escape::text(text.as_bytes());
    let mut text = table::pairs(
        &[
            ("name", vm.name.to_string()),
            ("id", vm.id.to_string()),
            ("state", super::state(vm.state).into()),
            ("driver", super::driver(vm.driver).into()),
            (
                "image",
                vm.image.as_ref().map_or(String::new(), ToString::to_string),
            ),
            ("processors", super::processors(vm.cpus)),
            ("memory", text::mebibytes(vm.memory_mib.into())),
            ("work disk", text::mebibytes(vm.work_disk_mib)),
            ("age", text::age(vm.created_at_ms)),
            ("ssh", vm.ssh.as_deref().map_or(String::new(), safe)),
            ("host key", safe(&vm.host_key)),
        ],
        style,
    );
    for workspace in &vm.workspaces {
        text += &super::workspace::describe(workspace);
    }
    text
}
