//! `banger vm create`

use super::Shape;
use crate::context::Context;
use crate::error::Outcome;
use banger_core::protocol::Call;
use banger_core::protocol::machine::Vm;
use clap::Args;

/// Create a machine without a repository
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm create --name scratch --cpus 2 --memory 2G")]
pub struct Create {
    #[command(flatten)]
    shape: Shape,
}

impl Create {
    pub fn run(self, context: &Context) -> Outcome {
        context.answer(Call::VmCreate(self.shape.into()), |vm: &Vm| {
            format!("{} is {}\n", vm.name, super::state(vm.state))
        })
    }
}
