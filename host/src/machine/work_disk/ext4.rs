//! Reads files of an ext4 file system that somebody hostile may have written.
//!
//! Every loop reads a block a turn, every read of a block looks at the deadline, and nothing that
//! the image says sizes an allocation: what a crafted image costs is bounded by that deadline and
//! by the limits here. What a killed machine left in the journal is read as if it were in place
//! (`journal`); nothing is ever written.
//!
//! It knows what `mkfs.ext4` and Linux make of a disk for a virtual machine: blocks of up to 4 KiB,
//! extents, 64-bit block numbers. It follows no symbolic link, and refuses inline data, encrypted
//! directories and block maps of ext2. Checksums are compared in the journal alone, where they tell
//! what was written whole: elsewhere they would keep out nobody who can compute them.

use super::journal::{self, Overlay};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

/// Bytes of a directory beyond which it is not read.
const DIRECTORY_LIMIT: u64 = 64 << 20;
/// How deep Linux lets a tree of extents become.
const EXTENT_DEPTH_LIMIT: u16 = 5;
const ROOT_INODE: u32 = 2;

const COMPAT_JOURNAL: u32 = 0x4;
const INCOMPAT_FILE_TYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
/// These, and flex_bg, ea_inode, csum_seed and largedir, which change nothing of what is read.
const INCOMPAT_KNOWN: u32 = INCOMPAT_FILE_TYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000;

const INODE_ENCRYPTED: u32 = 0x800;
const INODE_EXTENTS: u32 = 0x8_0000;
const INODE_INLINE: u32 = 0x1000_0000;

/// Why a file system can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// The image could not be read.
    #[error("cannot read {length} bytes at {offset}")]
    Io {
        /// Where in the image.
        offset: u64,
        /// How many bytes.
        length: usize,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It has no ext4 file system.
    #[error("there is no ext4 file system on it")]
    NoFileSystem,
    /// It uses something that is not known here.
    #[error("its file system uses {what}, which banger does not read")]
    Unsupported {
        /// What.
        what: String,
    },
    /// It contradicts itself.
    #[error("its file system is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// There is more of something than is read.
    #[error("it has more {what} than banger reads")]
    TooMuch {
        /// Of what.
        what: &'static str,
    },
    /// It took too long.
    #[error("it could not be read in time")]
    Deadline,
}

pub(super) fn damaged(what: &'static str) -> Ext4Error {
    Ext4Error::Damaged { what }
}

fn unsupported(what: impl Into<String>) -> Ext4Error {
    Ext4Error::Unsupported { what: what.into() }
}

/// A file system, opened.
#[derive(Debug)]
pub struct Ext4 {
    file: File,
    block_size: u32,
    blocks: u64,
    first_data_block: u32,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u16,
    descriptor_size: u16,
    /// Blocks whose newest content is in the journal.
    overlay: Overlay,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a FIFO, a socket or a device.
    Other,
}

/// A file or directory.
#[derive(Debug, Clone)]
pub struct Inode {
    /// What it is.
    pub kind: InodeKind,
    /// Its length in bytes.
    pub size: u64,
    /// The root of its extents.
    root: [u8; 60],
}

/// Blocks of a file that follow one another on the disk, or are all holes.
struct Run {
    /// The first one; `None` for holes.
    start: Option<u64>,
    /// How many, at least one.
    blocks: u64,
}

impl Ext4 {
    /// Opens the file system in this file, with what its journal holds.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn open(file: File, until: Instant) -> Result<Self, Ext4Error> {
        let length = file
            .metadata()
            .map_err(|source| Ext4Error::Io {
                offset: 0,
                length: 0,
                source,
            })?
            .len();
        let mut superblock = [0; 1024];
        if length < 2048 {
            return Err(Ext4Error::NoFileSystem);
        }
        read_exact(&file, 1024, &mut superblock, until)?;
        let u16_at = |at| u16_le(&superblock, at);
        let u32_at = |at| u32_le(&superblock, at);
        if u16_at(0x38) != 0xef53 {
            return Err(Ext4Error::NoFileSystem);
        }
        if u32_at(0x4c) == 0 {
            return Err(unsupported("the format's first revision"));
        }
        let incompat = u32_at(0x60);
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(unsupported(format!("the features {unknown:#x}")));
        }
        if incompat & INCOMPAT_FILE_TYPE == 0 || incompat & INCOMPAT_EXTENTS == 0 {
            return Err(unsupported("the format of ext2"));
        }
        let block_size = match u32_at(0x18) {
            exponent @ 0..=2 => 1024_u32 << exponent,
            _ => return Err(unsupported("blocks of more than 4 KiB")),
        };
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = if wide { u64::from(u32_at(0x150)) } else { 0 };
        let blocks = high << 32 | u64::from(u32_at(0x4));
        let inodes_per_group = u32_at(0x28);
        let inode_size = u16_at(0x58);
        let descriptor_size = if wide { u16_at(0xfe) } else { 32 };
        let sane = blocks
            .checked_mul(block_size.into())
            .is_some_and(|bytes| bytes <= length)
            && inodes_per_group > 0
            && inode_size.is_power_of_two()
            && (128..=block_size).contains(&inode_size.into())
            && descriptor_size.is_power_of_two()
            && (32..=1024).contains(&descriptor_size)
            && (!wide || descriptor_size >= 64)
            && u32_at(0x14) <= 1;
        if !sane {
            return Err(damaged("its measures can't be"));
        }
        let mut fs = Self {
            file,
            block_size,
            blocks,
            first_data_block: u32_at(0x14),
            inodes: u32_at(0x0),
            inodes_per_group,
            inode_size,
            descriptor_size,
            overlay: Overlay::default(),
        };
        if incompat & INCOMPAT_RECOVER != 0 && u32_at(0x5c) & COMPAT_JOURNAL != 0 {
            let inode = fs.inode(u32_at(0xe0), until)?;
            fs.overlay = journal::load(&fs, &inode, until)?;
        }
        Ok(fs)
    }

    /// The size of a block, in bytes.
    pub(super) fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The open image.
    pub(super) fn image(&self) -> &File {
        &self.file
    }

    /// Goes from the root down these names.
    ///
    /// # Errors
    /// [`Ext4Error`]. What is not there, or is below something that is no directory, is `None`.
    pub fn find<'a>(
        &self,
        names: impl Iterator<Item = &'a [u8]>,
        until: Instant,
    ) -> Result<Option<Inode>, Ext4Error> {
        let mut inode = self.inode(ROOT_INODE, until)?;
        for name in names {
            match self.child(&inode, name, until)? {
                Some(child) => inode = child,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// What has this name in a directory.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn child(
        &self,
        directory: &Inode,
        name: &[u8],
        until: Instant,
    ) -> Result<Option<Inode>, Ext4Error> {
        if directory.kind != InodeKind::Directory {
            return Ok(None);
        }
        let mut found = None;
        self.each_entry(directory, until, |entry, number| {
            if entry == name {
                found = Some(number);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        found.map(|number| self.inode(number, until)).transpose()
    }

    /// Tells of each name in a directory, `.` and `..` also, with its inode's number.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn each_entry(
        &self,
        directory: &Inode,
        until: Instant,
        mut tell: impl FnMut(&[u8], u32) -> ControlFlow<()>,
    ) -> Result<(), Ext4Error> {
        if directory.size > DIRECTORY_LIMIT {
            return Err(Ext4Error::TooMuch {
                what: "bytes in a directory",
            });
        }
        let blocks = directory.size / u64::from(self.block_size);
        let mut at = 0;
        while at < blocks {
            let run = self.run(directory, at, until)?;
            let Some(start) = run.start else {
                at += run.blocks;
                continue;
            };
            // The inner nodes of a hash tree look like blocks with nothing in them.
            let block = self.block(start, until)?;
            let mut rest = block.as_slice();
            while rest.len() >= 8 {
                let number = u32_le(rest, 0);
                let length = usize::from(u16_le(rest, 4));
                let name_length = usize::from(byte(rest, 6));
                let Some((entry, after)) = rest.split_at_checked(length) else {
                    return Err(damaged("a directory's entry is too long"));
                };
                let Some(name) = entry.get(8..8 + name_length) else {
                    return Err(damaged("a directory's entry is too short"));
                };
                if number != 0 && name_length > 0 && tell(name, number).is_break() {
                    return Ok(());
                }
                rest = after;
            }
            at += 1;
        }
        Ok(())
    }

    /// Reads a file from a byte on, and tells how much that was: less than asked for at its end
    /// only. Holes are zeros.
    ///
    /// # Errors
    /// [`Ext4Error`]
    pub fn read(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &mut [u8],
        until: Instant,
    ) -> Result<usize, Ext4Error> {
        let left = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let block_size = u64::from(self.block_size);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..wanted)
            && !rest.is_empty()
        {
            let position = offset + done as u64;
            let within = position % block_size;
            let run = self.run(inode, position / block_size, until)?;
            let here = run.blocks.saturating_mul(block_size) - within;
            let length = rest.len().min(usize::try_from(here).unwrap_or(usize::MAX));
            let (piece, _) = rest.split_at_mut(length);
            done += match run.start {
                None => {
                    piece.fill(0);
                    length
                }
                Some(start) => {
                    let blocks = (within + length as u64).div_ceil(block_size);
                    self.within(start, blocks)?;
                    if self.overlay.touches(start, blocks) {
                        let block = self.block(start, until)?;
                        let from = usize::try_from(within).unwrap_or(usize::MAX);
                        let block = block.get(from..).unwrap_or_default();
                        let length = length.min(block.len());
                        piece[..length].copy_from_slice(&block[..length]);
                        length
                    } else {
                        read_exact(&self.file, start * block_size + within, piece, until)?;
                        length
                    }
                }
            };
        }
        Ok(wanted)
    }

    /// One block of a file as the image has it, without the journal: for the journal itself.
    pub(super) fn raw_block_of(
        &self,
        inode: &Inode,
        at: u64,
        until: Instant,
    ) -> Result<(u64, Vec<u8>), Ext4Error> {
        let run = self.run(inode, at, until)?;
        let start = run.start.ok_or(damaged("its journal has a hole"))?;
        Ok((start, self.raw_block(start, until)?))
    }

    fn inode(&self, number: u32, until: Instant) -> Result<Inode, Ext4Error> {
        if number == 0 || number > self.inodes {
            return Err(damaged("an inode has an impossible number"));
        }
        let (group, index) = (
            u64::from((number - 1) / self.inodes_per_group),
            u64::from((number - 1) % self.inodes_per_group),
        );
        let block_size = u64::from(self.block_size);
        let at = group * u64::from(self.descriptor_size);
        let block = self.block(
            u64::from(self.first_data_block) + 1 + at / block_size,
            until,
        )?;
        let descriptor = part(&block, at % block_size, self.descriptor_size)?;
        let high = match self.descriptor_size {
            64.. => u64::from(u32_le(descriptor, 0x28)),
            _ => 0,
        };
        let table = high << 32 | u64::from(u32_le(descriptor, 0x8));
        let at = index * u64::from(self.inode_size);
        let block = table
            .checked_add(at / block_size)
            .ok_or(damaged("a table of inodes lies outside of it"))?;
        let block = self.block(block, until)?;
        let inode = part(&block, at % block_size, self.inode_size)?;

        let kind = match u16_le(inode, 0) & 0xf000 {
            0x8000 => InodeKind::File,
            0x4000 => InodeKind::Directory,
            _ => InodeKind::Other,
        };
        let size = u64::from(u32_le(inode, 0x6c)) << 32 | u64::from(u32_le(inode, 0x4));
        let flags = u32_le(inode, 0x20);
        if kind != InodeKind::Other {
            if flags & (INODE_INLINE | INODE_ENCRYPTED) != 0 {
                return Err(unsupported("inline data or encryption"));
            }
            if flags & INODE_EXTENTS == 0 {
                return Err(unsupported("block maps of ext2"));
            }
            if size > block_size << 32 {
                return Err(damaged("a file is longer than files can be"));
            }
        }
        let mut root = [0; 60];
        root.copy_from_slice(&inode[0x28..0x28 + 60]);
        Ok(Inode { kind, size, root })
    }

    /// Where a block of a file is.
    fn run(&self, inode: &Inode, at: u64, until: Instant) -> Result<Run, Ext4Error> {
        let mut below = None;
        let mut block;
        let mut node: &[u8] = &inode.root;
        // Where the next extent begins that is known of.
        let mut next = 1_u64 << 32;
        if at >= next {
            return Err(damaged("a file is longer than files can be"));
        }
        loop {
            if u16_le(node, 0) != 0xf30a {
                return Err(damaged("a file's extents are none"));
            }
            let depth = u16_le(node, 6);
            if depth > EXTENT_DEPTH_LIMIT || below.is_some_and(|expected| depth != expected) {
                return Err(damaged("a file's extents are too deep"));
            }
            let entries = usize::from(u16_le(node, 2));
            let Some(entries) = node.get(12..12 + 12 * entries) else {
                return Err(damaged("a file has too many extents in a block"));
            };
            let mut covering = None;
            for entry in entries.chunks_exact(12) {
                let first = u64::from(u32_le(entry, 0));
                if first > at {
                    next = next.min(first);
                    break;
                }
                covering = Some((first, entry));
            }
            let hole = Run {
                start: None,
                blocks: next - at,
            };
            let Some((first, entry)) = covering else {
                return Ok(hole);
            };
            if depth == 0 {
                // Longer ones are allocated, and not written yet.
                let (length, written) = match u64::from(u16_le(entry, 4)) {
                    length @ 0..=0x8000 => (length, true),
                    length => (length - 0x8000, false),
                };
                if at >= first + length {
                    return Ok(hole);
                }
                let start = u64::from(u16_le(entry, 6)) << 32 | u64::from(u32_le(entry, 8));
                return Ok(Run {
                    start: written.then_some(start + (at - first)),
                    blocks: first + length - at,
                });
            }
            let child = u64::from(u16_le(entry, 8)) << 32 | u64::from(u32_le(entry, 4));
            block = self.block(child, until)?;
            node = &block;
            below = Some(depth - 1);
        }
    }

    /// A block as it is, which may be in the journal.
    fn block(&self, number: u64, until: Instant) -> Result<Vec<u8>, Ext4Error> {
        match self.overlay.get(number) {
            None => self.raw_block(number, until),
            Some(replacement) => {
                let mut block = self.raw_block(replacement.block, until)?;
                if replacement.escaped {
                    block[..4].copy_from_slice(&journal::MAGIC.to_be_bytes());
                }
                Ok(block)
            }
        }
    }

    fn raw_block(&self, number: u64, until: Instant) -> Result<Vec<u8>, Ext4Error> {
        self.within(number, 1)?;
        let mut block = vec![0; self.block_size as usize];
        let offset = number * u64::from(self.block_size);
        read_exact(&self.file, offset, &mut block, until)?;
        Ok(block)
    }

    fn within(&self, start: u64, blocks: u64) -> Result<(), Ext4Error> {
        match start.checked_add(blocks) {
            Some(end) if end <= self.blocks => Ok(()),
            _ => Err(damaged("a block lies outside of it")),
        }
    }
}

fn read_exact(
    file: &File,
    offset: u64,
    buffer: &mut [u8],
    until: Instant,
) -> Result<(), Ext4Error> {
    if Instant::now() >= until {
        return Err(Ext4Error::Deadline);
    }
    let length = buffer.len();
    file.read_exact_at(buffer, offset)
        .map_err(|source| Ext4Error::Io {
            offset,
            length,
            source,
        })
}

fn part(block: &[u8], at: u64, length: u16) -> Result<&[u8], Ext4Error> {
    usize::try_from(at)
        .ok()
        .and_then(|at| block.get(at..at + usize::from(length)))
        .ok_or(damaged("an inode lies across blocks"))
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

/// A number; 0 where there are too few bytes.
fn u16_le(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at + 1)])
}

fn u32_le(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_le(bytes, at + 2)) << 16 | u32::from(u16_le(bytes, at))
}
