//! The free memory of one executor, by size class.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ::glommio::io::DmaBuffer;

use super::BLOCK_BYTES;
use super::ready::{ReadyMemory, fresh};

/// The length of the memory that [`super::AlignedBuf::with_len`]`(len)` gives: `len` rounded up to the next of 64 to
/// 128 steps between two powers of two, and to whole blocks. At most 1.6 % is lost beyond rounding to blocks.
///
/// Classes exist because memory cannot be cut to length and grown again: a write covers the whole of its buffer, so
/// a buffer is used again only for the same length. Coarser classes would be used again more often and write more.
pub fn size_class(len: usize) -> usize {
    let step = (len.max(1).next_power_of_two() / 128).max(BLOCK_BYTES);
    len.max(1).next_multiple_of(step)
}

/// Free memory of one thread. Bounded: when it would hold more than it may, what lay there longest is given back
/// first, whatever its class, so that the classes in use keep their memory.
struct Pool {
    retained_bytes_max: usize,
    retained_bytes: usize,
    /// Counts what was put in, as the order of leaving.
    puts: u64,
    /// By class, oldest first, with the number of its put.
    free: BTreeMap<usize, VecDeque<(u64, Rc<DmaBuffer>)>>,
    /// From the first time on that memory is to be made ready.
    ready: Option<ReadyMemory>,
}

thread_local! {
    /// `None` outside an executor: memory is then allocated and freed each time.
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// Gives this thread a pool until the guard is dropped.
pub(crate) fn install(retained_bytes_max: usize) -> PoolInUse {
    POOL.set(Some(Pool { retained_bytes_max, retained_bytes: 0, puts: 0, free: BTreeMap::new(), ready: None }));
    PoolInUse(())
}

/// Ends the thread's pool, with the memory in it, when dropped.
pub(crate) struct PoolInUse(());

impl Drop for PoolInUse {
    fn drop(&mut self) {
        let pool = POOL.take();
        drop(pool);
    }
}

/// Memory of exactly `class` bytes: used before if there is some, else fresh and zero.
pub(super) fn take(class: usize) -> Rc<DmaBuffer> {
    POOL.with_borrow_mut(|pool| pool.as_mut().and_then(|pool| pool.take(class)))
        .unwrap_or_else(|| Rc::new(fresh(class)))
}

/// Has memory for a buffer of `len` bytes made ready in the background, for who is to keep more buffers than before. Returns
/// how many bytes became ready since the last call: they lie in the pool, and those who make room for so much more take
/// nothing that was never touched. Outside an executor, and in a simulation, that is nothing.
pub fn make_ready(len: usize) -> usize {
    let class = size_class(len);
    POOL.with_borrow_mut(|pool| pool.as_mut().map_or(0, |pool| pool.make_ready(class)))
}

/// Takes memory back if `memory` is its last reference.
pub(super) fn put(memory: &mut Rc<DmaBuffer>) {
    if Rc::get_mut(memory).is_none() {
        return;
    }
    // The thread may be at its end, or outside an executor: then the memory is freed.
    let _ = POOL.try_with(|pool| {
        if let Ok(mut pool) = pool.try_borrow_mut()
            && let Some(pool) = pool.as_mut()
        {
            pool.put(memory.clone());
        }
    });
}

impl Pool {
    fn take(&mut self, class: usize) -> Option<Rc<DmaBuffer>> {
        // The one that was used last is still in the processor's caches.
        let (_, memory) = self.free.get_mut(&class)?.pop_back()?;
        self.retained_bytes -= class;
        Some(memory)
    }

    fn make_ready(&mut self, class: usize) -> usize {
        let mut bytes = 0;
        let mut ready = self.ready.take().unwrap_or_else(ReadyMemory::start);
        ready.ask(class);
        while let Some(memory) = ready.take() {
            bytes += memory.len();
            self.put(Rc::new(memory));
        }
        self.ready = Some(ready);
        bytes
    }

    fn put(&mut self, memory: Rc<DmaBuffer>) {
        let class = memory.len();
        if class > self.retained_bytes_max {
            return;
        }
        while self.retained_bytes + class > self.retained_bytes_max {
            self.evict_oldest();
        }
        self.retained_bytes += class;
        self.puts += 1;
        self.free.entry(class).or_default().push_back((self.puts, memory));
    }

    fn evict_oldest(&mut self) {
        let oldest = self.free.iter().filter_map(|(class, free)| Some((free.front()?.0, *class))).min();
        let Some((_, class)) = oldest else { return };
        if let Some(free) = self.free.get_mut(&class) {
            free.pop_front();
            self.retained_bytes -= class;
            if free.is_empty() {
                self.free.remove(&class);
            }
        }
    }
}

/// Bytes that lie free in this thread's pool.
#[cfg(test)]
pub(super) fn retained_bytes() -> usize {
    POOL.with_borrow(|pool| pool.as_ref().map_or(0, |pool| pool.retained_bytes))
}
