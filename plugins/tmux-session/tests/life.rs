//! The whole life of sessions with a terminal, with the scripts and tmux really run.
#![allow(missing_docs, clippy::unwrap_used)]

use banger_plugin_testing::{command, eventually, exit_code, lint, run};
use banger_tmux_session::Plugin;
use banger_tmux_session::contract::{
    Guest as _, LaunchRequest, Output, OutputStream, Script, Session, SessionState, Snapshot,
    StdinKind,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const MARK: &str = "00112233445566778899aabbccddeeff";

struct Guest {
    root: tempfile::TempDir,
}

impl Drop for Guest {
    /// Nothing is left running, whatever the test did.
    fn drop(&mut self) {
        for snapshot in self.inspect() {
            self.run(Plugin::stop(self.session(&snapshot.id), 0).unwrap(), b"");
        }
        if !std::thread::panicking() {
            let root = self.root.path().as_os_str().as_encoded_bytes().to_vec();
            eventually("all processes end", || {
                processes_with(&root).is_empty().then_some(())
            });
        }
    }
}

/// Processes with these bytes in their command line, or below that directory.
fn processes_with(bytes: &[u8]) -> Vec<String> {
    let holds = |text: &[u8]| text.windows(bytes.len()).any(|window| window == bytes);
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let place = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            // The log keeper is every session's, and goes when it finds none.
            if words.windows(9).any(|window| window == b"keep_logs") {
                return false;
            }
            holds(&words) || holds(&place.into_os_string().into_vec())
        })
        .collect()
}

impl Guest {
    fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("banger 'odd' #{pid} %H $(name)\n; a name that is far too long for the path of a socket")
            .tempdir()
            .unwrap();
        Self { root }
    }

    fn root(&self) -> String {
        format!("{}/sessions", self.root.path().display())
    }

    fn session(&self, id: &str) -> Session {
        Session {
            id: id.to_owned(),
            state_root: self.root(),
            stdin_kind: StdinKind::Tty,
        }
    }

    fn run(&self, script: Script, stdin: &[u8]) -> std::process::Output {
        run(
            &script.body,
            &script.args,
            &[script.stdin.as_slice(), stdin].concat(),
        )
    }

    fn request(&self, id: &str, command: &[&[u8]], environment: &[(&str, &[u8])]) -> LaunchRequest {
        LaunchRequest {
            session: self.session(id),
            command: command.iter().map(|word| word.to_vec()).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            cwd: b"/tmp".to_vec(),
            columns: 80,
            rows: 24,
            log_limit: 0,
            host_record: b"{}".to_vec(),
            options: Vec::new(),
        }
    }

    fn launch(
        &self,
        id: &str,
        command: &[&[u8]],
        environment: &[(&str, &[u8])],
    ) -> std::process::Output {
        self.run(
            Plugin::launch(self.request(id, command, environment)).unwrap(),
            b"",
        )
    }

    fn launched(&self, id: &str, command: &[&[u8]]) {
        let output = self.launch(id, command, &[]);
        assert!(output.status.success(), "{output:?}");
    }

    fn shell(&self, id: &str, script: &str) {
        self.launched(id, &[b"bash", b"-c", script.as_bytes()]);
    }

    fn inspect(&self) -> Vec<Snapshot> {
        let output = self.run(Plugin::inspect(self.root(), vec![]), b"");
        Plugin::read_inspect(Output {
            exit_code: exit_code(&output),
            stdout: output.stdout,
            stderr: output.stderr,
        })
        .unwrap()
    }

    fn one(&self, id: &str) -> Snapshot {
        self.inspect().into_iter().find(|one| one.id == id).unwrap()
    }

    fn becomes(&self, id: &str, state: SessionState) -> Snapshot {
        eventually("the session's state", || {
            Some(self.one(id)).filter(|one| one.state == state)
        })
    }

    fn ended(&self, id: &str) -> Option<i32> {
        self.becomes(id, SessionState::Exited).exit_code
    }

    fn send_stream(&self, id: &str, stream: &[u8]) -> std::process::Output {
        let script = Plugin::send(self.session(id), 20_000).unwrap();
        let mut child = command(&script.body, &script.args)
            .env("BANGER_END_MARK", MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A script that ends early closes the pipe: its exit code is what counts.
        drop(child.stdin.take().unwrap().write_all(stream));
        child.wait_with_output().unwrap()
    }

    fn send(&self, id: &str, payload: &[u8]) {
        let output = self.send_stream(id, &[payload, MARK.as_bytes()].concat());
        assert!(output.status.success(), "{output:?}");
    }

    fn log(&self, id: &str) -> Vec<u8> {
        std::fs::read(Plugin::paths(self.session(id)).stdout).unwrap()
    }

    fn await_log(&self, id: &str, what: &str) {
        eventually(what, || {
            String::from_utf8_lossy(&self.log(id))
                .contains(what)
                .then_some(())
        });
    }

    fn stop(&self, id: &str) {
        let output = self.run(Plugin::stop(self.session(id), 5000).unwrap(), b"");
        assert!(output.status.success(), "{output:?}");
    }

    fn attach(&self, id: &str, observe: bool, rows: u16, columns: u16) -> Terminal {
        Terminal::new(
            &Plugin::attach_terminal(self.session(id), observe).unwrap(),
            rows,
            columns,
        )
    }
}

/// A pseudo-terminal with a script on it, and what it shows.
struct Terminal {
    master: File,
    script: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    closed: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn new(script: &Script, rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        let master = File::from(master);
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        // As sshd does: a session of its own with this terminal.
        let bash = command(&script.body, &script.args);
        let script = Command::new("setsid")
            .args(["--ctty", "--wait", "bash"])
            .args(bash.get_args())
            .env("TERM", "a-terminal-nobody-knows")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let closed = Arc::new(AtomicBool::new(false));
        let (mut output, shown) = (master.try_clone().unwrap(), Arc::clone(&screen));
        let over = Arc::clone(&closed);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            let tick = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            while !over.load(Ordering::Relaxed) {
                let ready = [PollFd::new(&output, PollFlags::IN)];
                if poll(&mut { ready }, Some(&tick)) == Ok(0) {
                    continue;
                }
                match output.read(&mut bytes) {
                    Ok(length @ 1..) => shown.lock().unwrap().process(&bytes[..length]),
                    _ => return,
                }
            }
        });
        Self {
            master,
            script,
            screen,
            closed,
            reader,
        }
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn shows(&self, what: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while !self.contents().contains(what) {
            let contents = self.contents();
            assert!(
                std::time::Instant::now() < deadline,
                "no {what:?} on:\n{contents}"
            );
            std::thread::yield_now();
        }
    }

    /// Asks again until the answer is there: a new size takes its time to the program.
    fn asks(&mut self, keys: &[u8], answer: &str) {
        let mut asked = None;
        eventually(answer, || {
            if asked.is_none_or(|at: std::time::Instant| at.elapsed().as_millis() > 300) {
                self.types(keys);
                asked = Some(std::time::Instant::now());
            }
            self.contents().contains(answer).then_some(())
        });
    }

    fn types(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn resize(&self, rows: u16, columns: u16) {
        let mut screen = self.screen.lock().unwrap();
        screen.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
    }

    /// Waits until the script ends by itself.
    fn ends(&mut self) -> Option<i32> {
        eventually("the client leaves", || self.script.try_wait().unwrap()).code()
    }

    /// The terminal goes away, as when a connection does: all that ran on it ends.
    fn close(mut self) {
        self.closed.store(true, Ordering::Relaxed);
        self.reader.join().unwrap();
        drop(self.master);
        self.script.wait().unwrap();
    }
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn scripts_are_clean() {
    lint(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts"
    )));
}

#[test]
fn arguments_and_environment_arrive_byte_for_byte() {
    let guest = Guest::new();
    let long = vec![b'x'; 100_000];
    let hostile: [&[u8]; 9] = [
        b"",
        b"-n",
        b"$(id) `id` ' \"",
        b"a\nb\n",
        b"\xff\xfe",
        b"--",
        b"#{pid} #(id) %H",
        b"end;",
        b";",
    ];
    let file = guest.root.path().join("seen");
    let mut words: Vec<&[u8]> = vec![
        b"sh",
        b"-c",
        b"pwd >\"$0.cwd\"; env -0 >\"$0\"; printf '%s\\0' \"$@\" >>\"$0\"",
        file.as_os_str().as_encoded_bytes(),
    ];
    words.extend(hostile);
    let environment: [(&str, &[u8]); 8] = [
        ("UID", b"7"),
        ("IFS", b"x"),
        ("dir", b"mine\n"),
        ("SHELLOPTS", b"xtrace"),
        ("BASH_ENV", b"$(touch /tmp/banger-should-not-exist)"),
        ("LANG", b"\xff"),
        ("FORMAT", b"#{session_name};"),
        ("LONG", &long),
    ];
    let odd = guest.root.path().join("a place;");
    std::fs::create_dir(&odd).unwrap();
    let mut request = guest.request("a", &words, &environment);
    request.cwd = odd.as_os_str().as_encoded_bytes().to_vec();
    let output = guest.run(Plugin::launch(request).unwrap(), b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(guest.ended("a"), Some(0));
    let seen = std::fs::read(&file).unwrap();
    let expected = hostile.map(|word| [word, b"\0"].concat()).concat();
    assert!(seen.ends_with(&expected), "{}", seen.escape_ascii());
    let fields: Vec<&[u8]> = seen.split(|byte| *byte == 0).collect();
    for (name, value) in environment.iter().filter(|(name, _)| *name != "IFS") {
        let pair = [name.as_bytes(), b"=", value].concat();
        assert!(fields.contains(&pair.as_slice()), "{name}");
    }
    assert!(fields.contains(&&b"TERM=tmux-256color"[..]));
    assert!(!fields.iter().any(|field| field.starts_with(b"TMUX")));
    let mut cwd = guest.root.path().join("seen").into_os_string();
    cwd.push(".cwd");
    let cwd = std::fs::read(cwd).unwrap();
    assert_eq!(cwd, [odd.as_os_str().as_encoded_bytes(), b"\n"].concat());
}

#[test]
fn exit_codes_and_every_byte_are_kept() {
    let guest = Guest::new();
    guest.shell("a", "exit 0");
    guest.shell("b", "printf 'the last words'; exit 3");
    guest.shell("c", "kill -9 $$");
    // What was stopped goes on: nobody here could continue it.
    guest.shell("d", "kill -TSTP $$; exit 7");
    guest.shell("e", "exit 147");
    for (id, code) in [("a", 0), ("b", 3), ("c", 137), ("d", 7), ("e", 147)] {
        assert_eq!(guest.ended(id), Some(code), "{id}");
    }
    assert_eq!(guest.log("b"), b"the last words");
    let one = guest.one("b");
    assert!(one.ended_at_ms.unwrap() >= one.started_at_ms.unwrap());
    assert_eq!(one.stdout_bytes, 14);
    let records = guest.run(Plugin::host_records(guest.root()), b"");
    let records = Plugin::read_host_records(Output {
        exit_code: exit_code(&records),
        stdout: records.stdout,
        stderr: records.stderr,
    });
    assert!(records.unwrap().contains(&("b".to_owned(), b"{}".to_vec())));
}

#[test]
fn a_fast_print_loses_nothing() {
    let guest = Guest::new();
    guest.launched("a", &[b"seq", b"1300000"]);
    let mut reader = {
        let script = Plugin::attach_output(guest.session("a"), OutputStream::Stdout, 0, true);
        let script = script.unwrap();
        command(&script.body, &script.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut seen = Vec::new();
    let stdout = reader.stdout.as_mut().unwrap();
    stdout.read_to_end(&mut seen).unwrap();
    assert!(reader.wait().unwrap().success());
    // The terminal puts a carriage return before each line feed.
    let expected: String = (1..=1_300_000).map(|line| format!("{line}\r\n")).collect();
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected.as_bytes() && guest.log("a") == seen);
    assert_eq!(guest.ended("a"), Some(0));
    let last = Plugin::offset_of_lines(guest.session("a"), OutputStream::Stdout, 1).unwrap();
    let offset = format!("{}\n", expected.len() - b"1300000\r\n".len());
    assert_eq!(guest.run(last, b"").stdout, offset.as_bytes());
    assert!(Plugin::offset_of_lines(guest.session("a"), OutputStream::Stderr, 1).is_err());
    assert!(Plugin::close_input(guest.session("a"), 1).is_err());
}

#[test]
fn the_program_leads_its_group_and_has_the_terminal() {
    let guest = Guest::new();
    guest.shell("a", "ps -o pgid=,tpgid= $$; test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty; ls /proc/self/fd | wc -l; read -r _");
    guest.await_log("a", "24 80");
    let pid = guest.one("a").pid.unwrap().to_string();
    let log = String::from_utf8(guest.log("a")).unwrap();
    let words: Vec<&str> = log.split_whitespace().collect();
    assert_eq!(words[..2], [&pid, &pid]);
    guest.send("a", b"\n");
    assert_eq!(guest.ended("a"), Some(0));
}

#[test]
fn what_cannot_run_fails_with_the_reason() {
    let guest = Guest::new();
    let mut lost = guest.request("f", &[b"true"], &[]);
    lost.cwd = b"/no/such/place".to_vec();
    let mut requests = vec![(lost, "cannot be entered")];
    for (id, program, reason) in [
        ("a", "no-such-program", "not found in PATH"),
        ("b", "/no/such", "does not exist"),
        ("c", "/etc/passwd", "not executable"),
    ] {
        requests.push((guest.request(id, &[program.as_bytes()], &[]), reason));
    }
    let long = guest.request("g", &[b"true", &[b'x'; 200_000]], &[]);
    requests.push((long, "cannot be executed"));
    for (request, reason) in requests {
        let id = request.session.id.clone();
        let output = guest.run(Plugin::launch(request).unwrap(), b"");
        assert_eq!(exit_code(&output), 1, "{output:?}");
        let failed = guest.one(&id);
        assert_eq!(failed.state, SessionState::Failed);
        assert!(failed.last_error.unwrap().contains(reason));
    }
}

#[test]
fn without_tmux_the_launch_says_so() {
    let guest = Guest::new();
    let bin = guest.root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for entry in std::fs::read_dir("/usr/bin").unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "tmux" {
            std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())).unwrap();
        }
    }
    // A colon cannot stand in PATH, all else can.
    let script = Plugin::launch(guest.request("a", &[b"true"], &[])).unwrap();
    let mut child = command(&script.body, &script.args)
        .env("PATH", &bin)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&script.stdin)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("tmux is not installed"));
}

#[test]
fn vim_is_driven_left_and_found_again() {
    let guest = Guest::new();
    guest.launched("a", &[b"vim", b"-u", b"NONE", b"-N"]);
    let mut first = guest.attach("a", false, 30, 100);
    first.shows("~");
    // Nobody else here attaches: each client has the same number of processes.
    let clients = || processes_with(b"attach-session").len();
    let one = clients();
    first.types(b"ihello from a key\x1b:set columns?\r");
    first.shows("hello from a key");
    first.shows("columns=100");
    first.resize(20, 60);
    first.asks(b"\x1b:set columns?\r", "columns=60");
    first.asks(b"\x1b:set lines?\r", "lines=20");
    // Ctrl-B would be tmux's own prefix; here it turns vim's page.
    first.types(b"\x02d:\x1b");

    let mut watcher = guest.attach("a", true, 10, 40);
    watcher.shows("hello from a key");
    watcher.types(b"ccnot from here\x1b");
    first.types(b"\x1bonot there yet\x1b");
    watcher.shows("not there yet");
    first.asks(b"\x1b:set lines?\r", "lines=20");
    assert!(!first.contents().contains("not from here"));
    first.close();
    // One client is left, and no process of the other.
    eventually("the client's processes end", || {
        (clients() == one).then_some(())
    });

    // With the observer alone the size stays; and the next one gets the whole screen.
    let resized = Plugin::resize(guest.session("a"), 90, 25).unwrap();
    let resized = guest.run(resized, b"");
    assert!(resized.status.success(), "{resized:?}");
    guest.send("a", b"\x1b1G:s/hello.*/sized by hand/\n");
    watcher.shows("sized by hand");
    let server = Plugin::paths(guest.session("a")).state_dir;
    let asked = Command::new("tmux")
        .args(["-S", "./tmux.sock", "display", "-p"])
        .arg("#{window_width}x#{window_height}")
        .current_dir(server)
        .output()
        .unwrap();
    assert_eq!(asked.stdout, b"90x25\n");
    let mut second = guest.attach("a", false, 24, 70);
    second.shows("sized by hand");
    second.asks(b"\x1b:set columns?\r", "columns=70");
    let refused = Plugin::resize(guest.session("a"), 90, 25).unwrap();
    assert_eq!(exit_code(&guest.run(refused, b"")), 3);
    second.types(b"\x1b:cquit 5\r");
    assert_eq!((second.ends(), watcher.ends()), (Some(0), Some(0)));
    assert_eq!(guest.one("a").exit_code, Some(5));
    let late = guest.attach("a", false, 24, 80).ends();
    assert_eq!(late, Some(3));
}

#[test]
fn what_is_sent_arrives_whole_and_exactly() {
    let guest = Guest::new();
    guest.shell(
        "a",
        "stty raw -echo; echo ready; head -c 1000003 | sha256sum",
    );
    guest.await_log("a", "ready");
    let mut payload: Vec<u8> = (0..250_000u32).flat_map(u32::to_le_bytes).collect();
    let cut = guest.send_stream("a", b"half of a mess");
    assert_eq!(exit_code(&cut), 6);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut short"));
    // Bytes as they are, from two connections of one writer.
    for (part, taken) in [
        (&payload[..600_000], 600_000),
        (&payload[600_000..], 1_000_000),
    ] {
        let script = Plugin::attach_input(guest.session("a"), "w".to_owned()).unwrap();
        let output = guest.run(script, part);
        assert!(output.status.success(), "{output:?}");
        let counts = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            counts.lines().next(),
            Some(if taken == 600_000 { "0" } else { "600000" })
        );
        assert_eq!(counts.lines().last(), Some(taken.to_string().as_str()));
    }
    // A line feed is typed as Enter.
    guest.send("a", b"a\n\0");
    payload.extend(b"a\r\0");
    assert_eq!(guest.ended("a"), Some(0));
    let mut sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sum.stdin.take().unwrap().write_all(&payload).unwrap();
    let expected = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    let log = String::from_utf8(guest.log("a")).unwrap();
    assert!(log.contains(expected.trim()), "{log}");
    assert_eq!(exit_code(&guest.send_stream("a", MARK.as_bytes())), 3);
}

#[test]
fn another_connection_of_a_writer_takes_over() {
    let guest = Guest::new();
    guest.shell("a", "stty raw -echo; exec cat");
    let script = Plugin::attach_input(guest.session("a"), "w".to_owned()).unwrap();
    let mut hung = command(&script.body, &script.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hung.stdin.as_mut().unwrap().write_all(b"one").unwrap();
    let mut counts = [0; 4];
    hung.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut counts)
        .unwrap();
    assert_eq!(&counts, b"0\n3\n");
    let output = guest.run(script, b"two");
    assert_eq!(output.stdout, b"3\n6\n");
    hung.wait().unwrap();
    guest.await_log("a", "onetwo");
}

#[test]
fn stop_ends_what_the_terminal_ran() {
    let guest = Guest::new();
    guest.shell("a", "trap '' TERM HUP; (trap '' TERM; exec sleep 1000) & echo ready; while :; do sleep 1000; done");
    guest.await_log("a", "ready");
    assert_eq!(
        exit_code(&guest.run(Plugin::remove(guest.session("a")).unwrap(), b"")),
        3
    );
    let stopped = guest.run(Plugin::stop(guest.session("a"), 50).unwrap(), b"");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(guest.one("a").exit_code, Some(137));
    // A shell's jobs have groups of their own, and end as with a window that is closed.
    guest.launched("b", &[b"bash", b"--norc", b"-i"]);
    guest.send("b", b"sleep 4321 & echo start''ed\n");
    guest.await_log("b", "started");
    guest.run(
        Plugin::signal(guest.session("b"), "KILL".to_owned()).unwrap(),
        b"",
    );
    assert_eq!(guest.ended("b"), Some(137));
    // One that keeps the terminal open all the same holds nothing up.
    guest.shell("c", "trap '' HUP; sleep 30 & printf words");
    assert_eq!(guest.ended("c"), Some(0));
    assert_eq!(guest.log("c"), b"words");
    for id in ["a", "b", "c"] {
        let removed = guest.run(Plugin::remove(guest.session(id)).unwrap(), b"");
        assert!(removed.status.success(), "{removed:?}");
    }
    assert!(guest.inspect().is_empty());
}

#[test]
fn a_session_whose_tmux_is_killed_is_lost() {
    let guest = Guest::new();
    for (id, script) in [
        ("a", "echo ready; sleep 1000"),
        ("b", "trap '' HUP; echo ready; while :; do sleep 1000; done"),
    ] {
        guest.shell(id, script);
        guest.await_log(id, "ready");
        let monitor = std::fs::read_to_string(Plugin::paths(guest.session(id)).monitor_pid);
        let monitor = monitor.unwrap().split(' ').next().unwrap().to_owned();
        let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
        let server = stat
            .rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .to_owned();
        let killed = Command::new("kill").args(["-9", &server]).status().unwrap();
        assert!(killed.success());
        let lost = guest.becomes(id, SessionState::Lost);
        assert!(
            lost.last_error.unwrap().contains("tmux server ended"),
            "{id}"
        );
        guest.stop(id);
    }
}

#[test]
fn five_sessions_live_at_once() {
    let guest = Guest::new();
    std::thread::scope(|scope| {
        for id in ["a", "b", "c", "d", "e"] {
            let guest = &guest;
            scope.spawn(move || {
                guest.shell(id, "read -r line; echo \"<$line>\"");
                guest.send(id, format!("to {id}\n").as_bytes());
                assert_eq!(guest.ended(id), Some(0));
                guest.await_log(id, &format!("<to {id}>"));
            });
        }
    });
}

/// Figures for a person: `cargo test -p banger-tmux-session figures -- --ignored --nocapture`.
#[test]
#[ignore = "it measures"]
fn figures() {
    use std::time::Instant;
    let guest = Guest::new();
    let mut figures: [Vec<u128>; 4] = Default::default();
    for round in 0..15 {
        let id = format!("a{round}");
        let begun = Instant::now();
        guest.shell(
            &id,
            "stty -echo raw; echo ready; head -c 1; printf 'last %s' words",
        );
        figures[0].push(begun.elapsed().as_micros());
        guest.await_log(&id, "ready");
        let begun = Instant::now();
        let mut terminal = guest.attach(&id, false, 24, 80);
        terminal.shows("ready");
        figures[1].push(begun.elapsed().as_micros());
        let begun = Instant::now();
        terminal.types(b"x");
        guest.await_log(&id, "x");
        figures[2].push(begun.elapsed().as_micros());
        assert_eq!(terminal.ends(), Some(0));
        figures[3].push(begun.elapsed().as_micros());
        assert!(guest.log(&id).ends_with(b"last words"));
    }
    for (what, all) in ["launch", "attach", "key", "end"].iter().zip(&mut figures) {
        all.sort_unstable();
        println!("{what}: median {} µs, worst {} µs", all[7], all[14]);
    }
}
