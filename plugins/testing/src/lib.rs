//! Runs a plugin's scripts as the host does, on this machine, for tests.
//!
//! What it does not do: quote, time out, or know what any script is for.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command that runs a script: `bash -c BODY banger ARG…`, its streams yet to be set.
///
/// # Panics
/// Where bash would have to be given a command line that is over the host's limit.
pub fn command(body: &str, args: &[Vec<u8>]) -> Command {
    let length = body.len() + args.iter().map(Vec::len).sum::<usize>();
    assert!(
        length < 120 * 1024,
        "{length} bytes do not fit a command line"
    );
    let mut command = Command::new("bash");
    command.arg("-c").arg(body).arg("banger");
    command.args(args.iter().cloned().map(OsString::from_vec));
    command
}

/// Runs a script to its end, with its stdin.
///
/// # Panics
/// Where bash can't be run.
pub fn run(body: &str, args: &[Vec<u8>], stdin: &[u8]) -> Output {
    let mut child = command(body, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash runs");
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let stdin = stdin.to_vec();
    // A script that ends early closes the pipe: its exit code is what counts.
    let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().expect("bash ends");
    writer.join().expect("the writer ends");
    output
}

/// The exit code as the contract has it: 128 + n where signal n ended the script.
pub fn exit_code(output: &Output) -> i32 {
    let status = output.status;
    status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// Asks again and again until the answer is there.
///
/// # Panics
/// After 20 seconds, naming what was waited for.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Checks every `.sh` file of a directory with `bash -n` and shellcheck.
///
/// # Panics
/// Where one has a fault, or there is none, or a tool is missing.
pub fn lint(scripts: &Path) {
    let files: Vec<_> = std::fs::read_dir(scripts)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
        .collect();
    assert!(!files.is_empty());
    for file in &files {
        let status = Command::new("bash").arg("-n").arg(file).status();
        assert!(status.expect("bash runs").success(), "{}", file.display());
    }
    let output = Command::new("shellcheck")
        .args(["-s", "bash", "-S", "style"])
        .args(&files)
        .output()
        .expect("shellcheck is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
