//! The files of a log, and what a crash left of compaction among them (`docs/formats/log-frame.md`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_runtime::fs;
use ringmq_wire::Offset;

use super::Without;
use crate::compaction::swap::Unfinished;
use crate::layout::{FileKind, parse_file_name, parse_swap_name};
use crate::segment::Segment;

/// What is in a log's directory.
#[derive(Default)]
pub(crate) struct Files {
    /// Base offsets of the segments, ascending.
    pub(crate) bases: Vec<Offset>,
    /// Base offsets in any name: of indexes without a segment, too.
    pub(crate) named: BTreeSet<Offset>,
    /// Compacted segments that count, and have not got their names yet.
    pub(crate) swaps: Vec<Unfinished>,
    /// Offsets of the snapshots of producers, ascending.
    pub(crate) snapshots: Vec<Offset>,
    /// What compaction was writing, and what it had written of records that are deleted since.
    of_no_use: Vec<PathBuf>,
}

impl Files {
    /// Nothing where there is no directory.
    pub(crate) async fn list(dir: &Path) -> io::Result<Files> {
        let mut files = Files::default();
        let names = match fs::read_dir(dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            names => names?,
        };
        for name in names.iter().map(|entry| &*entry.name) {
            let parsed = parse_file_name(name);
            // Snapshots of producers have offsets of their own, and go by themselves.
            let of_segment = parsed.filter(|(_, kind)| *kind != FileKind::Producers);
            files.named.extend(of_segment.map(|(base, _)| base));
            match (parsed, parse_swap_name(name)) {
                (Some((base, FileKind::Log)), _) => files.bases.push(base),
                (Some((offset, FileKind::Producers)), _) => files.snapshots.push(offset),
                (Some((_, FileKind::Cleaned)), _) => files.of_no_use.push(dir.join(name)),
                (None, Some((base, end))) => files.swaps.push(Unfinished { path: dir.join(name), base, end }),
                _ => {}
            }
        }
        files.bases.sort_unstable();
        files.snapshots.sort_unstable();
        Ok(files)
    }

    /// Takes those for missing.
    pub(crate) fn leave_out(&mut self, without: &Without) {
        let is_there = |base: Offset| without.behind.is_none_or(|last| base <= last);
        self.bases.retain(|base| is_there(*base));
        self.swaps.retain(|swap| is_there(swap.base) && !without.swaps.contains(&swap.path));
    }

    /// Does without compacted segments that lie below the log's start as a whole, as it does without any others there.
    pub(crate) fn leave_below(&mut self, start: Offset) {
        let below = self.swaps.extract_if(.., |swap| swap.end <= start);
        self.of_no_use.extend(below.map(|swap| swap.path));
    }

    /// Counts compacted segments in the place of those that they were made of.
    pub(crate) fn replace(&mut self) {
        for swap in &self.swaps {
            self.bases.retain(|base| !swap.replaces(*base));
            self.bases.push(swap.base);
        }
        self.bases.sort_unstable();
    }

    /// Brings compaction to its end: what was not finished goes, and what counts gets its name.
    pub(crate) async fn complete(&mut self, dir: &Path) -> io::Result<()> {
        for path in self.of_no_use.drain(..) {
            fs::remove_file_if_there(&path).await?;
        }
        for swap in self.swaps.drain(..) {
            swap.complete(dir, &self.bases).await?;
            self.bases.retain(|base| !swap.replaces(*base));
            self.bases.push(swap.base);
        }
        self.bases.sort_unstable();
        Ok(())
    }

    /// The segment with that base, where its frames are now.
    pub(crate) fn segment(&self, dir: &Path, base: Offset) -> Segment {
        let swap = self.swaps.iter().find(|swap| swap.base == base);
        swap.map_or_else(|| Segment::new(dir, base), |swap| Segment::half_swapped(dir, base, swap.end))
    }
}
