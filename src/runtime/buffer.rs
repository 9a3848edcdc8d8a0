//! Block-aligned memory for direct I/O, taken from a pool of the executor and shared without copies.
//!
//! An [`AlignedBuf`] is unique and filled; frozen it becomes an [`IoBuf`], which is shared: the same bytes can be at
//! the device, in a cache and on their way into a socket. When the last clone is gone the memory returns to the pool
//! of its executor. That matters: an allocator that maps and unmaps a megabyte for each message spends more time on
//! page faults than the message needs for everything else.

mod pool;
mod ready;

use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::rc::Rc;

use ::glommio::io::{DmaBuffer, ReadResult};
use bytes::Bytes;

pub(crate) use pool::install;
pub use pool::{make_ready, size_class};

/// What direct I/O counts in: positions, lengths and addresses are multiples of it, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// Unique, initialised, block-aligned memory; its length is a multiple of [`BLOCK_BYTES`].
///
/// What it holds at first is unspecified (zeros, or what an earlier user left): whoever writes it to a file fills all
/// of it.
pub struct AlignedBuf(Rc<DmaBuffer>);

impl AlignedBuf {
    /// Memory of at least `len` bytes: exactly [`size_class`]`(len)`, at least one block.
    pub fn with_len(len: usize) -> AlignedBuf {
        let buf = AlignedBuf(pool::take(size_class(len)));
        #[cfg(feature = "sim")]
        let buf = if crate::backend::is_simulated() { buf.poisoned() } else { buf };
        buf
    }

    /// In a simulation nobody finds zeros by chance: whoever counts on them is found out, and finds the same each time.
    #[cfg(feature = "sim")]
    fn poisoned(mut self) -> AlignedBuf {
        self.fill(0xA5);
        self
    }

    /// As [`AlignedBuf::with_len`], every byte zero.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::with_len(len);
        buf.fill(0);
        buf
    }

    /// Makes it shareable and unchangeable.
    pub fn freeze(self) -> IoBuf {
        let len = self.len();
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the reference count is moved, not doubled.
        let memory = unsafe { std::ptr::read(&raw mut this.0) };
        IoBuf { memory: Memory::Pooled(memory), start: 0, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        Rc::get_mut(&mut self.0).expect("an AlignedBuf holds the only reference").as_bytes_mut()
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        pool::put(&mut self.0);
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len()).finish()
    }
}

/// Shared, unchangeable bytes: a range of memory that came from an [`AlignedBuf`], from a file or from anywhere else.
///
/// Cloning and slicing count a reference and copy nothing. A slice keeps the whole memory alive.
#[derive(Clone)]
pub struct IoBuf {
    memory: Memory,
    start: usize,
    len: usize,
}

#[derive(Clone)]
enum Memory {
    Pooled(Rc<DmaBuffer>),
    Read(ReadResult),
    /// Not aligned.
    Other(Bytes),
}

impl IoBuf {
    /// No bytes.
    pub fn empty() -> IoBuf {
        IoBuf { memory: Memory::Read(ReadResult::default()), start: 0, len: 0 }
    }

    /// The bytes of `range`, without a copy.
    ///
    /// # Panics
    /// When the range does not lie within the buffer, as slices do.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> IoBuf {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        assert!(start <= end && end <= self.len, "range {start}..{end} of a buffer of {} bytes", self.len);
        IoBuf { memory: self.memory.clone(), start: self.start + start, len: end - start }
    }

    /// Bytes of memory that this buffer keeps alive, which may be more than it shows.
    pub fn memory_bytes(&self) -> usize {
        match &self.memory {
            Memory::Pooled(memory) => memory.len(),
            Memory::Read(memory) => memory.len(),
            Memory::Other(memory) => memory.len(),
        }
    }

    /// Whether both show parts of the same memory.
    pub fn shares_memory_with(&self, other: &IoBuf) -> bool {
        std::ptr::eq(self.all().as_ptr(), other.all().as_ptr())
    }

    /// All bytes of the memory.
    fn all(&self) -> &[u8] {
        match &self.memory {
            Memory::Pooled(memory) => memory.as_bytes(),
            Memory::Read(memory) => memory,
            Memory::Other(memory) => memory,
        }
    }

    /// The whole block-aligned memory, if this buffer shows all of it: what can be written to a file.
    pub(crate) fn whole(&self) -> Option<&Rc<DmaBuffer>> {
        match &self.memory {
            Memory::Pooled(memory) if self.start == 0 && self.len == memory.len() => Some(memory),
            Memory::Pooled(_) | Memory::Read(_) | Memory::Other(_) => None,
        }
    }

    pub(crate) fn from_read(memory: ReadResult) -> IoBuf {
        IoBuf { start: 0, len: memory.len(), memory: Memory::Read(memory) }
    }
}

/// Without a copy. Such bytes can be read and sent; they cannot be written to a file.
impl From<Bytes> for IoBuf {
    fn from(memory: Bytes) -> IoBuf {
        IoBuf { start: 0, len: memory.len(), memory: Memory::Other(memory) }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all()[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if let Memory::Pooled(memory) = &mut self.memory {
            pool::put(memory);
        }
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoBuf").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
