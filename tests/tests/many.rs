//! Does banger bear many sessions and many clients, and what do they cost?

use std::fs;
use std::time::{Duration, Instant};

use banger_tests::home::{HOST, Home};
use banger_tests::rpc::Rpc;
use banger_tests::stream::{Brought, Stream};
use rustix::process::Pid;
use serde_json::{Value, json};

fn home() -> Home {
    Home::with_host().expect("a home with a host")
}

/// Asks all of this at once over one connection, and waits for every answer.
fn ask_all(rpc: &mut Rpc, method: &str, params: &[Value]) -> Vec<Value> {
    const FIRST: usize = 1_000_000;
    for (number, params) in params.iter().enumerate() {
        let request =
            json!({"jsonrpc": "2.0", "id": FIRST + number, "method": method, "params": params});
        rpc.send_line(request.to_string().as_bytes()).expect("sent");
    }
    let mut answers = vec![Value::Null; params.len()];
    let mut left = params.len();
    while left > 0 {
        let mut message = rpc.next_message().expect("an answer").expect("no hang-up");
        let Some(id) = message["id"].as_u64() else {
            continue;
        };
        assert!(message["error"].is_null(), "{method}: {}", message["error"]);
        let number = usize::try_from(id).expect("small") - FIRST;
        answers[number] = message["result"].take();
        left -= 1;
    }
    answers
}

fn states(rpc: &mut Rpc) -> Vec<String> {
    let list = rpc
        .call("guest.session.list", json!({"vm": HOST}))
        .expect("a list");
    let sessions = list["sessions"].as_array().expect("sessions");
    sessions
        .iter()
        .map(|session| {
            session["snapshot"]["state"]
                .as_str()
                .expect("a state")
                .into()
        })
        .collect()
}

/// Time that a process has used on the CPU, as user and as system.
fn cpu_time(pid: Pid) -> Duration {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("it runs");
    let after_name = text.rsplit(')').next().expect("a name");
    let fields: Vec<u64> = after_name
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    // proc(5): utime is the 14th field, stime the 15th; the state is the 3rd. 100 ticks a second.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}

#[test]
fn a_hundred_sessions_are_started_listed_waited_for_and_stopped() {
    const COUNT: usize = 100;
    const LISTS: u32 = 20;
    let home = home();
    let mut rpc = home.rpc();
    let daemon = home.holder().expect("a daemon");
    let named = |number: usize| format!("s{number}");
    let begun = Instant::now();
    let starts: Vec<Value> = (0..COUNT)
        .map(|number| {
            // Half of them end when they read a line, with a code of their own.
            json!({"vm": HOST, "name": named(number), "tags": {"half": (number % 2).to_string()},
                   "command": ["bash", "-c", format!("read -r line; echo \"$line\"; exit {}", number / 2)]})
        })
        .collect();
    ask_all(&mut rpc, "guest.session.start", &starts);
    eprintln!("{COUNT} starts: {:.1} s", begun.elapsed().as_secs_f64());

    let list = states(&mut rpc);
    assert_eq!(
        (list.len(), list.iter().all(|state| state == "running")),
        (COUNT, true)
    );
    let (begun, cpu) = (Instant::now(), cpu_time(daemon));
    for _ in 0..LISTS {
        assert_eq!(states(&mut rpc).len(), COUNT);
    }
    eprintln!(
        "guest.session.list of {COUNT}: {:?}, of which {:?} is the daemon's CPU time",
        begun.elapsed() / LISTS,
        (cpu_time(daemon) - cpu) / LISTS
    );

    // Everybody waits before anybody ends.
    let begun = Instant::now();
    let socket = home.socket();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut rpc = Rpc::greet(&socket).expect("a daemon");
            let waits: Vec<Value> = (0..COUNT)
                .map(|number| json!({"vm": HOST, "session": named(number), "timeout_ms": 100_000}))
                .collect();
            ask_all(&mut rpc, "guest.session.wait", &waits)
        });
        let sends: Vec<Value> = (0..COUNT)
            .step_by(2)
            .map(|number| json!({"vm": HOST, "session": named(number), "message": "go\n"}))
            .collect();
        ask_all(&mut rpc, "guest.session.send", &sends);
        let stops: Vec<Value> = (1..COUNT)
            .step_by(2)
            .map(|number| json!({"vm": HOST, "session": named(number)}))
            .collect();
        ask_all(&mut rpc, "guest.session.stop", &stops);
        let ended = waiting.join().expect("no panic");
        for (number, session) in ended.iter().enumerate() {
            let expected = if number % 2 == 0 { number / 2 } else { 143 };
            assert_eq!(session["name"], named(number));
            assert_eq!(session["snapshot"]["exit_code"], expected, "{session}");
        }
    });
    eprintln!(
        "{COUNT} waits, {} sends, {} stops: {:.1} s",
        COUNT / 2,
        COUNT / 2,
        begun.elapsed().as_secs_f64()
    );
    let list = states(&mut rpc);
    assert_eq!(
        (list.len(), list.iter().all(|state| state == "exited")),
        (COUNT, true)
    );
    let of_half = rpc
        .call(
            "guest.session.list",
            json!({"tags": {"half": "1"}, "states": ["exited"]}),
        )
        .expect("a list");
    assert_eq!(
        of_half["sessions"].as_array().map(Vec::len),
        Some(COUNT / 2)
    );
}

#[test]
fn a_thousand_attaches_leave_nothing_behind() {
    const HALF: usize = 500;
    /// Connections that are kept for later: one that is shared, and spare ones.
    const KEPT: usize = 4;
    const LEAK_LIMIT_KIB: u64 = 8 << 10;
    let home = home();
    let start = [
        "vm", "session", "start", HOST, "--name", "echo", "--", "cat",
    ];
    let _ = home.run(start).ok();
    let mut rpc = home.rpc();
    let cycle = |rpc: &mut Rpc, number: usize| {
        let params = json!({"vm": HOST, "session": "echo", "writer": format!("w{}", number % 7)});
        let reply = rpc.call("guest.session.attach", params).expect("attached");
        let mut stream = Stream::open(&reply).expect("opened");
        let line = format!("{number}\n");
        let frame = banger_core::frame::Frame::Stdin(line.clone().into_bytes());
        stream.write(&frame).expect("written");
        let mut brought = Brought::default();
        let whole = |brought: &Brought| brought.stdout.ends_with(line.as_bytes());
        stream.until(&mut brought, whole).expect("echoed");
        assert_eq!(brought.stdout, line.as_bytes(), "only what is new");
        stream.leave().expect("open");
    };
    let memory_kib = |rpc: &mut Rpc| {
        let info = rpc.call("daemon.info", json!({})).expect("info");
        info["memory_kib"].as_u64().expect("a number")
    };
    let processes = || home.sshd.as_ref().map_or(0, |sshd| sshd.processes());
    let begun = Instant::now();
    for number in 0..10 {
        cycle(&mut rpc, number);
    }
    let first = memory_kib(&mut rpc);
    for number in 0..HALF {
        cycle(&mut rpc, number);
    }
    let second = memory_kib(&mut rpc);
    for number in HALF..2 * HALF {
        cycle(&mut rpc, number);
    }
    let third = memory_kib(&mut rpc);
    eprintln!(
        "{} attaches: {:.1} s; memory {first} KiB, {second} KiB after {HALF}, {third} KiB after {}",
        2 * HALF,
        begun.elapsed().as_secs_f64(),
        2 * HALF
    );
    assert!(
        third < second + LEAK_LIMIT_KIB,
        "{first}, {second}, {third} KiB"
    );
    let sshd = home.sshd.as_ref().expect("an sshd");
    banger_tests::until("only the connections that are kept are left", || {
        sshd.connections() <= KEPT
    });
    // A connection is one process as root and two as another user; each may still run a script.
    banger_tests::until("the guest's processes are gone", || {
        processes() <= 2 * sshd.connections()
    });
    let _ = home.run(["vm", "session", "kill", HOST, "echo"]).ok();
    let readers = home.guest_home().join(".local/state/banger/sessions");
    let left: Vec<_> = banger_tests::home::files(&readers)
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("/readers/"))
        .collect();
    assert!(
        left.len() <= 1,
        "readers that are gone are forgotten: {left:?}"
    );
}
