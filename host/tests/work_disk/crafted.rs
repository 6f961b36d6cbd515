//! Images that somebody hostile made: an error or an answer, in bounded time and memory, and never
//! a panic.

use crate::fixture::{Disk, Numbers, guest};
use crate::sessions::{backend, id, state_root};
use banger_core::session::{OutputStream, StdinKind};
use banger_host::machine::work_disk::{DEADLINE, Ext4Error, WorkDiskError};
use banger_host::plugin::Session;
use banger_host::session::stopped::{self, LogFrom, StoppedLog};
use banger_host::vm::StoppedGuest;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

/// Pieces of a log that are read: a crafted file may seem to have 16 TiB.
const PIECES: usize = 16;

/// Reads all that the daemon would. An error is as good as an answer, but for one that tells of a
/// panic.
async fn read_all(disk: &Disk) -> Result<usize, String> {
    let work = match disk.open().await {
        Ok(work) => work,
        Err(WorkDiskError::Reader { .. }) => panic!("the reader panicked"),
        Err(error) => return Err(error.to_string()),
    };
    let guest = StoppedGuest {
        disk: work,
        state_root: state_root(),
    };
    let asked = [(id(1), StdinKind::Pipe), (id(2), StdinKind::Pipe)];
    let known = stopped::sessions(&guest, &backend(), &asked).await;
    let all = stopped::all_sessions(&guest, &backend()).await;
    let mut answers = 0;
    for result in [known, all] {
        match result {
            Ok(sessions) => answers += sessions.len(),
            Err(failure) => assert_ne!(failure.kind, banger_core::Kind::Internal, "{failure}"),
        }
    }
    for (n, from) in [(1, LogFrom::Beginning), (2, LogFrom::LastLines(5))] {
        let session = Session {
            id: id(n),
            state_root: state_root(),
            stdin_kind: StdinKind::Pipe,
        };
        let log = StoppedLog::open(&guest, &backend(), &session, OutputStream::Stdout, from).await;
        let Ok(mut log) = log else { continue };
        for _ in 0..PIECES {
            match log.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(failure) => {
                    assert_ne!(failure.kind, banger_core::Kind::Internal, "{failure}");
                    break;
                }
            }
        }
    }
    Ok(answers)
}

fn disk_with_sessions() -> Disk {
    let disk = Disk::new();
    for n in 1..=2 {
        disk.session(
            n,
            &[
                ("status", b"exited\n"),
                ("exit-code", b"0\n"),
                ("stdout", &b"line of a log\n".repeat(9000)),
                ("host-record", b"{}"),
            ],
        );
    }
    // A file whose extents fill a block of their own.
    let log = std::fs::File::create(disk.in_session(2, "stdout")).expect("created");
    for n in 0..200 {
        log.write_all_at(b"here\n", n * 8192).expect("written");
    }
    for n in 0..300 {
        disk.file(format!(".local/state/banger/sessions/{n:032}"), "");
    }
    disk.make(8);
    disk
}

#[tokio::test]
async fn two_hundred_mutations_neither_panic_nor_hang() {
    let disk = disk_with_sessions();
    // A journal to be replayed, so that it is mutated also.
    let inode = disk.path("inode");
    std::fs::write(&inode, vec![0; 1024]).expect("written");
    let journal = format!(
        "jo -c -v 3\njw -b 7000,7001 -r 7002 {}\njc\n",
        inode.display()
    );
    std::fs::write(&inode, vec![0; 2048]).expect("written");
    disk.debugfs(&journal);
    assert_eq!(read_all(&disk).await, Ok(4), "before");

    let image = std::fs::read(disk.image()).expect("read");
    // The blocks that hold anything.
    let used: Vec<usize> = image
        .chunks(1024)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(n, _)| n * 1024)
        .collect();
    let mut numbers = Numbers(0x5eed_5eed);
    let mut changed = 0;
    for round in 0..rounds() {
        let mut mutated = image.clone();
        for _ in 0..1 + numbers.below(8 << (round % 4)) {
            let (from, length) = match numbers.below(3) {
                // What all else is found by: most of the superblock's fields, the first group.
                0 => (1024, 0x118),
                1 => (2048, 64),
                _ => (used[numbers.below(used.len() as u64) as usize], 1024),
            };
            let at = from + numbers.below(length) as usize;
            mutated[at] = match numbers.below(3) {
                0 => 0xff,
                1 => 0,
                _ => numbers.next() as u8,
            };
        }
        // Most that is changed there has it refused at once: this leaves the rest to be read.
        if round % 2 == 0 {
            mutated[1024..2048].copy_from_slice(&image[1024..2048]);
        }
        std::fs::write(disk.image(), &mutated).expect("written");
        let began = Instant::now();
        changed += usize::from(read_all(&disk).await != Ok(4));
        let took = began.elapsed();
        assert!(took < 3 * DEADLINE, "{round}: {took:?}");
    }
    assert!(changed > 50, "only {changed} did anything");
}

/// `BANGER_MUTATIONS` asks for more of them.
fn rounds() -> u64 {
    let asked = std::env::var("BANGER_MUTATIONS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[tokio::test]
async fn a_truncated_image_is_refused() {
    let disk = disk_with_sessions();
    let whole = std::fs::read(disk.image()).expect("read");
    for length in [
        0,
        1,
        1023,
        1024,
        1500,
        2047,
        2048,
        4096,
        1 << 20,
        whole.len() - 1,
    ] {
        std::fs::write(disk.image(), &whole[..length]).expect("written");
        let refused = read_all(&disk).await;
        assert!(refused.is_err(), "{length}: {refused:?}");
    }
}

#[tokio::test]
async fn random_bytes_are_no_file_system() {
    let disk = Disk::new();
    let mut numbers = Numbers(7);
    for _ in 0..20 {
        let mut bytes = numbers.bytes(1 << 18);
        std::fs::write(disk.image(), &bytes).expect("written");
        assert!(read_all(&disk).await.is_err());
        // Behind the mark, so that more of it is believed.
        bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[1024 + 0x60..1024 + 0x64].copy_from_slice(&[0x42, 0, 0, 0]);
        bytes[1024 + 0x18..1024 + 0x1c].copy_from_slice(&[0, 0, 0, 0]);
        std::fs::write(disk.image(), &bytes).expect("written");
        assert!(read_all(&disk).await.is_err());
    }
}

/// What the superblock says of sizes must size nothing here.
#[tokio::test]
async fn absurd_measures_cost_nothing() {
    let disk = disk_with_sessions();
    let image = std::fs::File::options()
        .write(true)
        .open(disk.image())
        .expect("opened");
    let whole = std::fs::read(disk.image()).expect("read");
    // Blocks, block size, blocks and inodes in a group, inode size, descriptor size.
    for field in [0x4, 0x14, 0x18, 0x20, 0x28, 0x58, 0xfe, 0x150] {
        for value in [0_u32, 1, 0x7fff_ffff, u32::MAX] {
            image
                .write_all_at(&value.to_le_bytes(), 1024 + field)
                .expect("written");
            let began = Instant::now();
            let _ = read_all(&disk).await;
            assert!(began.elapsed() < DEADLINE, "{field:#x} {value:#x}");
            image.write_all_at(&whole, 0).expect("written");
        }
    }
    assert_eq!(read_all(&disk).await, Ok(4));
}

#[tokio::test]
async fn extents_that_lead_in_circles_end() {
    let disk = disk_with_sessions();
    let stdout = format!(".local/state/banger/sessions/{}/stdout", id(2));
    let told = disk.debugfs(&format!("dump_extents {stdout}\n"));
    // ` 0/ 1   1/  3     0 -   663  1623            664`: the first index, and its block.
    let index: u64 = told
        .lines()
        .find(|line| line.trim().starts_with("0/ 1"))
        .and_then(|line| line.split_ascii_whitespace().rev().nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no index in {told}"));
    let image = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk.image())
        .expect("opened");
    // The block becomes an index whose every entry is the block itself.
    let mut node = Vec::new();
    for number in [0xf30a_u16, 84, 84, 1] {
        node.extend(number.to_le_bytes());
    }
    node.extend([0; 4]);
    for n in 0..84_u32 {
        node.extend(n.to_le_bytes());
        node.extend((index as u32).to_le_bytes());
        node.extend([0; 4]);
    }
    image.write_all_at(&node, index * 1024).expect("written");
    let work = disk.open().await.expect("opened");
    let path = guest(&format!("/root/{stdout}"));
    let read = work
        .look(move |look| {
            let file = look.file(&path)?.expect("is there");
            look.read(&file, 0, 100)
        })
        .await;
    assert!(
        matches!(
            &read,
            Err(WorkDiskError::Content {
                source: Ext4Error::Damaged { .. },
                ..
            })
        ),
        "{read:?}"
    );
}
