//! The content of one file, twice: what a read sees now (live), and what a crash cannot take away (durable).
//! After a flush that failed a read past the page cache may see less: what the disk has.
//!
//! Between the two lie changes that completed and are not known to be durable. Each block has a chain of its
//! versions, oldest first; size and preallocation (the layout) have one chain for the file. Making something durable
//! folds the front of a chain into the durable image; a crash folds of each chain what the dice keep.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::fate::Fates;
use crate::buffer::BLOCK_BYTES;

const BLOCK_BYTES_U64: u64 = BLOCK_BYTES as u64;

/// Numbers every completed change of the disk, so that a flush can say which ones it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sequence(pub(crate) u64);

/// One block's bytes, shared between the images.
type Block = Rc<[u8]>;

/// More unflushed versions of one block than this are written back, as a device's cache would do sooner or later.
const VERSIONS_MAX: usize = 8;

/// The same for changes of one file's layout.
const LAYOUTS_MAX: usize = 64;

/// What the file system knows of a file beside its blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    size: u64,
    /// Blocks from the start that have space whether written or not.
    preallocated: u64,
}

#[derive(Clone, Debug, Default)]
struct Image {
    layout: Layout,
    /// Written blocks; all others read as zeros.
    blocks: BTreeMap<u64, Block>,
}

#[derive(Debug)]
enum Change {
    Data(Block),
    /// A truncation left that many bytes of the block, and zeros behind them.
    Cut {
        keep: usize,
    },
}

#[derive(Debug)]
struct Version {
    sequence: Sequence,
    change: Change,
}

/// The content of one file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    live: Image,
    durable: Image,
    versions: BTreeMap<u64, Vec<Version>>,
    layouts: Vec<(Sequence, Layout)>,
    /// The newest change that the durable layout includes.
    durable_layout: Sequence,
    /// Changes up to here were under a flush that failed: no later flush makes up for it (the kernel reports an
    /// error once and takes the pages for clean; fsync(2), and Rebello et al., "Can Applications Recover from fsync
    /// Failures?", 2020).
    lost: Sequence,
    /// Blocks whose live bytes are only in such pages: a read past the page cache sees the durable ones.
    cached_only: BTreeSet<u64>,
    /// Live blocks with space beyond the preallocated ones.
    beyond_preallocated: u64,
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.live.layout.size
    }

    /// How many blocks the live file takes up.
    pub(crate) fn allocated_blocks(&self) -> u64 {
        self.live.layout.preallocated + self.beyond_preallocated
    }

    /// How many blocks a write there would have to allocate.
    pub(crate) fn blocks_missing(&self, position: u64, len: usize) -> u64 {
        let end = (position + len as u64).div_ceil(BLOCK_BYTES_U64);
        let start = (position / BLOCK_BYTES_U64).max(self.live.layout.preallocated);
        if start >= end {
            return 0;
        }
        end - start - self.live.blocks.range(start..end).count() as u64
    }

    /// The live bytes from `position`, fewer at the end of the file.
    pub(crate) fn read(&self, position: u64, len: usize) -> Vec<u8> {
        self.live.read(position, len)
    }

    /// As [`Content::read`], of what the disk has, or will have with the next flush.
    pub(crate) fn read_past_cache(&self, position: u64, len: usize) -> Vec<u8> {
        let mut bytes = self.live.read(position, len);
        let end = position + bytes.len() as u64;
        for index in self.cached_only.range(position / BLOCK_BYTES_U64..end.div_ceil(BLOCK_BYTES_U64)) {
            let on_disk = self.durable.block(*index);
            let start = index * BLOCK_BYTES_U64;
            let (from, to) = (start.max(position), (start + BLOCK_BYTES_U64).min(end));
            bytes[to_usize(from - position)..to_usize(to - position)]
                .copy_from_slice(&on_disk[to_usize(from - start)..to_usize(to - start)]);
        }
        bytes
    }

    /// The whole live file.
    pub(crate) fn live_bytes(&self) -> Vec<u8> {
        self.live.read(0, to_usize(self.live.layout.size))
    }

    /// The whole file as a crash that keeps nothing would leave it.
    pub(crate) fn durable_bytes(&self) -> Vec<u8> {
        self.durable.read(0, to_usize(self.durable.layout.size))
    }

    /// A write completed: its bytes are live. Bounds and space have been checked.
    pub(crate) fn write(&mut self, sequence: Sequence, position: u64, data: &[u8]) {
        let mut at = position;
        let mut rest = data;
        while !rest.is_empty() {
            let index = at / BLOCK_BYTES_U64;
            let within = to_usize(at % BLOCK_BYTES_U64);
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - within));
            let block = self.live.block_with(index, within, now);
            self.write_block(sequence, index, block);
            at += now.len() as u64;
            rest = later;
        }
        if at > self.live.layout.size {
            self.set_layout(sequence, Layout { size: at, ..self.live.layout });
        }
    }

    fn write_block(&mut self, sequence: Sequence, index: u64, block: Block) {
        let is_new = self.live.blocks.insert(index, block.clone()).is_none();
        self.beyond_preallocated += u64::from(is_new && index >= self.live.layout.preallocated);
        self.cached_only.remove(&index);
        let chain = self.versions.entry(index).or_default();
        chain.push(Version { sequence, change: Change::Data(block) });
        if chain.len() > VERSIONS_MAX {
            match chain[0] {
                Version { change: Change::Data(_), .. } => self.fold_block(index, 1),
                Version { sequence, change: Change::Cut { .. } } => self.fold_layout(sequence),
            }
        }
    }

    /// Space for `[0, size)` was allocated, and the size is at least that.
    pub(crate) fn preallocate(&mut self, sequence: Sequence, size: u64) {
        let old = self.live.layout;
        let layout =
            Layout { size: old.size.max(size), preallocated: old.preallocated.max(size.div_ceil(BLOCK_BYTES_U64)) };
        if layout != old {
            self.set_layout(sequence, layout);
        }
    }

    /// The size was set; what lies behind it is gone, and reads as zeros should the file grow again.
    pub(crate) fn truncate(&mut self, sequence: Sequence, size: u64) {
        let old = self.live.layout;
        if size == old.size {
            return;
        }
        let blocks = size.div_ceil(BLOCK_BYTES_U64);
        if size < old.size {
            let cut = size / BLOCK_BYTES_U64..;
            let touched = self.live.blocks.range(cut.clone()).map(|(index, _)| *index);
            let durable = self.durable.blocks.range(cut.clone()).map(|(index, _)| *index);
            let unflushed = self.versions.range(cut).map(|(index, _)| *index);
            let touched: BTreeSet<u64> = touched.chain(durable).chain(unflushed).collect();
            for index in touched {
                let keep = to_usize(size.saturating_sub(index * BLOCK_BYTES_U64)).min(BLOCK_BYTES);
                self.live.cut(index, keep);
                self.cached_only.remove(&index);
                self.versions.entry(index).or_default().push(Version { sequence, change: Change::Cut { keep } });
            }
        }
        self.set_layout(sequence, Layout { size, preallocated: old.preallocated.min(blocks) });
    }

    fn set_layout(&mut self, sequence: Sequence, layout: Layout) {
        if layout.preallocated != self.live.layout.preallocated || layout.size < self.live.layout.size {
            self.beyond_preallocated = self.live.blocks.range(layout.preallocated..).count() as u64;
        }
        self.live.layout = layout;
        self.layouts.push((sequence, layout));
        if self.layouts.len() > LAYOUTS_MAX {
            self.fold_layout(self.layouts[0].0);
        }
    }

    /// A flush submitted when `upto` was the newest change completed without error.
    pub(crate) fn flush(&mut self, upto: Sequence) {
        let covered = self.lost.0 + 1..=upto.0;
        if let Some((sequence, _)) = self.layouts.iter().rfind(|(sequence, _)| covered.contains(&sequence.0)) {
            self.fold_layout(*sequence);
        }
        let is_covered =
            |version: &Version| covered.contains(&version.sequence.0) && matches!(version.change, Change::Data(_));
        let indices: Vec<u64> = self.versions.keys().copied().collect();
        for index in indices {
            if let Some(newest) = self.versions[&index].iter().rposition(is_covered) {
                self.fold_block(index, newest + 1);
            }
        }
    }

    /// A flush submitted when `upto` was the newest change failed. The dice say what of each write got to the disk; the
    /// rest stays in the page cache, which takes it for clean. (Behind a truncation the next crash decides.)
    pub(crate) fn fail_flush(&mut self, upto: Sequence, fates: &mut Fates<'_>) {
        self.lost = self.lost.max(upto);
        let durable = &mut self.durable.blocks;
        let live = &self.live;
        let cached_only = &mut self.cached_only;
        self.versions.retain(|index, chain| {
            let is_under = |version: &Version| version.sequence <= upto && matches!(version.change, Change::Data(_));
            let under = chain.iter().take_while(|version| is_under(version)).count();
            for Version { sequence, change } in chain.drain(..under) {
                let Change::Data(block) = change else { continue };
                if let Some(landed) = fates.land_block(sequence, durable.get(index), &block) {
                    durable.insert(*index, landed);
                }
            }
            if chain.is_empty() && durable.get(index) != live.blocks.get(index) {
                cached_only.insert(*index);
            }
            !chain.is_empty()
        });
    }

    /// The write numbered `sequence` was synchronous (O_DSYNC): it is durable now, with whatever is needed to read it
    /// back.
    pub(crate) fn persist_write(&mut self, sequence: Sequence, position: u64, len: usize) {
        let end = position + len as u64;
        let blocks = position / BLOCK_BYTES_U64..end.div_ceil(BLOCK_BYTES_U64);
        let is_behind_cut = |chain: &Vec<Version>| {
            chain.iter().any(|version| version.sequence <= sequence && matches!(version.change, Change::Cut { .. }))
        };
        // A crash that kept the truncation and not the growth behind it would cut the write off.
        let is_cut_off = self.layouts.iter().any(|(at, layout)| *at <= sequence && layout.size < end);
        let needs_layout = end > self.durable.layout.size
            || is_cut_off
            || self.versions.range(blocks.clone()).any(|(_, chain)| is_behind_cut(chain));
        if needs_layout {
            self.fold_layout(sequence);
        }
        for index in blocks {
            let written = self
                .versions
                .get(&index)
                .and_then(|chain| chain.iter().rposition(|version| version.sequence <= sequence));
            if let Some(newest) = written {
                self.fold_block(index, newest + 1);
            }
        }
    }

    /// Makes the layout of `upto` durable, and with it every truncation up to there.
    fn fold_layout(&mut self, upto: Sequence) {
        let count = self.layouts.partition_point(|(sequence, _)| *sequence <= upto);
        let Some((sequence, layout)) = self.layouts.drain(..count).next_back() else { return };
        self.durable.layout = layout;
        self.durable_layout = sequence;
        let is_cut = |version: &Version| version.sequence <= upto && matches!(version.change, Change::Cut { .. });
        let indices: Vec<u64> = self.versions.keys().copied().collect();
        for index in indices {
            if let Some(newest) = self.versions[&index].iter().rposition(is_cut) {
                self.fold_block(index, newest + 1);
            }
        }
    }

    /// Makes the first `count` versions of a block durable, the last of them the one that counts.
    fn fold_block(&mut self, index: u64, count: usize) {
        let Some(chain) = self.versions.get_mut(&index) else { return };
        for version in chain.drain(..count) {
            match version.change {
                Change::Data(block) => drop(self.durable.blocks.insert(index, block)),
                Change::Cut { keep } => self.durable.cut(index, keep),
            }
        }
        if chain.is_empty() {
            self.versions.remove(&index);
        }
    }

    /// The power went: of every change that is not durable the dice keep all, nothing or parts, and what is left is
    /// all that there is.
    pub(crate) fn crash(&mut self, fates: &mut Fates<'_>) {
        // Layouts are journaled by the file system: a later one is never there without the earlier ones.
        let layouts_kept = fates.layouts_kept(self.layouts.len());
        self.layouts.truncate(layouts_kept);
        if let Some((sequence, layout)) = self.layouts.drain(..).next_back() {
            self.durable.layout = layout;
            self.durable_layout = sequence;
        }
        for (index, chain) in std::mem::take(&mut self.versions) {
            for version in chain {
                match version.change {
                    // What was written behind a truncation lies in newly allocated space, which is lost with it.
                    Change::Cut { .. } if version.sequence > self.durable_layout => break,
                    Change::Cut { keep } => self.durable.cut(index, keep),
                    Change::Data(block) => {
                        let old = self.durable.blocks.get(&index);
                        if let Some(landed) = fates.land_block(version.sequence, old, &block) {
                            self.durable.blocks.insert(index, landed);
                        }
                    }
                }
            }
        }
        self.durable.forget_beyond_size();
        self.live = self.durable.clone();
        self.lost = Sequence(0);
        self.cached_only.clear();
        self.beyond_preallocated = self.live.blocks.range(self.live.layout.preallocated..).count() as u64;
    }

    /// Turns one bit over wherever the byte is stored. False beyond the end of the file.
    pub(crate) fn flip_bit(&mut self, position: u64, bit: u8) -> bool {
        if position >= self.live.layout.size {
            return false;
        }
        let index = position / BLOCK_BYTES_U64;
        let within = to_usize(position % BLOCK_BYTES_U64);
        let flip = |block: Option<&Block>| -> Block {
            let mut bytes = block.map_or_else(|| vec![0; BLOCK_BYTES], |block| block.to_vec());
            bytes[within] ^= 1 << (bit % 8);
            bytes.into()
        };
        for version in self.versions.entry(index).or_default() {
            if let Change::Data(block) = &mut version.change {
                *block = flip(Some(block));
            }
        }
        for image in [&mut self.live, &mut self.durable] {
            let flipped = flip(image.blocks.get(&index));
            image.blocks.insert(index, flipped);
        }
        self.versions.retain(|_, chain| !chain.is_empty());
        self.beyond_preallocated = self.live.blocks.range(self.live.layout.preallocated..).count() as u64;
        true
    }
}

impl Image {
    fn read(&self, position: u64, len: usize) -> Vec<u8> {
        let end = position.saturating_add(len as u64).min(self.layout.size);
        let mut bytes = vec![0; to_usize(end.saturating_sub(position))];
        if bytes.is_empty() {
            return bytes;
        }
        for (index, block) in self.blocks.range(position / BLOCK_BYTES_U64..end.div_ceil(BLOCK_BYTES_U64)) {
            let block_start = index * BLOCK_BYTES_U64;
            let from = block_start.max(position);
            let to = (block_start + BLOCK_BYTES_U64).min(end);
            let source = &block[to_usize(from - block_start)..to_usize(to - block_start)];
            bytes[to_usize(from - position)..to_usize(to - position)].copy_from_slice(source);
        }
        bytes
    }

    /// The bytes of a block.
    fn block(&self, index: u64) -> Block {
        self.blocks.get(&index).cloned().unwrap_or_else(|| vec![0; BLOCK_BYTES].into())
    }

    /// The block with some of its bytes replaced.
    fn block_with(&self, index: u64, within: usize, bytes: &[u8]) -> Block {
        if bytes.len() == BLOCK_BYTES {
            return bytes.into();
        }
        let mut block = self.blocks.get(&index).map_or_else(|| vec![0; BLOCK_BYTES], |block| block.to_vec());
        block[within..within + bytes.len()].copy_from_slice(bytes);
        block.into()
    }

    /// Leaves `keep` bytes of a block.
    fn cut(&mut self, index: u64, keep: usize) {
        if keep == 0 {
            self.blocks.remove(&index);
        } else if let Some(block) = self.blocks.get_mut(&index) {
            let mut bytes = block.to_vec();
            bytes[keep..].fill(0);
            *block = bytes.into();
        }
    }

    fn forget_beyond_size(&mut self) {
        let size = self.layout.size;
        self.blocks.retain(|index, _| index * BLOCK_BYTES_U64 < size);
        let tail = to_usize(size % BLOCK_BYTES_U64);
        if tail != 0 {
            self.cut(size / BLOCK_BYTES_U64, tail);
        }
    }
}

/// Positions within one read or one block always fit; a file too large for the address space cannot be read whole.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the simulated file is larger than the address space")
}
