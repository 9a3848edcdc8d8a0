//! Every bound of a shard in one place, with its default and the relations that must hold between them.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A section at least this long, for a partition of this shard, is received straight into what will be written.
/// Below it the copy costs less than the buffer's own padding and bookkeeping.
pub(crate) const DIRECT_SECTION_BYTES_MIN: usize = 32 * KIB;

/// The read buffer of a connection starts with this size and doubles while reads fill it.
pub(crate) const READ_BUFFER_BYTES_MIN: usize = 16 * KIB;

/// The read buffer's largest size between requests.
pub(crate) const READ_BUFFER_BYTES_MAX: usize = 64 * KIB;

/// What is read at once where a large section is expected to follow: enough for its head, little to copy.
pub(crate) const HEAD_READ_BYTES: usize = 4 * KIB;

/// Requests that are taken from the read buffer before the core looks at its sockets and files again: some 200 µs.
pub(crate) const REQUESTS_IN_A_ROW_MAX: usize = 128;

/// Record bytes that are checked, or copied for another shard, before the core looks at its sockets and files again: some
/// 200 µs. One batch is checked in one go, whatever its size.
pub(crate) const BYTES_IN_A_ROW_MAX: usize = MIB;

/// Partitions that are looked at before the core looks at its sockets and files again: some 200 µs.
pub(crate) const PARTS_IN_A_ROW_MAX: usize = 1024;

/// Responses are gathered into one write up to this size. Between two writes a slow peer's progress is noticed.
pub(crate) const WRITE_BYTES_MAX: usize = MIB;

/// Encoded responses that may wait for a peer before its requests are no longer read.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 * KIB;

/// What each connection may have in unanswered requests, and again in answers that it has not taken, whatever others
/// hold: so that peers that are slow, or mean harm, never keep a small request of someone else waiting.
pub(crate) const ALLOWANCE_BYTES: usize = 32 * KIB;

/// The same for sections in unanswered produces.
pub(crate) const ALLOWANCE_PARTS: usize = 64;

/// Fetches of one shard that read at the same time what may be larger than the room they took: the first batch passes
/// whatever its size.
pub(crate) const READS_BEYOND_ROOM_MAX: usize = 8;

/// What a fetch is taken to weigh while it is under way: its task, its place on each shard that it asks.
pub(crate) const FETCH_BYTES: usize = 2 * KIB;

/// What each topic of a fetch adds to that: its name, twice.
pub(crate) const FETCH_TOPIC_BYTES: usize = 256;

/// What each partition of a fetch adds to that: what is wanted, what is listened to, what is answered.
pub(crate) const FETCH_PART_BYTES: usize = 512;

/// What each partition of a fetch takes up in the head of its answer, at most, without the detail of an error.
pub(crate) const FETCHED_PART_BYTES: usize = 64;

/// Descriptions of many topics (Metadata, ListTopics, DescribeTopics) that a shard puts together at the same time. Each
/// can take some megabytes per 10,000 partitions until it is encoded.
pub(crate) const DESCRIPTIONS_MAX: usize = 16;

/// An answer keeps at most this many times its own bytes of memory alive: where a few batches are taken out of large
/// frames, they are copied.
pub(crate) const PINNED_PER_BYTE_MAX: usize = 4;

/// Partitions of one response whose errors are explained; the others have their code alone. Names are longer than what
/// asks for them.
pub(crate) const DETAILS_MAX: usize = 100;

/// Places in one shard's mailbox. Senders wait when they are taken; each waits on its own bounds first.
pub(crate) const MAILBOX_MESSAGES: usize = 1024;

/// What a forwarded message is taken to weigh beside its record bytes.
pub(crate) const MESSAGE_BYTES: usize = 256;

const _: () = assert!(HEAD_READ_BYTES < DIRECT_SECTION_BYTES_MIN);
const _: () = assert!(READ_BUFFER_BYTES_MIN <= READ_BUFFER_BYTES_MAX);
const _: () = assert!(HEAD_READ_BYTES <= READ_BUFFER_BYTES_MIN);

/// What a shard allows its peers. The broker's configuration sets them; [`Limits::check`] says what does not fit together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest request that a client may send, without its length field. Default 32 MiB. Told to clients in the hello.
    pub request_bytes_max: u32,
    /// Requests that one connection may have unanswered. Default 1024. Told to clients in the hello.
    pub in_flight_max: u32,
    /// Bytes of unanswered requests of one connection; its socket is not read while over. Default 64 MiB.
    pub connection_bytes_max: usize,
    /// Bytes of unanswered requests of all connections of a shard. Default 256 MiB.
    pub shard_bytes_max: usize,
    /// Sections in unanswered produces of all connections of a shard: each costs memory beyond its bytes. Default 262,144.
    pub shard_parts_max: usize,
    /// Memory that the fetches of all connections of a shard take up while they are read for or wait, without the record
    /// bytes that they find. When it is used up, those that wait are answered with what there is. Default 64 MiB: some
    /// 25,000 fetches of one partition each.
    pub shard_fetch_bytes_max: usize,
    /// Requests of one connection, other than produce and fetch, that are worked on at the same time. Default 4.
    pub control_in_flight_max: usize,
    /// Record bytes of one fetch response, whatever the client asks for (a single larger batch still passes). Default 16 MiB.
    pub fetch_bytes_max: u32,
    /// The longest wait that a fetch may ask for. Default 5 minutes.
    pub fetch_wait_max: Duration,
    /// Record bytes of responses that one connection has not taken yet. Default 32 MiB.
    pub connection_response_bytes_max: usize,
    /// The same for all connections of a shard. Default 256 MiB.
    pub shard_response_bytes_max: usize,
    /// Bytes in flight from one shard to another, one way. Default 64 MiB.
    pub forwarded_bytes_max: usize,
    /// Messages in flight from one shard to another, without fetches, which may wait for minutes and have
    /// `shard_fetch_bytes_max`. Default 1024.
    pub forwarded_in_flight_max: usize,
    /// How long a request waits for room in a mailbox, or in what others have not taken of their answers, before it is
    /// answered with `Overloaded`. Default 500 ms.
    pub forward_wait_max: Duration,
    /// Connections of one shard. Default 4096.
    pub connections_max: usize,
    /// From the accepted connection to its whole preamble. Default 5 s.
    pub handshake_max: Duration,
    /// From the first byte of a frame to its last. Default 60 s.
    pub frame_receive_max: Duration,
    /// The same while others wait for room that the frame takes up. Default 5 s.
    pub frame_receive_crowded_max: Duration,
    /// A connection without a request for this long, and none in flight, is closed. Default 10 minutes.
    pub idle_max: Duration,
    /// A peer that takes none of its responses for this long is closed. Default 30 s.
    pub write_stall_max: Duration,
    /// How long a stopping shard waits for its peers to take their last responses. Each later step of the stop is given
    /// as long, or twice as long. Default 10 s.
    pub drain_max: Duration,
}

impl Limits {
    /// The defaults, as documented on each field.
    pub const DEFAULT: Limits = Limits {
        request_bytes_max: 32 << 20,
        in_flight_max: 1024,
        connection_bytes_max: 64 * MIB,
        shard_bytes_max: 256 * MIB,
        shard_parts_max: 1 << 18,
        shard_fetch_bytes_max: 64 * MIB,
        control_in_flight_max: 4,
        fetch_bytes_max: 16 << 20,
        fetch_wait_max: Duration::from_secs(300),
        connection_response_bytes_max: 32 * MIB,
        shard_response_bytes_max: 256 * MIB,
        forwarded_bytes_max: 64 * MIB,
        forwarded_in_flight_max: 1024,
        forward_wait_max: Duration::from_millis(500),
        connections_max: 4096,
        handshake_max: Duration::from_secs(5),
        frame_receive_max: Duration::from_secs(60),
        frame_receive_crowded_max: Duration::from_secs(5),
        idle_max: Duration::from_secs(600),
        write_stall_max: Duration::from_secs(30),
        drain_max: Duration::from_secs(10),
    };

    /// Whether the bounds fit together.
    ///
    /// # Errors
    /// The first relation that does not hold, in words that name both settings.
    pub const fn check(&self) -> Result<(), LimitsError> {
        // Each of these would otherwise be a request that waits for ever for room that cannot come.
        if self.request_bytes_max as usize > self.connection_bytes_max {
            return Err(LimitsError("connection_bytes_max must be at least request_bytes_max"));
        }
        if self.connection_bytes_max > self.shard_bytes_max {
            return Err(LimitsError("shard_bytes_max must be at least connection_bytes_max"));
        }
        if self.fetch_bytes_max as usize > self.connection_response_bytes_max {
            return Err(LimitsError("connection_response_bytes_max must be at least fetch_bytes_max"));
        }
        if self.connection_response_bytes_max > self.shard_response_bytes_max {
            return Err(LimitsError("shard_response_bytes_max must be at least connection_response_bytes_max"));
        }
        if self.request_bytes_max as usize > self.forwarded_bytes_max {
            return Err(LimitsError("forwarded_bytes_max must be at least request_bytes_max"));
        }
        if self.fetch_bytes_max as usize > self.forwarded_bytes_max {
            return Err(LimitsError("forwarded_bytes_max must be at least fetch_bytes_max"));
        }
        if self.request_bytes_max == 0
            || self.in_flight_max == 0
            || self.control_in_flight_max == 0
            || self.fetch_bytes_max == 0
            || self.forwarded_in_flight_max == 0
            || self.connections_max == 0
        {
            return Err(LimitsError("a bound of zero lets nothing pass"));
        }
        Ok(())
    }
}

const _: () = assert!(Limits::DEFAULT.check().is_ok());

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Two bounds that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limits do not fit together: {0}")]
pub struct LimitsError(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        let default = Limits::DEFAULT;
        let table = [
            (Limits { request_bytes_max: u32::MAX, ..default.clone() }, "request_bytes_max"),
            (Limits { shard_bytes_max: 1, ..default.clone() }, "shard_bytes_max"),
            (Limits { fetch_bytes_max: 1 << 30, ..default.clone() }, "fetch_bytes_max"),
            (Limits { shard_response_bytes_max: 1, ..default.clone() }, "shard_response_bytes_max"),
            (Limits { forwarded_bytes_max: 1, ..default.clone() }, "forwarded_bytes_max"),
            (Limits { in_flight_max: 0, ..default.clone() }, "zero"),
        ];
        for (limits, named) in table {
            let error = limits.check().expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(default.check(), Ok(()));
    }
}
