//! What a power failure may take from a topic with relaxed flush, and what it must not.
//!
//! Nothing goes when the process is killed. With the power goes what was shown so late that no flush may have come since:
//! always an end of the partition. Whatever becomes of it, its offsets are never given to anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_runtime::time::Instant;
use ringmq_wire::Offset;

use super::super::topics::FLUSH_INTERVAL;
use super::{Known, Ledger, Place};

/// How long it may take from a flush being due to its end: one that is under way comes before it, each may be one of the
/// slow ones, which take 40 ms on the simulated disk (`LatencyConfig`), and the core may stand still meanwhile.
const FLUSH_TAKES: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Relaxed {
    /// When a batch was shown for the first time, unless it is durable for certain.
    shown: BTreeMap<(Place, Offset), Instant>,
    /// What was shown and may be lost since, by base offset.
    lapsed: BTreeMap<Place, BTreeMap<Offset, Lapsed>>,
    /// Since when nobody flushes what was shown, while a killed broker has not recovered.
    unflushed_since: Option<Instant>,
    /// How often the power went.
    failures: u32,
    /// It went, and no broker has recovered since.
    is_dark: bool,
}

struct Lapsed {
    known: Known,
    /// The failure that may have taken it, unless somebody heard of it later.
    failure: Option<u32>,
    is_found: bool,
}

impl Relaxed {
    /// A batch is shown for the first time, or again after it was thought lost. Whether it must be there from now on.
    pub(super) fn see(&mut self, place: &Place, base: Offset, known: Known) -> bool {
        let lapsed = self.lapsed.entry(place.clone()).or_default();
        let overlapping = lapsed.range_mut(..known.next).next_back();
        let Some((before, lapsed)) = overlapping.filter(|(_, lapsed)| lapsed.known.next > base) else {
            if self.is_dark {
                // What the broker said was still on its way.
                lapsed.insert(base, Lapsed { known, failure: None, is_found: false });
            } else {
                self.shown.insert((place.clone(), base), Instant::now());
            }
            return !self.is_dark;
        };
        let is_same = (*before, lapsed.known) == (base, known);
        assert!(is_same, "{place}: offset {base} was given twice: {before} was shown as {:?}", lapsed.known.batch);
        lapsed.is_found |= !self.is_dark;
        !self.is_dark
    }

    /// Of what one failure may have taken an end is gone, and nothing before that.
    pub(super) fn check(&self, place: &Place) {
        let Some(lapsed) = self.lapsed.get(place) else { return };
        let mut gone: BTreeMap<u32, Offset> = BTreeMap::new();
        for (base, lapsed) in lapsed {
            let Some(failure) = lapsed.failure else { continue };
            if !lapsed.is_found {
                gone.entry(failure).or_insert(*base);
            } else if let Some(gone) = gone.get(&failure) {
                panic!("{place}: what was shown at {gone} is lost, and what was shown behind it, at {base}, is not");
            }
        }
    }
}

impl Ledger {
    /// The broker was killed.
    pub(crate) fn broker_was_killed(&self, at: Instant) {
        self.0.relaxed.borrow_mut().unflushed_since.get_or_insert(at);
    }

    /// The power is gone.
    pub(crate) fn power_was_lost(&self, at: Instant) {
        let since = {
            let relaxed = &mut *self.0.relaxed.borrow_mut();
            relaxed.failures += 1;
            relaxed.is_dark = true;
            relaxed.unflushed_since.take().unwrap_or(at)
        };
        self.let_go(since);
    }

    /// A broker that began to start at `began` has recovered: what was shown before is durable, or gone.
    pub(crate) fn broker_has_recovered(&self, began: Instant) {
        let relaxed = &mut *self.0.relaxed.borrow_mut();
        relaxed.unflushed_since = None;
        relaxed.is_dark = false;
        relaxed.shown.retain(|_, shown| *shown >= began);
    }

    /// Expects no more what was not flushed for certain when flushing ended. The rest is durable.
    fn let_go(&self, ended: Instant) {
        let Relaxed { shown, lapsed, failures, .. } = &mut *self.0.relaxed.borrow_mut();
        let (mut all_sent, mut all_known) = (self.0.sent.borrow_mut(), self.0.known.borrow_mut());
        let late =
            std::mem::take(shown).into_iter().filter(|(_, shown)| *shown + FLUSH_INTERVAL + FLUSH_TAKES >= ended);
        for ((place, base), _) in late {
            let known = all_known.get_mut(&place).and_then(|known| known.remove(&base)).expect("it was shown");
            let sent = &mut all_sent[known.batch.0];
            (sent.base, sent.acknowledged) = (None, false);
            lapsed.entry(place).or_default().insert(base, Lapsed { known, failure: Some(*failures), is_found: false });
        }
    }

    /// How many batches were shown and are lost.
    pub(crate) fn lost_count(&self) -> u64 {
        let relaxed = self.0.relaxed.borrow();
        relaxed.lapsed.values().flat_map(BTreeMap::values).filter(|lapsed| !lapsed.is_found).count() as u64
    }
}
