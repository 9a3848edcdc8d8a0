//! The writes at the device, and the durable offset that follows them.
//!
//! Writes complete in any order. Durable is the end of those that are complete without a gap: a frame behind a gap
//! may be on the disk and still be cut by recovery, so it must not be acknowledged.

use std::collections::VecDeque;

use ringmq_wire::Offset;

/// The writes of one log that are at the device, in the order of their offsets.
#[derive(Debug)]
pub(crate) struct WriteWindow<F> {
    durable: Offset,
    durable_position: u64,
    end: Offset,
    flights: VecDeque<Flight<F>>,
    /// The number of the first of `flights`.
    first: u64,
}

#[derive(Debug)]
struct Flight<F> {
    next_offset: Offset,
    end_position: u64,
    landed: bool,
    cargo: F,
}

/// Names one write of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlightNumber(u64);

impl<F> WriteWindow<F> {
    /// Nothing in flight, everything below `end` durable; the frames of the active segment end at `position`.
    pub(crate) fn new(end: Offset, position: u64) -> WriteWindow<F> {
        WriteWindow { durable: end, durable_position: position, end, flights: VecDeque::new(), first: 0 }
    }

    /// The end of the contiguous durable frames.
    pub(crate) fn durable(&self) -> Offset {
        self.durable
    }

    /// Where those frames end in the active segment.
    pub(crate) fn durable_position(&self) -> u64 {
        self.durable_position
    }

    /// The offset that is assigned next. All below it is durable or in flight.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// A write of the offsets from [`WriteWindow::end`] to `next_offset` begins; the frame ends at `end_position`.
    pub(crate) fn launch(&mut self, next_offset: Offset, end_position: u64, cargo: F) -> FlightNumber {
        debug_assert!(next_offset > self.end);
        self.end = next_offset;
        self.flights.push_back(Flight { next_offset, end_position, landed: false, cargo });
        FlightNumber(self.first + self.flights.len() as u64 - 1)
    }

    /// A write is complete and durable by itself. The window may have been given up meanwhile.
    pub(crate) fn land(&mut self, flight: FlightNumber) {
        let at = flight.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(flight) = at.and_then(|at| self.flights.get_mut(at)) {
            flight.landed = true;
        }
    }

    /// The next write that the durable offset passes, in order; `None` at a gap and at the end.
    pub(crate) fn pass(&mut self) -> Option<F> {
        let flight = self.flights.pop_front_if(|flight| flight.landed)?;
        self.first += 1;
        self.durable = flight.next_offset;
        self.durable_position = flight.end_position;
        Some(flight.cargo)
    }

    /// The next write goes to the beginning of a new segment. Nothing is in flight.
    pub(crate) fn begin_segment(&mut self) {
        debug_assert!(self.flights.is_empty());
        self.durable_position = 0;
    }

    /// Gives up what is in flight: nobody will know whether it is durable.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = F> + use<F> {
        let flights = std::mem::take(&mut self.flights);
        self.first += flights.len() as u64;
        flights.into_iter().map(|flight| flight.cargo)
    }
}

#[cfg(test)]
mod tests;
