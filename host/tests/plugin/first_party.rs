//! The plugins in the binary, through the engine.

use banger_core::session::{OutputStream, StdinKind};
use banger_core::{Output, Script, SessionId};
use banger_host::plugin::{
    Follow, LaunchRequest, Preflight, PreflightRequest, Registry, Session, Verdict, embedded,
};
use std::sync::LazyLock;
use std::time::Duration;

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::load(embedded(), None, None).expect("the engine starts"));

fn session() -> Session {
    Session {
        id: SessionId::from_random([1, 2, 3, 4, 5, 6]),
        state_root: "/root/.local/state/banger/sessions"
            .parse()
            .expect("a path"),
        stdin_kind: StdinKind::Pipe,
    }
}

fn launch() -> LaunchRequest {
    LaunchRequest {
        session: session(),
        command: vec![b"printf".to_vec(), b"%s\xff'\n$(id)".to_vec()],
        environment: vec![("A".into(), b"\xfe".to_vec())],
        cwd: "/root/repo".parse().expect("a path"),
        columns: 80,
        rows: 24,
        log_limit: 0,
        host_record: b"{}".to_vec(),
        options: Vec::new(),
    }
}

#[test]
fn all_of_them_are_sound() {
    assert_eq!(REGISTRY.list().len(), embedded().len());
    for info in REGISTRY.list() {
        assert_eq!(info.error, None, "{}", info.name);
        assert_eq!(info.origin, banger_host::plugin::Origin::Embedded);
        assert!(
            info.interfaces.contains(&"metadata@0.1.0".to_owned()),
            "{}",
            info.name
        );
    }
}

/// Every script that every backend makes for this session; refusals are left out.
fn scripts() -> Vec<(String, Script)> {
    let session = session();
    let mut scripts = Vec::new();
    for backend in REGISTRY.session_backends() {
        let name = &backend.info().name;
        let mut add = |case: &str, script: Result<Script, _>| match script {
            Ok(script) => scripts.push((format!("{name} {case}"), script)),
            Err(error) => {
                let failure = banger_core::Failure::from(error);
                assert_eq!(
                    failure.kind,
                    banger_core::Kind::Invalid,
                    "{name} {case}: {failure}"
                );
            }
        };
        add("launch", backend.launch(&launch()));
        add(
            "inspect",
            backend.inspect(&session.state_root, std::slice::from_ref(&session.id)),
        );
        add("signal", backend.signal(&session, "TERM"));
        add("stop", backend.stop(&session, Duration::from_secs(3)));
        add("attach-input", backend.attach_input(&session, "w"));
        add(
            "attach-output",
            backend.attach_output(&session, OutputStream::Stdout, 7, Follow::UntilEnd),
        );
        add(
            "offset-of-lines",
            backend.offset_of_lines(&session, OutputStream::Stdout, 10),
        );
        add("send", backend.send(&session, Duration::from_secs(5)));
        add("resize", backend.resize(&session, 100, 30));
        add("remove", backend.remove(&session));
        backend.paths(&session).expect("paths below the state root");
    }
    scripts
}

#[test]
fn the_same_input_gives_the_same_scripts() {
    let first = scripts();
    assert!(
        REGISTRY.session_backends().is_empty() || first.len() > 8,
        "most functions make a script"
    );
    for _ in 0..3 {
        assert_eq!(scripts(), first);
    }
    for (case, script) in &first {
        let checked = std::process::Command::new("bash")
            .args(["-n", "-c", &script.body])
            .output()
            .expect("bash runs");
        assert!(checked.status.success(), "{case}: {checked:?}");
    }
}

#[test]
fn garbage_from_the_guest_is_no_panic() {
    let request = PreflightRequest {
        cwd: "/".parse().expect("a path"),
        program: b"true".to_vec(),
        commands: Vec::new(),
    };
    for stdout in [
        &b""[..],
        b"\xff\x00\n",
        &[b'a'; 1 << 20],
        b"\n\n\n",
        b"{}",
        b"1 2 3 4 5",
    ] {
        for exit_code in [-1, 0, 1, 255] {
            let output = Output {
                exit_code,
                stdout: stdout.to_vec(),
                stderr: stdout.to_vec(),
            };
            let sound = |fault: &banger_host::plugin::Fault| {
                use banger_host::plugin::Fault;
                assert!(
                    matches!(fault, Fault::Refused { .. }),
                    "{fault:?} for {output:?}"
                );
            };
            for backend in REGISTRY.session_backends() {
                if let Err(error) = backend.read_inspect(&[], &output) {
                    sound(&error.fault);
                }
            }
            for workspace in REGISTRY.workspaces() {
                if let Err(error) = workspace.read_inspect(&output) {
                    sound(&error.fault);
                }
            }
            for preflight in REGISTRY.preflights() {
                read_every_check(preflight, &request, &output);
            }
        }
    }
}

fn read_every_check(preflight: &Preflight, request: &PreflightRequest, output: &Output) {
    for check in preflight.checks(request).expect("checks") {
        match preflight
            .read_check(&check.id, request, output)
            .expect("no fault")
        {
            Verdict::Passed => {}
            Verdict::Failed(failure) => {
                assert_eq!(failure.stage, format!("preflight-{}", check.id));
                assert!(
                    !failure.message.contains(['\u{1b}', '\n', '\0']),
                    "{failure}"
                );
            }
        }
    }
}
