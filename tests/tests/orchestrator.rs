//! Does the example orchestrator bring every session to its end with every byte once, whatever is
//! killed meanwhile?

use std::path::PathBuf;
use std::process::{Command, Stdio};

use banger_tests::home::{HOST, Home, Running};
use rustix::process::Signal;

/// Takes JSON lines, says what it has got, and waits at a gate after the second.
const AGENT: &str = "n=0; while read -r line; do n=$((n+1)); echo \"$n $line\"; \
                     if [[ $n == 2 ]]; then read -r < \"$HOME/gate-$AGENT_INDEX\"; fi; \
                     done; echo \"end $n\"; exit \"$1\"";

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/orchestrator")
}

fn python(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command_of("python3", ["-B", "-W", "error"]);
    command.args(arguments).current_dir(examples());
    command
}

/// The orchestrator with these sessions and tasks, for agents that exit with `code`.
fn orchestrator(home: &Home, sessions: usize, tasks: usize, code: &str) -> Command {
    let lines: String = (0..tasks)
        .map(|task| format!("{{\"task\": {task}}}\n"))
        .collect();
    let path = home.scratch().join("tasks.jsonl");
    std::fs::write(&path, lines).expect("written");
    let mut command = python(
        home,
        &[
            "orchestrator.py",
            "--vm",
            HOST,
            "--show-output",
            "--sessions",
        ],
    );
    command
        .arg(sessions.to_string())
        .args(["--tag", "purpose=test", "--banger"])
        .arg(home.binary())
        .arg("--tasks")
        .arg(path)
        .args(["--", "bash", "-c", AGENT, "agent", code])
        .stdin(Stdio::null());
    command
}

fn gates(home: &Home, sessions: usize) -> Vec<PathBuf> {
    let gates: Vec<PathBuf> = (0..sessions)
        .map(|index| home.guest_home().join(format!("gate-{index}")))
        .collect();
    for gate in &gates {
        let made = Command::new("mkfifo").arg(gate).status().expect("mkfifo");
        assert!(made.success());
    }
    gates
}

#[track_caller]
fn open(gates: &[PathBuf]) {
    for gate in gates {
        std::fs::write(gate, "\n").expect("it waits there");
    }
}

/// What a session has got must be each of its tasks once, in order.
#[track_caller]
fn check_log(home: &Home, index: usize, sessions: usize, tasks: usize) {
    let name = format!("agents-{index}");
    let logs = home.run(["vm", "session", "logs", HOST, &name]).ok();
    let mut expected: String = (index..tasks)
        .step_by(sessions)
        .enumerate()
        .map(|(number, task)| format!("{} {{\"task\": {task}}}\n", number + 1))
        .collect();
    expected.push_str(&format!("end {}\n", expected.lines().count()));
    assert_eq!(logs.text(), expected);
}

#[test]
fn four_sessions_are_brought_to_their_end_though_the_daemon_is_killed() {
    let home = Home::with_host().expect("a home with a host");
    let gates = gates(&home, 4);
    let mut running = Running::spawn(orchestrator(&home, 4, 14, "0"));
    for index in 0..4 {
        // Two tasks each are done, and the others may be anywhere on their way.
        running.until(&format!("agents-{index} | 2 {{"));
    }
    home.kill_daemon();
    open(&gates[..2]);
    for index in 0..2 {
        running.until(&format!("agents-{index} | end 4\n"));
    }
    home.kill_daemon();
    home.sshd.as_ref().expect("an sshd").cut_connections();
    open(&gates[2..]);
    let ran = running.wait().ok();
    let text = ran.text();
    for index in 0..4 {
        check_log(&home, index, 4, 14);
        assert!(
            text.contains(&format!("\nagents-{index}: exited, code 0, ")),
            "{text}"
        );
        let end = format!("agents-{index} | end ");
        assert_eq!(text.matches(&end).count(), 1, "each byte once: {text}");
    }
    assert!(text.contains("agents-0: cut ("), "it says so: {text}");
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let session = home.session("agents-3");
    assert_eq!(session["tags"]["purpose"], "test");
    assert_eq!(session["tags"]["index"], "3");
}

#[test]
fn after_ctrl_c_sessions_run_on_and_another_run_goes_on_with_them() {
    let home = Home::with_host().expect("a home with a host");
    let gates = gates(&home, 2);
    let mut running = Running::spawn(orchestrator(&home, 2, 6, "3"));
    for index in 0..2 {
        running.until(&format!("agents-{index} | 2 {{"));
    }
    running.signal(Signal::INT);
    let ran = running.wait();
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.errors().contains("The sessions run on"), "{ran:?}");
    assert_eq!(home.session("agents-0")["snapshot"]["state"], "running");

    let mut running = Running::spawn(orchestrator(&home, 2, 6, "3"));
    for index in 0..2 {
        running.until(&format!("agents-{index} | 2 {{"));
    }
    open(&gates);
    let ran = running.wait();
    assert_eq!(ran.code, Some(1), "one that fails is told: {ran:?}");
    for index in 0..2 {
        check_log(&home, index, 2, 6);
        let line = format!("agents-{index}: exited, code 3, ");
        assert!(ran.text().contains(&line), "{ran:?}");
    }
}

#[test]
fn what_can_not_be_started_is_told() {
    let home = Home::with_host().expect("a home with a host");
    let run = |arguments: &[&str]| {
        let mut command = python(&home, &["orchestrator.py", "--banger"]);
        command
            .arg(home.binary())
            .args(arguments)
            .stdin(Stdio::null());
        Running::spawn(command).wait()
    };
    let ran = run(&["--vm", HOST, "--", "nosuchprogram"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.text().contains("(preflight-commands)"), "{ran:?}");
    let ran = run(&["--repository", "/nosuch", "--", "true"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.errors().contains("hint: "), "{ran:?}");
    assert_eq!(run(&["--", "true"]).code, Some(2));
}

#[test]
fn its_own_tests_pass() {
    let home = Home::new().expect("a home");
    let ran = Running::spawn(python(&home, &["-m", "unittest", "-q"])).wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
