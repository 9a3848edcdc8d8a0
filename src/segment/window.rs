//! The writes at the device, and the end of the durable frames that follows them.
//!
//! Writes complete in any order. The frames' end is the end of those that are complete without a gap: a frame behind a
//! gap may be on the disk and still be cut by recovery, so it counts for nothing yet.

use std::collections::VecDeque;

use ringmq_wire::Offset;

/// The writes of one log that are at the device, in the order of their offsets.
#[derive(Debug)]
pub(crate) struct WriteWindow<F> {
    frames_end: Offset,
    frames_end_position: u64,
    written: Offset,
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
    /// Nothing in flight, everything below `end` in durable frames; those of the active segment end at `position`.
    pub(crate) fn new(end: Offset, position: u64) -> WriteWindow<F> {
        let (frames_end, frames_end_position, written) = (end, position, end);
        WriteWindow { frames_end, frames_end_position, written, flights: VecDeque::new(), first: 0 }
    }

    /// The end of the contiguous durable frames.
    pub(crate) fn frames_end(&self) -> Offset {
        self.frames_end
    }

    /// Where those frames end in the active segment.
    pub(crate) fn frames_end_position(&self) -> u64 {
        self.frames_end_position
    }

    /// The end of the frames that were handed to the kernel, durable or in flight.
    pub(crate) fn written(&self) -> Offset {
        self.written
    }

    /// What is in flight, in the order of the offsets.
    pub(crate) fn cargo(&self) -> impl Iterator<Item = &F> {
        self.flights.iter().map(|flight| &flight.cargo)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// A write of the offsets from [`WriteWindow::written`] to `next_offset` begins; the frame ends at `end_position`.
    pub(crate) fn launch(&mut self, next_offset: Offset, end_position: u64, cargo: F) -> FlightNumber {
        debug_assert!(next_offset > self.written);
        self.written = next_offset;
        self.flights.push_back(Flight { next_offset, end_position, landed: false, cargo });
        FlightNumber(self.first + self.flights.len() as u64 - 1)
    }

    /// A write is complete and durable by itself.
    pub(crate) fn land(&mut self, flight: FlightNumber) {
        let at = flight.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(flight) = at.and_then(|at| self.flights.get_mut(at)) {
            flight.landed = true;
        }
    }

    /// The next write that the frames' end passes, in order; `None` at a gap and at the end.
    pub(crate) fn pass(&mut self) -> Option<F> {
        let flight = self.flights.pop_front_if(|flight| flight.landed)?;
        self.first += 1;
        self.frames_end = flight.next_offset;
        self.frames_end_position = flight.end_position;
        Some(flight.cargo)
    }

    /// The next write goes to the beginning of a new segment. Nothing is in flight.
    pub(crate) fn begin_segment(&mut self) {
        debug_assert!(self.flights.is_empty());
        self.frames_end_position = 0;
    }
}

#[cfg(test)]
mod tests;
