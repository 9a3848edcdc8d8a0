//! What the broker does by itself, in its own time.

use crate::broker::Broker;
use crate::disk::Partition;
use crate::log::Progress;
use crate::model::{Action, State, Storage};
use crate::place::Place;
use crate::rules::Rule;

/// A step of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Makes the next generation durable; appends wait for it.
    RaiseGeneration(Partition),
    /// Writes all that waits in memory to the journal.
    WriteBlock,
    /// Writes a block that says how much of the ring is free.
    RaiseFloor,
    /// Writes a block that proves the one before, because nothing else will soon.
    CloseRing,
    /// Writes what is staged of a partition to its segment.
    Checkpoint(Partition),
    /// Flushes what was written of a partition.
    Flush(Partition),
    /// Puts what the journal holds of a partition that takes no frames into a side file.
    KeepAside(Partition),
    /// Makes the state of the partition's producer durable.
    Snapshot(Partition),
    /// Recovery flushes the segments and the ring that it read.
    FlushRecovered,
    /// Recovery's last step, and its first block: what the ring held is placed.
    FreeRing,
}

/// What the broker may do next.
pub(crate) fn possible(storage: &Storage, state: &State, broker: &Broker, actions: &mut Vec<Action>) {
    for partition in state.partitions(broker) {
        of_partition(storage, state, broker, partition, actions);
    }
    let mut may = |work, is_possible: bool| {
        if is_possible {
            actions.push(Action::Work(work));
        }
    };
    let (disk, rules) = (&state.disk, storage.rules);
    if broker.serving {
        may(Work::WriteBlock, broker.may_write_block(disk, rules));
        may(Work::RaiseFloor, broker.may_raise_floor(disk, rules));
        // Where nothing rots, nothing needs to be proven.
        may(Work::CloseRing, storage.bounds.rots > 0 && broker.may_close_ring(disk, rules));
    } else {
        may(Work::FlushRecovered, !broker.flushed);
        may(Work::FreeRing, broker.is_redone() && broker.journal.next == broker.journal.first);
    }
}

fn of_partition(storage: &Storage, state: &State, broker: &Broker, partition: Partition, actions: &mut Vec<Action>) {
    let (log, left) = (&broker.logs[partition], &state.left);
    let mut may = |work: fn(Partition) -> Work, is_possible: bool| {
        if is_possible {
            actions.push(Action::Work(work(partition)));
        }
    };
    if !log.is_available() {
        may(Work::KeepAside, !log.kept_aside);
        return;
    }
    let may_write = log.may_write_frame(storage.places, storage.segment, storage.rules);
    may(Work::Checkpoint, log.unframed() > 0 && may_write && broker.may_build_on_disk(storage.rules));
    may(Work::Flush, log.frames_in(Progress::Written).next().is_some());
    if broker.serving {
        may(Work::RaiseGeneration, !log.raised && left.appends + left.retries > 0);
        may(Work::Snapshot, log.stored.is_some() && left.snapshots > 0);
    }
}

/// Does it.
pub(crate) fn apply(storage: &Storage, state: &mut State, work: Work) {
    let rules = storage.rules;
    let State { disk, broker: Some(broker), left, .. } = state else { return };
    match work {
        Work::RaiseGeneration(partition) => broker.raise_generation(disk, partition, rules),
        Work::WriteBlock => broker.write_block(disk, rules),
        Work::RaiseFloor | Work::CloseRing | Work::FreeRing => broker.write_bare_block(disk, rules),
        Work::Checkpoint(partition) => broker.write_frame(disk, partition, rules),
        Work::Flush(partition) => {
            if rules.hold(Rule::DeviceFlush) {
                disk.files[partition].frames.iter_mut().for_each(Place::flush);
            }
            broker.logs[partition].flushed();
        }
        Work::KeepAside(partition) => broker.keep_aside(disk, partition, rules),
        Work::Snapshot(partition) => {
            left.snapshots -= 1;
            let log = &broker.logs[partition];
            let durable = log.durable(&broker.journal, rules);
            let beyond = log.staged.iter().find(|staged| staged.batch.next > durable);
            let stored = beyond.map_or(log.stored, |staged| staged.batch.record.checked_sub(1));
            disk.files[partition].snapshot = if rules.hold(Rule::SnapshotsAreDurable) {
                stored.map(|record| (durable, record))
            } else {
                log.stored.map(|record| (log.end, record))
            };
        }
        Work::FlushRecovered => {
            disk.files.iter_mut().flat_map(|files| &mut files.frames).for_each(Place::flush);
            disk.ring.iter_mut().for_each(Place::flush);
            broker.flushed = true;
        }
    }
}
