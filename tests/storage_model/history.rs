//! What clients were told, and whether the disk still agrees.

use crate::disk::{Batch, Disk, Offset, Partition, Record};
use crate::recovery::Opened;

/// A batch that a client was told is stored, or was given to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Acknowledged {
    pub(crate) record: Record,
    /// Where; the answer to a retry does not say.
    pub(crate) base: Option<Offset>,
}

/// How a history breaks a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// An acknowledged batch is gone, or has become another.
    Lost(Partition, Acknowledged),
    /// An offset was acknowledged for two batches.
    GivenTwice(Partition, Acknowledged),
    /// A batch that was cut by a truncation is there again.
    CameBack(Partition, Record),
    /// A batch is there twice.
    StoredTwice(Partition, Record),
    /// Offsets are missing between two frames of a log.
    Hole(Partition),
    /// A log is taken for corrupt, and nothing in it is damaged.
    FalseAlarm(Partition),
    /// Staged batches can never get into a frame.
    LogStuck(Partition),
    /// No block can ever be written to the ring again.
    RingStuck,
}

/// What the storage promises.
pub(crate) mod promise {
    pub(crate) const NOTHING_IS_LOST: &str = "nothing acknowledged is lost";
    pub(crate) const NO_OFFSET_IS_GIVEN_TWICE: &str = "no offset is given twice";
    pub(crate) const WHAT_IS_CUT_STAYS_CUT: &str = "what is cut stays cut";
    pub(crate) const NOTHING_IS_STORED_TWICE: &str = "nothing is stored twice";
    pub(crate) const NO_LOG_HAS_A_HOLE: &str = "no log has a hole";
    pub(crate) const NO_FALSE_ALARM: &str = "no sound log is taken for a corrupt one";
    pub(crate) const NOTHING_GETS_STUCK: &str = "nothing gets stuck";
}

impl Violation {
    /// The promise that is broken.
    pub(crate) fn promise(&self) -> &'static str {
        match self {
            Self::Lost(..) => promise::NOTHING_IS_LOST,
            Self::GivenTwice(..) => promise::NO_OFFSET_IS_GIVEN_TWICE,
            Self::CameBack(..) => promise::WHAT_IS_CUT_STAYS_CUT,
            Self::StoredTwice(..) => promise::NOTHING_IS_STORED_TWICE,
            Self::Hole(_) => promise::NO_LOG_HAS_A_HOLE,
            Self::FalseAlarm(_) => promise::NO_FALSE_ALARM,
            Self::LogStuck(_) | Self::RingStuck => promise::NOTHING_GETS_STUCK,
        }
    }
}

/// What the clients of one partition know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Clients {
    /// Appends sent so far.
    pub(crate) sent: usize,
    /// In order.
    acknowledged: Vec<Acknowledged>,
    /// Appends without an answer, which the producer will send again. Followed where the model has retries.
    unanswered: Vec<Record>,
    /// What a truncation took away.
    cut: Vec<Record>,
}

/// What all clients know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct History {
    pub(crate) clients: Vec<Clients>,
}

impl Clients {
    /// The next append is on its way.
    pub(crate) fn send(&mut self, will_retry: bool) -> Record {
        let record = self.sent;
        self.sent += 1;
        if will_retry {
            self.unanswered.push(record);
        }
        record
    }

    /// The appends that wait for an answer, in order.
    pub(crate) fn unanswered(&self) -> &[Record] {
        &self.unanswered
    }

    /// The log is cut back to `end`, because somebody asked for it.
    pub(crate) fn cut(&mut self, end: Offset, records: impl Iterator<Item = Record>) {
        self.acknowledged.retain(|answer| answer.base.is_some_and(|base| base < end));
        self.unanswered.clear();
        self.cut.extend(records);
        self.cut.sort_unstable();
        self.cut.dedup();
    }
}

impl History {
    pub(crate) fn new(partitions: usize) -> Self {
        Self { clients: vec![Clients::default(); partitions] }
    }

    /// A client hears that `record` is stored.
    pub(crate) fn acknowledge(&mut self, of: Partition, base: Option<Offset>, record: Record) -> Result<(), Violation> {
        let clients = &mut self.clients[of];
        clients.unanswered.retain(|unanswered| *unanswered != record);
        let answer = Acknowledged { record, base };
        let Err(at) = clients.acknowledged.binary_search(&answer) else { return Ok(()) };
        clients.acknowledged.insert(at, answer);
        let contradicts = |other: &&Acknowledged| base.is_some() && other.base == base && other.record != record;
        match clients.acknowledged.iter().find(contradicts) {
            Some(other) => Err(Violation::GivenTwice(of, *other)),
            None => Ok(()),
        }
    }

    /// Clients hear of all `batches`.
    pub(crate) fn acknowledge_all(&mut self, of: Partition, batches: &[Batch]) -> Result<(), Violation> {
        batches.iter().try_for_each(|batch| self.acknowledge(of, Some(batch.base), batch.record))
    }

    /// Compares what a starting broker found with what clients know. Where something `rotted`, a log may be taken for
    /// corrupt: it is reported, and serves nothing.
    pub(crate) fn audit(&self, disk: &Disk, opened: &Opened, rotted: bool) -> Result<(), Violation> {
        for (of, clients) in self.clients.iter().enumerate() {
            let (log, found, files) = (&opened.broker.logs[of], &opened.found[of], &disk.files[of]);
            if log.is_corrupt() && !rotted {
                return Err(Violation::FalseAlarm(of));
            }
            if log.is_corrupt() || log.is_absent() {
                continue;
            }
            if found.hole && !rotted {
                return Err(Violation::Hole(of));
            }
            if found.hole {
                // In a sealed segment: whoever reads there is told.
                continue;
            }
            if let Some(batch) = found.batches.iter().find(|batch| clients.cut.contains(&batch.record)) {
                return Err(Violation::CameBack(of, batch.record));
            }
            let twice = |(at, batch): &(usize, &Batch)| found.batches[..*at].iter().any(|b| b.record == batch.record);
            if let Some((_, batch)) = found.batches.iter().enumerate().find(twice) {
                return Err(Violation::StoredTwice(of, batch.record));
            }
            let is_there = |answer: &Acknowledged| {
                let same =
                    |batch: &Batch| batch.record == answer.record && answer.base.is_none_or(|at| at == batch.base);
                found.batches.iter().any(same) || answer.base.is_some_and(|base| base < files.start)
            };
            if let Some(answer) = clients.acknowledged.iter().find(|answer| !is_there(answer)) {
                return Err(Violation::Lost(of, *answer));
            }
        }
        Ok(())
    }
}
