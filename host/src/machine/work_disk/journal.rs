//! What a journal (JBD2) holds that is not in its place yet: a machine whose QEMU was killed leaves
//! one, and its files are whole only together with it.
//!
//! Linux writes such blocks to their places at the next mount. Here nothing is written: reads of a
//! block are led to its newest committed copy in the journal. The walk goes around the journal once
//! at most, and stops at the first thing that was not written whole, as Linux does.
//!
//! Sources: Documentation/filesystems/ext4/journal.rst and fs/jbd2/recovery.c of Linux 6.12.

use super::ext4::{Ext4, Ext4Error, Inode, damaged};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// What each block of the journal's own begins with, big-endian.
pub const MAGIC: u32 = 0xc03b_3998;
/// Blocks of a journal beyond which it is not read: 4 GiB. `mkfs.ext4` makes 1 GiB at most.
const BLOCKS_LIMIT: u32 = 1 << 20;
/// Revoked blocks that are remembered.
const REVOKED_LIMIT: usize = 1 << 20;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CHECKSUM_V3: u32 = 0x10;
const COMPAT_CHECKSUM: u32 = 0x1;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// Which blocks are to be read from the journal.
#[derive(Debug, Default)]
pub struct Overlay(BTreeMap<u64, Replacement>);

/// Where a block's newest content is.
#[derive(Debug, Clone, Copy)]
pub struct Replacement {
    /// The block of the disk that holds it.
    pub block: u64,
    /// Its first four bytes are the journal's mark, and were taken out.
    pub escaped: bool,
}

impl Overlay {
    /// Where this block is, if it is in the journal.
    pub fn get(&self, block: u64) -> Option<Replacement> {
        self.0.get(&block).copied()
    }

    /// Whether any of these blocks is in the journal.
    pub fn touches(&self, start: u64, blocks: u64) -> bool {
        self.0
            .range(start..start.saturating_add(blocks))
            .next()
            .is_some()
    }
}

struct Journal<'a> {
    fs: &'a Ext4,
    inode: &'a Inode,
    until: Instant,
    first: u32,
    length: u32,
    wide: bool,
    /// The seed of its checksums, where it has them.
    seed: Option<u32>,
}

/// A block that a transaction wrote.
struct Written {
    sequence: u32,
    block: u64,
    replacement: Replacement,
}

/// Reads the journal of a file system that was not unmounted.
///
/// # Errors
/// Where it can't be read, or is of a kind that is not known here.
pub fn load(fs: &Ext4, inode: &Inode, until: Instant) -> Result<Overlay, Ext4Error> {
    let (_, head) = fs.raw_block_of(inode, 0, until)?;
    let kind = u32_be(&head, 4);
    if u32_be(&head, 0) != MAGIC || (kind != SUPERBLOCK_V1 && kind != SUPERBLOCK_V2) {
        return Err(damaged("its journal is none"));
    }
    let (compat, incompat) = match kind {
        SUPERBLOCK_V2 => (u32_be(&head, 0x24), u32_be(&head, 0x28)),
        _ => (0, 0),
    };
    let unknown = incompat & !(INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_CHECKSUM_V3);
    if unknown != 0 || compat & COMPAT_CHECKSUM != 0 {
        return Err(Ext4Error::Unsupported {
            what: format!("a journal with the features {compat:#x}, {incompat:#x}"),
        });
    }
    let seed = (incompat & INCOMPAT_CHECKSUM_V3 != 0)
        .then(|| crc32c(u32::MAX, head.get(0x30..0x40).unwrap_or_default()));
    let (length, first) = (u32_be(&head, 0x10), u32_be(&head, 0x14));
    let (sequence, start) = (u32_be(&head, 0x18), u32_be(&head, 0x1c));
    if seed.is_some() {
        let mut whole = head.get(..1024).unwrap_or_default().to_vec();
        let told = take_u32(&mut whole, 0xfc);
        if crc32c(u32::MAX, &whole) != told {
            return Err(damaged("its journal's beginning"));
        }
    }
    if start == 0 {
        return Ok(Overlay::default());
    }
    let sane = u32_be(&head, 0xc) == fs.block_size()
        && length <= BLOCKS_LIMIT
        && (1..length).contains(&first)
        && (first..length).contains(&start);
    if !sane {
        return Err(damaged("its journal's measures can't be"));
    }
    let journal = Journal {
        fs,
        inode,
        until,
        first,
        length,
        wide: incompat & INCOMPAT_64BIT != 0,
        seed,
    };
    journal.walk(start, sequence)
}

impl Journal<'_> {
    fn walk(&self, start: u32, mut sequence: u32) -> Result<Overlay, Ext4Error> {
        let mut written: Vec<Written> = Vec::new();
        let mut committed = 0;
        // The last transaction that freed a block: what it and those before it wrote there is void.
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        let mut pending_revokes: Vec<u64> = Vec::new();
        let mut at = start;
        let mut left = self.length - self.first;
        while left > 0 {
            let (_, block) = self.fs.raw_block_of(self.inode, at.into(), self.until)?;
            if u32_be(&block, 0) != MAGIC || u32_be(&block, 8) != sequence {
                break;
            }
            self.step(&mut at, &mut left);
            let whole = match u32_be(&block, 4) {
                DESCRIPTOR => {
                    self.tail_fits(&block)
                        && self.descriptor(&block, sequence, &mut at, &mut left, &mut written)?
                }
                REVOKE => self.tail_fits(&block) && self.revokes(&block, &mut pending_revokes),
                COMMIT => {
                    let whole = self.commit_fits(&block);
                    if whole {
                        committed = written.len();
                        for block in pending_revokes.drain(..) {
                            revoked.insert(block, sequence);
                        }
                        sequence = sequence.wrapping_add(1);
                    }
                    whole
                }
                _ => false,
            };
            if !whole {
                break;
            }
            if revoked.len() + pending_revokes.len() > REVOKED_LIMIT {
                return Err(Ext4Error::TooMuch {
                    what: "freed blocks in its journal",
                });
            }
        }
        written.truncate(committed);
        let mut overlay = BTreeMap::new();
        for one in written {
            let void = revoked
                .get(&one.block)
                .is_some_and(|by| !is_after(one.sequence, *by));
            if !void {
                overlay.insert(one.block, one.replacement);
            }
        }
        Ok(Overlay(overlay))
    }

    /// To the next block; after the last one comes the first.
    fn step(&self, at: &mut u32, left: &mut u32) {
        *at += 1;
        if *at >= self.length {
            *at = self.first;
        }
        *left = left.saturating_sub(1);
    }

    /// Notes the blocks that follow a descriptor, and goes past them. Tells whether they are whole.
    fn descriptor(
        &self,
        block: &[u8],
        sequence: u32,
        at: &mut u32,
        left: &mut u32,
        written: &mut Vec<Written>,
    ) -> Result<bool, Ext4Error> {
        let tag_length = match (self.seed, self.wide) {
            (Some(_), _) => 16,
            (None, true) => 12,
            (None, false) => 8,
        };
        let mut rest = block.get(12..self.end_of(block)).unwrap_or_default();
        loop {
            let Some((tag, after)) = rest.split_at_checked(tag_length) else {
                // The last tag of a descriptor is marked, unless it ends with the block.
                return Ok(true);
            };
            rest = after;
            let (flags, high) = match self.seed {
                Some(_) => (u32_be(tag, 4), u32_be(tag, 8)),
                None => (u32_be(tag, 4) & 0xffff, u32_be(tag, 8)),
            };
            let high = if self.wide { u64::from(high) } else { 0 };
            if *left == 0 {
                return Ok(false);
            }
            let (place, data) = self.fs.raw_block_of(self.inode, (*at).into(), self.until)?;
            self.step(at, left);
            if let Some(seed) = self.seed {
                let sum = crc32c(crc32c(seed, &sequence.to_be_bytes()), &data);
                if sum != u32_be(tag, 12) {
                    return Ok(false);
                }
            }
            written.push(Written {
                sequence,
                block: high << 32 | u64::from(u32_be(tag, 0)),
                replacement: Replacement {
                    block: place,
                    escaped: flags & TAG_ESCAPED != 0,
                },
            });
            if flags & TAG_LAST != 0 {
                return Ok(true);
            }
            if flags & TAG_SAME_UUID == 0 {
                rest = rest.get(16..).unwrap_or_default();
            }
        }
    }

    fn revokes(&self, block: &[u8], revoked: &mut Vec<u64>) -> bool {
        let end = u32_be(block, 12) as usize;
        let Some(records) = block.get(16..end).filter(|_| end <= self.end_of(block)) else {
            return false;
        };
        match self.wide {
            true => {
                revoked.extend(records.chunks_exact(8).map(|record| {
                    u64::from(u32_be(record, 0)) << 32 | u64::from(u32_be(record, 4))
                }))
            }
            false => revoked.extend(records.chunks_exact(4).map(|r| u64::from(u32_be(r, 0)))),
        }
        true
    }

    /// Where a descriptor's or a revocation's content ends: a checksum comes last.
    fn end_of(&self, block: &[u8]) -> usize {
        match self.seed {
            Some(_) => block.len().saturating_sub(4),
            None => block.len(),
        }
    }

    fn tail_fits(&self, block: &[u8]) -> bool {
        self.sum_fits(block, block.len().saturating_sub(4))
    }

    fn commit_fits(&self, block: &[u8]) -> bool {
        self.sum_fits(block, 0x10)
    }

    fn sum_fits(&self, block: &[u8], at: usize) -> bool {
        let Some(seed) = self.seed else { return true };
        let mut block = block.to_vec();
        let told = take_u32(&mut block, at);
        crc32c(seed, &block) == told
    }
}

/// Whether a transaction comes after another: their numbers wrap.
fn is_after(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

fn u32_be(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |four| u32::from_be_bytes(*four))
}

/// Takes a number out and leaves zeros, as it was when the checksum was computed.
fn take_u32(bytes: &mut [u8], at: usize) -> u32 {
    let number = u32_be(bytes, at);
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.fill(0);
    }
    number
}

/// CRC-32C as Linux computes it: without the inversions at its beginning and end.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ (0x82f6_3b78 & (value & 1).wrapping_neg());
                bit += 1;
            }
            table[n] = value;
            n += 1;
        }
        table
    };
    bytes.iter().fold(seed, |crc, byte| {
        TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn transactions_are_compared_around_the_end_of_their_numbers() {
        assert!(is_after(2, 1) && !is_after(1, 2) && !is_after(1, 1));
        assert!(is_after(1, u32::MAX) && !is_after(u32::MAX, 1));
    }
}
