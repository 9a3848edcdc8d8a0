//! What a client can be told, with defaults that suit one machine as well as a cluster.

use std::time::Duration;

/// How a client behaves. [`Client::builder`](crate::Client::builder) sets these one by one.
///
/// ```
/// let options = ringmq_client::ClientOptions::default();
/// assert_eq!(options.producer_bytes_max, 64 << 20);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The time an operation may take, with all its attempts. Default 5 s. Of producers it is the time for one request:
    /// their records have a [delivery time-out](crate::Producer::delivery_timeout).
    pub timeout: Duration,
    /// The time to open one connection, when several addresses are to be tried. Default 2 s, never more than what is
    /// left of the operation's time.
    pub connect_timeout: Duration,
    /// Requests in flight on one connection; further ones wait. Default 64; a broker may ask for fewer.
    pub in_flight_max: u32,
    /// The longest response that is accepted, in bytes. Default 128 MiB.
    pub response_bytes_max: u32,
    /// What the client's producers hold at most of records that are not acknowledged, in bytes, before compression;
    /// further ones wait. Default 64 MiB.
    pub producer_bytes_max: u32,
    /// How long cached metadata is used before it is asked for again. Errors that show it to be stale do so at once.
    /// Default 5 min.
    pub metadata_age_max: Duration,
    /// How long an address that could not be reached is passed over where there is another way. Default 30 s.
    pub unreachable_for: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            in_flight_max: 64,
            response_bytes_max: 128 * 1024 * 1024,
            producer_bytes_max: 64 * 1024 * 1024,
            metadata_age_max: Duration::from_secs(5 * 60),
            unreachable_for: Duration::from_secs(30),
        }
    }
}

/// Longer times are taken for this one: a deadline is a point in time, and this is one that nobody lives to see.
const TIME_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The time that a program gives, as one that can be added to the present.
pub(crate) fn bounded(time: Duration) -> Duration {
    time.min(TIME_MAX)
}
