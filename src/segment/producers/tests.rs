use proptest::prelude::*;
use ringmq_wire::PartitionIndex;

use super::*;
use crate::frame::{Generation, LogNumber};
use crate::layout::LogId;

const NOW: Timestamp = Timestamp::new(1_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn append(id: i64, epoch: i16, sequence: i32, record_count: u32) -> Sequenced {
    let producer = BatchProducer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(epoch),
        base_sequence: Sequence::new(sequence),
    };
    Sequenced { producer, record_count }
}

fn offsets(range: Range<i64>) -> Range<Offset> {
    Offset::new(range.start)..Offset::new(range.end)
}

/// Producers that were told of these appends, which must be new, with their base offsets.
fn knowing(appends: &[(Sequenced, i64)]) -> Producers {
    let mut producers = Producers::default();
    for (append, base_offset) in appends {
        assert_eq!(producers.judge(append, NOW, DAY), Ok(Known::New), "{append:?}");
        producers.stored(append, Offset::new(*base_offset), NOW);
    }
    producers
}

#[test]
fn a_retry_is_answered_with_the_first_offsets() {
    let producers = knowing(&[(append(7, 0, 0, 3), 100), (append(7, 0, 3, 2), 103), (append(7, 0, 5, 1), 200)]);
    let judged = |append: Sequenced| producers.judge(&append, NOW, DAY);
    assert_eq!(judged(append(7, 0, 0, 3)), Ok(Known::Stored(offsets(100..103))));
    assert_eq!(judged(append(7, 0, 3, 2)), Ok(Known::Stored(offsets(103..105))));
    assert_eq!(judged(append(7, 0, 5, 1)), Ok(Known::Stored(offsets(200..201))));
    assert_eq!(judged(append(7, 0, 0, 5)), Ok(Known::Stored(offsets(100..105))), "side by side, as one append");
    assert_eq!(judged(append(7, 0, 6, 1)), Ok(Known::New));
}

#[test]
fn gaps_old_ones_and_old_epochs_have_errors_of_their_own() {
    let producers = knowing(&[(append(7, 2, 40, 3), 0), (append(7, 2, 43, 1), 9)]);
    let judged = |append: Sequenced| producers.judge(&append, NOW, DAY);
    let (id, expected) = (ProducerId::new(7), Sequence::new(44));
    let gap = |got| Err(OutOfSequence::Gap { id, expected, got: Sequence::new(got) });
    let before = |got| Err(OutOfSequence::Before { id, expected, got: Sequence::new(got) });
    assert_eq!(judged(append(7, 2, 45, 1)), gap(45));
    assert_eq!(judged(append(7, 2, 39, 1)), before(39));
    assert_eq!(judged(append(7, 2, 43, 2)), before(43), "stored in part");
    assert_eq!(judged(append(7, 2, 41, 3)), before(41), "stored, but not side by side");
    let (epoch, current) = (ProducerEpoch::new(1), ProducerEpoch::new(2));
    assert_eq!(judged(append(7, 1, 44, 1)), Err(OutOfSequence::OldEpoch { id, epoch, current }));
}

#[test]
fn a_new_epoch_begins_at_zero_and_ends_the_old_one() {
    let mut producers = knowing(&[(append(7, 0, 0, 5), 0)]);
    let gap = OutOfSequence::Gap { id: ProducerId::new(7), expected: Sequence::ZERO, got: Sequence::new(5) };
    assert_eq!(producers.judge(&append(7, 1, 5, 1), NOW, DAY), Err(gap));
    assert_eq!(producers.judge(&append(7, 1, 0, 1), NOW, DAY), Ok(Known::New));
    producers.stored(&append(7, 1, 0, 1), Offset::new(5), NOW);
    assert_eq!(producers.judge(&append(7, 1, 0, 1), NOW, DAY), Ok(Known::Stored(offsets(5..6))));
    assert!(matches!(producers.judge(&append(7, 0, 0, 5), NOW, DAY), Err(OutOfSequence::OldEpoch { .. })));
}

#[test]
fn whoever_is_not_known_may_begin_anywhere() {
    let producers = Producers::default();
    assert_eq!(producers.judge(&append(7, 3, 900, 1), NOW, DAY), Ok(Known::New));
}

#[test]
fn a_producer_is_forgotten_after_a_day() {
    let mut producers = knowing(&[(append(7, 3, 0, 1), 0)]);
    let later = Timestamp::new(NOW.get() + i64::try_from(DAY.as_millis()).expect("small"));
    let before = Timestamp::new(later.get() - 1);
    assert!(matches!(producers.judge(&append(7, 0, 50, 1), before, DAY), Err(OutOfSequence::OldEpoch { .. })));
    assert_eq!(producers.judge(&append(7, 0, 50, 1), later, DAY), Ok(Known::New));
    producers.expire(before, DAY);
    assert_eq!(producers.len(), 1);
    producers.expire(later, DAY);
    assert_eq!(producers.len(), 0);
}

#[test]
fn an_expired_producer_begins_anew() {
    let mut producers = knowing(&[(append(7, 3, 0, 1), 0)]);
    let later = Timestamp::new(NOW.get() + i64::try_from(DAY.as_millis()).expect("small"));
    producers.stored(&append(7, 0, 50, 2), Offset::new(8), later);
    assert_eq!(producers.judge(&append(7, 0, 50, 2), later, DAY), Ok(Known::Stored(offsets(8..10))));
    assert_eq!(producers.judge(&append(7, 0, 52, 1), later, DAY), Ok(Known::New));
}

#[test]
fn sequences_go_on_behind_the_last_one_at_zero() {
    let producers = knowing(&[(append(7, 0, i32::MAX - 2, 2), 10), (append(7, 0, i32::MAX, 4), 12)]);
    assert_eq!(producers.judge(&append(7, 0, i32::MAX, 4), NOW, DAY), Ok(Known::Stored(offsets(12..16))));
    assert_eq!(producers.judge(&append(7, 0, 1, 2), NOW, DAY), Ok(Known::Stored(offsets(14..16))));
    assert_eq!(producers.judge(&append(7, 0, 3, 1), NOW, DAY), Ok(Known::New));
    assert!(matches!(producers.judge(&append(7, 0, 4, 1), NOW, DAY), Err(OutOfSequence::Gap { .. })));
    let long_ago = append(7, 0, i32::MAX - 9, 1);
    assert!(matches!(producers.judge(&long_ago, NOW, DAY), Err(OutOfSequence::Before { .. })));
}

#[test]
fn a_run_forgets_its_beginning_before_sequences_come_again() {
    let mut producers = Producers::default();
    let (mut sequence, mut offset) = (Sequence::ZERO, 0);
    let step = 1 << 28;
    for _ in 0..24 {
        let next = append(7, 0, sequence.get(), step);
        assert_eq!(producers.judge(&next, NOW, DAY), Ok(Known::New));
        producers.stored(&next, Offset::new(offset), NOW);
        assert_eq!(producers.judge(&next, NOW, DAY), Ok(Known::Stored(offsets(offset..offset + i64::from(step)))));
        (sequence, offset) = (sequence.advance(step), offset + i64::from(step));
    }
}

#[test]
fn the_most_idle_producers_make_room() {
    let mut producers = Producers::default();
    for id in 0..PRODUCERS_MAX + 1 {
        let id = i64::try_from(id).expect("small");
        producers.stored(&append(id, 0, 0, 1), Offset::new(id), Timestamp::new(id));
    }
    assert!(producers.len() <= PRODUCERS_MAX && producers.len() > PRODUCERS_MAX / 2);
    let judged = |id| producers.judge(&append(id, 0, 0, 1), NOW, DAY);
    assert_eq!(judged(0), Ok(Known::New), "forgotten");
    let last = i64::try_from(PRODUCERS_MAX).expect("small");
    assert_eq!(judged(last), Ok(Known::Stored(offsets(last..last + 1))));

    let mut at_once = Producers::default();
    for id in 0..PRODUCERS_MAX + 1 {
        let id = i64::try_from(id).expect("small");
        at_once.stored(&append(id, 0, 0, 1), Offset::new(id), NOW);
    }
    assert!(at_once.len() > PRODUCERS_MAX / 2, "also where all were used at the same time");
}

/// What a few producers do: who, how many records, and whether a retry, a jump, or a new epoch.
fn history() -> impl Strategy<Value = Vec<(i64, u32, u8)>> {
    prop::collection::vec((0..3_i64, 1..4_u32, 0..16_u8), 1..80)
}

/// A producer that keeps everything it ever stored: by sequence of the latest epoch, the offset.
#[derive(Default)]
struct Model {
    epoch: i16,
    offsets: Vec<i64>,
    /// Sequence and count of each append of this epoch.
    appends: Vec<(usize, u32)>,
}

impl Model {
    /// Where these records are, if all are stored side by side.
    fn find(&self, sequence: usize, count: u32) -> Option<Range<Offset>> {
        let found = self.offsets.get(sequence..sequence + count as usize)?;
        found.is_sorted_by(|a, b| a + 1 == *b).then(|| offsets(found[0]..found[found.len() - 1] + 1))
    }
}

/// Runs a history against producers and models; gives the producers, and the appends that were stored with their offsets.
fn run(history: &[(i64, u32, u8)]) -> Result<(Producers, Vec<(Sequenced, i64)>), TestCaseError> {
    let (mut producers, mut stored, mut end) = (Producers::default(), Vec::new(), 0);
    let mut models: [Model; 3] = Default::default();
    for &(id, count, what) in history {
        let model = &mut models[usize::try_from(id).expect("small")];
        let next = model.offsets.len();
        let (epoch, sequence) = match what {
            0 => (model.epoch + 1, 0),
            1 => (model.epoch + 1, 1),
            2 if model.epoch > 0 => (model.epoch - 1, next),
            3 => (model.epoch, next + 1 + count as usize),
            4..8 => (model.epoch, next.saturating_sub(usize::from(what) * count as usize)),
            _ => (model.epoch, next),
        };
        let tried = append(id, epoch, i32::try_from(sequence).expect("small"), count);
        let is_unknown = model.appends.is_empty() && model.epoch == 0;
        match producers.judge(&tried, NOW, DAY) {
            Ok(Known::New) => {
                let begins = epoch > model.epoch && sequence == 0;
                prop_assert!(is_unknown || begins || (epoch, sequence) == (model.epoch, next), "{:?}", tried);
                if epoch != model.epoch || is_unknown {
                    *model = Model { epoch, offsets: vec![-9; sequence], appends: Vec::new() };
                }
                model.appends.push((sequence, count));
                model.offsets.extend((end..).take(count as usize));
                producers.stored(&tried, Offset::new(end), NOW);
                stored.push((tried, end));
                end += i64::from(count);
            }
            Ok(Known::Stored(found)) => {
                prop_assert_eq!(epoch, model.epoch);
                prop_assert_eq!(Some(found), model.find(sequence, count));
            }
            Err(OutOfSequence::OldEpoch { .. }) => prop_assert!(epoch < model.epoch),
            Err(OutOfSequence::Gap { .. }) => {
                prop_assert!(epoch > model.epoch && sequence > 0 || epoch == model.epoch && sequence > next);
            }
            Err(OutOfSequence::Before { .. }) => {
                prop_assert!(epoch == model.epoch && sequence < next);
                let latest = model.appends.iter().rev().take(RUNS_MAX);
                prop_assert!(!latest.into_iter().any(|append| *append == (sequence, count)), "{:?}", tried);
            }
        }
    }
    Ok((producers, stored))
}

proptest! {
    #[test]
    fn what_is_known_is_what_was_stored(history in history()) {
        run(&history)?;
    }

    #[test]
    fn a_snapshot_reads_back(history in history()) {
        let (producers, stored) = run(&history)?;
        let end = stored.last().map_or(0, |(append, base)| base + i64::from(append.record_count));
        let id = LogId { topic_id: ringmq_wire::TopicId::METADATA, partition: PartitionIndex::new(3) };
        let (log_number, generation, offset) = (LogNumber(9), Generation(4), Offset::new(end));
        let snapshot = ProducerSnapshot { id, log_number, generation, offset, producers };
        let bytes = snapshot.encode();
        prop_assert!(bytes.len() <= ProducerSnapshot::BYTES_MAX);
        prop_assert_eq!(ProducerSnapshot::decode(&bytes), Ok(snapshot));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            prop_assert!(ProducerSnapshot::decode(&damaged).is_err(), "byte {}", at);
        }
        prop_assert!(ProducerSnapshot::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    /// What recovery does: a snapshot somewhere, and behind it what frames hold, read from a place before it.
    #[test]
    fn a_snapshot_and_what_follows_are_the_whole(history in history(), cut in 0..80_usize, from in 0..80_usize) {
        let (whole, stored) = run(&history)?;
        let cut = cut.min(stored.len());
        let offset = stored.get(cut).map_or(Offset::MAX, |(_, base)| Offset::new(*base));
        let told = |appends: &[(Sequenced, i64)]| {
            let mut producers = Producers::default();
            for (append, base_offset) in appends {
                producers.stored(append, Offset::new(*base_offset), NOW);
            }
            producers
        };
        let mut recovered = told(&stored[..cut]);
        recovered.add(&told(&stored[from.min(cut)..]), offset);
        prop_assert_eq!(&recovered, &whole);
        // The same from a snapshot that was taken while more was on its way.
        let mut recovered = whole.clone();
        recovered.cut(offset);
        recovered.add(&told(&stored[from.min(cut)..]), offset);
        prop_assert_eq!(recovered, whole);
    }
}
