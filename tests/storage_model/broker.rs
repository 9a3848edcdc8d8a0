//! One life of the broker: its logs, its journal, and how they fill the disk.

use crate::disk::{Block, Disk, End, Entry, Partition, Sequence};
use crate::journal::Journal;
use crate::log::{Log, Staged, Standing};
use crate::place::Place;
use crate::rules::{Rule, Rules};

/// The broker between two crashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Broker {
    pub(crate) logs: Vec<Log>,
    pub(crate) journal: Journal,
    /// What recovery has read is durable.
    pub(crate) flushed: bool,
    /// Recovery is over.
    pub(crate) serving: bool,
}

impl Broker {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { logs: Vec::new(), journal, flushed: false, serving: false }
    }

    /// The blocks that this life wrote and has not written over. (A broker remembers what its blocks hold; the model
    /// looks it up in the ring.)
    fn blocks<'a>(&'a self, disk: &'a Disk) -> impl Iterator<Item = &'a Block> {
        let newest = |place: &'a Place<Block>| place.in_flight.as_deref().or(place.live.as_deref());
        disk.ring.iter().filter_map(newest).filter(|block| self.journal.wrote(block.sequence))
    }

    /// The lowest block of this life with something that neither durable frames nor a side file have.
    fn floor(&self, disk: &Disk, rules: Rules) -> Sequence {
        let needs = |entry: &Entry| {
            let (log, files) = (&self.logs[entry.partition], &disk.files[entry.partition]);
            let in_frames = entry.batch.next <= log.frames_end;
            let aside = !log.is_available() && (log.kept_aside || files.deleted || !rules.hold(Rule::KeptAside));
            files.owns(&entry.batch) && !in_frames && !aside
        };
        let needed = self.blocks(disk).filter(|block| block.entries.iter().any(needs));
        needed.map(|block| block.sequence).min().unwrap_or(self.journal.next)
    }

    /// How many blocks may be written before one that is still needed is written over.
    fn blocks_free(&self, disk: &Disk, rules: Rules) -> usize {
        let reusable =
            if rules.hold(Rule::FloorBeforeReuse) { self.journal.durable_floor } else { self.floor(disk, rules) };
        disk.ring.len() - (self.journal.next - reusable)
    }

    /// Staged batches that wait for a block: those in a frame do not.
    fn unjournaled(&self) -> impl Iterator<Item = (Partition, &Staged)> {
        let logs = self.logs.iter().enumerate().filter(|(_, log)| log.is_available());
        let staged = logs.flat_map(|(partition, log)| log.staged.iter().map(move |staged| (partition, staged)));
        staged.filter(|(_, staged)| staged.block.is_none() && !staged.framed)
    }

    /// Whether a block with all that waits may be written.
    pub(crate) fn may_write_block(&self, disk: &Disk, rules: Rules) -> bool {
        let kept = kept_for_floor(rules);
        self.journal.may_write() && self.unjournaled().next().is_some() && self.blocks_free(disk, rules) > kept
    }

    /// Whether a block without entries may be written because it frees others.
    pub(crate) fn may_raise_floor(&self, disk: &Disk, rules: Rules) -> bool {
        let freed = self.journal.unannounced(self.floor(disk, rules));
        let mut held = self.blocks(disk).filter(|block| !block.entries.is_empty());
        self.journal.may_write()
            && held.any(|block| freed.contains(&block.sequence))
            && self.blocks_free(disk, rules) > 0
    }

    /// Whether an idle ring may get a block that proves the one before.
    pub(crate) fn may_close_ring(&self, disk: &Disk, rules: Rules) -> bool {
        let kept = kept_for_floor(rules);
        self.journal.may_write()
            && self.journal.is_open()
            && self.unjournaled().next().is_none()
            && self.blocks_free(disk, rules) > kept
    }

    /// Whether nothing can ever be written to the ring again: the floor rises by a block alone.
    pub(crate) fn is_ring_stuck(&self, disk: &Disk, rules: Rules) -> bool {
        self.serving
            && !self.journal.failed
            && self.journal.in_flight() == 0
            && rules.hold(Rule::FloorBeforeReuse)
            && self.blocks_free(disk, rules) == 0
    }

    /// A log whose staged batches can never get into a frame, because no place is left for them.
    pub(crate) fn stuck_log(&self, places: usize) -> Option<Partition> {
        let is_stuck = |log: &Log| log.is_available() && log.unframed() > 0 && log.position >= places;
        self.logs.iter().position(is_stuck)
    }

    /// The next generation owns the log from its end on.
    pub(crate) fn raise_generation(&mut self, disk: &mut Disk, partition: Partition, rules: Rules) {
        let log = &mut self.logs[partition];
        log.raised = true;
        if rules.hold(Rule::Generations) {
            disk.files[partition].generations.push(log.end);
            log.generation += 1;
        }
    }

    /// Writes all that waits as one block.
    pub(crate) fn write_block(&mut self, disk: &mut Disk, rules: Rules) {
        let entry = |(partition, staged): (Partition, &Staged)| Entry {
            partition,
            batch: staged.batch,
            frames_end: self.logs[partition].frames_end,
        };
        let entries: Vec<Entry> = self.unjournaled().map(entry).collect();
        let sequence = self.push_block(disk, rules, entries);
        for log in self.logs.iter_mut().filter(|log| log.is_available()) {
            let waiting = log.staged.iter_mut().filter(|staged| staged.block.is_none() && !staged.framed);
            waiting.for_each(|staged| staged.block = Some(sequence));
        }
    }

    /// Writes a block that only says what is free and what was durable.
    pub(crate) fn write_bare_block(&mut self, disk: &mut Disk, rules: Rules) {
        self.push_block(disk, rules, Vec::new());
    }

    fn push_block(&mut self, disk: &mut Disk, rules: Rules, entries: Vec<Entry>) -> Sequence {
        let mut ends: Vec<End> = Vec::new();
        for Entry { partition, batch, .. } in &entries {
            ends.retain(|end| end.partition != *partition);
            ends.push(End { partition: *partition, generation: batch.generation, offset: batch.next });
        }
        let floor = self.floor(disk, rules);
        let durable_through = self.journal.durable_through;
        let (sequence, ends_before) = self.journal.push(floor, ends);
        let place = sequence % disk.ring.len();
        disk.ring[place].write(Block { sequence, floor, durable_through, entries, ends_before });
        sequence
    }

    /// Writes what is staged of a partition as one frame.
    pub(crate) fn write_frame(&mut self, disk: &mut Disk, partition: Partition, rules: Rules) {
        let log = &mut self.logs[partition];
        let (place, durable) = (log.position, log.durable(&self.journal, rules));
        disk.files[partition].frames[place].write(log.build_frame(durable));
    }

    /// What the journal holds of a partition that takes no frames goes to a side file.
    pub(crate) fn keep_aside(&mut self, disk: &mut Disk, partition: Partition, rules: Rules) {
        let log = &mut self.logs[partition];
        log.kept_aside = true;
        if log.is_absent() && !rules.hold(Rule::DroppedOnRecordOnly) {
            return;
        }
        if log.is_corrupt() && rules.hold(Rule::VerdictBeforeReuse) {
            disk.files[partition].corrupt = true;
        }
        if rules.hold(Rule::KeptAside) {
            let mut blocks: Vec<&Block> = disk.blocks_read().collect();
            blocks.sort_unstable_by_key(|block| block.sequence);
            let entries = blocks.into_iter().flat_map(|block| &block.entries);
            let of_partition = entries.filter(|entry| entry.partition == partition).map(|entry| entry.batch);
            let aside = &disk.files[partition].aside;
            let missing: Vec<_> = of_partition.filter(|batch| !aside.contains(batch)).collect();
            disk.files[partition].aside.extend(missing);
        }
    }

    /// Whether frames may be written: not before what recovery has read is durable.
    pub(crate) fn may_build_on_disk(&self, rules: Rules) -> bool {
        self.flushed || !rules.hold(Rule::FlushBeforeRedo)
    }

    /// Whether recovery has put all that it found into durable frames, or aside.
    pub(crate) fn is_redone(&self) -> bool {
        let is_redone = |log: &Log| if log.is_available() { log.staged.is_empty() } else { log.kept_aside };
        self.flushed && self.logs.iter().all(is_redone)
    }

    /// A write or a flush of the partition's segments failed.
    pub(crate) fn fail_log(&mut self, partition: Partition) {
        self.logs[partition].take_offline(Standing::Failed);
    }
}

/// How many free blocks may not be used but for raising the floor.
fn kept_for_floor(rules: Rules) -> usize {
    usize::from(rules.hold(Rule::BlockKeptForFloor) && rules.hold(Rule::FloorBeforeReuse))
}
