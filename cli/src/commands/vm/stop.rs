//! `banger vm stop`

use crate::context::Context;
use crate::error::Outcome;
use crate::value;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{Vm, VmStop};
use clap::Args;
use std::time::Duration;

/// Stop a machine; its disks stay
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm stop my-vm --grace 5s")]
pub struct Stop {
    /// Its name or its id
    vm: String,
    /// How long the guest may take before its power is cut, such as 30s [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    grace: Option<Duration>,
}

impl Stop {
    pub fn run(self, context: &Context) -> Outcome {
        let request = VmStop {
            vm: self.vm,
            grace_ms: self.grace.map(value::milliseconds),
        };
        context.answer(Call::VmStop(request), |vm: &Vm| {
            format!("{} is {}\n", vm.name, super::state(vm.state))
        })
    }
}
