//! What is read of a disk that nobody crafted.

use crate::fixture::{Disk, Numbers, guest, program, run};
use banger_host::machine::work_disk::{Ext4Error, PIECE_LIMIT, WorkDiskError};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[tokio::test]
async fn files_are_read_and_nothing_else_is_a_file() {
    let disk = Disk::new();
    disk.file("a/b/file", "content\n");
    disk.file("a/empty", "");
    disk.file(std::ffi::OsStr::from_bytes(b"a/\xff\xfe\n"), "odd name");
    std::os::unix::fs::symlink("b/file", disk.path("a/link")).expect("linked");
    std::os::unix::fs::symlink("b", disk.path("a/linked-dir")).expect("linked");
    run(program("mkfifo").arg(disk.path("a/fifo")));
    disk.make(64);
    let work = disk.open().await.expect("opened");
    work.look(|look| {
        let read = |path: &str| look.contents(&guest(path), 100);
        assert_eq!(read("/root/a/b/file")?.as_deref(), Some(&b"content\n"[..]));
        assert_eq!(
            read("/root/./a//b/./file")?.as_deref(),
            Some(&b"content\n"[..])
        );
        assert_eq!(read("/root/a/empty")?.as_deref(), Some(&b""[..]));
        for none in [
            "/root",
            "/root/a",
            "/root/a/b",
            "/root/a/link",
            "/root/a/linked-dir/file",
            "/root/a/b/file/more",
            "/root/a/fifo",
            "/root/a/no",
            // Not on this disk.
            "/a/b/file",
            "/rootless/a/b/file",
            "/etc/passwd",
        ] {
            assert_eq!(read(none)?, None, "{none}");
        }
        assert_eq!(
            look.contents(&guest("/root/a/b/file"), 7)?,
            None,
            "too long"
        );
        let mut names = look.names(&guest("/root/a"))?;
        names.sort();
        let expected: [&[u8]; 6] = [
            b"b",
            b"empty",
            b"fifo",
            b"link",
            b"linked-dir",
            b"\xff\xfe\n",
        ];
        assert_eq!(names, expected);
        assert!(look.names(&guest("/root/a/linked-dir"))?.is_empty());
        assert!(!look.is_directory(&guest("/root/a/linked-dir"))?);
        assert!(look.is_directory(&guest("/root/a/b"))?);
        Ok(())
    })
    .await
    .expect("read");
}

#[tokio::test]
async fn sparse_files_in_many_pieces_are_read_as_they_are() {
    let disk = Disk::new();
    let file = std::fs::File::create(disk.path("sparse")).expect("created");
    let length = 40 << 20;
    file.set_len(length).expect("sized");
    let mut numbers = Numbers(1);
    // More than an inode and a block of extents hold.
    for n in 0..1500 {
        let bytes = numbers.bytes(100);
        file.write_all_at(&bytes, n * 20_000).expect("written");
    }
    let expected = std::fs::read(disk.path("sparse")).expect("read");
    disk.make(128);
    let work = disk.open().await.expect("opened");
    work.look(move |look| {
        let file = look.file(&guest("/root/sparse"))?.expect("is there");
        assert_eq!(file.length(), length);
        for (offset, limit) in [(0, 1), (19_999, 2), (123_457, 500_000), (length - 3, 10)] {
            let piece = look.read(&file, offset, limit)?;
            let from = offset as usize;
            assert!(piece == expected[from..(from + limit).min(expected.len())]);
        }
        assert!(look.read(&file, length, 10)?.is_empty());
        assert!(look.read(&file, u64::MAX, 10)?.is_empty());
        let mut whole = Vec::new();
        while whole.len() < expected.len() {
            let piece = look.read(&file, whole.len() as u64, usize::MAX)?;
            assert!(!piece.is_empty() && piece.len() <= PIECE_LIMIT);
            whole.extend(piece);
        }
        assert!(whole == expected);
        Ok(())
    })
    .await
    .expect("read");
}

#[tokio::test]
async fn what_was_allocated_and_never_written_is_zeros() {
    let disk = Disk::new();
    disk.file("stale", vec![b'x'; 256 << 10]);
    disk.make(64);
    // The blocks of the removed file are the first that are free again.
    disk.debugfs(
        "rm stale\nwrite /dev/null reserved\nfallocate reserved 0 255\nsif reserved size 262144\n",
    );
    let work = disk.open().await.expect("opened");
    let bytes = work
        .look(|look| {
            let file = look.file(&guest("/root/reserved"))?.expect("is there");
            look.read(&file, 0, PIECE_LIMIT)
        })
        .await
        .expect("read");
    assert_eq!(bytes.len(), 262_144);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn the_last_lines_are_found_from_the_end() {
    let disk = Disk::new();
    let mut long = vec![b'-'; 3 << 20];
    long.extend_from_slice(b"\none\ntwo\nthree");
    disk.file("long", &long);
    disk.file("ended", "one\ntwo\nthree\n");
    disk.file("blank", "\n\n\n");
    disk.make(64);
    let work = disk.open().await.expect("opened");
    work.look(move |look| {
        let tail = |name: &str, start, lines| -> Result<Vec<u8>, Ext4Error> {
            let file = look
                .file(&guest(&format!("/root/{name}")))?
                .expect("is there");
            let from = look.start_of_last_lines(&file, start, lines)?;
            look.read(&file, from, PIECE_LIMIT)
        };
        assert_eq!(tail("ended", 0, 0)?, b"");
        assert_eq!(tail("ended", 0, 1)?, b"three\n");
        assert_eq!(tail("ended", 0, 2)?, b"two\nthree\n");
        assert_eq!(tail("ended", 0, 9)?, b"one\ntwo\nthree\n");
        assert_eq!(tail("ended", 6, 9)?, b"o\nthree\n");
        assert_eq!(tail("blank", 0, 2)?, b"\n\n");
        assert_eq!(tail("long", 0, 3)?, b"one\ntwo\nthree");
        assert_eq!(tail("long", 0, 4)?.len(), 1 << 20, "from the beginning");
        Ok(())
    })
    .await
    .expect("read");
}

#[tokio::test]
async fn a_disk_that_changes_is_not_believed() {
    let disk = Disk::new();
    disk.file("file", "before");
    let image = disk.make(64);
    let work = disk.open().await.expect("opened");
    let raw = std::fs::File::options()
        .write(true)
        .open(&image)
        .expect("opened");
    raw.write_all_at(b"x", 60 << 20).expect("written");
    let read = work
        .look(|look| look.contents(&guest("/root/file"), 10))
        .await;
    assert!(matches!(read, Err(WorkDiskError::InUse { .. })), "{read:?}");
}

#[tokio::test]
async fn a_disk_that_qemu_has_open_is_refused() {
    let disk = Disk::new();
    let image = disk.make(64);
    disk.open().await.expect("opened");
    let mut qemu = program("qemu-io")
        .args(["-f", "raw"])
        .arg(&image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("qemu-io starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        match disk.open().await {
            Err(error) => break error,
            Ok(_) if Instant::now() > deadline => panic!("it was never refused"),
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(matches!(refused, WorkDiskError::InUse { .. }), "{refused}");
    drop(qemu.stdin.take());
    qemu.wait().expect("ended");
    disk.open().await.expect("opened again");
}
