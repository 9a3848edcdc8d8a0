//! Stats: what each shard has done, and how long it took.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::numbers::ShardIndex;

layout! {
    /// Asks a broker for its statistics. Its body is empty.
    pub struct StatsRequest {}

    /// The statistics of a broker since it started.
    pub struct StatsResponse {
        /// Its shards, by index.
        pub shards: Vec<ShardStats>,
    }

    /// What one shard has done. Names are for people and scripts; a newer broker may have more of them.
    ///
    /// ```
    /// use ringmq_wire::protocol::ShardStats;
    ///
    /// fn requests(shard: &ShardStats) -> u64 {
    ///     shard.requests.iter().map(|request| request.value).sum()
    /// }
    /// ```
    pub struct ShardStats {
        /// The shard.
        pub shard: ShardIndex,
        /// How many requests came, by the name of their type.
        pub requests: Vec<NamedValue>,
        /// What was counted; these only rise.
        pub counters: Vec<NamedValue>,
        /// What is so now: lengths of queues, bytes in use.
        pub gauges: Vec<NamedValue>,
        /// How long the stages of requests took.
        pub stages: Vec<StageLatency>,
        /// Reads and writes, by what they were for.
        pub device: Vec<DeviceUse>,
        /// Tasks that held the core for long.
        pub stalls: Vec<TaskStall>,
    }

    /// A number with a name.
    ///
    /// ```
    /// use ringmq_wire::protocol::NamedValue;
    ///
    /// fn value_of(name: &str, values: &[NamedValue]) -> Option<u64> {
    ///     values.iter().find(|value| value.name == name).map(|value| value.value)
    /// }
    /// ```
    pub struct NamedValue {
        /// What it is the number of.
        pub name: String,
        /// The number.
        pub value: u64,
    }

    /// How long a stage took.
    ///
    /// ```
    /// use ringmq_wire::protocol::StageLatency;
    ///
    /// fn slow(stages: &[StageLatency]) -> impl Iterator<Item = &StageLatency> {
    ///     stages.iter().filter(|stage| stage.p99_ns > 1_000_000)
    /// }
    /// ```
    pub struct StageLatency {
        /// The stage.
        pub name: String,
        /// How often it was passed.
        pub count: u64,
        /// Half took at most this long, in nanoseconds.
        pub p50_ns: u64,
        /// 99 of 100 took at most this long.
        pub p99_ns: u64,
        /// 999 of 1000 took at most this long.
        pub p999_ns: u64,
        /// The longest.
        pub max_ns: u64,
    }

    /// Reads and writes of one kind.
    ///
    /// ```
    /// use ringmq_wire::protocol::DeviceUse;
    ///
    /// fn bytes_a_request(used: &DeviceUse) -> u64 {
    ///     used.bytes / used.requests.max(1)
    /// }
    /// ```
    pub struct DeviceUse {
        /// What they were for.
        pub name: String,
        /// How many.
        pub requests: u64,
        /// Their bytes.
        pub bytes: u64,
        /// The time that they took at the device, added up, in nanoseconds; several may have been there at once.
        pub busy_ns: u64,
        /// The longest, in nanoseconds.
        pub longest_ns: u64,
    }

    /// Tasks of one name that held the core for longer than the broker's threshold.
    ///
    /// ```
    /// use ringmq_wire::protocol::TaskStall;
    ///
    /// fn worst(stalls: &[TaskStall]) -> Option<&str> {
    ///     stalls.iter().max_by_key(|stall| stall.longest_ns).map(|stall| stall.task.as_str())
    /// }
    /// ```
    pub struct TaskStall {
        /// Their name.
        pub task: String,
        /// How often.
        pub count: u64,
        /// The longest, in nanoseconds.
        pub longest_ns: u64,
    }
}

impl Message for StatsRequest {}
impl Message for StatsResponse {}
request!(StatsRequest is Stats, answered by StatsResponse);
