//! The one writer of a log: stages appends once there is room for them, and puts what is staged into frames.
//!
//! # Two ways to the disk
//! A small append is handed to the journal of its core, which makes it durable together with those of other logs; it is
//! put into a frame later. A large one goes straight into a frame, and what is staged before it goes along (rule 1 of
//! the storage protocol). A log that has so much waiting for the journal that it fills a frame by itself goes straight,
//! too, if what is staged before it is not much more: then a frame of its own costs no more than its part of the journal,
//! and is written once.
//!
//! # Rounds
//! Staging takes no time, and is done as appends come. What takes time is done by a task that runs while there is
//! something to do: each round looks at the state and takes one step; whatever had to be waited for, the next round looks
//! again. Offsets are assigned only when there is room for a frame and the generation is durable, so that a failure
//! before uses none.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_runtime::buffer::{AlignedBuf, IoBuf};
use ringmq_runtime::file::{File, IoClass};
use ringmq_runtime::local::Listener;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::{fs, task, time};
use ringmq_wire::batch::{BatchHeader, set_base_offset, set_leader_epoch};
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::append::{Append, AppendError, Appended};
use crate::cache::CachedFrame;
use crate::frame::{FrameHeader, Generation};
use crate::index_hints;
use crate::journal_queue::{JournalQueue, Journaling};
use crate::payload::{FrameBuf, Payload, frame_bytes_for};
use crate::producers::{Known, OutOfSequence};
use crate::room::{self, NoRoom};
use crate::segment::ActiveSegment;
use crate::staging::{
    CHECKPOINT_FRAME_BYTES_MAX, CHECKPOINT_WRITES_IN_FLIGHT_MAX, FULL_FRAME_BYTES, Group, Queued, Staged, StagedBatches,
};
use crate::state::{LogCore, LogState};
use crate::window::FlightNumber;

/// So many times as much as waits for the journal may be staged when a log goes straight for it.
const STAGED_PER_QUEUED: usize = 4;

const OFFSETS_USED_UP: &str = "the partition's offsets are used up; go on with a new topic";

/// Stages what there is room for, and makes sure that the writer runs if there is more to do.
pub(crate) fn wake(log: &Rc<LogCore>) {
    while !log.state.borrow().making_room {
        // What is left then is the task's: no need to count what a frame would have.
        if log.state.borrow().is_left_to_writer() {
            return;
        }
        let step = decide(log, &log.state.borrow());
        match step {
            Step::Stage => stage(log),
            Step::Answer(known) => answer(log, known),
            Step::Stop => return,
            _ => break,
        }
    }
    let mut state = log.state.borrow_mut();
    if !state.writing {
        // A closed gate means that the log is closed: nothing is staged then.
        state.writing = log.gate.spawn("log-writer", write(log.clone())).is_ok();
    }
}

/// What the writer does next.
enum Step {
    /// Nothing is left to do.
    Stop,
    /// Every write that may be at the device is.
    Wait,
    /// The first append of the queue has room.
    Stage,
    /// The first append of the queue needs none: its producer sent it before, or out of its sequence.
    Answer(Result<Appended, OutOfSequence>),
    /// The next frame can go; not waited for is what the journal has.
    Launch { group: Group, is_waited_for: bool },
    /// There is no room for the first append of the queue.
    MakeRoom(Room),
}

/// What is missing.
#[derive(Clone, Copy)]
pub(crate) enum Room {
    /// The log has no segment yet.
    Begin,
    /// The next append would be the first of this opening.
    Raise,
    /// The active segment is to be sealed.
    Roll,
    /// The active segment's file is to have so many bytes.
    Grow(u64),
    /// There are fewer offsets left than the append has records.
    OffsetsUsedUp,
    /// Offsets below this one are to be shown before they are durable.
    Reserve(Offset),
}

async fn write(log: Rc<LogCore>) {
    loop {
        let (step, moved) = next_step(&log);
        match step {
            Step::Stop => break,
            Step::Wait => moved.await,
            Step::Stage => stage(&log),
            Step::Answer(known) => answer(&log, known),
            Step::Launch { group, is_waited_for } => {
                launch(&log, group);
                if !is_waited_for {
                    task::yield_to_io().await;
                }
            }
            Step::MakeRoom(room) => {
                let made = make_room_beside_reserve(&log, room).await;
                log.state.borrow_mut().making_room = false;
                if let Err(no_room) = made {
                    refuse(&log, no_room);
                }
            }
        }
    }
    log.writer_moved.notify_all();
}

fn next_step(log: &LogCore) -> (Step, Listener) {
    let moved = log.writer_moved.listen();
    let mut state = log.state.borrow_mut();
    let step = decide(log, &state);
    state.writing = !matches!(step, Step::Stop);
    state.making_room = matches!(step, Step::MakeRoom(_));
    (step, moved)
}

/// Appends are staged before frames are made of what is staged: the more there is, the fewer frames it takes.
fn decide(log: &LogCore, state: &LogState) -> Step {
    if !state.is_usable() {
        return Step::Stop;
    }
    if let Some(known) = state.queue.first().and_then(|append| known(log, state, append)) {
        return Step::Answer(known);
    }
    let mut write_until = state.write_until;
    match missing_room(log, state) {
        Missing::Nothing => return Step::Stage,
        Missing::Room(Room::Roll) if !state.staging.is_empty() => write_until = state.end,
        Missing::Room(room) => return Step::MakeRoom(room),
        Missing::NothingWaits => {}
    }
    if write_until <= state.window.written() {
        return Step::Stop;
    }
    let (frame_bytes_max, writes_max) = (log.config().shared_frame_bytes_max(), log.config().writes_in_flight_max);
    let is_waited_for = write_until > state.readable;
    let (frame_bytes_max, writes_max, until) = if is_waited_for {
        (frame_bytes_max, writes_max, Offset::MAX)
    } else {
        let writes_max = writes_max.min(CHECKPOINT_WRITES_IN_FLIGHT_MAX);
        (frame_bytes_max.min(CHECKPOINT_FRAME_BYTES_MAX), writes_max, state.readable)
    };
    match state.staging.next_group(frame_bytes_max, until) {
        None => Step::Stop,
        Some(group) if group.may_go(state.window.in_flight(), writes_max) => Step::Launch { group, is_waited_for },
        Some(_) => Step::Wait,
    }
}

/// What an append that is not to be stored is answered with.
fn known(log: &LogCore, state: &LogState, append: &Append) -> Option<Result<Appended, OutOfSequence>> {
    let now = Timestamp::new(time::wall_clock());
    match state.producers.judge(&append.sequenced()?, now, log.config().producer_expiry) {
        Ok(Known::New) => None,
        Ok(Known::Stored(offsets)) => Some(Ok(Appended { base_offset: offsets.start, next_offset: offsets.end })),
        Err(out_of_sequence) => Some(Err(out_of_sequence)),
    }
}

/// What the first append of the queue lacks.
enum Missing {
    /// No append is in the queue.
    NothingWaits,
    Nothing,
    Room(Room),
}

fn missing_room(log: &LogCore, state: &LogState) -> Missing {
    let Some(append) = state.queue.first() else {
        let roll = state.roll_asked && state.active.as_ref().is_some_and(|active| active.position > 0);
        return if roll { Missing::Room(Room::Roll) } else { Missing::NothingWaits };
    };
    let Some(active) = &state.active else { return Missing::Room(Room::Begin) };
    let frame_bytes = frame_bytes_for(append.payload_bytes()) as u64;
    let needed = active.position + state.staging.frame_bytes() + frame_bytes;
    if needed > frame_bytes && (state.roll_asked || roll_is_due(log, state, needed)) {
        return Missing::Room(Room::Roll);
    }
    if state.generation.is_none() {
        return Missing::Room(Room::Raise);
    }
    if active.room < needed {
        return Missing::Room(Room::Grow(needed));
    }
    let Some(next_offset) = state.end.checked_add(append.record_count().into()) else {
        return Missing::Room(Room::OffsetsUsedUp);
    };
    if log.config().flush_interval.is_some() && next_offset > state.reserved_until() {
        return Missing::Room(Room::Reserve(next_offset));
    }
    Missing::Nothing
}

/// What there has to be before the group's frame can be launched. Only recovery asks: for what is staged otherwise there
/// is room.
pub(crate) fn room_for(log: &LogCore, group: Group) -> Option<Room> {
    let state = log.state.borrow();
    let active = state.active.as_ref()?;
    let needed = active.position + group.frame_bytes as u64;
    if active.position > 0 && !fits(log, active, state.window.written(), needed) {
        return Some(Room::Roll);
    }
    (active.room < needed).then_some(Room::Grow(needed))
}

/// Whether the active segment can have so many bytes, with a frame of that offset among them.
fn fits(log: &LogCore, active: &ActiveSegment, offset: Offset, needed: u64) -> bool {
    let place = ringmq_index::FramePlace { offset, position: active.position };
    needed <= log.config().segment_bytes && ringmq_index::OffsetIndex::fits(active.segment.base, place)
}

/// Whether the active segment is too old for another append, or too full to have so many bytes.
fn roll_is_due(log: &LogCore, state: &LogState, needed: u64) -> bool {
    let Some(active) = &state.active else { return false };
    !fits(log, active, state.end, needed) || is_aged(log, state, Timestamp::new(time::wall_clock()))
}

/// Whether the active segment's first frame is as old as a segment may get.
pub(crate) fn is_aged(log: &LogCore, state: &LogState, now: Timestamp) -> bool {
    let first = state.active.as_ref().and_then(|active| active.open.indexes.borrow().first_written_at);
    let age = first.map_or(0, |first| now.get().saturating_sub(first.get()));
    Duration::from_millis(u64::try_from(age).unwrap_or(0)) >= log.config().segment_age
}

/// As [`make_room`], in a process that serves: what the disk has free goes to the reserve before it goes to appends. A
/// segment of which all is deleted must make way for the next one, with the reserve if need be.
async fn make_room_beside_reserve(log: &Rc<LogCore>, room: Room) -> Result<(), NoRoom> {
    if let Room::Roll = room {
        let for_deletions = log.state.borrow().queue.is_empty();
        let is_full = |no_room: &NoRoom| for_deletions && matches!(no_room, NoRoom::Full(_));
        return log.reserve.lend("to begin a segment", is_full, async || room::roll(log).await).await;
    }
    match log.reserve.fill().await {
        Err(error) if fs::is_full(&error) => return Err(NoRoom::Full(Arc::new(error))),
        Err(error) => tracing::warn!(%error, "no space can be kept for deletions and starts on a full disk"),
        Ok(()) => {}
    }
    make_room(log, room).await
}

pub(crate) async fn make_room(log: &Rc<LogCore>, room: Room) -> Result<(), NoRoom> {
    match room {
        Room::Begin => room::begin(log).await,
        Room::Raise => room::raise_generation(log).await,
        Room::Roll => room::roll(log).await,
        Room::Grow(needed) => room::grow(log, needed).await,
        Room::Reserve(until) => room::reserve(log, until).await,
        Room::OffsetsUsedUp => Err(NoRoom::NotReady(Arc::new(io::Error::other(OFFSETS_USED_UP)))),
    }
}

/// Refuses what there is no room for: the first append alone, because those behind it may be smaller.
fn refuse(log: &LogCore, no_room: NoRoom) {
    let error = match no_room {
        NoRoom::Full(error) => AppendError::StorageFull(error),
        NoRoom::NotReady(error) => AppendError::NotReady(error),
        NoRoom::Broken { action, source } => return log.poison(action, source),
    };
    let refused = {
        let mut state = log.state.borrow_mut();
        state.roll_asked = false;
        state.queue.take_first()
    };
    if let Some(refused) = refused {
        // Whoever asked may be gone.
        let _ = refused.waiter.send(Err(error));
    }
}

/// Answers the first append of the queue without storing it. One that was sent before waits until what was stored then is
/// durable (rule 9 of the storage protocol).
fn answer(log: &LogCore, known: Result<Appended, OutOfSequence>) {
    let mut state = log.state.borrow_mut();
    let Some(Queued { waiter, .. }) = state.queue.take_first() else { return };
    match known {
        Ok(appended) if !SeededBug::AnswerRetryEarly.is_in() => {
            state.waiters.push_back((appended, waiter));
            state.acknowledge();
        }
        // Whoever asked may be gone.
        known => drop(waiter.send(known.map_err(AppendError::from))),
    }
}

/// Gives the first append of the queue its offsets, and decides which way it goes.
fn stage(log: &Rc<LogCore>) {
    let mut state = log.state.borrow_mut();
    let (Some(generation), Some(known)) = (state.generation, state.generations.clone()) else { return };
    let Some(Queued { append, waiter }) = state.queue.take_first() else { return };
    let way = Way::of(log, &state, &append);
    if let Some(sequenced) = append.sequenced() {
        let (base_offset, now) = (state.end, Timestamp::new(time::wall_clock()));
        let LogState { producers, producers_counted, .. } = &mut *state;
        producers.stored(&sequenced, base_offset, now);
        log.producer_budget.settle(producers_counted, producers);
    }
    let staged = placed(append, state.end, state.leader_epoch, generation, way.is_some());
    let (base_offset, next_offset) = (staged.base_offset, staged.next_offset);
    state.end = next_offset;
    state.waiters.push_back((Appended { base_offset, next_offset }, waiter));
    let journaling = match &staged.batches {
        StagedBatches::Shared(batches) => way.map(|way| (way, batches.clone())),
        StagedBatches::InPlace(_) => None,
    };
    state.staging.push(staged);
    let Some((way, batches)) = journaling else {
        state.write_until = next_offset;
        return;
    };
    if way == Way::Relaxed {
        state.relaxed_end = next_offset;
    }
    state.queued_for_journal += batches.len();
    if goes_straight_for_its_queue(state.queued_for_journal, state.staging.payload_bytes()) {
        state.write_until = next_offset;
    }
    drop(state);
    let journaling = Journaling::new(log.clone(), known.number(), generation, base_offset..next_offset, batches);
    way.queue(log).push(journaling);
    if way == Way::Relaxed {
        room::reserve_ahead(log);
    }
}

/// Whether so much of a log waits for the journal that it had better fill a frame. All that is staged goes before it: where
/// that is much more, a device that is slow for a moment would get all of it on top, of every log at the same time.
fn goes_straight_for_its_queue(queued_bytes: usize, staged_bytes: usize) -> bool {
    queued_bytes >= FULL_FRAME_BYTES && staged_bytes / queued_bytes < STAGED_PER_QUEUED
}

/// By which journal an append goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The one whose blocks are durable when they are written.
    Durable,
    /// The one that is flushed at an interval.
    Relaxed,
}

impl Way {
    /// The journal that is the shorter way, if one is: for a small append, unless a frame is waiting to be made that takes
    /// it along, or it would be durable before what the relaxed journal has.
    fn of(log: &LogCore, state: &LogState, append: &Append) -> Option<Way> {
        // Behind what nobody waits for it would wait for all of that.
        let frame_waits = state.window.written() < state.write_until && state.write_until > state.readable;
        let fits = |way: &Way| append.payload_bytes() <= way.queue(log).append_bytes_max() && !frame_waits;
        if log.config().flush_interval.is_some() {
            if log.relaxed_journal.append_bytes_max() > 0 {
                return Some(Way::Relaxed).filter(fits);
            }
            log.relaxed_journal.want();
        }
        Some(Way::Durable).filter(fits).filter(|_| state.relaxed_end <= state.durable)
    }

    fn queue(self, log: &LogCore) -> &JournalQueue {
        match self {
            Way::Durable => &log.journal,
            Way::Relaxed => &log.relaxed_journal,
        }
    }
}

/// The append with its place in the log; what others are to read before it is in a frame is in shared memory.
fn placed(
    append: Append,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    generation: Generation,
    shared: bool,
) -> Staged {
    let (record_count, max_timestamp) = (append.record_count(), append.max_timestamp());
    let batches = match append.into_payload() {
        Payload::Frame(mut frame) => {
            place_batches(frame.payload_mut(), base_offset, leader_epoch);
            if shared { StagedBatches::Shared(frame.into_payload()) } else { StagedBatches::InPlace(frame) }
        }
        Payload::Copied(batches) => {
            let mut batches = batches.try_into_mut().unwrap_or_else(|shared| shared[..].into());
            place_batches(&mut batches, base_offset, leader_epoch);
            StagedBatches::Shared(IoBuf::from(batches.freeze()))
        }
    };
    let next_offset = following(base_offset, record_count);
    Staged { base_offset, next_offset, record_count, max_timestamp, generation, leader_epoch, batches }
}

/// Writes offset and epoch into every batch: what their own checksums leave out.
fn place_batches(payload: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let (mut rest, mut next) = (payload, base_offset);
    while !rest.is_empty() {
        let header =
            BatchHeader::decode(rest).expect("an Append holds whole batches only, and nobody else can change them");
        set_base_offset(rest, next);
        set_leader_epoch(rest, leader_epoch);
        next = following(next, header.record_count);
        rest = &mut rest[header.size_bytes()..];
    }
}

/// The offset that many records behind `offset`, of an append that has an offset for each record.
fn following(offset: Offset, records: u32) -> Offset {
    offset.checked_add(records.into()).expect("an append is staged only with an offset for each of its records")
}

/// Builds the next frame, of a group that has room, and hands it to the device.
pub(crate) fn launch(log: &Rc<LogCore>, group: Group) {
    let mut state = log.state.borrow_mut();
    let Some((header, frame)) = build(log, &mut state, group) else { return };
    let Some(active) = &mut state.active else { return };
    active.position = header.end_position();
    active.open.indexes.borrow_mut().push(&header);
    let file = active.open.file.clone();
    let buf = frame.freeze();
    // Nobody waits for what a journal has.
    let class = if header.next_offset <= state.readable { IoClass::Checkpoint } else { IoClass::Append };
    let flight = state.window.launch(header.next_offset, header.end_position(), CachedFrame::new(&header, &buf));
    drop(state);
    let write = write_frame(log.clone(), file, buf, header.position, class, flight);
    // The gate is closed only after the writer has stopped.
    let spawned = log.gate.spawn("log-write", write);
    debug_assert!(spawned.is_ok());
}

fn build(log: &LogCore, state: &mut LogState, group: Group) -> Option<(FrameHeader, AlignedBuf)> {
    let first = state.staging.first()?;
    let (base_offset, generation, leader_epoch) = (first.base_offset, first.generation, first.leader_epoch);
    let (log_number, active) = (state.generations.as_ref()?.number(), state.active.as_ref()?);
    let (segment_base, position) = (active.segment.base, active.position);
    debug_assert_eq!(base_offset, state.window.written());

    let (mut next_offset, mut max_timestamp) = (base_offset, Timestamp::new(i64::MIN));
    let mut batches = Vec::with_capacity(group.appends);
    for staged in state.staging.take(group) {
        next_offset = staged.next_offset;
        max_timestamp = max_timestamp.max(staged.max_timestamp);
        batches.push(staged.batches);
    }
    let mut frame = together(batches, group.payload_bytes).into_frame();
    let header = FrameHeader {
        id: log.id,
        leader_epoch,
        base_offset,
        next_offset,
        frames_end: state.window.frames_end(),
        durable_offset: state.durable,
        generation,
        log_number,
        segment_base,
        position,
        written_at: Timestamp::new(time::wall_clock()),
        max_timestamp,
        record_count: group.records,
        payload_bytes: frame_field(group.payload_bytes),
        frame_bytes: frame_field(frame.len()),
    };
    header.seal(&mut frame);
    Some((header, frame))
}

/// A length in a frame.
fn frame_field(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("LogConfig::frame_bytes_limit fits 32 bits, and bounds every append and group")
}

/// One buffer of them all: the only one as it is, several copied together.
fn together(mut all: Vec<StagedBatches>, payload_bytes: usize) -> FrameBuf {
    if let [StagedBatches::InPlace(_)] = all[..]
        && let Some(StagedBatches::InPlace(frame)) = all.pop()
    {
        return frame;
    }
    let mut frame = FrameBuf::with_payload_len(payload_bytes);
    let mut rest = frame.payload_mut();
    for batches in &all {
        let (room, behind) = rest.split_at_mut(batches.bytes().len());
        room.copy_from_slice(batches.bytes());
        rest = behind;
    }
    frame
}

async fn write_frame(log: Rc<LogCore>, file: File, buf: IoBuf, position: u64, class: IoClass, flight: FlightNumber) {
    match file.write_at(&buf, position, class).await {
        Ok(()) => {
            log.landed(flight);
            index_hints::keep_if_due(&log);
        }
        Err(error) => log.poison("write a frame to", error),
    }
}
