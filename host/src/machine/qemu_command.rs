//! QEMU's command line for a machine, as a pure function of what the machine is.
//!
//! Every path is relative to the machine's directory, in which QEMU is started: so no name of a
//! directory can be taken for an option of a disk. The guest reaches the network as the user does;
//! from outside only a forwarded port on 127.0.0.1 leads in, added later (see `qemu`).

use super::{Accelerator, MachineSpec, qmp};

/// The files of a machine's directory.
pub const BASE_DISK: &str = "base.qcow2";
/// Copy-on-write root over the base.
pub const ROOT_DISK: &str = "root.qcow2";
/// The disk mounted at `/root`.
pub const WORK_DISK: &str = "work.ext4";
/// The seed archive.
pub const SEED_DISK: &str = "seed.tar";
/// The guest's kernel.
pub const KERNEL: &str = "vmlinuz";
/// Its initramfs.
pub const INITRD: &str = "initrd.img";
/// The guest's serial console since the last start.
pub const CONSOLE_LOG: &str = "console.log";
/// QEMU's own messages since the last start.
pub const QEMU_LOG: &str = "qemu.log";
/// Pid that QEMU writes itself.
pub const PID_FILE: &str = "qemu.pid";

/// Id of the network, for adding the forwarded port.
pub const NETWORK: &str = "net";

/// The arguments after the program's name.
#[must_use]
pub fn arguments(spec: &MachineSpec, accelerator: Accelerator) -> Vec<String> {
    let mut kernel = String::from("console=ttyS0 quiet loglevel=3 panic=-1");
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => {
            // What mitigations protect from does not exist in emulation; they only cost time.
            kernel.push_str(" mitigations=off");
            ("tcg,thread=multi", "max")
        }
    };
    let cpus = spec.cpus.to_string();
    let memory = spec.memory_mib.to_string();
    let root =
        format!("if=none,id=root,file={ROOT_DISK},format=qcow2,cache=writeback,discard=unmap");
    let work = format!(
        "if=none,id=work,file={WORK_DISK},format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap"
    );
    let seed = format!("if=none,id=seed,file={SEED_DISK},format=raw,readonly=on");
    let network = format!("user,id={NETWORK}");
    let nic = format!("virtio-net-pci,netdev={NETWORK},romfile=");
    let console = format!("file,id=console,path={CONSOLE_LOG},append=on");
    let control = format!("socket,id=qmp,path={},server=on,wait=off", qmp::SOCKET);
    #[rustfmt::skip]
    let arguments = [
        "-name", &spec.name,
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-monitor", "none",
        "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-pidfile", PID_FILE,
        "-M", "q35",
        "-accel", accel,
        "-cpu", cpu,
        "-smp", &cpus,
        "-m", &memory,
        "-rtc", "base=utc",
        "-kernel", KERNEL,
        "-initrd", INITRD,
        "-append", &kernel,
        // The guest knows the disks by their order.
        "-drive", &root,
        "-device", "virtio-blk-pci,drive=root",
        "-drive", &work,
        "-device", "virtio-blk-pci,drive=work",
        "-drive", &seed,
        "-device", "virtio-blk-pci,drive=seed",
        "-netdev", &network,
        "-device", &nic,
        "-device", "virtio-rng-pci",
        "-chardev", &console,
        "-serial", "chardev:console",
        "-chardev", &control,
        "-mon", "chardev=qmp,mode=control",
    ];
    arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_follows_the_spec() {
        let spec = MachineSpec {
            name: "a".into(),
            cpus: 3,
            memory_mib: 700,
            work_disk_mib: 64,
        };
        let line = |accelerator| arguments(&spec, accelerator).join(" ");
        let emulated = line(Accelerator::Tcg);
        assert!(
            emulated.contains("-accel tcg,thread=multi -cpu max -smp 3 -m 700 "),
            "{emulated}"
        );
        assert!(emulated.contains("mitigations=off"));
        let kvm = line(Accelerator::Kvm);
        assert!(
            kvm.contains("-accel kvm -cpu host ") && !kvm.contains("mitigations=off"),
            "{kvm}"
        );
        // No way in but the port added later, and no path that leaves the directory.
        assert!(!kvm.contains("hostfwd") && !kvm.contains('/'), "{kvm}");
        let order =
            ["file=root.qcow2", "file=work.ext4", "file=seed.tar"].map(|disk| kvm.find(disk));
        assert!(order[0] < order[1] && order[1] < order[2] && order[0].is_some());
    }
}
