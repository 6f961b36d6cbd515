//! Requests and replies about machines.

use super::workspace::{Prepare, Prepared, Saved};
use crate::{ByteString, ImageName, VmId, VmName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a machine comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// A virtual machine that banger starts and stops.
    Qemu,
    /// A host that runs already, reached over SSH.
    Ssh,
}

/// The life of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// It is being made.
    Creating,
    /// It does not run.
    Stopped,
    /// It runs. Of an adopted host: it is assumed to.
    Running,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: VmName,
    /// How it came to be.
    pub driver: Driver,
    /// Whether it runs.
    pub state: VmState,
    /// The image it was made from; none for an adopted host.
    pub image: Option<ImageName>,
    /// Processors; 0 for an adopted host.
    pub cpus: u32,
    /// Memory in MiB; 0 for an adopted host.
    pub memory_mib: u32,
    /// Size of the work disk in MiB; 0 for an adopted host.
    pub work_disk_mib: u64,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// Where its sshd is, `user@host:port`; none while stopped.
    pub ssh: Option<String>,
    /// Fingerprint of its pinned host key.
    pub host_key: String,
    /// The working copies that were prepared in it.
    pub workspaces: Vec<Prepared>,
}

/// Names a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmRef {
    /// Its name or its id.
    pub vm: String,
}

/// What a new machine is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// Its name; made up where absent.
    #[serde(default)]
    pub name: Option<VmName>,
    /// The image; `base` where absent.
    #[serde(default)]
    pub image: Option<ImageName>,
    /// Processors, 1 to 64; where absent, half of the host's, at most 4.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory in MiB, 128 and up; 2048 where absent.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// Largest size of the work disk in MiB; 16384 where absent. It takes only what is written.
    #[serde(default)]
    pub work_disk_mib: Option<u64>,
}

/// `vm.run`: create, start, prepare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmRun {
    /// The machine.
    pub create: VmCreate,
    /// The repository's path on the host, absolute, and how to lay it out; its `vm` is ignored.
    pub prepare: Prepare,
}

/// What `vm.run` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmRunReply {
    /// The machine, running.
    pub vm: Vm,
    /// The working copy in it.
    pub workspace: Prepared,
    /// How long each stage took.
    pub stages: Vec<StageTime>,
}

/// How long a stage took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageTime {
    /// The stage's word, as in progress notifications.
    pub stage: String,
    /// Milliseconds.
    pub ms: u64,
}

/// `vm.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmStop {
    /// Name or id.
    pub vm: String,
    /// Milliseconds to wait for the guest before its process is killed; 20 000 where absent.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// `vm.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDelete {
    /// Name or id.
    pub vm: String,
    /// Do not save work that was not exported.
    #[serde(default)]
    pub discard: bool,
}

/// What `vm.delete` left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmDeleted {
    /// Where work was saved that had not been exported.
    #[serde(default)]
    pub saved: Vec<Saved>,
}

/// `vm.adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmAdopt {
    /// Its name here.
    pub name: VmName,
    /// Host name or address.
    pub host: String,
    /// Port of its sshd.
    pub port: u16,
    /// Who to be there.
    pub user: String,
    /// Absolute path of a private key on this machine.
    pub identity: String,
    /// Its host key as a line of a public key file; where absent, the key that it shows now is
    /// pinned.
    #[serde(default)]
    pub host_key: Option<String>,
}

/// `vm.exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmExec {
    /// Name or id.
    pub vm: String,
    /// Program and arguments, byte for byte.
    pub command: Vec<ByteString>,
}

/// `vm.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmList {
    /// By name.
    pub vms: Vec<Vm>,
}

/// How to reach a machine with OpenSSH's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmSsh {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who to be.
    pub user: String,
    /// Path of the private key.
    pub identity: String,
    /// Path of a file that holds the pinned host key alone.
    pub known_hosts: String,
}

/// Where a machine's console log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmLogs {
    /// Path of the file; it holds untrusted bytes.
    pub console: String,
}
