//! What is true of sessions whose directory, disk or process ids are not what they should be.
#![allow(missing_docs, clippy::unwrap_used)]

mod guest;

use banger_plugin_testing::{command, eventually, exit_code};
use banger_ssh_session::Plugin;
use banger_ssh_session::contract::{Guest as _, Output, Script, SessionState, Snapshot};
use guest::{Guest, is_alive, kill};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

#[test]
fn a_damaged_directory_is_told_of_and_hinders_no_other() {
    let guest = Guest::new();
    guest.launched("good", &[b"sleep", b"1000"]);
    let secret = guest.root.path().join("secret");
    std::fs::write(&secret, "running").unwrap();
    type Damage<'a> = &'a dyn Fn(&str);
    let garbage = |file: &str| std::fs::write(file, b"\xff\0 $(id) -1\n").unwrap();
    let directory = |file: &str| {
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
    };
    let link = |file: &str| {
        std::fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink(&secret, file).unwrap();
    };
    let huge = |file: &str| {
        let file = std::fs::File::create(file).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let damages: [Damage<'_>; 4] = [&garbage, &directory, &link, &huge];
    let files = [
        "status",
        "pid",
        "exit-code",
        "error",
        "monitor-pid",
        "backend",
        "boot-id",
        "log-limit",
        "started-at",
        "stdout",
    ];
    let mut ids = Vec::new();
    for (kind, damage) in damages.iter().enumerate() {
        for (index, file) in files.iter().enumerate() {
            let id = format!("d{kind}x{index}");
            let dir = format!("{}/{id}", guest.root());
            std::fs::create_dir(&dir).unwrap();
            for (name, content) in [
                ("status", "exited\n"),
                ("pid", "1 1\n"),
                ("exit-code", "7\n"),
                ("error", ""),
                ("monitor-pid", "1 1\n"),
                ("backend", "ssh\n"),
                ("boot-id", "another\n"),
                ("log-limit", "1\n"),
                ("started-at", "99999999999999\n"),
                ("stdout", "output"),
            ] {
                std::fs::write(format!("{dir}/{name}"), content).unwrap();
            }
            damage(&format!("{dir}/{file}"));
            ids.push((id, *file));
        }
    }
    // By their ids, since one has lost the mark of its backend.
    let asked = ids.iter().map(|(id, _)| id.clone());
    let asked = asked.chain(["good".to_owned()]).collect();
    let output = guest.run(Plugin::inspect(guest.root(), asked), b"");
    let all = read(output);
    for (id, file) in &ids {
        let Some(one) = all.iter().find(|one| one.id == *id) else {
            assert_eq!(*file, "backend", "{id}");
            continue;
        };
        let expected = match *file {
            "exit-code" => SessionState::Lost,
            _ => SessionState::Exited,
        };
        assert_eq!(one.state, expected, "{id} {file}: {one:?}");
        if *file == "stdout" && id.starts_with("d2") {
            assert_eq!(exit_code(&guest.log(id, 0)), 3);
        }
    }
    let good = all.iter().find(|one| one.id == "good").unwrap();
    assert_eq!(good.state, SessionState::Running);
    // Other names are no sessions.
    for name in [".hidden", "UPPER", "with space", "new\nline", "$(id)"] {
        std::fs::create_dir(format!("{}/{name}", guest.root())).unwrap();
    }
    std::os::unix::fs::symlink(guest.dir("good"), format!("{}/link", guest.root())).unwrap();
    let names = guest.inspect();
    assert!(
        names
            .iter()
            .all(|one| one.id.starts_with('d') || one.id == "good")
    );
}

fn read(output: std::process::Output) -> Vec<Snapshot> {
    Plugin::read_inspect(Output {
        exit_code: exit_code(&output),
        stdout: output.stdout,
        stderr: output.stderr,
    })
    .unwrap()
}

#[test]
fn another_process_of_the_same_number_is_never_signalled() {
    let guest = Guest::new();
    guest.launched("a", &[b"sleep", b"1000"]);
    let pid = guest.one("a").pid.unwrap().to_string();
    let file = Plugin::paths(guest.session("a")).pid;
    let truth = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{pid} 1\n")).unwrap();
    let signalled = Plugin::signal(guest.session("a"), "KILL".into()).unwrap();
    assert_eq!(exit_code(&guest.run(signalled, b"")), 3);
    assert!(!guest.one("a").alive && is_alive(&pid));
    assert_eq!(exit_code(&guest.send("a", 1000, b"x")), 3);
    std::fs::write(&file, truth).unwrap();
    assert!(guest.one("a").alive);
}

#[test]
fn without_bash_in_the_guests_path_a_launch_says_so() {
    let guest = Guest::new();
    let script = Plugin::launch(guest.request("a", &[b"true"], &[])).unwrap();
    let output = Command::new("/bin/bash")
        .arg("-c")
        .arg(&script.body)
        .arg("banger")
        .args(script.args.iter().map(|arg| {
            <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(arg.clone())
        }))
        .env("PATH", "/no/such")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(exit_code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("PATH (/no/such) has no bash"));
}

/// A mount namespace with a small disk on the guest's root, for as long as this lives. What runs in
/// it sees the disk, and so does this process below `/proc/PID/root`.
struct Disk {
    holder: Child,
}

impl Disk {
    fn new(guest: &Guest, options: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["-Urm", "sh", "-c"])
            .arg("mount -t tmpfs -o \"$2\" tmpfs \"$1\" && echo ready && exec cat")
            .arg("sh")
            .arg(guest.root.path())
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self { holder }
    }

    /// A command, run where the disk is.
    fn enter(&self) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args([
            "-t",
            &self.holder.id().to_string(),
            "-U",
            "-m",
            "--preserve-credentials",
            "--",
        ]);
        enter
    }

    fn run(&self, script: Script, stdin: &[u8]) -> std::process::Output {
        let inner = command(&script.body, &script.args);
        let mut child = self
            .enter()
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(
            child
                .stdin
                .take()
                .unwrap()
                .write_all(&[&script.stdin, stdin].concat()),
        );
        child.wait_with_output().unwrap()
    }

    fn inspect(&self, guest: &Guest) -> Vec<Snapshot> {
        read(self.run(Plugin::inspect(guest.root(), vec![]), b""))
    }

    /// Takes all space that is left.
    fn fill(&self, guest: &Guest) {
        let file = guest.root.path().join("filling");
        let filled = self
            .enter()
            .args(["dd", "if=/dev/zero", "bs=4096"])
            .arg(format!("of={}", file.display()))
            .stderr(Stdio::null())
            .status();
        assert!(!filled.unwrap().success());
    }

    fn bash(&self, guest: &Guest, script: &str) -> std::process::Output {
        let root = guest.root();
        self.enter()
            .args(["bash", "-c", script, "bash", &root])
            .output()
            .unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

#[test]
fn on_a_full_disk_the_end_is_recorded_and_no_launch_leaves_anything() {
    let guest = Guest::new();
    let disk = Disk::new(&guest, "size=1m");
    let launch = |id: &str, command: &[&[u8]]| {
        let script = Plugin::launch(guest.request(id, command, &[])).unwrap();
        disk.run(script, b"")
    };
    let gate = b"read -r go; exit 42";
    let launched = launch("a", &[b"bash", b"-c", gate]);
    assert!(launched.status.success(), "{launched:?}");
    let attach = |writer: &str, input: &[u8]| {
        let script = Plugin::attach_input(guest.session("a"), writer.into()).unwrap();
        disk.run(script, input)
    };
    assert!(attach("known", b"").status.success());
    disk.fill(&guest);
    let refused = launch("b", &[b"true"]);
    assert_eq!(exit_code(&refused), 6, "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be written"));
    let left = disk.bash(&guest, "cd -- \"$1\" && ls -A | grep -e new -e '^b'");
    assert_eq!(left.stdout, b"", "{left:?}");

    // Who has written before needs no space.
    assert_eq!(exit_code(&attach("new", b"go\n")), 6);
    let typed = attach("known", b"go\n");
    assert!(typed.status.success(), "{typed:?}");
    let one = eventually("the end is recorded", || {
        disk.inspect(&guest)
            .into_iter()
            .find(|one| one.state == SessionState::Exited)
    });
    assert_eq!((one.exit_code, one.ended_at_ms.is_some()), (Some(42), true));
    let exit = disk.bash(&guest, "cat -- \"$1/a/exit-code\"");
    assert_eq!(exit.stdout, b"42\n");
    disk.bash(&guest, "kill -9 $(cut -d' ' -f1 \"$1/.keeper/pid\")");
}

#[test]
fn a_state_root_that_cannot_be_written_is_told_of() {
    let guest = Guest::new();
    let disk = Disk::new(&guest, "size=1m,ro");
    let script = Plugin::launch(guest.request("a", &[b"true"], &[])).unwrap();
    let refused = disk.run(script, b"");
    assert_eq!(exit_code(&refused), 6);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(
        told.contains("Read-only file system") && told.trim_end().ends_with("cannot be written"),
        "{told}"
    );
    assert!(disk.inspect(&guest).is_empty());
}

#[test]
fn a_session_whose_directory_was_deleted_leaves_nothing_that_runs() {
    let guest = Guest::new();
    guest.launched("a", &[b"cat"]);
    let pid = guest.one("a").pid.unwrap().to_string();
    let monitor = std::fs::read_to_string(Plugin::paths(guest.session("a")).monitor_pid).unwrap();
    let monitor = monitor.split(' ').next().unwrap();
    let mut reader = guest::follow(&guest, "a", 0);
    guest.send("a", 5000, b"x");
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    std::fs::remove_dir_all(guest.dir("a")).unwrap();
    kill(&pid, "KILL");
    reader.wait().unwrap();
    eventually("the supervisor ends", || (!is_alive(monitor)).then_some(()));
}
