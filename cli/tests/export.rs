//! Is an exported patch whole or absent, and from the base that was put in?

mod fake;

use banger_core::frame::Frame;
use banger_core::protocol::Call;
use banger_core::protocol::workspace::ExportReply;
use banger_core::workspace::{Change, ChangeKind};
use fake::{Asked, Fake, Talk};
use serde_json::json;

const HEAD: &str = "1111111111111111111111111111111111111111";

/// A machine with one working copy, whose patch is what `talk` sends.
fn exporting(talk: impl Fn(&mut Talk) + Clone + Send + Sync + 'static) -> Fake {
    Fake::new(move |asked: &mut Asked| match asked.call.clone() {
        Call::VmGet(_) => asked.reply(&json!({
            "id": "0123456789ab", "name": "x", "driver": "qemu", "state": "running",
            "image": "base", "cpus": 1, "memory_mib": 512, "work_disk_mib": 1024,
            "created_at_ms": 0, "ssh": null, "host_key": "SHA256:x",
            "workspaces": [{
                "path": "/src", "guest_path": "/root/repo", "kind": "git",
                "mode": "shallow_overlay", "head_commit": HEAD, "branch": "main",
                "files_laid_over": 0, "files_deleted": 0, "bytes_sent": 1, "prepared_at_ms": 0,
            }],
        })),
        Call::WorkspaceExport(export) => {
            let base = export.base_commit.expect("a base");
            let patch = asked.stream(talk.clone());
            asked.reply(&ExportReply {
                base_ref: base.clone(),
                base_commit: base,
                head_commit: Some("2222222222222222".into()),
                branch: Some("main".into()),
                commits: 1,
                tree: HEAD.into(),
                more: false,
                submodules: vec![],
                changes: vec![Change {
                    kind: ChangeKind::Modified,
                    path: "a\x1bb".into(),
                    old_path: None,
                }],
                patch,
            });
        }
        other => panic!("{other:?}"),
    })
}

fn whole(talk: &mut Talk) {
    talk.write(Frame::Stdout(b"diff \xff".to_vec()));
    talk.write(Frame::Stdout(b"\n".to_vec()));
    talk.write(Frame::Exit(0));
}

const SUMMARY: &str = "base 111111111111, head 222222222222, 1 commit, 1 file\n";

#[test]
fn a_patch_goes_to_standard_output_and_its_summary_elsewhere() {
    let fake = exporting(whole);
    fake.banger(&["vm", "workspace", "export", "x"])
        .assert()
        .success()
        .stdout(&b"diff \xff\n"[..])
        .stderr(SUMMARY);
    fake.banger(&[
        "vm",
        "workspace",
        "export",
        "x",
        "--base-commit",
        "other",
        "-q",
    ])
    .assert()
    .success()
    .stderr("");
}

#[test]
fn a_file_is_replaced_by_the_whole_patch() {
    let fake = exporting(whole);
    let path = fake.home().join("work.patch");
    std::fs::write(&path, "old").expect("writes");
    fake.banger(&["vm", "workspace", "export", "x", "--output", "work.patch"])
        .assert()
        .success()
        .stdout("")
        .stderr(format!(
            "work.patch: 7 B; `git apply work.patch` applies it\n{SUMMARY}"
        ));
    assert_eq!(std::fs::read(&path).expect("reads"), b"diff \xff\n");
    let output = fake
        .banger(&[
            "--json",
            "vm",
            "workspace",
            "export",
            "x",
            "--output",
            "work.patch",
        ])
        .assert()
        .success()
        .stderr("")
        .get_output()
        .clone();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["bytes"], 7);
    assert_eq!(json["base_commit"], HEAD);
    assert!(json.get("patch").is_none());
}

#[test]
fn half_a_patch_leaves_everything_as_it_was() {
    let breaks: [fn(&mut Talk); 2] = [
        |talk| talk.write(Frame::Stdout(b"half".to_vec())),
        |talk| {
            talk.write(Frame::Stdout(b"half".to_vec()));
            talk.write(Frame::Exit(1));
        },
    ];
    for (talk, code) in breaks.into_iter().zip([11, 13]) {
        let fake = exporting(talk);
        let path = fake.home().join("out/work.patch");
        std::fs::create_dir(fake.home().join("out")).expect("a directory");
        std::fs::write(&path, "old").expect("writes");
        fake.banger(&["vm", "workspace", "export", "x", "-o", "out/work.patch"])
            .assert()
            .code(code);
        assert_eq!(std::fs::read(&path).expect("reads"), b"old");
        assert_eq!(
            std::fs::read_dir(fake.home().join("out"))
                .expect("reads")
                .count(),
            1
        );
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_the_work() {
    let fake = Fake::new(|asked| panic!("{:?}", asked.call));
    let output = fake
        .banger(&["vm", "workspace", "export", "x", "-o", "missing/work.patch"])
        .assert()
        .code(10)
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.starts_with("error: can't write `missing/work.patch`: "),
        "{text}"
    );
}

#[test]
fn what_differs_can_be_listed() {
    let fake = exporting(|_| {});
    fake.banger(&["vm", "workspace", "export", "x", "--stat"])
        .assert()
        .success()
        .stdout("M  a\\x1bb\n")
        .stderr(SUMMARY);
    fake.banger(&["--json", "vm", "workspace", "export", "x"])
        .assert()
        .code(2);
}

#[test]
fn a_place_where_nothing_was_put_is_named() {
    let fake = exporting(whole);
    let output = fake
        .banger(&["vm", "workspace", "export", "x", "--guest-path", "/srv"])
        .assert()
        .code(3)
        .stdout("")
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.contains("no working copy was put into `x` at `/srv`"),
        "{text}"
    );
}
