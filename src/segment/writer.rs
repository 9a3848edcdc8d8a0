//! The one writer of a log: takes what is staged, makes room, assigns offsets, builds frames and sends them to the
//! device.
//!
//! It is a task that runs while there is something to do. Each round looks at the state and takes one step; whatever
//! had to be waited for, the next round looks again. Offsets are assigned only when the frame has room and nothing is
//! left to do but to write it, so that a failure before uses none. The write itself waits for its turn at the device.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_runtime::buffer::{AlignedBuf, IoBuf};
use ringmq_runtime::file::{File, IoClass};
use ringmq_runtime::local::Listener;
use ringmq_runtime::time;
use ringmq_wire::batch::{BatchHeader, set_base_offset, set_leader_epoch};
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::append::{AppendError, Appended};
use crate::cache::CachedFrame;
use crate::frame::{FrameHeader, Generation, LogNumber};
use crate::payload::{FrameBuf, Payload};
use crate::room::{self, NoRoom};
use crate::staging::{Group, Staged, Waiter};
use crate::state::{InFlight, LogCore, LogState, Phase};
use crate::window::FlightNumber;

const OFFSETS_USED_UP: &str = "the partition's offsets are used up; go on with a new topic";

/// Makes sure that the writer runs.
pub(crate) fn wake(log: &Rc<LogCore>) {
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
    Wait(Listener),
    /// The log has no segment yet.
    Begin,
    /// The next frame would be the first of this opening.
    Raise,
    /// The active segment is to be sealed.
    Roll,
    /// The active segment's file has no space for the frame.
    Grow(u64),
    /// The frame can go.
    Launch(Group, Ready),
    /// There are fewer offsets left than the frame has records.
    OffsetsUsedUp,
}

async fn write(log: Rc<LogCore>) {
    loop {
        let result = match next_step(&log) {
            Step::Stop => break,
            Step::Wait(moved) => {
                moved.await;
                Ok(())
            }
            Step::Begin => room::begin(&log).await,
            Step::Raise => room::raise_generation(&log).await,
            Step::Roll => room::roll(&log).await,
            Step::Grow(frame_bytes) => room::grow(&log, frame_bytes).await,
            Step::Launch(group, ready) => {
                launch(&log, group, ready);
                Ok(())
            }
            Step::OffsetsUsedUp => Err(NoRoom::NotReady(Arc::new(io::Error::other(OFFSETS_USED_UP)))),
        };
        if let Err(no_room) = result {
            refuse(&log, no_room);
        }
    }
    log.writer_moved.notify_all();
}

fn next_step(log: &LogCore) -> Step {
    let mut state = log.state.borrow_mut();
    let step = decide(log, &state);
    if matches!(step, Step::Stop) {
        state.writing = false;
    }
    step
}

fn decide(log: &LogCore, state: &LogState) -> Step {
    if state.poison.is_some() || state.phase == Phase::Closed {
        return Step::Stop;
    }
    let group = state.staging.next_group(log.config().shared_frame_bytes_max());
    let frame_bytes = group.map_or(0, |group| group.frame_bytes as u64);
    let Some(active) = &state.active else {
        return if group.is_some() { Step::Begin } else { Step::Stop };
    };
    if active.position > 0 && (state.roll_asked || roll_is_due(log, state, frame_bytes)) {
        return Step::Roll;
    }
    let Some(group) = group else { return Step::Stop };
    let (Some(generation), Some(known)) = (state.generation, &state.generations) else { return Step::Raise };
    if active.room < active.position + frame_bytes {
        return Step::Grow(frame_bytes);
    }
    if !group.may_go(state.window.in_flight(), log.config().writes_in_flight_max) {
        return Step::Wait(log.writer_moved.listen());
    }
    let base_offset = state.window.end();
    let Some(next_offset) = base_offset.checked_add(group.records.into()) else { return Step::OffsetsUsedUp };
    let ready = Ready {
        file: active.open.file.clone(),
        segment_base: active.segment.base,
        position: active.position,
        base_offset,
        next_offset,
        durable_offset: state.window.durable(),
        log_number: known.number(),
        generation,
        leader_epoch: state.leader_epoch,
    };
    Step::Launch(group, ready)
}

/// Whether the active segment is too old or too full for a frame of that length; a length of 0 asks for nothing.
fn roll_is_due(log: &LogCore, state: &LogState, frame_bytes: u64) -> bool {
    let Some(active) = state.active.as_ref().filter(|_| frame_bytes > 0) else { return false };
    let full = active.position + frame_bytes > log.config().segment_bytes;
    let place = ringmq_index::FramePlace { offset: state.window.end(), position: active.position };
    let indexable = ringmq_index::OffsetIndex::fits(active.segment.base, place);
    full || !indexable || is_aged(log, state, Timestamp::new(time::wall_clock()))
}

/// Whether the active segment's first frame is as old as a segment may get.
pub(crate) fn is_aged(log: &LogCore, state: &LogState, now: Timestamp) -> bool {
    let first = state.active.as_ref().and_then(|active| active.open.indexes.borrow().first_written_at);
    let age = first.map_or(0, |first| now.get().saturating_sub(first.get()));
    Duration::from_millis(u64::try_from(age).unwrap_or(0)) >= log.config().segment_age
}

/// Takes back what there is no room for: the first append alone, because those behind it may be smaller.
fn refuse(log: &LogCore, no_room: NoRoom) {
    let error = match no_room {
        NoRoom::Full(error) => AppendError::StorageFull(error),
        NoRoom::NotReady(error) => AppendError::NotReady(error),
        NoRoom::Broken { action, source } => return log.poison(action, source),
    };
    let mut state = log.state.borrow_mut();
    state.roll_asked = false;
    let group = state.staging.next_group(log.config().shared_frame_bytes_max());
    if group.is_some_and(|group| group.appends > 1) {
        state.staging.take_one_at_a_time();
        return;
    }
    let refused = state.staging.take_first();
    drop(state);
    if let Some(refused) = refused {
        // Whoever asked may be gone.
        let _ = refused.waiter.send(Err(error));
    }
}

/// Builds the frame of a group that has room, and hands it to the device.
fn launch(log: &Rc<LogCore>, group: Group, ready: Ready) {
    let mut state = log.state.borrow_mut();
    let Built { header, frame, waiters } = build(log, &ready, state.staging.take(group));
    let buf = frame.freeze();

    let in_flight = InFlight { frame: CachedFrame::new(&header, &buf), waiters };
    let flight = state.window.launch(header.next_offset, header.end_position(), in_flight);
    if let Some(active) = &mut state.active {
        active.position = header.end_position();
        active.open.indexes.borrow_mut().push(&header);
    }
    drop(state);
    let write = write_frame(log.clone(), ready.file, buf, header.position, flight);
    // The gate is closed only after the writer has stopped.
    let spawned = log.gate.spawn("log-write", write);
    debug_assert!(spawned.is_ok());
}

/// What the next frame is written with.
struct Ready {
    file: File,
    segment_base: Offset,
    position: u64,
    base_offset: Offset,
    /// One past the last of the group's records.
    next_offset: Offset,
    durable_offset: Offset,
    log_number: LogNumber,
    generation: Generation,
    leader_epoch: LeaderEpoch,
}

/// A frame as it is written, and who waits for it.
struct Built {
    header: FrameHeader,
    frame: AlignedBuf,
    waiters: Vec<(Waiter, Appended)>,
}

fn build(log: &LogCore, ready: &Ready, staged: impl ExactSizeIterator<Item = Staged>) -> Built {
    let mut waiters = Vec::with_capacity(staged.len());
    let mut payloads = Vec::with_capacity(staged.len());
    let (mut next_offset, mut record_count, mut max_timestamp) = (ready.base_offset, 0, Timestamp::new(i64::MIN));
    for Staged { append, waiter } in staged {
        let base_offset = next_offset;
        next_offset = following(base_offset, append.record_count());
        record_count += append.record_count();
        max_timestamp = max_timestamp.max(append.max_timestamp());
        waiters.push((waiter, Appended { base_offset, next_offset }));
        payloads.push(append.into_payload());
    }
    debug_assert_eq!(next_offset, ready.next_offset);
    let mut buf = together(payloads);
    place_batches(buf.payload_mut(), ready.base_offset, ready.leader_epoch);
    let payload_bytes = buf.payload().len();
    let mut frame = buf.into_frame();
    let header = FrameHeader {
        id: log.id,
        leader_epoch: ready.leader_epoch,
        base_offset: ready.base_offset,
        next_offset,
        durable_offset: ready.durable_offset,
        generation: ready.generation,
        log_number: ready.log_number,
        segment_base: ready.segment_base,
        position: ready.position,
        written_at: Timestamp::new(time::wall_clock()),
        max_timestamp,
        record_count,
        payload_bytes: frame_field(payload_bytes),
        frame_bytes: frame_field(frame.len()),
    };
    header.seal(&mut frame);
    Built { header, frame, waiters }
}

/// The offset that many records behind `offset`, in a frame whose last record has one.
fn following(offset: Offset, records: u32) -> Offset {
    offset.checked_add(records.into()).expect("a frame is launched only with an offset for each of its records")
}

/// A length in a frame.
fn frame_field(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("LogConfig::frame_bytes_limit fits 32 bits, and bounds every append and group")
}

/// One buffer of them all: the only one as it is, several copied together.
fn together(mut payloads: Vec<Payload>) -> FrameBuf {
    if let [Payload::Frame(_)] = payloads[..]
        && let Some(Payload::Frame(frame)) = payloads.pop()
    {
        return frame;
    }
    let mut frame = FrameBuf::with_payload_len(payloads.iter().map(|payload| payload.bytes().len()).sum());
    let mut rest = frame.payload_mut();
    for payload in &payloads {
        let (room, behind) = rest.split_at_mut(payload.bytes().len());
        room.copy_from_slice(payload.bytes());
        rest = behind;
    }
    frame
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

async fn write_frame(log: Rc<LogCore>, file: File, buf: IoBuf, position: u64, flight: FlightNumber) {
    match file.write_at(&buf, position, IoClass::Append).await {
        Ok(()) => log.landed(flight),
        Err(error) => log.poison("write a frame to", error),
    }
}
