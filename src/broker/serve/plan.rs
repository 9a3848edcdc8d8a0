//! What every executor is started with: the configuration, brought together with the machine.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use ringmq_client::HostPort;
use ringmq_controller::ControllerConfig;
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::executor::{CpuId, ExecutorConfig};
use ringmq_shard::{
    Advertise, CompactionSettings, JournalConfig, JournalSettings, Limits, LogConfig, ScrubSettings, ShardConfig,
};
use ringmq_wire::{BrokerId, ShardIndex};

use super::error::ServeError;
use super::machine;
use crate::cli::VERSION;
use crate::config::Config;
use crate::config::values;

/// A broker that starts alone has this id; a cluster will hand out others.
const BROKER: BrokerId = BrokerId::new(0);

/// The settings of all executors of one broker.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) listen: SocketAddr,
    /// Further addresses behind the name in the configuration, which are not listened on.
    pub(super) passed_over: Vec<SocketAddr>,
    pub(super) data_dir: PathBuf,
    pub(super) shard_count: NonZeroU16,
    cpus: Vec<CpuId>,
    shard_ports: Vec<u16>,
    config: Config,
}

impl Plan {
    /// Brings the configuration and the machine together.
    ///
    /// # Errors
    /// When they do not fit: a name that nobody knows, a CPU that the process may not use, more shards than ports.
    pub(super) fn new(config: &Config) -> Result<Self, ServeError> {
        let unfit = |why| ServeError::Unfit(format!("listen = \"{}\": {why}", config.listen));
        let mut addresses = config.listen.resolve().map_err(unfit)?;
        let listen = addresses.remove(0);
        let cpus = machine::cpus(config)?;
        let shard_count = u16::try_from(cpus.len()).ok().and_then(NonZeroU16::new);
        let shard_count = shard_count.ok_or_else(|| ServeError::Unfit(format!("cores names {} CPUs", cpus.len())))?;
        let shard_ports = config.shard_ports.for_shards(cpus.len());
        let shard_ports = shard_ports.map_err(|why| ServeError::Unfit(format!("shard_ports: {why}")))?;
        if shard_ports.contains(&config.listen.port()) && config.listen.port() != 0 {
            let port = config.listen.port();
            return Err(ServeError::Unfit(format!("shard_ports takes port {port}, which is the public one (listen)")));
        }
        Ok(Self {
            listen,
            passed_over: addresses,
            data_dir: config.data_dir.clone(),
            shard_count,
            cpus,
            shard_ports,
            config: config.clone(),
        })
    }

    /// The CPU of each shard.
    pub(super) fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }

    /// How many executors there will be: the shards and the controller.
    pub(super) fn executors(&self) -> usize {
        self.cpus.len() + 1
    }

    /// The executor of the controller: it has little to do, so the kernel may run it anywhere.
    pub(super) fn controller_executor(&self) -> ExecutorConfig {
        ExecutorConfig {
            name: "controller".to_owned(),
            io_memory_bytes: machine::IO_MEMORY_BYTES,
            stall_threshold: Duration::from_millis(self.config.stall_threshold_ms),
            ..ExecutorConfig::default()
        }
    }

    /// The controller.
    pub(super) fn controller(&self) -> ControllerConfig {
        ControllerConfig { defaults: self.config.topic_defaults.0, ..ControllerConfig::new(&self.data_dir) }
    }

    /// Every shard with its executor, by index; `listen` is the public address with its real port.
    pub(super) fn shards(&self, listen: SocketAddr) -> Vec<(ExecutorConfig, ShardConfig)> {
        let shards = (0..).map(ShardIndex::new).zip(self.cpus.iter().copied()).zip(self.shard_ports.iter().copied());
        shards.map(|((shard, cpu), port)| (self.executor(shard, cpu), self.shard(shard, cpu, port, listen))).collect()
    }

    fn executor(&self, shard: ShardIndex, cpu: CpuId) -> ExecutorConfig {
        let spin = Duration::from_micros(self.config.spin_before_park_us);
        ExecutorConfig {
            name: format!("shard-{shard}"),
            cpu: self.config.pin_cores.then_some(cpu),
            io_memory_bytes: machine::IO_MEMORY_BYTES,
            spin_before_park: (!spin.is_zero()).then_some(spin),
            stall_threshold: Duration::from_millis(self.config.stall_threshold_ms),
            ..ExecutorConfig::default()
        }
    }

    fn shard(&self, shard: ShardIndex, cpu: CpuId, port: u16, listen: SocketAddr) -> ShardConfig {
        let cache = machine::tail_cache_bytes(self.config.tail_cache_bytes) / u64::from(self.shard_count.get());
        ShardConfig {
            shard,
            shard_count: self.shard_count,
            cpu: self.config.pin_cores.then_some(cpu.get()),
            broker: BROKER,
            version: VERSION.to_owned(),
            data_dir: self.data_dir.clone(),
            listen,
            shard_port: (port != 0).then_some(port),
            advertise: self.advertise(),
            log: self.log(),
            journal: self.journal(),
            retention_interval: Duration::from_millis(self.config.retention_interval_ms),
            compaction: CompactionSettings {
                interval: Duration::from_millis(self.config.compaction_interval_ms),
                key_bytes_max: size(self.config.compaction_key_bytes_max),
            },
            sealed_open_max: machine::sealed_open_max(self.cpus.len()),
            scrub: ScrubSettings { bytes_per_second: self.config.scrub_bytes_per_second, ..ScrubSettings::default() },
            topic_defaults: self.config.topic_defaults.0,
            tail_cache_bytes: size(cache),
            limits: self.limits(),
        }
    }

    fn log(&self) -> LogConfig {
        LogConfig {
            writes_in_flight_max: size(self.config.writes_in_flight_max),
            producer_expiry: Duration::from_millis(self.config.producer_expiry_ms),
            ..LogConfig::default()
        }
    }

    fn journal(&self) -> JournalSettings {
        let (config, defaults) = (&self.config, JournalSettings::default());
        let ring_bytes = config.journal_ring_bytes.next_multiple_of(BLOCK_BYTES as u64);
        JournalSettings {
            append_bytes_max: size(config.journal_append_bytes_max),
            ring: JournalConfig { ring_bytes, ..defaults.ring },
        }
    }

    fn advertise(&self) -> Option<Advertise> {
        match &self.config.advertise {
            values::Advertise::Auto => None,
            values::Advertise::Address(HostPort { host, port }) => Some(Advertise { host: host.clone(), port: *port }),
        }
    }

    fn limits(&self) -> Limits {
        let config = &self.config;
        let defaults = Limits::DEFAULT;
        // What may be asked of a shard must also fit through the door between two of them.
        let largest = size(config.request_bytes_max.max(config.fetch_bytes_max));
        Limits {
            request_bytes_max: number(config.request_bytes_max),
            in_flight_max: number(config.connection_requests_max),
            connection_bytes_max: size(config.connection_request_bytes_max),
            shard_bytes_max: size(config.shard_request_bytes_max),
            fetch_bytes_max: number(config.fetch_bytes_max),
            connection_response_bytes_max: size(config.connection_response_bytes_max),
            shard_response_bytes_max: size(config.shard_response_bytes_max),
            forwarded_bytes_max: defaults.forwarded_bytes_max.max(largest),
            connections_max: size(config.shard_connections_max),
            idle_max: Duration::from_millis(config.connection_idle_ms_max),
            drain_max: Duration::from_millis(config.drain_ms_max),
            ..defaults
        }
    }
}

/// The ranges of the schema keep these in bounds on every machine that io_uring runs on.
fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::{Automatic, ShardPorts};

    #[test]
    fn the_default_configuration_keeps_the_shards_own_defaults() {
        let plan = Plan::new(&Config::default()).expect("fits any machine");
        let shards = plan.shards(plan.listen);
        assert_eq!(shards.len(), plan.cpus().len());
        for (executor, shard) in &shards {
            assert_eq!(executor.cpu.map(CpuId::get), shard.cpu);
            assert_eq!(shard.topic_defaults, Config::default().topic_defaults.0);
            assert_eq!(shard.log, LogConfig::default());
            assert_eq!(shard.journal, JournalSettings::default());
            shard.journal.ring.validate().expect("a journal can be kept so");
            assert_eq!(format!("{:?}", shard.limits), format!("{:?}", Limits::DEFAULT));
            shard.limits.check().expect("consistent");
        }
    }

    #[test]
    fn every_valid_configuration_makes_consistent_limits() {
        let config = Config {
            request_bytes_max: 1 << 30,
            connection_request_bytes_max: 1 << 30,
            shard_request_bytes_max: 1 << 30,
            ..Config::default()
        };
        assert_eq!(config.broken_relations(), []);
        let plan = Plan::new(&config).expect("fits");
        for (_, shard) in plan.shards(plan.listen) {
            shard.limits.check().expect("consistent");
        }
    }

    #[test]
    fn the_tail_cache_is_split_over_the_shards() {
        let config = Config { tail_cache_bytes: Automatic::Fixed(1 << 30), ..Config::default() };
        let plan = Plan::new(&config).expect("fits");
        let shards = plan.shards(plan.listen);
        let sum: usize = shards.iter().map(|(_, shard)| shard.tail_cache_bytes).sum();
        assert!(sum <= 1 << 30 && sum > (1 << 30) - shards.len(), "{sum}");
    }

    #[test]
    fn shards_do_not_take_the_public_port() {
        let config = Config { shard_ports: ShardPorts::Base(9092), ..Config::default() };
        let error = Plan::new(&config).expect_err("taken").to_string();
        assert!(error.contains("port 9092"), "{error}");
    }
}
