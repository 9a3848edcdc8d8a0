//! Records: as a producer gives them, and as a consumer gets them.

use bytes::Bytes;
use ringmq_wire::{Offset, PartitionIndex, Timestamp};

/// A name and a value that travel with a record.
///
/// ```
/// use ringmq_client::Header;
/// let header = Header { key: "currency".to_owned(), value: Some("EUR".into()) };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name; need not be unique.
    pub key: String,
    /// The value; `None` differs from empty.
    pub value: Option<Bytes>,
}

/// A record to be sent.
///
/// ```
/// use ringmq_client::Record;
/// let record = Record::value("12.50").with_key("order 7").with_header("currency", "EUR");
/// assert_eq!(record.key.as_deref(), Some(&b"order 7"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Records of one key go to one partition, so their order holds. `None` spreads.
    pub key: Option<Bytes>,
    /// The payload; `None` differs from empty.
    pub value: Option<Bytes>,
    /// In this order.
    pub headers: Vec<Header>,
    /// When the record came into being; `None` is now, by this machine's clock.
    pub timestamp: Option<Timestamp>,
    /// The partition that it goes to; `None` leaves that to the key.
    pub partition: Option<PartitionIndex>,
}

impl Record {
    /// A record with this payload and nothing else.
    ///
    /// ```
    /// let record = ringmq_client::Record::value("12.50");
    /// assert_eq!(record.value.as_deref(), Some(&b"12.50"[..]));
    /// ```
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same record with this key.
    ///
    /// ```
    /// let record = ringmq_client::Record::value("12.50").with_key("order 7");
    /// assert_eq!(record.key.as_deref(), Some(&b"order 7"[..]));
    /// ```
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same record with one more header.
    ///
    /// ```
    /// let record = ringmq_client::Record::value("12.50").with_header("currency", "EUR");
    /// assert_eq!(record.headers[0].key, "currency");
    /// ```
    #[must_use]
    pub fn with_header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// The same record, to go to this partition whatever its key is.
    ///
    /// ```
    /// use ringmq_client::{PartitionIndex, Record};
    /// let record = Record::value("12.50").with_key("order 7").to_partition(PartitionIndex::new(3));
    /// assert_eq!(record.partition, Some(PartitionIndex::new(3)));
    /// ```
    #[must_use]
    #[allow(clippy::wrong_self_convention, reason = "it names where the record goes, as `send_to` does")]
    pub fn to_partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The same record with this timestamp.
    ///
    /// ```
    /// use ringmq_client::{Record, Timestamp};
    /// let record = Record::value("12.50").with_timestamp(Timestamp::new(1_763_856_000_000));
    /// ```
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(value: T) -> Self {
        Self::value(value)
    }
}

/// A record as it is stored.
///
/// Key, value and headers share the memory of the response that brought them: keep a copy rather than the record when
/// a few records are to be held for long.
///
/// ```no_run
/// # async fn example(mut stream: ringmq_client::RecordStream) -> Result<(), ringmq_client::Error> {
/// if let Some(record) = stream.next().await? {
///     println!("{} at {}: {:?} = {:?}", record.partition, record.offset, record.key, record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Where it is stored.
    pub partition: PartitionIndex,
    /// Its place in the partition.
    pub offset: Offset,
    /// When it came into being, by the clock of its producer (of the broker, on a topic that asks for that).
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its payload.
    pub value: Option<Bytes>,
    /// Its headers, in the producer's order.
    pub headers: Vec<Header>,
}
