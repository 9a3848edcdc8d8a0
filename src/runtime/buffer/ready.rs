//! Memory that a thread of its own makes ready, when the processor has nothing else to do.
//!
//! The first touch of memory costs its owner a page fault for each 4 KiB, and on a virtual machine the host another one:
//! up to 2 s for a GiB. An executor that grows into fresh memory under load pays that in the latency of all that waits.

use std::sync::mpsc::{self, Receiver, Sender};

use ::glommio::io::DmaBuffer;

use crate::glommio::sys;

/// Bytes that the thread is asked for and has not made yet, at most, beyond one piece.
const ASKED_BYTES_MAX: usize = 16 << 20;

/// One executor's end. The thread ends with it.
pub(super) struct ReadyMemory {
    ask: Sender<usize>,
    made: Receiver<Made>,
    asked_bytes: usize,
}

/// Memory on its way to the executor.
struct Made(DmaBuffer);

// SAFETY: a `DmaBuffer` is not `Send` for the sake of buffers that belong to a ring. This one is memory of the global
// allocator (`allocate_dma_buffer_global` makes no other), which any thread may use and free, and it has one owner.
unsafe impl Send for Made {}

impl ReadyMemory {
    /// The thread stays on the processors of the calling one, so that the memory is near to them.
    #[allow(clippy::disallowed_methods, reason = "a thread beside the executor, which never waits for it")]
    pub(super) fn start() -> ReadyMemory {
        let (ask, asked) = mpsc::channel();
        let (make, made) = mpsc::channel();
        let make_all = move || {
            if let Err(error) = sys::name_thread("ready-memory").and_then(|()| sys::run_when_idle()) {
                tracing::warn!(%error, "memory is made ready at the priority of all else: latencies may suffer meanwhile");
            }
            for class in asked {
                if make.send(Made(fresh(class))).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().spawn(make_all) {
            tracing::warn!(%error, "no thread to make memory ready: the tail cache stays as small as it is. Allow more threads");
        }
        ReadyMemory { ask, made, asked_bytes: 0 }
    }

    /// Asks for a piece of memory, unless enough is under way.
    pub(super) fn ask(&mut self, class: usize) {
        if self.asked_bytes < ASKED_BYTES_MAX && self.ask.send(class).is_ok() {
            self.asked_bytes += class;
        }
    }

    /// A piece that was made meanwhile.
    pub(super) fn take(&mut self) -> Option<DmaBuffer> {
        let Made(memory) = self.made.try_recv().ok()?;
        self.asked_bytes -= memory.len();
        Some(memory)
    }
}

/// Memory of exactly `class` bytes, all zero, each page of it touched.
pub(super) fn fresh(class: usize) -> DmaBuffer {
    let mut fresh = ::glommio::allocate_dma_buffer_global(class);
    let start = fresh.as_mut_ptr();
    // SAFETY: `start` points to `class` bytes that belong to `fresh` alone. Raw, because a slice of memory that
    // was never written must not exist.
    unsafe { std::ptr::write_bytes(start, 0, class) };
    fresh
}
