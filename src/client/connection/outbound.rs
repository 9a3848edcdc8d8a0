//! What is still to be written to the socket: whole requests, as the pieces of memory that they were handed over in.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Pieces that one vectored write takes; the kernel allows 1024 (`IOV_MAX`), more than 64 gains nothing.
const PIECES_PER_WRITE: usize = 64;
/// Requests wait in their channel, not here, while this much is queued.
const QUEUED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A position in the stream of bytes that this connection sends, counted from its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamPosition(u64);

/// The queue of pieces, and how far the stream has got.
#[derive(Debug)]
pub(super) struct Outbound {
    pieces: VecDeque<Bytes>,
    queued: StreamPosition,
    written: StreamPosition,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self { pieces: VecDeque::new(), queued: StreamPosition(0), written: StreamPosition(0) }
    }

    /// Puts one request's piece behind what is queued already.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.queued.0 += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    /// The position behind the last piece.
    pub(super) fn end(&self) -> StreamPosition {
        self.queued
    }

    /// The position up to which the kernel has taken the stream.
    pub(super) fn written(&self) -> StreamPosition {
        self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued.0 - self.written.0 < QUEUED_BYTES_MAX
    }

    /// The head of the queue for one vectored write, and how many of the slices are filled.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; PIECES_PER_WRITE], usize) {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        (slices, filled)
    }

    /// The kernel took `count` bytes of what [`Outbound::slices`] showed.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.written.0 += count as u64;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { return };
            let taken = piece.len().min(count);
            piece.advance(taken);
            count -= taken;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(outbound: &mut Outbound, step: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while !outbound.is_empty() {
            let shown: Vec<u8> = {
                let (slices, filled) = outbound.slices();
                slices[..filled].iter().flat_map(|slice| slice.to_vec()).take(step).collect()
            };
            outbound.advance(shown.len());
            stream.extend(shown);
        }
        stream
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..150),
            step in 1_usize..300,
        ) {
            let mut outbound = Outbound::new();
            for piece in &pieces {
                outbound.push(Bytes::from(piece.clone()));
            }
            let end = outbound.end();
            prop_assert_eq!(drain(&mut outbound, step), pieces.concat());
            prop_assert_eq!(outbound.written(), end);
        }
    }

    #[test]
    fn room_ends_at_the_bound_and_comes_back() {
        let mut outbound = Outbound::new();
        let large = Bytes::from(vec![0; usize::try_from(QUEUED_BYTES_MAX).unwrap()]);
        assert!(outbound.has_room());
        outbound.push(large);
        assert!(!outbound.has_room());
        outbound.advance(1);
        assert!(outbound.has_room());
    }
}
