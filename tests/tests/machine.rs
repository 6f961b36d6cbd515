//! A real VM from a real image: does it come up, can it be reached, does it go away?
//!
//! The image is shared: `BANGER_TEST_IMAGES`, or `banger-test-images` in the target directory. It is
//! built when it is missing or out of date, which takes a minute and the network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use banger_host::image::{
    BASE, BuildProgress, CancellationToken, Image, ImageError, ImageStore, Stage,
};
use banger_host::machine::{
    MachineError, MachineSpec, QemuMachine, Running, Seed, Status, Stopped, accelerator,
};
use tokio::io::AsyncReadExt;

fn images() -> PathBuf {
    std::env::var_os("BANGER_TEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("banger-test-images"),
        PathBuf::from,
    )
}

async fn image() -> Result<Image> {
    let progress = |report: BuildProgress| {
        eprintln!(
            "{:6.1} s {}: {}",
            report.elapsed.as_secs_f64(),
            report.stage,
            report.message
        );
    };
    Ok(ImageStore::new(images())
        .ensure(BASE, &progress, &CancellationToken::new())
        .await?)
}

struct Keys {
    seed: Seed,
    identity: PathBuf,
    known_hosts: PathBuf,
}

/// Keys by ssh-keygen, so that the test depends on no code of ours.
fn keys(dir: &Path) -> Result<Keys> {
    let make = |name: &str| -> Result<(String, String)> {
        let file = dir.join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&file)
            .status()?;
        ensure!(made.success(), "ssh-keygen failed");
        Ok((
            std::fs::read_to_string(&file)?,
            std::fs::read_to_string(file.with_extension("pub"))?,
        ))
    };
    let (host_key_openssh, host_key_public) = make("host")?;
    let (_, authorized_key) = make("user")?;
    let known_hosts = dir.join("known_hosts");
    std::fs::write(&known_hosts, format!("guest {host_key_public}"))?;
    let seed = Seed {
        host_key_openssh,
        host_key_public,
        authorized_key,
    };
    Ok(Keys {
        seed,
        identity: dir.join("user"),
        known_hosts,
    })
}

fn spec(name: &str) -> MachineSpec {
    MachineSpec {
        name: name.into(),
        cpus: 1,
        memory_mib: 512,
        work_disk_mib: 2048,
    }
}

/// Ends the machine when a test fails half-way.
struct Guard(Running);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.process.kill();
    }
}

async fn banner(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let attempt = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            let mut text = [0; 4];
            stream.read_exact(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        if let Ok(Ok(text)) = tokio::time::timeout(Duration::from_secs(20), attempt).await {
            ensure!(&text == b"SSH-", "not sshd: {text:?}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "sshd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ssh(keys: &Keys, port: u16, script: &str) -> Result<String> {
    let output = tokio::process::Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "HostKeyAlias=guest",
            "-o",
            "StrictHostKeyChecking=yes",
        ])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", keys.known_hosts.display()))
        .arg("-i")
        .arg(&keys.identity)
        .args(["-p", &port.to_string(), "root@127.0.0.1", script])
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

async fn start(machine: &QemuMachine, cache: &Path) -> Result<Running> {
    let verdict = accelerator::choose(&cache.join("accelerator.json")).await?;
    Ok(machine.start(verdict.accelerator).await?)
}

#[tokio::test]
async fn vm_boots_keeps_its_files_and_stops() -> Result<()> {
    let home = tempfile::tempdir()?;
    let keys = keys(home.path())?;
    // Longer than a socket's address may be.
    let dir = home.path().join("d".repeat(120)).join("vm");
    let machine = QemuMachine::create(&dir, &image().await?, spec("vm-one"), &keys.seed).await?;
    let again = QemuMachine::create(&dir, &image().await?, spec("vm-one"), &keys.seed).await;
    ensure!(matches!(again, Err(MachineError::Exists { .. })));

    let began = Instant::now();
    let running = start(&machine, home.path()).await?;
    let _guard = Guard(running);
    let started = began.elapsed();
    ensure!(
        machine.wait_for_sshd(Duration::from_secs(120)).await,
        "sshd says nothing"
    );
    banner(running.ssh_port).await?;
    eprintln!(
        "qemu ran after {started:?}, the banner came after {:?}",
        began.elapsed()
    );
    let second = start(&machine, home.path()).await;
    ensure!(second.is_err_and(|error| error.to_string().contains("runs already")));

    let facts = ssh(
        &keys,
        running.ssh_port,
        "hostname; id -u; findmnt -no SOURCE,OPTIONS /root; git --version; ls -A /root",
    )
    .await?;
    ensure!(facts.starts_with("vm-one\n0\n/dev/vdb rw"), "{facts}");
    ensure!(
        facts.contains("git version") && facts.contains(".hushlogin"),
        "{facts}"
    );
    let modes = ssh(
        &keys,
        running.ssh_port,
        "stat -c %a:%u /etc/ssh/ssh_host_ed25519_key /etc/ssh/authorized_keys /root",
    )
    .await?;
    ensure!(modes == "600:0\n600:0\n700:0\n", "{modes}");

    // Process 1 reaps what a detached session leaves.
    let orphans =
        "for i in 1 2 3; do (setsid sleep 0.2 &) ; done; sleep 2; ps -e -o stat= | grep -c ^Z";
    let zombies = ssh(&keys, running.ssh_port, &format!("{orphans} || true")).await?;
    ensure!(zombies.trim() == "0", "{zombies} zombies");
    // Process 1 starts sshd again.
    ssh(
        &keys,
        running.ssh_port,
        "echo kept >/root/file; sync; (sleep 1; pkill -o -x sshd) >/dev/null 2>&1 &",
    )
    .await?;

    machine.pause().await?;
    ensure!(machine.is_paused().await?);
    machine.resume().await?;
    ensure!(!machine.is_paused().await?);

    // Another daemon finds it.
    let machine = QemuMachine::open(&dir)?;
    ensure!(machine.status().await? == Status::Running(running));
    ensure!(
        machine.clone().delete().await.is_err(),
        "a running machine must not be deleted"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    banner(running.ssh_port)
        .await
        .context("sshd did not come back")?;

    let began = Instant::now();
    ensure!(machine.stop(Duration::from_secs(30)).await? == Stopped::Gracefully);
    eprintln!("stopped after {:?}", began.elapsed());
    ensure!(machine.status().await? == Status::Stopped);
    ensure!(machine.stop(Duration::ZERO).await? == Stopped::Already);
    let console = std::fs::read_to_string(machine.console_log())?;
    ensure!(console.contains("banger-init: off"), "{console}");

    // The files are there after a power cut too.
    let running = start(&machine, home.path()).await?;
    let _guard = Guard(running);
    banner(running.ssh_port).await?;
    ensure!(ssh(&keys, running.ssh_port, "cat /root/file").await? == "kept\n");
    ensure!(machine.kill().await? == Stopped::Forced);
    ensure!(!running.process.is_alive());
    machine.delete().await?;
    ensure!(!dir.exists());
    Ok(())
}

#[tokio::test]
async fn vm_two_at_once_have_two_ports() -> Result<()> {
    let home = tempfile::tempdir()?;
    let keys = keys(home.path())?;
    let image = image().await?;
    let make = |name: &'static str| {
        let (dir, image, seed) = (home.path().join(name), image.clone(), keys.seed.clone());
        async move { QemuMachine::create(&dir, &image, spec(name), &seed).await }
    };
    let (one, two) = tokio::try_join!(make("one"), make("two"))?;
    let (a, b) = tokio::try_join!(start(&one, home.path()), start(&two, home.path()))?;
    let _guards = (Guard(a), Guard(b));
    ensure!(a.ssh_port != b.ssh_port);
    tokio::try_join!(banner(a.ssh_port), banner(b.ssh_port))?;
    ensure!(ssh(&keys, b.ssh_port, "hostname").await? == "two\n");
    one.kill().await?;
    ensure!(matches!(two.status().await?, Status::Running(_)));
    two.kill().await?;
    Ok(())
}

#[tokio::test]
async fn vm_that_cannot_start_says_why() -> Result<()> {
    let home = tempfile::tempdir()?;
    let keys = keys(home.path())?;
    let machine = QemuMachine::create(
        &home.path().join("vm"),
        &image().await?,
        spec("vm"),
        &keys.seed,
    )
    .await?;
    std::fs::write(machine.dir().join("root.qcow2"), "no disk")?;
    let error = start(&machine, home.path())
        .await
        .expect_err("must fail")
        .to_string();
    ensure!(error.contains("qcow2"), "{error}");
    ensure!(machine.status().await? == Status::Stopped);
    machine.delete().await?;
    Ok(())
}

/// Processes whose command line names the directory.
fn processes_of(dir: &Path) -> usize {
    let needle = dir.as_os_str().as_encoded_bytes();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.windows(needle.len()).any(|window| window == needle))
        .count()
}

#[tokio::test]
async fn vm_image_cancelled_leaves_nothing() -> Result<()> {
    let home = tempfile::tempdir()?;
    let store = ImageStore::new(home.path().join("images"));
    let cancel = CancellationToken::new();
    let dir = home.path().to_owned();
    let seen = std::sync::atomic::AtomicUsize::new(0);
    let progress = |report: BuildProgress| {
        if report.stage == Stage::Installing {
            seen.store(processes_of(&dir), std::sync::atomic::Ordering::SeqCst);
            cancel.cancel();
        }
    };
    let error = store
        .build(BASE, &progress, &cancel)
        .await
        .expect_err("must be cancelled");
    ensure!(matches!(error, ImageError::Cancelled { .. }), "{error}");
    ensure!(seen.into_inner() > 0, "no process was there to be ended");
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes_of(home.path()) > 0 {
        ensure!(Instant::now() < deadline, "the build's processes live on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(store.list()?.is_empty());
    let left: Vec<_> = std::fs::read_dir(home.path().join("images"))?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    ensure!(
        left.iter()
            .all(|name| name == ".lock" || name == "base.log"),
        "{left:?}"
    );
    Ok(())
}
