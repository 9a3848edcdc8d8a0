//! What clients ask for.

use crate::broker::Broker;
use crate::disk::{Batch, Disk, Frame, Offset, Partition, Record};
use crate::history::Violation;
use crate::log::{Log, Standing};
use crate::model::{Action, State, Storage};
use crate::place::Place;
use crate::rules::Rule;

/// A request for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// An append of so many offsets, for the journal or the next frame, whichever comes first.
    AppendSmall(Partition, Offset),
    /// An append that is written as a frame at once, and takes along all that is staged.
    AppendStraight(Partition),
    /// The same with a payload that looks like a frame where one could begin.
    AppendForged(Partition),
    /// An append that got no answer, again.
    Retry(Partition, Record),
    /// The log is to start at that offset.
    DeleteRecords(Partition, Offset),
    DeleteTopic(Partition),
    /// The log is to end at that offset.
    Truncate(Partition, Offset),
}

/// What clients may ask a serving broker.
pub(crate) fn possible(storage: &Storage, state: &State, broker: &Broker, actions: &mut Vec<Action>) {
    for partition in state.partitions(broker) {
        let log = &broker.logs[partition];
        if log.is_available() {
            appends(storage, state, log, partition, actions);
            deletions(storage, state, broker, partition, actions);
        }
    }
}

fn appends(storage: &Storage, state: &State, log: &Log, partition: Partition, actions: &mut Vec<Action>) {
    let left = &state.left;
    if !log.raised {
        return;
    }
    let has_room = log.has_room(storage.places);
    let unanswered = state.history.clients[partition].unanswered();
    let is_staged = |record: &Record| log.staged.iter().any(|staged| staged.batch.record == *record);
    if left.retries > 0 && !storage.rules.hold(Rule::DuplicatesWait) {
        let staged = unanswered.iter().copied().filter(is_staged);
        actions.extend(staged.map(|record| Action::Request(Request::Retry(partition, record))));
    }
    if let Some(record) = unanswered.iter().copied().find(|record| !is_staged(record)) {
        // Its answer will not come: the append is not on its way any more. An ordered producer sends nothing new before.
        if left.retries > 0 && has_room {
            actions.push(Action::Request(Request::Retry(partition, record)));
        }
        return;
    }
    if left.appends == 0 {
        return;
    }
    let may_stage = has_room || !storage.rules.hold(Rule::RoomFirst);
    let widths = 1..=if storage.wide { 2 } else { 1 };
    if may_stage {
        actions.extend(widths.map(|width| Action::Request(Request::AppendSmall(partition, width))));
    }
    if has_room && log.may_write_frame(storage.places, storage.segment, storage.rules) {
        actions.push(Action::Request(Request::AppendStraight(partition)));
        if left.forged > 0 && log.position + 1 < storage.places {
            actions.push(Action::Request(Request::AppendForged(partition)));
        }
    }
}

fn deletions(storage: &Storage, state: &State, broker: &Broker, partition: Partition, actions: &mut Vec<Action>) {
    let (log, files, left) = (&broker.logs[partition], &state.disk.files[partition], &state.left);
    let durable = log.durable(&broker.journal, storage.rules);
    if left.record_deletions > 0 {
        let reach = if storage.rules.hold(Rule::StartBehindFrames) { log.frames_end } else { durable };
        let starts = files.start + 1..=reach;
        actions.extend(starts.map(|to| Action::Request(Request::DeleteRecords(partition, to))));
    }
    if left.topic_deletions > 0 {
        actions.push(Action::Request(Request::DeleteTopic(partition)));
    }
    // A truncation waits for the frames in flight, and until frames have what it keeps.
    if left.truncations > 0 && log.staged.len() == log.unframed() {
        let ends = batches(&state.disk, log, partition).into_iter().map(|batch| batch.base);
        let ends = ends.filter(|end| *end >= files.start && *end <= log.frames_end);
        actions.extend(ends.map(|to| Action::Request(Request::Truncate(partition, to))));
    }
}

/// The batches of a log without frames in flight.
fn batches(disk: &Disk, log: &Log, partition: Partition) -> Vec<Batch> {
    let files = &disk.files[partition];
    let frames = files.frames[..log.position].iter().filter_map(|place| place.live.as_ref());
    let framed = frames.flat_map(|frame| &frame.batches).filter(|batch| files.owns(batch));
    framed.copied().chain(log.staged.iter().map(|staged| staged.batch)).collect()
}

/// Does as asked.
pub(crate) fn apply(storage: &Storage, state: &mut State, request: Request) -> Result<(), Violation> {
    let State { disk, broker: Some(broker), history, left, .. } = state else { return Ok(()) };
    let will_retry = storage.bounds.retries > 0;
    match request {
        Request::AppendSmall(partition, width) => {
            left.appends -= 1;
            broker.logs[partition].stage(width, history.clients[partition].send(will_retry));
        }
        Request::AppendStraight(partition) => {
            left.appends -= 1;
            broker.logs[partition].stage(1, history.clients[partition].send(will_retry));
            broker.write_frame(disk, partition, storage.rules);
        }
        Request::AppendForged(partition) => {
            left.appends -= 1;
            left.forged -= 1;
            broker.logs[partition].stage(1, history.clients[partition].send(will_retry));
            broker.write_frame(disk, partition, storage.rules);
            forge(disk, &mut broker.logs[partition], partition);
        }
        Request::Retry(partition, record) => {
            left.retries -= 1;
            let log = &mut broker.logs[partition];
            if log.stored >= Some(record) {
                return history.acknowledge(partition, None, record);
            }
            log.stage(1, record);
        }
        Request::DeleteRecords(partition, to) => {
            left.record_deletions -= 1;
            disk.files[partition].start = to;
        }
        Request::DeleteTopic(partition) => {
            left.topic_deletions -= 1;
            let files = &mut disk.files[partition];
            files.deleted = true;
            files.frames.fill(Place::default());
            history.clients[partition].cut(0, std::iter::empty());
            let log = &mut broker.logs[partition];
            log.take_offline(Standing::Absent);
            log.kept_aside = true;
        }
        Request::Truncate(partition, to) => {
            left.truncations -= 1;
            let log = &mut broker.logs[partition];
            let gone = batches(disk, log, partition).into_iter().filter(|batch| batch.base >= to);
            history.clients[partition].cut(to, gone.map(|batch| batch.record));
            truncate(log, &disk.files[partition].frames, to);
            broker.raise_generation(disk, partition, storage.rules);
        }
    }
    Ok(())
}

/// Forgets what is behind `to`. The frames stay where they are: the next generation owns their offsets.
fn truncate(log: &mut Log, frames: &[Place<Frame>], to: Offset) {
    log.end = to;
    log.frames_end = log.frames_end.min(to);
    log.staged.retain(|staged| staged.batch.next <= to);
    let keeps = |place: &Place<Frame>| place.live.as_ref().is_some_and(|frame| frame.base() < to);
    log.position = frames[..log.position].iter().rposition(keeps).map_or(0, |last| last + 1);
}

/// Makes the newest frame one of two places, the second of which looks like a frame with a bold claim.
fn forge(disk: &mut Disk, log: &mut Log, partition: Partition) {
    let frames = &mut disk.files[partition].frames;
    if let Some(frame) = &mut frames[log.position - 1].in_flight {
        std::sync::Arc::make_mut(frame).places = 2;
    }
    let (generation, durable) = (log.generation, log.end + 1);
    let forged = Frame { generation, batches: Vec::new(), durable, frames_end: 0, places: 1, forged: true };
    frames[log.position].write(forged);
    log.position += 1;
}
