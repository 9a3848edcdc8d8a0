//! Sparse offset and time indexes over one segment; pure.
//!
//! An index is a hint. It says where in a segment file to begin to look, and whoever looks there checks what is
//! found; a file that does not decode, or that covers something else than the segment at hand, is thrown away and
//! built again from the log. The bytes are described in `docs/formats/segment-index.md`.
//!
//! - [`OffsetIndex`]: an offset → the position of a frame at or before it
//! - [`TimeIndex`]: a timestamp → an offset below which every record is older
//! - [`Coverage`]: which frames of which segment an index file speaks of, and the codec of the files
//!
//! One segment's indexes take at most 20 bytes of memory per `index_interval_bytes` of the segment.
#![forbid(unsafe_code)]

mod file;
mod offset_index;
mod time_index;

pub use file::{Coverage, HEADER_BYTES, IndexError, IndexKind};
pub use offset_index::{FramePlace, OffsetIndex};
pub use time_index::TimeIndex;

/// Positions of frames are multiples of this many bytes.
pub const BLOCK_BYTES: u64 = 4096;
