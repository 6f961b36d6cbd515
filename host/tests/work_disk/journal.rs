//! What a machine that was killed left in its journal. The journal is written by debugfs, and
//! debugfs, which is not banger's code, also says what is right.

use crate::fixture::{Disk, guest};
use std::os::unix::fs::FileExt as _;

/// A disk with a file of three blocks, and transactions in its journal.
struct Killed {
    disk: Disk,
    /// Where the file's blocks are.
    blocks: Vec<u64>,
}

const BLOCK: usize = 1024;

/// Files of the tree, each in place of a block of the file; and blocks that are revoked.
type Transaction<'a> = (&'a [(&'a str, usize)], &'a [usize]);

impl Killed {
    fn new(features: &str) -> Self {
        let disk = Disk::new();
        disk.file(
            "file",
            [b"old0", b"old1", b"old2"].map(|text| block(text)).concat(),
        );
        for text in ["new0", "new1", "new2", "last"] {
            disk.file(text, block(text.as_bytes()));
        }
        // What would be taken for a block of the journal's own.
        disk.file("magic", block(&0xc03b_3998_u32.to_be_bytes()));
        disk.make(64);
        if !features.is_empty() {
            disk.debugfs(&format!("feature {features}\n"));
        }
        let blocks = disk.debugfs("blocks file\n");
        let blocks: Vec<u64> = blocks
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert_eq!(blocks.len(), 3);
        Self { disk, blocks }
    }

    /// Writes transactions; `open` says how the journal is opened.
    fn journal(&self, open: &str, transactions: &[Transaction<'_>]) {
        let mut commands = format!("jo {open}\n");
        for (n, (written, revoked)) in transactions.iter().enumerate() {
            let join = |blocks: Vec<usize>| {
                let blocks: Vec<_> = blocks.iter().map(|n| self.blocks[*n].to_string()).collect();
                blocks.join(",")
            };
            let name = format!("transaction{n}");
            let content: Vec<u8> = written
                .iter()
                .flat_map(|(name, _)| std::fs::read(self.disk.path(name)).expect("read"))
                .collect();
            std::fs::write(self.disk.path(&name), content).expect("written");
            commands.push_str("jw");
            if !written.is_empty() {
                commands += &format!(" -b {}", join(written.iter().map(|(_, at)| *at).collect()));
            }
            if !revoked.is_empty() {
                commands += &format!(" -r {}", join(revoked.to_vec()));
            }
            commands += &format!(" {}\n", self.disk.path(&name).display());
        }
        commands.push_str("jc\n");
        self.disk.debugfs(&commands);
    }

    async fn read(&self) -> Vec<String> {
        let work = self.disk.open().await.expect("opened");
        let bytes = work
            .look(|look| look.contents(&guest("/root/file"), 3 * BLOCK))
            .await
            .expect("read")
            .expect("is there");
        bytes
            .chunks(BLOCK)
            .map(|block| {
                assert!(block[4..].iter().all(|byte| *byte == b'.'));
                String::from_utf8_lossy(&block[..4]).into_owned()
            })
            .collect()
    }

    /// What is right: what is there after debugfs has brought it to its place.
    async fn check(&self, expected: [&str; 3]) {
        assert_eq!(self.read().await, expected, "with its journal");
        self.disk.debugfs("jr\n");
        assert_eq!(self.read().await, expected, "after recovery");
    }

    /// Where in the image each block of the journal is.
    fn journal_blocks(&self) -> Vec<u64> {
        let blocks = self.disk.debugfs("blocks <8>\n");
        blocks
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .map(|block: u64| block * BLOCK as u64)
            .collect()
    }

    fn patch(&self, offset: u64, bytes: &[u8]) {
        let image = std::fs::File::options()
            .write(true)
            .open(self.disk.image())
            .expect("opened");
        image.write_all_at(bytes, offset).expect("written");
    }
}

fn block(text: &[u8]) -> Vec<u8> {
    let mut block = vec![b'.'; BLOCK];
    block[..text.len()].copy_from_slice(text);
    block
}

const CHECKED: &str = "-c -v 3";

#[tokio::test]
async fn committed_blocks_are_read_from_the_journal() {
    for (features, open) in [("", CHECKED), ("-metadata_csum -64bit", "")] {
        let killed = Killed::new(features);
        killed.journal(open, &[(&[("new0", 0), ("new2", 2)], &[])]);
        assert_eq!(killed.read().await, ["new0", "old1", "new2"], "{features}");
        killed.check(["new0", "old1", "new2"]).await;
    }
}

#[tokio::test]
async fn of_several_transactions_the_last_one_counts() {
    let killed = Killed::new("");
    killed.journal(
        CHECKED,
        &[
            (&[("new0", 0), ("new1", 1)], &[]),
            (&[("last", 1)], &[]),
            (&[("new2", 2)], &[]),
        ],
    );
    killed.check(["new0", "last", "new2"]).await;
}

#[tokio::test]
async fn what_was_freed_later_is_not_brought_back() {
    let killed = Killed::new("");
    killed.journal(
        CHECKED,
        &[
            (&[("new0", 0), ("new1", 1), ("new2", 2)], &[]),
            (&[], &[0, 1]),
            (&[("last", 1)], &[]),
        ],
    );
    killed.check(["old0", "last", "new2"]).await;
}

#[tokio::test]
async fn a_block_that_looks_like_the_journals_is_whole() {
    let killed = Killed::new("");
    killed.journal(CHECKED, &[(&[("magic", 0), ("new1", 1)], &[])]);
    let work = killed.disk.open().await.expect("opened");
    let bytes = work
        .look(|look| look.contents(&guest("/root/file"), 3 * BLOCK))
        .await
        .expect("read")
        .expect("is there");
    assert_eq!(bytes[..4], 0xc03b_3998_u32.to_be_bytes());
    assert_eq!(bytes[BLOCK..BLOCK + 4], *b"new1");
}

#[tokio::test]
async fn what_was_not_written_whole_does_not_count() {
    let transactions: [Transaction<'_>; 2] = [(&[("new0", 0)], &[]), (&[("new1", 1)], &[])];
    // Superblock; descriptor, block, commit; descriptor, block, commit.
    for broken in [4, 5, 6] {
        let killed = Killed::new("");
        killed.journal(CHECKED, &transactions);
        assert_eq!(killed.read().await, ["new0", "new1", "old2"]);
        killed.patch(killed.journal_blocks()[broken] + 500, b"torn");
        assert_eq!(killed.read().await, ["new0", "old1", "old2"], "{broken}");
    }
}

#[tokio::test]
async fn a_journal_goes_on_at_its_beginning() {
    // Without checksums, so that its first block can be changed by hand.
    let killed = Killed::new("-metadata_csum -64bit");
    killed.journal("", &[(&[("new0", 0)], &[]), (&[("new1", 1)], &[])]);
    let places = killed.journal_blocks();
    let image = std::fs::read(killed.disk.image()).expect("read");
    let head = usize::try_from(places[0]).expect("small");
    let length = u32::from_be_bytes(image[head + 0x10..head + 0x14].try_into().expect("four"));
    assert_eq!(places.len(), length as usize);
    // Six blocks from the second one on: two of them to the end, the others after the first.
    let start = places.len() - 2;
    for n in 0..6 {
        let from = usize::try_from(places[1 + n]).expect("small");
        let to = match n {
            0 | 1 => places[start + n],
            _ => places[1 + n - 2],
        };
        killed.patch(to, &image[from..from + BLOCK]);
    }
    for gone in [5, 6] {
        killed.patch(places[gone], &[0; BLOCK]);
    }
    killed.patch(places[0] + 0x1c, &(start as u32).to_be_bytes());
    killed.check(["new0", "new1", "old2"]).await;
}
