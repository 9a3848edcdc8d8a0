//! The protocol as a graph of states that `stateright` walks completely.

use stateright::{Model, Property};

use crate::broker::Broker;
use crate::disk::{Batch, Disk, Partition};
use crate::history::{History, Violation, promise};
use crate::machine::{self, Event};
use crate::recovery::open;
use crate::requests::{self, Request};
use crate::rules::Rules;
use crate::sights;
use crate::work::{self, Work};

/// What may happen in a history, and how often at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) appends: u8,
    pub(crate) power_losses: u8,
    pub(crate) kills: u8,
    pub(crate) truncations: u8,
    pub(crate) topic_deletions: u8,
    pub(crate) record_deletions: u8,
    pub(crate) failed_frames: u8,
    pub(crate) failed_flushes: u8,
    pub(crate) failed_blocks: u8,
    /// Frames and blocks that rot where something durable tells that they were acknowledged.
    pub(crate) rots: u8,
    /// Starts with a copy of the metadata that lacks a partition.
    pub(crate) lagging_metadata: u8,
    pub(crate) snapshots: u8,
    pub(crate) retries: u8,
    /// Appends with a payload that looks like a frame.
    pub(crate) forged: u8,
}

impl Bounds {
    /// Nothing may happen.
    pub(crate) const NONE: Self = Self {
        appends: 0,
        power_losses: 0,
        kills: 0,
        truncations: 0,
        topic_deletions: 0,
        record_deletions: 0,
        failed_frames: 0,
        failed_flushes: 0,
        failed_blocks: 0,
        rots: 0,
        lagging_metadata: 0,
        snapshots: 0,
        retries: 0,
        forged: 0,
    };

    /// Whether another life may follow this one.
    pub(crate) fn a_crash(&self) -> bool {
        self.power_losses > 0 || self.kills > 0
    }
}

/// The storage of one core, small enough for every history to be tried.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) rules: Rules,
    pub(crate) partitions: usize,
    /// Places for frames in each partition.
    pub(crate) places: usize,
    /// Places in a segment.
    pub(crate) segment: usize,
    /// Places in the journal's ring.
    pub(crate) blocks: usize,
    /// Whether batches of two offsets are appended beside those of one.
    pub(crate) wide: bool,
    pub(crate) bounds: Bounds,
}

/// One moment of a history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) disk: Disk,
    /// `None` between a crash and the next start.
    pub(crate) broker: Option<Broker>,
    pub(crate) history: History,
    /// What may still happen.
    pub(crate) left: Bounds,
    /// The disk lost something by itself.
    pub(crate) rotted: bool,
    pub(crate) violation: Option<Violation>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Request(Request),
    Work(Work),
    Event(Event),
}

impl Model for Storage {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let disk = Disk::new(self.partitions, self.places, self.blocks);
        let mut broker = open(&disk, self.rules, self.segment, None).broker;
        broker.flushed = true;
        broker.serving = true;
        vec![State {
            disk,
            broker: Some(broker),
            history: History::new(self.partitions),
            left: self.bounds,
            rotted: false,
            violation: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        match &state.broker {
            None => machine::possible_while_down(self, state, actions),
            // Nobody will look at the disk again, and what this life serves has been audited.
            Some(broker) if broker.serving && !state.left.a_crash() => {}
            Some(broker) => {
                machine::possible(self, state, broker, actions);
                work::possible(self, state, broker, actions);
                if broker.serving {
                    requests::possible(self, state, broker, actions);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let outcome = match action {
            Action::Request(request) => requests::apply(self, &mut state, request),
            Action::Work(work) => {
                work::apply(self, &mut state, work);
                Ok(())
            }
            Action::Event(event) => machine::apply(self, &mut state, event),
        };
        state.violation = outcome.and_then(|()| self.answer(&mut state)).and_then(|()| self.goes_on(&state)).err();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! keeps {
            ($($promise:ident),+) => {
                vec![$(Property::always(promise::$promise, |_: &Self, state: &State| state.keeps(promise::$promise))),+]
            };
        }
        let mut properties = keeps![
            NOTHING_IS_LOST,
            NO_OFFSET_IS_GIVEN_TWICE,
            WHAT_IS_CUT_STAYS_CUT,
            NOTHING_IS_STORED_TWICE,
            NO_LOG_HAS_A_HOLE,
            NO_FALSE_ALARM,
            NOTHING_GETS_STUCK
        ];
        properties.extend(sights::expected(self));
        properties
    }
}

impl Storage {
    /// Recovery is over. Consumers see whatever the log has now, so all of it must stay.
    pub(crate) fn serve(&self, state: &mut State) -> Result<(), Violation> {
        let opened = open(&state.disk, self.rules, self.segment, None);
        state.history.audit(&state.disk, &opened, state.rotted)?;
        let Some(broker) = &mut state.broker else { return Ok(()) };
        broker.serving = true;
        for (partition, (log, found)) in broker.logs.iter().zip(&opened.found).enumerate() {
            if log.is_available() {
                // A frame of an earlier life may by chance follow what was redone. This life does not know of it, and
                // its first append raises the generation.
                let mut visible = found.batches.clone();
                visible.retain(|batch| batch.next <= log.end);
                state.history.acknowledge_all(partition, &visible)?;
            }
        }
        Ok(())
    }

    /// Whoever waits for what is durable now is answered.
    fn answer(&self, state: &mut State) -> Result<(), Violation> {
        let Some(broker) = &mut state.broker else { return Ok(()) };
        for (partition, log) in broker.logs.iter_mut().enumerate() {
            if broker.serving && log.is_available() {
                let durable = log.durable(&broker.journal, self.rules);
                let staged = log.staged.iter().map(|staged| staged.batch);
                let batches: Vec<Batch> = staged.filter(|batch| batch.next <= durable).collect();
                state.history.acknowledge_all(partition, &batches)?;
            }
            log.release();
        }
        Ok(())
    }

    fn goes_on(&self, state: &State) -> Result<(), Violation> {
        let Some(broker) = &state.broker else { return Ok(()) };
        if let Some(partition) = broker.stuck_log(self.places) {
            return Err(Violation::LogStuck(partition));
        }
        if broker.is_ring_stuck(&state.disk, self.rules) { Err(Violation::RingStuck) } else { Ok(()) }
    }
}

impl State {
    /// Whether the history up to here keeps a promise.
    pub(crate) fn keeps(&self, promise: &'static str) -> bool {
        self.violation.is_none_or(|violation| violation.promise() != promise)
    }

    /// The partitions worth looking at: of two that are alike, untouched since the beginning, one is enough.
    pub(crate) fn partitions(&self, broker: &Broker) -> impl Iterator<Item = Partition> {
        let clients = &self.history.clients;
        let alike = |partition: Partition| {
            partition > 0
                && clients[partition - 1].sent + clients[partition].sent == 0
                && self.disk.files[partition - 1] == self.disk.files[partition]
                && broker.logs[partition - 1] == broker.logs[partition]
        };
        (0..broker.logs.len()).filter(move |partition| !alike(*partition))
    }
}
