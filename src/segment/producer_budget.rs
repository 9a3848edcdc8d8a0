//! How many idempotent producers the logs of one core know together. Ids are the clients' choice, and each log bounds those
//! that it knows; this bounds what all of them take.

use std::cell::Cell;
use std::rc::Rc;

use crate::producers::Producers;

/// Producers that the logs of a core know together, at some 200 bytes each.
const KNOWN_MAX: usize = 250_000;
/// A log is left so many, whatever the others know.
const KNOWN_BY_EACH: usize = 16;

/// The producers that the logs of one core know. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ProducerBudget(Rc<Cell<usize>>);

/// How many of them one log was last seen to know.
#[derive(Debug, Default)]
pub(crate) struct Counted(usize);

impl ProducerBudget {
    /// Counts what a log knows now. Where all logs together know too many, this one forgets those that were idle longest:
    /// it is the one that has learned of another.
    pub(crate) fn settle(&self, counted: &mut Counted, producers: &mut Producers) {
        let others = self.0.get() - counted.0;
        while others + producers.len() > KNOWN_MAX && producers.len() > KNOWN_BY_EACH {
            producers.forget_the_most_idle();
        }
        self.0.set(others + producers.len());
        *counted = Counted(producers.len());
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::batch::BatchProducer;
    use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

    use super::*;
    use crate::producers::Sequenced;

    fn learn(producers: &mut Producers, ids: std::ops::Range<i64>) {
        for id in ids {
            let producer =
                BatchProducer { id: ProducerId::new(id), epoch: ProducerEpoch::new(0), base_sequence: Sequence::ZERO };
            producers.stored(&Sequenced { producer, record_count: 1 }, Offset::new(id), Timestamp::new(id));
        }
    }

    #[test]
    fn many_logs_know_no_more_than_the_core_has_room_for_and_each_a_few() {
        let budget = ProducerBudget::default();
        let mut logs: Vec<(Counted, Producers)> = (0..40).map(|_| Default::default()).collect();
        for (counted, producers) in &mut logs {
            learn(producers, 0..9_000);
            budget.settle(counted, producers);
        }
        let known: usize = logs.iter().map(|(_, producers)| producers.len()).sum();
        assert_eq!(known, budget.0.get());
        assert!(known <= KNOWN_MAX + logs.len() * KNOWN_BY_EACH, "{known}");
        assert!(logs.iter().all(|(_, producers)| producers.len() >= KNOWN_BY_EACH / 2));
        assert_eq!(logs[0].1.len(), 9_000, "who came first is not concerned");

        // Another one is learned of, and those that are idle longest go; what a log lets go of is room again.
        let (counted, producers) = &mut logs[0];
        learn(producers, 9_000..9_001);
        budget.settle(counted, producers);
        assert!(producers.len() < 9_000 && budget.0.get() <= KNOWN_MAX + 40 * KNOWN_BY_EACH);
        for (counted, producers) in &mut logs {
            *producers = Producers::default();
            budget.settle(counted, producers);
        }
        assert_eq!(budget.0.get(), 0);
    }
}
