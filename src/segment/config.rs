//! How one log is kept.

use std::time::Duration;

use ringmq_runtime::buffer::BLOCK_BYTES;

use crate::compaction::CompactionPolicy;
use crate::frame::FRAME_HEADER_BYTES;

/// How one log is kept. The defaults are those of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is sealed before a frame that would make it longer, in bytes. Also the bound of what one append can
    /// take, with its header and padding. Default: 1 GiB.
    pub segment_bytes: u64,
    /// A segment is sealed when its first frame is that old. Default: 7 days.
    pub segment_age: Duration,
    /// Records are deleted, with their segment, when the latest of it is older than that: see [`crate::Log::retain`].
    /// `None`: never. Default: 7 days.
    pub retention_age: Option<Duration>,
    /// The oldest segments are deleted while the others have that many bytes. `None`: never. Default: `None`.
    pub retention_bytes: Option<u64>,
    /// Small appends are gathered into frames of at most this many bytes. A larger append gets a frame of its own.
    /// Default: 1 MiB.
    pub frame_bytes_max: usize,
    /// Writes that may be at the device at once. Default: 4.
    pub writes_in_flight_max: usize,
    /// Bytes that may be staged and not yet in a frame; more is refused as overloaded, unless nothing is staged.
    /// Default: 16 MiB.
    pub staged_bytes_max: usize,
    /// There is an index entry for every so many bytes of a segment. Default: 64 KiB.
    pub index_interval_bytes: u64,
    /// Each time that the durable frames of the active segment have grown by so many bytes, its index is written: a start
    /// after a stop that was not clean reads about so much of it. Default: 16 MiB.
    pub index_hint_bytes: u64,
    /// Whether of each key only the latest record stays, and how. Default: not.
    pub compaction: Option<CompactionPolicy>,
    /// What is known of an idempotent producer is forgotten when it has sent nothing for so long. Default: 1 day.
    pub producer_expiry: Duration,
    /// Small appends are acknowledged, and can be read, when the system has them in its page cache, and are durable within
    /// so much time: a killed process loses none of them, a system that goes down those of that time. `None`: they are
    /// durable when they are acknowledged. Default: `None`.
    pub flush_interval: Option<Duration>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_age: Duration::from_secs(7 * 24 * 60 * 60),
            retention_age: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            retention_bytes: None,
            frame_bytes_max: 1 << 20,
            writes_in_flight_max: 4,
            staged_bytes_max: 16 << 20,
            index_interval_bytes: 64 << 10,
            index_hint_bytes: 16 << 20,
            compaction: None,
            producer_expiry: Duration::from_secs(24 * 60 * 60),
            flush_interval: None,
        }
    }
}

/// A setting that no log can be kept with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}; it must be at least {least}")]
pub struct InvalidConfig {
    /// Which one.
    pub setting: &'static str,
    /// What it is.
    pub value: u64,
    /// The least that it may be.
    pub least: u64,
}

impl LogConfig {
    /// With segments that an append of that many bytes fits into: where [`LogConfig::segment_bytes`] is too short for
    /// it and the frame around it, it is raised.
    ///
    /// ```
    /// # use ringmq_segment::LogConfig;
    /// let batch_bytes_max = 16 << 20;
    /// let config = LogConfig { segment_bytes: 16 << 20, ..LogConfig::default() }.with_room_for(batch_bytes_max);
    /// assert!(config.segment_bytes > 16 << 20);
    /// ```
    #[must_use]
    pub fn with_room_for(mut self, append_bytes: u32) -> LogConfig {
        let append = u64::from(append_bytes);
        // The reverse of `payload_bytes_limit`: 1/32 is more than 1/64 of the sum.
        let least = append + append / 32 + 2 * BLOCK_BYTES as u64;
        self.segment_bytes = self.segment_bytes.max(least);
        self
    }

    /// Checks that a log can be kept so.
    ///
    /// # Errors
    /// Names the first setting that is too small.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let at_least = |setting, value, least| {
            if value < least { Err(InvalidConfig { setting, value, least }) } else { Ok(()) }
        };
        let block = BLOCK_BYTES as u64;
        at_least("segment_bytes", self.segment_bytes, block)?;
        at_least("frame_bytes_max", self.frame_bytes_max as u64, block)?;
        at_least("writes_in_flight_max", self.writes_in_flight_max as u64, 1)?;
        at_least("staged_bytes_max", self.staged_bytes_max as u64, block)?;
        at_least("index_interval_bytes", self.index_interval_bytes, block)
    }

    /// The longest frame: a segment holds it, and its length fits the header.
    pub(crate) fn frame_bytes_limit(&self) -> usize {
        let fits_header = u64::from(u32::MAX) / 2;
        usize::try_from(self.segment_bytes.min(fits_header)).unwrap_or(usize::MAX)
    }

    /// The longest frame that small appends share.
    pub(crate) fn shared_frame_bytes_max(&self) -> usize {
        self.frame_bytes_max.min(self.frame_bytes_limit())
    }

    /// The longest payload that has room in a frame, whatever its padding.
    pub(crate) fn payload_bytes_limit(&self) -> usize {
        // A buffer is at most 1/64 longer than asked for, and a block: see `buffer::size_class`.
        let frame = self.frame_bytes_limit();
        (frame - frame / 64).saturating_sub(BLOCK_BYTES).max(BLOCK_BYTES) - FRAME_HEADER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::frame_bytes_for;

    proptest! {
        #[test]
        fn what_room_was_made_for_fits_with_its_frame(append in 0..=64_u32 << 20, segment in 4096..64_u64 << 20) {
            let config = LogConfig { segment_bytes: segment, ..LogConfig::default() }.with_room_for(append);
            prop_assert!(config.segment_bytes >= segment);
            prop_assert!(config.payload_bytes_limit() >= append as usize);
            prop_assert!(frame_bytes_for(config.payload_bytes_limit()) <= config.frame_bytes_limit());
        }
    }
}
