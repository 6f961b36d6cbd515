//! Which accelerator runs machines here: KVM when a guest really runs under it, emulation otherwise.
//!
//! That `/dev/kvm` exists, and even that a VM can be created, proves nothing: on some hosts QEMU then
//! aborts or the guest hangs. So a guest of a few bytes is run, with a deadline. The answer is kept
//! with the boot id, QEMU's version and the device's identity, and asked again when one changes.
//! It never loads a module and never changes permissions.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tool::{self, ToolError};

const DEADLINE: Duration = Duration::from_secs(5);
const KVM: &str = "/dev/kvm";
/// `isa-debug-exit` turns the value written into `(value << 1) | 1`; QEMU itself ends with 0 or 1.
const EXPECTED_EXIT: i32 = (PROBE_VALUE as i32) << 1 | 1;
const PROBE_VALUE: u8 = 0x21;

/// How a machine's processors are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation: works everywhere, several times slower.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "hardware virtualisation",
            Self::Tcg => "software emulation",
        })
    }
}

/// The accelerator chosen and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The choice.
    pub accelerator: Accelerator,
    /// One sentence for the user.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: String,
    verdict: Verdict,
}

/// Chooses the accelerator; `cache` is the file in which the answer is remembered.
/// `BANGER_ACCEL=kvm` or `tcg` decides without asking. Takes milliseconds when the answer is
/// remembered and at most some five seconds when not.
///
/// # Errors
/// [`ToolError::Missing`] when QEMU is not installed. That KVM does not work is not an error.
pub async fn choose(cache: &Path) -> Result<Verdict, ToolError> {
    if let Some(forced) = std::env::var("BANGER_ACCEL")
        .ok()
        .and_then(|value| forced(&value))
    {
        return Ok(forced);
    }
    let Ok(device) = std::fs::metadata(KVM) else {
        tool::QEMU.require()?;
        return Ok(emulation("there is no /dev/kvm"));
    };
    if rustix::fs::access(
        KVM,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    )
    .is_err()
    {
        tool::QEMU.require()?;
        return Ok(emulation(
            "this user may not open /dev/kvm (the group kvm may)",
        ));
    }
    let version = tool::QEMU.run(["--version"]).await?;
    let version = String::from_utf8_lossy(&version);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = format!(
        "1|{}|{}|{}:{}:{}",
        boot.trim(),
        version.lines().next().unwrap_or_default(),
        device.rdev(),
        device.ino(),
        device.ctime()
    );
    if let Some(verdict) = recall(cache, &key) {
        return Ok(verdict);
    }
    let verdict = probe().await?;
    remember(
        cache,
        Remembered {
            key,
            verdict: verdict.clone(),
        },
    );
    Ok(verdict)
}

fn forced(value: &str) -> Option<Verdict> {
    let accelerator = match value {
        "kvm" => Accelerator::Kvm,
        "tcg" => Accelerator::Tcg,
        "" => return None,
        other => {
            tracing::warn!(
                value = other,
                "BANGER_ACCEL is neither kvm nor tcg, so it is not heeded"
            );
            return None;
        }
    };
    Some(Verdict {
        accelerator,
        reason: format!("BANGER_ACCEL={value} says so"),
    })
}

fn emulation(reason: &str) -> Verdict {
    Verdict {
        accelerator: Accelerator::Tcg,
        reason: reason.to_owned(),
    }
}

fn recall(cache: &Path, key: &str) -> Option<Verdict> {
    let bytes = std::fs::read(cache).ok()?;
    let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
    (remembered.key == key).then_some(remembered.verdict)
}

/// Remembering is an aid only: failure costs a probe the next time.
fn remember(cache: &Path, answer: Remembered) {
    let store = || -> std::io::Result<()> {
        let directory = cache.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&file, &answer)?;
        file.persist(cache)?;
        Ok(())
    };
    if let Err(error) = store() {
        tracing::debug!(path = %cache.display(), %error, "the accelerator's probe is not remembered");
    }
}

/// The probe's firmware: 64 KiB ending at 4 GiB, so that its sixteenth last byte is where a processor
/// starts. From real mode it goes to 32-bit protected mode with paging (a processor feature on which
/// incomplete virtualisation stumbles) and only then says that it is there.
///
/// ```text
/// ; at 0xff00 (cs base 0xffff0000)
/// ff00  fa                 cli
/// ff01  2e 66 0f 01 16 80 ff   o32 lgdt cs:[0xff80]
/// ff08  0f 20 c0           mov eax, cr0
/// ff0b  0c 01              or al, 1
/// ff0d  0f 22 c0           mov cr0, eax
/// ff10  66 ea 18 ff ff ff 08 00   jmp dword 0x08:0xffffff18
/// ff18  b8 10 00 00 00     mov eax, 0x10          ; 32-bit from here
/// ff1d  8e d8              mov ds, eax
/// ff1f  c7 05 fc 1f 00 00 83 00 c0 ff   mov dword [0x1ffc], 0xffc00083 ; last 4 MiB onto themselves
/// ff29  0f 20 e0           mov eax, cr4
/// ff2c  0c 10              or al, 0x10            ; 4 MiB pages
/// ff2e  0f 22 e0           mov cr4, eax
/// ff31  b8 00 10 00 00     mov eax, 0x1000
/// ff36  0f 22 d8           mov cr3, eax
/// ff39  0f 20 c0           mov eax, cr0
/// ff3c  0d 00 00 00 80     or eax, 0x80000000     ; paging
/// ff41  0f 22 c0           mov cr0, eax
/// ff44  b0 21              mov al, 0x21
/// ff46  e6 f4              out 0xf4, al           ; isa-debug-exit
/// ff48  f4                 hlt
/// ff49  eb fd              jmp 0xff48
/// ff80  17 00 88 ff ff ff  limit 23, base 0xffffff88
/// ff88  null; code 0..4 GiB; data 0..4 GiB
/// fff0  e9 0d ff           jmp 0xff00
/// ```
fn firmware() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xfa,
        0x2e,
        0x66,
        0x0f,
        0x01,
        0x16,
        0x80,
        0xff,
        0x0f,
        0x20,
        0xc0,
        0x0c,
        0x01,
        0x0f,
        0x22,
        0xc0,
        0x66,
        0xea,
        0x18,
        0xff,
        0xff,
        0xff,
        0x08,
        0x00,
        0xb8,
        0x10,
        0x00,
        0x00,
        0x00,
        0x8e,
        0xd8,
        0xc7,
        0x05,
        0xfc,
        0x1f,
        0x00,
        0x00,
        0x83,
        0x00,
        0xc0,
        0xff,
        0x0f,
        0x20,
        0xe0,
        0x0c,
        0x10,
        0x0f,
        0x22,
        0xe0,
        0xb8,
        0x00,
        0x10,
        0x00,
        0x00,
        0x0f,
        0x22,
        0xd8,
        0x0f,
        0x20,
        0xc0,
        0x0d,
        0x00,
        0x00,
        0x00,
        0x80,
        0x0f,
        0x22,
        0xc0,
        0xb0,
        PROBE_VALUE,
        0xe6,
        0xf4,
        0xf4,
        0xeb,
        0xfd,
    ];
    const TABLE: &[u8] = &[
        0x17, 0x00, 0x88, 0xff, 0xff, 0xff, 0, 0, // limit and base, padding
        0, 0, 0, 0, 0, 0, 0, 0, // null
        0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, // code
        0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0, // data
    ];
    let mut image = vec![0xf4; 0x1_0000];
    image[0xff00..0xff00 + CODE.len()].copy_from_slice(CODE);
    image[0xff80..0xff80 + TABLE.len()].copy_from_slice(TABLE);
    image[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0xff]);
    image
}

async fn probe() -> Result<Verdict, ToolError> {
    Ok(match run_probe(&["-accel", "kvm", "-cpu", "host"]).await? {
        Ok(()) => Verdict {
            accelerator: Accelerator::Kvm,
            reason: "hardware virtualisation works (a test guest ran)".into(),
        },
        Err(reason) => emulation(&reason),
    })
}

/// Runs the probe's guest; the inner error says why it did not answer.
async fn run_probe(accelerator: &[&str]) -> Result<Result<(), String>, ToolError> {
    use std::io::Write;
    let start = |source| ToolError::Start {
        program: tool::QEMU.program,
        source,
    };
    let mut bios = tempfile::NamedTempFile::new().map_err(start)?;
    bios.write_all(&firmware()).map_err(start)?;
    let child = tool::QEMU
        .command()?
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-M",
            "q35",
            "-m",
            "16",
        ])
        .args(accelerator)
        .args([
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=1",
            "-no-reboot",
            "-bios",
        ])
        .arg(bios.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let Ok(output) = tokio::time::timeout(DEADLINE, child.wait_with_output()).await else {
        return Ok(Err(format!(
            "/dev/kvm is there, but a test guest did not answer within {} s",
            DEADLINE.as_secs()
        )));
    };
    let output = output.map_err(start)?;
    if output.status.code() == Some(EXPECTED_EXIT) {
        return Ok(Ok(()));
    }
    // The first line is the reason; an assertion's text may follow.
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    let said = tool::printable(said.strip_prefix("qemu-system-x86_64: ").unwrap_or(said));
    Ok(Err(if said.is_empty() {
        format!(
            "/dev/kvm is there, but QEMU could not run a test guest ({})",
            output.status
        )
    } else {
        format!("/dev/kvm is there, but QEMU could not run a test guest: {said}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_when_it_is_clear() {
        assert_eq!(forced("kvm").map(|v| v.accelerator), Some(Accelerator::Kvm));
        assert_eq!(forced("tcg").map(|v| v.accelerator), Some(Accelerator::Tcg));
        assert_eq!(forced("xen"), None);
        assert_eq!(forced(""), None);
    }

    #[test]
    fn an_answer_is_recalled_only_for_its_key() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("sub/accelerator.json");
        let verdict = emulation("why not");
        remember(
            &file,
            Remembered {
                key: "a".into(),
                verdict: verdict.clone(),
            },
        );
        assert_eq!(recall(&file, "a"), Some(verdict));
        assert_eq!(recall(&file, "b"), None);
        std::fs::write(&file, "{").expect("write");
        assert_eq!(recall(&file, "a"), None);
    }

    #[tokio::test]
    async fn the_test_guest_answers_under_emulation() {
        if tool::QEMU.find().is_none() {
            return;
        }
        assert_eq!(
            run_probe(&["-accel", "tcg"]).await.expect("qemu starts"),
            Ok(())
        );
    }
}
