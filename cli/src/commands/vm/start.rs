//! `banger vm start`

use crate::context::Context;
use crate::error::Outcome;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{Vm, VmRef};
use clap::Args;

/// Start a machine
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm start my-vm")]
pub struct Start {
    /// Its name or its id
    vm: String,
}

impl Start {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmRef { vm: self.vm };
        context.answer(Call::VmStart(request), |vm: &Vm| {
            format!("{} is {}\n", vm.name, super::state(vm.state))
        })
    }
}
