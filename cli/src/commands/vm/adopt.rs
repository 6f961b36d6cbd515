//! `banger vm adopt`

use crate::context::Context;
use crate::error::Outcome;
use crate::value::{self, SshAddress};
use banger_core::protocol::Call;
use banger_core::protocol::machine::{Vm, VmAdopt};
use banger_core::{Failure, Kind, VmName, escape};
use clap::Args;
use std::path::PathBuf;

/// Use a host that runs already, over SSH
///
/// Its host key is pinned: the one given, or the one that it shows now.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger vm adopt buildbox ssh://root@10.0.0.7:22 --identity ~/.ssh/id_ed25519")]
pub struct Adopt {
    /// Its name here
    name: VmName,
    /// Where its sshd is: ssh://user@host:port
    address: SshAddress,
    /// The private key that it accepts
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Its host key, as a line of a public key file: `ssh-ed25519 AAAA…`
    #[arg(long, value_name = "LINE")]
    host_key: Option<String>,
}

impl Adopt {
    pub fn run(self, context: &Context) -> Outcome {
        let identity = value::absolute(&self.identity)?;
        let identity = identity.into_os_string().into_string().map_err(|path| {
            let path = escape::text(path.as_encoded_bytes());
            Failure::new(Kind::Usage, format!("the path `{path}` is no UTF-8"))
        })?;
        let request = VmAdopt {
            name: self.name,
            host: self.address.host,
            port: self.address.port,
            user: self.address.user,
            identity,
            host_key: self.host_key,
        };
        context.answer(Call::VmAdopt(request), |vm: &Vm| {
            format!(
                "{} is adopted; its host key is {}\n",
                vm.name,
                escape::text(vm.host_key.as_bytes())
            )
        })
    }
}
