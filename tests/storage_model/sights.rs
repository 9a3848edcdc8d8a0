//! What a complete exploration comes across, so that its silence about violations means something.

use stateright::Property;

use crate::broker::Broker;
use crate::log::{Log, Progress};
use crate::model::{State, Storage};

/// What must be seen at least once in a model of this size.
pub(crate) fn expected(storage: &Storage) -> Vec<Property<Storage>> {
    let mut sights = Vec::new();
    macro_rules! see {
        ($expected:expr, $name:literal, $seen:expr) => {
            if $expected {
                let seen: fn(&Storage, &State) -> bool = $seen;
                sights.push(Property::sometimes($name, seen));
            }
        };
    }
    let bounds = &storage.bounds;
    let crashes = bounds.power_losses + bounds.kills;
    see!(true, "all appends are made", |_, state| state.left.appends == 0);
    see!(true, "the last crash comes", |_, state| !state.left.a_crash());
    see!(crashes > 1, "a recovery with something to redo may be interrupted", |_, state| {
        let redoes = |broker: &Broker| !broker.serving && broker.logs.iter().any(|log| log.unframed() > 0);
        state.left.a_crash() && state.broker.as_ref().is_some_and(redoes)
    });
    see!(bounds.appends > 1 && storage.segment > 1, "two frames of a log are in flight", |_, state| {
        of_logs(state, |log| log.frames_in(Progress::InKernel).count() == 2)
    });
    see!(bounds.appends > 1 && storage.blocks > 2, "two blocks are in flight", |_, state| {
        state.disk.blocks_in_flight().count() == 2
    });
    see!(bounds.appends > 1, "a block is written over", |_, state| {
        state.disk.ring.iter().any(|place| place.in_flight.is_some() && place.live.is_some())
    });
    see!(storage.segment < storage.places, "the second segment is in use", |storage, state| {
        state.disk.files[0].frames[storage.segment].live.is_some()
    });
    see!(bounds.truncations > 0, "a log is truncated", |_, state| state.left.truncations == 0);
    see!(bounds.topic_deletions > 0, "a topic is deleted", |_, state| state.left.topic_deletions == 0);
    see!(bounds.record_deletions > 0, "records are deleted", |_, state| state.left.record_deletions == 0);
    see!(bounds.failed_frames > 0, "a frame fails", |_, state| state.left.failed_frames == 0);
    see!(bounds.failed_flushes > 0, "a flush fails", |_, state| state.left.failed_flushes == 0);
    see!(bounds.failed_blocks > 0, "a block fails", |_, state| state.left.failed_blocks == 0);
    see!(bounds.rots > 0, "a log is found corrupt", |_, state| of_logs(state, Log::is_corrupt));
    see!(bounds.lagging_metadata > 0, "metadata lags", |_, state| state.left.lagging_metadata == 0);
    see!(bounds.snapshots > 0, "a snapshot is taken", |_, state| state.left.snapshots == 0);
    see!(bounds.retries > 0, "a producer retries", |_, state| state.left.retries == 0);
    see!(bounds.forged > 0, "a payload looks like a frame", |_, state| state.left.forged == 0);
    sights
}

fn of_logs(state: &State, seen: fn(&Log) -> bool) -> bool {
    state.broker.as_ref().is_some_and(|broker| broker.logs.iter().any(seen))
}
