//! `banger vm ssh`

use crate::context::Context;
use crate::error::Outcome;
use banger_core::protocol::Call;
use banger_core::protocol::machine::{VmRef, VmSsh};
use banger_core::{Failure, Kind};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Open a shell in a machine with OpenSSH's client
///
/// The client reads no configuration of yours, offers the machine's own key alone and accepts the
/// pinned host key alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm ssh my-vm
  banger vm ssh my-vm -- htop

With --json the way to reach it is printed, and no client is run. Exit code: ssh's.")]
pub struct Ssh {
    /// Its name or its id
    vm: String,
    /// A command with its arguments, which the guest's shell reads
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Ssh {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<VmSsh>(Call::VmSsh(VmRef { vm: self.vm }))?;
        if context.output.json {
            context.output.print_json(&reply.json)?;
            return Ok(0);
        }
        let mut command = Command::new("ssh");
        command.args(options(&reply.value)).args(&self.arguments);
        // It returns only where that fails.
        let error = command.exec();
        let failure = Failure::new(Kind::Host, format!("can't run `ssh`: {error}"));
        Err(failure.hint("`apt install openssh-client`").into())
    }
}

fn options(ssh: &VmSsh) -> Vec<String> {
    // ssh replaces `%` in these paths, and splits the second at spaces.
    let identity = ssh.identity.replace('%', "%%");
    let known_hosts = ssh.known_hosts.replace('%', "%%").replace('"', "\\\"");
    let mut options: Vec<String> = ["-F", "none", "-i"].map(String::from).into();
    options.push(identity);
    for option in [
        "IdentitiesOnly=yes",
        &format!("UserKnownHostsFile=\"{known_hosts}\""),
        "GlobalKnownHostsFile=none",
        "StrictHostKeyChecking=yes",
    ] {
        options.extend(["-o".into(), option.into()]);
    }
    options.extend(["-p".into(), ssh.port.to_string()]);
    options.extend(["-l".into(), ssh.user.clone()]);
    options.extend(["--".into(), ssh.host.clone()]);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_key_counts() {
        let options = options(&VmSsh {
            host: "-oProxyCommand=x".into(),
            port: 2222,
            user: "root".into(),
            identity: "/a 100%/id".into(),
            known_hosts: "/a 100%/known".into(),
        });
        assert_eq!(
            options.join(" "),
            "-F none -i /a 100%%/id -o IdentitiesOnly=yes -o UserKnownHostsFile=\"/a 100%%/known\" \
             -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes -p 2222 -l root -- -oProxyCommand=x"
        );
    }
}
