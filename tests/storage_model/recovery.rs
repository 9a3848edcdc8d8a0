//! What a starting broker makes of the disk.

use crate::broker::Broker;
use crate::disk::{Batch, Block, Disk, End, Entry, Files, Frame, Offset, Partition, Sequence};
use crate::journal::Journal;
use crate::log::{Log, Staged, Standing};
use crate::place::Place;
use crate::rules::{Rule, Rules};

/// What recovery found, beside the broker that it leaves.
pub(crate) struct Opened {
    pub(crate) broker: Broker,
    /// By partition.
    pub(crate) found: Vec<Found>,
}

/// What recovery found of one partition.
pub(crate) struct Found {
    /// The log's batches, the journal's included.
    pub(crate) batches: Vec<Batch>,
    /// Offsets are missing in a segment before the last.
    pub(crate) hole: bool,
}

/// What recovery read of one partition's segments.
struct Scan {
    batches: Vec<Batch>,
    end: Offset,
    position: usize,
    hole: bool,
}

/// What recovery read of the ring.
struct Ring {
    /// The first block that no recovery can count.
    next: Sequence,
    entries: Vec<Entry>,
    /// Ends that blocks had which are missing now.
    lost_ends: Vec<End>,
    /// A block is missing, and the one that would tell its ends is as well.
    lost_unknown: bool,
}

/// Reads the disk, and changes nothing; `unknown` is a partition that this life's copy of the metadata lacks.
pub(crate) fn open(disk: &Disk, rules: Rules, segment: usize, unknown: Option<Partition>) -> Opened {
    let ring = read_ring(disk, rules);
    let first = if rules.hold(Rule::NumbersGoOn) { ring.next } else { 0 };
    let mut opened = Opened { broker: Broker::new(Journal::new(first)), found: Vec::new() };
    for (partition, files) in disk.files.iter().enumerate() {
        let scan = scan(files, rules, segment);
        let staged = redo(partition, files, &ring, scan.end, rules);
        let end = staged.last().map_or(scan.end, |staged| staged.batch.next).max(files.start);
        let standing = if files.deleted {
            Standing::Absent
        } else if files.corrupt || proven_end_is_missing(partition, disk, &ring, scan.end, end, rules) {
            Standing::Corrupt
        } else if unknown == Some(partition) {
            Standing::Absent
        } else {
            Standing::Available
        };
        let in_ring = ring.entries.iter().any(|entry| entry.partition == partition);
        let mut batches = scan.batches;
        batches.extend(staged.iter().map(|staged| staged.batch));
        opened.broker.logs.push(Log {
            standing,
            end,
            frames_end: scan.end,
            position: scan.position,
            generation: files.generations.len() - 1,
            kept_aside: files.deleted || (!in_ring && (files.corrupt || standing != Standing::Corrupt)),
            stored: last_stored(files, &batches, end, rules),
            staged,
            ..Log::default()
        });
        opened.found.push(Found { batches, hole: scan.hole });
    }
    opened
}

/// The producer's last append that the log has. State beyond the recovered end speaks of batches that are gone.
fn last_stored(files: &Files, batches: &[Batch], end: Offset, rules: Rules) -> Option<usize> {
    let in_log = batches.last().map(|batch| batch.record);
    let snapshot = files.snapshot.filter(|(covers, _)| *covers <= end || !rules.hold(Rule::SnapshotsAreDurable));
    in_log.max(snapshot.map(|(_, record)| record))
}

/// Reads frames until one does not follow. The segments before the last one in use are complete by rule 8.
fn scan(files: &Files, rules: Rules, segment: usize) -> Scan {
    let owns = |batch: &&Batch| files.owns(batch) || !rules.hold(Rule::Generations);
    let begins = |place: &usize| {
        let first = frame_at(&files.frames[*place]).and_then(|frame| frame.batches.first());
        first.is_some_and(|batch| owns(&batch))
    };
    let last = (segment..files.frames.len()).step_by(segment).rfind(begins).unwrap_or(0);
    let mut scan = Scan { batches: Vec::new(), end: 0, position: last, hole: false };
    for frame in files.frames[..last].iter().filter_map(frame_at) {
        for batch in frame.batches.iter().filter(owns) {
            scan.hole |= batch.base != scan.end;
            scan.end = batch.next;
            scan.batches.push(*batch);
        }
    }
    if last > 0 {
        let base = frame_at(&files.frames[last]).map_or(0, Frame::base);
        scan.hole |= base != scan.end;
        scan.end = base;
    }
    while let Some(frame) = files.frames.get(scan.position).and_then(frame_at) {
        let mut follows = frame.batches.iter().filter(owns).peekable();
        if follows.peek().is_none_or(|batch| batch.base != scan.end) {
            break;
        }
        scan.batches.extend(follows);
        scan.end = scan.batches.last().map_or(0, |batch| batch.next);
        scan.position += frame.places;
    }
    scan
}

fn frame_at(place: &Place<Frame>) -> Option<&Frame> {
    place.live.as_deref().filter(|frame| !frame.forged)
}

/// Reads blocks from the floor of the newest one until one is missing that nothing proves to have been durable.
fn read_ring(disk: &Disk, rules: Rules) -> Ring {
    let mut ring = Ring { next: 0, entries: Vec::new(), lost_ends: Vec::new(), lost_unknown: false };
    let Some(newest) = disk.blocks_read().max_by_key(|block| block.sequence) else { return ring };
    let proven = disk.blocks_read().map(|block| block.durable_through).max().unwrap_or(0);
    let at = |sequence: Sequence| disk.blocks_read().find(|block| block.sequence == sequence);
    ring.next = newest.floor;
    loop {
        match (at(ring.next), at(ring.next + 1)) {
            (Some(block), _) => ring.entries.extend(&block.entries),
            (None, _) if ring.next >= proven || !rules.hold(Rule::BlocksProveBlocks) => return ring,
            (None, Some(behind)) => ring.lost_ends.extend(&behind.ends_before),
            (None, None) => ring.lost_unknown = true,
        }
        ring.next += 1;
    }
}

/// What the journal and the side file hold that follows the frames.
fn redo(partition: Partition, files: &Files, ring: &Ring, frames_end: Offset, rules: Rules) -> Vec<Staged> {
    let journaled = ring.entries.iter().filter(|entry| entry.partition == partition).map(|entry| &entry.batch);
    let mut end = frames_end.max(files.start);
    let mut staged = Vec::new();
    for batch in files.aside.iter().chain(journaled) {
        if batch.base == end && (files.owns(batch) || !rules.hold(Rule::Generations)) {
            end = batch.next;
            staged.push(Staged::new(*batch));
        }
    }
    staged
}

/// Whether something durable says that the log went beyond `end`, or its frames alone beyond `frames_end`.
fn proven_end_is_missing(
    partition: Partition,
    disk: &Disk,
    ring: &Ring,
    frames_end: Offset,
    end: Offset,
    rules: Rules,
) -> bool {
    let files = &disk.files[partition];
    let by_generations =
        rules.hold(Rule::Generations) && files.generations.last().is_some_and(|start| *start > frames_end);
    let by_frames = files.frames_read().filter(|frame| !frame.forged || !rules.hold(Rule::LogNumber)).any(|frame| {
        let owned_end = files.owned_end(frame.generation);
        (rules.hold(Rule::FramesProveEntries) && frame.durable.min(owned_end) > end)
            || (rules.hold(Rule::FramesProveFrames) && frame.frames_end.min(owned_end) > frames_end)
    });
    let of_partition = |entry: &&Entry| entry.partition == partition;
    let mut entries = disk.blocks_read().flat_map(|block: &Block| &block.entries).filter(of_partition);
    let by_entries = rules.hold(Rule::EntriesProveFrames)
        && entries.any(|entry| entry.frames_end.min(files.owned_end(entry.batch.generation)) > frames_end);
    let lost = |lost: &End| lost.partition == partition && lost.offset.min(files.owned_end(lost.generation)) > end;
    by_generations || by_frames || by_entries || ring.lost_unknown || ring.lost_ends.iter().any(lost)
}
