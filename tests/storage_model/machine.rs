//! What the kernel, the device and fate do: writes end, flushes fail, power goes, processes are killed, disks rot.

use crate::broker::Broker;
use crate::disk::{Block, Disk, Entry, Frame, Generation, Offset, Partition};
use crate::history::Violation;
use crate::log::Progress;
use crate::model::{Action, State, Storage};
use crate::place::{Leaves, Place};
use crate::recovery::open;
use crate::rules::Rule;

/// Something that the broker does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The write to that place of the ring is complete.
    CompleteBlock(usize),
    FailBlock(usize, Leaves),
    /// The frame at that place is written.
    CompleteFrame(Partition, usize),
    FailFrame(Partition, usize, Leaves),
    /// A flush of the partition's segments fails, and leaves one of the disks that it may leave.
    FailFlush(Partition, usize),
    /// The power goes and leaves one of the disks that it may leave.
    PowerLoss(usize),
    /// The process is killed, and its writes end in one of the ways that they may.
    Kill(usize),
    /// The next life reads the disk; its copy of the metadata may lack a partition.
    Open(Option<Partition>),
    /// A write of a killed process lands.
    Land(usize),
    RotFrame(Partition, usize),
    RotBlock(usize),
}

/// What may happen while no broker runs.
pub(crate) fn possible_while_down(storage: &Storage, state: &State, actions: &mut Vec<Action>) {
    lands(state, actions);
    actions.push(Action::Event(Event::Open(None)));
    if state.left.lagging_metadata > 0 {
        actions.extend((0..storage.partitions).map(|partition| Action::Event(Event::Open(Some(partition)))));
    }
    if state.left.rots > 0 {
        rots(storage, &state.disk, actions);
    }
}

/// What may happen to a running broker.
pub(crate) fn possible(storage: &Storage, state: &State, broker: &Broker, actions: &mut Vec<Action>) {
    lands(state, actions);
    let (disk, left) = (&state.disk, &state.left);
    if left.power_losses > 0 {
        actions.extend((0..disk.power_losses()).map(|number| Action::Event(Event::PowerLoss(number))));
    }
    if left.kills > 0 {
        actions.extend((0..disk.kills()).map(|number| Action::Event(Event::Kill(number))));
    }
    for place in disk.blocks_in_flight() {
        actions.push(Action::Event(Event::CompleteBlock(place)));
        if left.failed_blocks > 0 && broker.serving {
            actions.extend(failures(&disk.ring[place]).map(|leaves| Action::Event(Event::FailBlock(place, leaves))));
        }
    }
    for (partition, log) in broker.logs.iter().enumerate() {
        for flight in log.frames_in(Progress::InKernel) {
            actions.push(Action::Event(Event::CompleteFrame(partition, flight.place)));
            if left.failed_frames > 0 {
                let fail = |leaves| Action::Event(Event::FailFrame(partition, flight.place, leaves));
                actions.extend(failures(&disk.files[partition].frames[flight.place]).map(fail));
            }
        }
        if left.failed_flushes > 0 && log.frames_in(Progress::Written).next().is_some() {
            let disks = if storage.rules.hold(Rule::DirectReads) { disk.failed_flushes(partition) } else { 1 };
            actions.extend((0..disks).map(|number| Action::Event(Event::FailFlush(partition, number))));
        }
    }
}

fn lands(state: &State, actions: &mut Vec<Action>) {
    actions.extend((0..state.disk.late.len()).map(|late| Action::Event(Event::Land(late))));
}

/// What a failure may leave there, each once.
fn failures<T>(place: &Place<T>) -> impl Iterator<Item = Leaves> {
    let torn = place.live.is_some().then_some(Leaves::Torn);
    [Leaves::Old, Leaves::New].into_iter().chain(torn)
}

/// Lets it happen.
pub(crate) fn apply(storage: &Storage, state: &mut State, event: Event) -> Result<(), Violation> {
    match event {
        Event::CompleteBlock(place) => return complete_block(storage, state, place),
        Event::FailBlock(place, leaves) => fail_block(storage, state, place, leaves),
        Event::CompleteFrame(partition, place) => {
            end_frame(&mut state.disk, partition, place, Leaves::New);
            if let Some(broker) = &mut state.broker {
                broker.logs[partition].frame_written(place);
            }
        }
        Event::FailFrame(partition, place, leaves) => {
            state.left.failed_frames -= 1;
            end_frame(&mut state.disk, partition, place, leaves);
            if let Some(broker) = &mut state.broker {
                if storage.rules.hold(Rule::FailureIsFinal) {
                    broker.fail_log(partition);
                } else {
                    broker.logs[partition].frame_written(place);
                }
            }
        }
        Event::FailFlush(partition, number) => {
            state.left.failed_flushes -= 1;
            if storage.rules.hold(Rule::DirectReads) {
                state.disk.fail_flush(partition, number);
            } else {
                state.disk.files[partition].frames.iter_mut().for_each(Place::give_up);
            }
            if let (Some(broker), true) = (&mut state.broker, storage.rules.hold(Rule::FailureIsFinal)) {
                broker.fail_log(partition);
            }
        }
        Event::PowerLoss(number) => {
            state.left.power_losses -= 1;
            state.disk.lose_power(number);
            state.broker = None;
        }
        Event::Kill(number) => {
            state.left.kills -= 1;
            state.broker = None;
            if storage.rules.hold(Rule::LocksFirst) {
                state.disk.end_writes(number);
            } else {
                state.disk.orphan_writes();
            }
        }
        Event::Open(unknown) => {
            state.left.lagging_metadata -= u8::from(unknown.is_some());
            let opened = open(&state.disk, storage.rules, storage.segment, unknown);
            let verdict = state.history.audit(&state.disk, &opened, state.rotted);
            state.broker = Some(opened.broker);
            return verdict;
        }
        Event::Land(late) => state.disk.land(late),
        Event::RotFrame(partition, place) => {
            state.left.rots -= 1;
            state.rotted = true;
            state.disk.files[partition].frames[place].rot();
        }
        Event::RotBlock(place) => {
            state.left.rots -= 1;
            state.rotted = true;
            state.disk.ring[place].rot();
        }
    }
    Ok(())
}

fn complete_block(storage: &Storage, state: &mut State, place: usize) -> Result<(), Violation> {
    let (place, Some(broker)) = (&mut state.disk.ring[place], &mut state.broker) else { return Ok(()) };
    place.complete();
    place.flush();
    if let Some(block) = &place.live {
        broker.journal.complete(block);
    }
    if broker.serving { Ok(()) } else { storage.serve(state) }
}

fn fail_block(storage: &Storage, state: &mut State, place: usize, leaves: Leaves) {
    state.left.failed_blocks -= 1;
    let (place, Some(broker)) = (&mut state.disk.ring[place], &mut state.broker) else { return };
    let block = place.in_flight.clone();
    place.fail(leaves);
    if storage.rules.hold(Rule::FailureIsFinal) {
        broker.journal.failed = true;
    } else if let Some(block) = block {
        broker.journal.complete(&block);
    }
}

/// The write of a frame ends, in all its places.
fn end_frame(disk: &mut Disk, partition: Partition, place: usize, leaves: Leaves) {
    let frames = &mut disk.files[partition].frames;
    let places = frames[place].in_flight.as_ref().map_or(0, |frame| frame.places);
    frames[place..place + places].iter_mut().for_each(|place| place.fail(leaves));
}

/// What may rot.
fn rots(storage: &Storage, disk: &Disk, actions: &mut Vec<Action>) {
    let untold = !storage.rules.hold(Rule::RotIsTold);
    for (partition, files) in disk.files.iter().enumerate() {
        for (place, frame) in files.frames.iter().enumerate() {
            if frame.certain().is_some_and(|frame| untold || tells_of_frame(disk, partition, frame)) {
                actions.push(Action::Event(Event::RotFrame(partition, place)));
            }
        }
    }
    for (place, block) in disk.ring.iter().enumerate() {
        if block.certain().is_some_and(|block| untold || tells_of_block(disk, block)) {
            actions.push(Action::Event(Event::RotBlock(place)));
        }
    }
}

/// Whether something durable would tell that the frame is missing.
fn tells_of_frame(disk: &Disk, partition: Partition, frame: &Frame) -> bool {
    let files = &disk.files[partition];
    let reaches = |end: Offset, generation: Generation| end.min(files.owned_end(generation)) >= frame.next();
    let owned = !frame.batches.is_empty() && frame.batches.iter().all(|batch| files.owns(batch));
    let by_generation = files.generations.last().is_some_and(|start| *start >= frame.next());
    let by_frame = |later: &Frame| reaches(later.frames_end, later.generation);
    let by_entry = |entry: &Entry| entry.partition == partition && reaches(entry.frames_end, entry.batch.generation);
    let mut entries = disk.blocks_certain().flat_map(|block| &block.entries);
    owned && (by_generation || files.frames_certain().any(by_frame) || entries.any(by_entry))
}

/// Whether something durable would tell that the block is missing: a later block; or, where it is the last one, frames
/// that were built when its entries were durable.
fn tells_of_block(disk: &Disk, block: &Block) -> bool {
    let by_frame = |entry: &Entry| {
        let files = &disk.files[entry.partition];
        files.frames_certain().any(|frame| frame.durable.min(files.owned_end(frame.generation)) >= entry.batch.next)
    };
    disk.blocks_certain().any(|later| later.durable_through > block.sequence)
        || (disk.blocks_read().all(|other| other.sequence <= block.sequence) && block.entries.iter().all(by_frame))
}
