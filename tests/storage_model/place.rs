//! What one write fills, and what writes, flushes, failures and crashes make of it.

use std::sync::Arc;

/// The place of a frame in a segment, or of a block in the journal's ring. `None` is: never written, torn, or rotten.
/// (Contents are shared between the states of a history: nothing changes them.)
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place<T> {
    /// What survives a loss of power for certain.
    pub(crate) durable: Option<Arc<T>>,
    /// What a read returns.
    pub(crate) live: Option<Arc<T>>,
    /// A write that the kernel has and has not completed.
    pub(crate) in_flight: Option<Arc<T>>,
    /// No later flush makes `live` durable.
    given_up: bool,
}

/// What a write that did not succeed left in its place. Nobody is told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// What was there before.
    Old,
    /// All of what was written.
    New,
    /// A part of both.
    Torn,
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { durable: None, live: None, in_flight: None, given_up: false }
    }
}

// By hand: contents need not be `Clone`.
impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        Self {
            durable: self.durable.clone(),
            live: self.live.clone(),
            in_flight: self.in_flight.clone(),
            given_up: self.given_up,
        }
    }
}

impl<T: Eq> Place<T> {
    /// The kernel takes a write.
    pub(crate) fn write(&mut self, content: T) {
        self.in_flight = Some(Arc::new(content));
    }

    /// The write in flight is complete; only a flush makes it durable.
    pub(crate) fn complete(&mut self) {
        self.fail(Leaves::New);
    }

    /// The write in flight ends without being complete.
    pub(crate) fn fail(&mut self, leaves: Leaves) {
        let Some(content) = self.in_flight.take() else { return };
        match leaves {
            Leaves::Old => return,
            Leaves::New => self.live = Some(content),
            Leaves::Torn => self.live = None,
        }
        self.given_up = false;
    }

    /// What is here whatever happens next, short of another write.
    pub(crate) fn certain(&self) -> Option<&T> {
        self.durable.as_deref().filter(|content| self.live.as_deref() == Some(*content))
    }

    /// A flush returned: what had been written is durable.
    pub(crate) fn flush(&mut self) {
        if !self.given_up {
            self.durable.clone_from(&self.live);
        }
    }

    /// A flush failed, of writes that went through the kernel's page cache: it takes the page for clean, goes on to
    /// show it to whoever reads, and writes it no more.
    pub(crate) fn give_up(&mut self) {
        self.given_up |= self.durable != self.live;
    }

    /// The disk lost what was here.
    pub(crate) fn rot(&mut self) {
        *self = Self::default();
    }

    /// What the end of the process may leave, each once: the kernel ends the write in flight in one way or another.
    pub(crate) fn after_kill(&self) -> Vec<Self> {
        let ended = |leaves| {
            let mut place = self.clone();
            place.fail(leaves);
            place
        };
        distinct([Leaves::Old, Leaves::New, Leaves::Torn].map(ended))
    }

    /// What a failed flush of the device may leave, each once: reads past the page cache show it.
    pub(crate) fn after_failed_flush(&self) -> Vec<Self> {
        let holds = |live: Option<Arc<T>>| Self { live, ..self.clone() };
        let torn = self.live.clone().filter(|_| self.durable == self.live);
        distinct([self.durable.clone(), self.live.clone(), torn].map(holds))
    }

    /// What a loss of power may leave, each once.
    pub(crate) fn after_power_loss(&self) -> Vec<Self> {
        let uncertain = self.in_flight.is_some() || self.durable != self.live;
        let torn = if uncertain { None } else { self.durable.clone() };
        let written = self.in_flight.clone().or_else(|| self.live.clone());
        let settled = |content: Option<Arc<T>>| Self { durable: content.clone(), live: content, ..Self::default() };
        distinct([self.durable.clone(), self.live.clone(), written, torn].map(settled))
    }
}

fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}
