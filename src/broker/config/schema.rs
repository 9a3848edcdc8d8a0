//! Every key that a broker knows: its type, its default, what is valid and what it is for.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use ringmq_shard::Limits;
use serde::{Deserialize, Serialize};

use super::topic_defaults::{self, TopicDefaults};
use super::values::{Advertise, Automatic, Cores, Listen, LogFormat, LogLevel, ShardPorts};

/// 2^10 bytes.
pub const KIB: u64 = 1 << 10;
/// 2^20 bytes.
pub const MIB: u64 = 1 << 20;
/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// One key of the file, as error messages and `configs/broker.toml` describe it.
#[derive(Debug, Clone)]
pub struct Key {
    /// Dotted path in the file: `listen`, `topic_defaults.segment_bytes`.
    pub path: Cow<'static, str>,
    /// What the key may be set to.
    pub valid: Valid,
    /// What the key is for: the doc comment of the field, one line an element.
    pub about: &'static [&'static str],
}

/// What a key may be set to.
#[derive(Debug, Clone)]
pub enum Valid {
    /// A whole number within these bounds, both included.
    Integer(RangeInclusive<u64>),
    /// The word `"auto"`, or a whole number within these bounds, both included.
    AutoOrInteger(RangeInclusive<u64>),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Text of a form that is described here; its type's parser decides.
    Form(&'static str),
}

/// Declares a table of the file once: the struct, its defaults, and the [`Key`]s that describe it.
macro_rules! table {
    (
        $(#[$attribute:meta])*
        $name:ident, keys $keys:ident, prefix $prefix:literal {
            $( $(#[doc = $about:literal])+ $field:ident: $type:ty = $default:expr, $valid:expr; )+
            $( [$section:ident: $section_type:ty] $section_about:literal )?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[doc = $about])+ pub $field: $type, )+
            $( #[doc = $section_about] pub $section: $section_type, )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ $( $section: <$section_type>::default(), )? }
            }
        }

        const $keys: &[Key] = &[
            $( Key { path: Cow::Borrowed(concat!($prefix, stringify!($field))), valid: $valid, about: &[$($about),+] }, )+
        ];
    };
}

table! {
    /// Everything that one broker process can be told.
    Config, keys BROKER_KEYS, prefix "" {
        /// Address and port that clients connect to. Port 0 lets the kernel choose a free one, which the
        /// `ringmq ready` line then names. Of a name with several addresses the first is listened on; `localhost` is
        /// 127.0.0.1.
        listen: Listen = Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 9092))),
            Valid::Form("HOST:PORT, such as \"127.0.0.1:9092\", \"0.0.0.0:9092\" (all of IPv4) or \"[::]:9092\" (IPv6 and IPv4)");
        /// Address that clients are told to use. "auto" names the address that each client reached.
        advertise: Advertise = Advertise::Auto,
            Valid::Form("\"auto\", or HOST or HOST:PORT, such as \"broker-1.example.com:9092\"");
        /// Directory that holds all data. Only one broker at a time may own it.
        data_dir: PathBuf = PathBuf::from("./ringmq-data"),
            Valid::Form("a path; its file system must support direct I/O (ext4, XFS)");
        /// CPUs to run on: one shard on each. "all" means those that the process may use, not the host's.
        cores: Cores = Cores::All,
            Valid::Form("\"all\", a list such as [0, 1], or text such as \"0,2-3\"; only CPUs that the process may use");
        /// Bind each shard's thread to its CPU. Turn it off where another scheduler places threads.
        pin_cores: bool = true, Valid::Boolean;
        /// Ports of the single shards, through which clients reach the owner of a partition directly.
        shard_ports: ShardPorts = ShardPorts::Ephemeral,
            Valid::Form("\"ephemeral\", a base port (shard i gets base + i), or a list with one port a shard");
        /// How much to log, on standard error.
        log_level: LogLevel = LogLevel::Info, Valid::OneOf(LogLevel::WORDS);
        /// How log lines look.
        log_format: LogFormat = LogFormat::Text, Valid::OneOf(LogFormat::WORDS);
        /// Memory for recently appended batches, all shards together. "auto" is an eighth of the memory that
        /// the process may use, at most 4 GiB. Beyond 64 MiB a shard it grows only into memory that was made ready
        /// while a processor had nothing else to do.
        tail_cache_bytes: Automatic = Automatic::Auto, Valid::AutoOrInteger(MIB..=TIB);
        /// Largest request that a client may send, in bytes; a larger one is refused.
        request_bytes_max: u64 = LIMITS.request_bytes_max as u64, Valid::Integer(MIB..=GIB);
        /// Bytes of requests that one connection may have unanswered; its socket is not read while over. At least
        /// `request_bytes_max`.
        connection_request_bytes_max: u64 = LIMITS.connection_bytes_max as u64, Valid::Integer(MIB..=16 * GIB);
        /// The same for all connections of one shard. At least `connection_request_bytes_max`.
        shard_request_bytes_max: u64 = LIMITS.shard_bytes_max as u64, Valid::Integer(MIB..=64 * GIB);
        /// Requests that one connection may have unanswered. Half of them can be subscriptions.
        connection_requests_max: u64 = LIMITS.in_flight_max as u64, Valid::Integer(2..=65_536);
        /// Bytes of records in one answer to a fetch, whatever the client asks for; a single larger batch still passes.
        fetch_bytes_max: u64 = LIMITS.fetch_bytes_max as u64, Valid::Integer(MIB..=GIB);
        /// Bytes of records that one connection was sent and has not taken yet; more waits. At least `fetch_bytes_max`.
        connection_response_bytes_max: u64 = LIMITS.connection_response_bytes_max as u64,
            Valid::Integer(MIB..=16 * GIB);
        /// The same for all connections of one shard. At least `connection_response_bytes_max`.
        shard_response_bytes_max: u64 = LIMITS.shard_response_bytes_max as u64, Valid::Integer(MIB..=64 * GIB);
        /// Connections that one shard serves; further ones are closed at once.
        shard_connections_max: u64 = LIMITS.connections_max as u64, Valid::Integer(1..=1_000_000);
        /// A connection without a request for this long is closed, in milliseconds.
        connection_idle_ms_max: u64 = milliseconds(LIMITS.idle_max), Valid::Integer(1_000..=7 * DAY_MS);
        /// How long a stopping broker waits for its clients to take their last answers, in milliseconds.
        drain_ms_max: u64 = milliseconds(LIMITS.drain_max), Valid::Integer(0..=HOUR_MS);
        /// Log writes that one partition may have in flight at the same time.
        writes_in_flight_max: u64 = 4, Valid::Integer(1..=64);
        /// A partition forgets an idempotent producer that has sent it nothing for so long, in milliseconds: what that one
        /// sends again later may be stored twice.
        producer_expiry_ms: u64 = DAY_MS, Valid::Integer(1_000..=365 * DAY_MS);
        /// Appends of up to this many bytes go by the journal of their shard, which makes those of all its partitions durable
        /// with one write; larger ones go straight to their segment. 0 turns the journal off.
        journal_append_bytes_max: u64 = 32 * KIB, Valid::Integer(0..=64 * KIB);
        /// Size of each shard's journal, on disk; in memory, appends take up to as much until their segments have them. The same
        /// again where a topic has a `flush_interval_ms`.
        journal_ring_bytes: u64 = 64 * MIB, Valid::Integer(4 * MIB..=64 * GIB);
        /// How often each shard looks for records whose retention is over (`retention_ms`, `retention_bytes`), in milliseconds.
        retention_interval_ms: u64 = 30_000, Valid::Integer(100..=DAY_MS);
        /// How often each shard looks for partitions to compact, in milliseconds, among those whose `cleanup` asks for it.
        compaction_interval_ms: u64 = 15_000, Valid::Integer(100..=DAY_MS);
        /// Memory of each shard for the keys of the partitions that it is compacting, in bytes; a key takes up to 57. One
        /// partition gets half of what is free. Keys that do not fit wait for the next round, which reads all before them
        /// again.
        compaction_key_bytes_max: u64 = 32 * MIB, Valid::Integer(64 * KIB..=16 * GIB);
        /// How fast each shard reads its sealed segments again to find what has rotted, once a day, in bytes a second; 0 turns
        /// it off. It gives way to everything else that needs the disk.
        scrub_bytes_per_second: u64 = 8 * MIB, Valid::Integer(0..=16 * GIB);
        /// How long a shard that has nothing to do looks for work before it sleeps, in microseconds; 0 is off. A sleeping core
        /// takes some 20 of them to wake, several times for each request: looking shortens an acknowledgement by a fifth. It
        /// costs a core up to so long for each request where few come, and nothing where none do. Turn it off where shards
        /// share their cores with what must not wait. `ringmq-bench limits` measures with the default, whatever is set here.
        spin_before_park_us: u64 = 100, Valid::Integer(0..=10_000);
        /// A task that holds a core for longer than this is counted as a stall, in milliseconds.
        stall_threshold_ms: u64 = 5, Valid::Integer(1..=10_000);
        [topic_defaults: TopicDefaults] "Settings of a topic whose creator does not say otherwise."
    }
}

/// What a shard does by itself is what the file's defaults say.
const LIMITS: Limits = Limits::DEFAULT;

/// The shard's own durations are far from this bound.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const TIB: u64 = 1 << 40;

static TOPIC_KEYS: LazyLock<Vec<Key>> = LazyLock::new(topic_defaults::keys);

/// Every key of the file, in the order in which the reference file shows them.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    BROKER_KEYS.iter().chain(TOPIC_KEYS.iter())
}

/// The key at a dotted path.
pub fn key(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

impl std::fmt::Display for Valid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(range) => write!(f, "{} to {}", range.start(), range.end()),
            Self::AutoOrInteger(range) => write!(f, "\"auto\", or {} to {}", range.start(), range.end()),
            Self::Boolean => f.write_str("true or false"),
            Self::OneOf(words) => {
                for (i, word) in words.iter().enumerate() {
                    let separator = if i == 0 { "" } else { ", " };
                    write!(f, "{separator}\"{word}\"")?;
                }
                Ok(())
            }
            Self::Form(form) => f.write_str(form),
        }
    }
}
