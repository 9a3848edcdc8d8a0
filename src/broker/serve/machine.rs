//! What the broker takes of the machine: its CPUs and its share of the memory.

use std::path::Path;

use ringmq_runtime::executor::{self, CpuId};
use ringmq_runtime::probe::Problem;
use thiserror::Error;

use crate::config::Config;
use crate::config::schema::{GIB, MIB};
use crate::config::values::{Automatic, Cores};

/// What the limit of open files is called in reports.
pub(crate) const OPEN_FILES: &str = "open files";

/// Memory that each executor registers with io_uring; it counts three times against the locked-memory limit.
pub(crate) const IO_MEMORY_BYTES: usize = 64 << 10;

/// The part of the descriptors that sealed segments take, and what a shard has at least and at most.
const SEALED_SHARE: usize = 4;
const SEALED_OPEN_MIN: usize = 4;
const SEALED_OPEN_MAX: usize = 1024;

/// Descriptors that a broker takes for each executor, and beside them, for a start with a few partitions and connections.
const DESCRIPTORS_PER_EXECUTOR: u64 = 12;
const DESCRIPTORS_BESIDE: u64 = 32;

/// With fewer, few partitions and connections can be open.
const OPEN_FILES_WANTED: u64 = 1024;

/// Where the limit of open files cannot be read: the usual one.
const DESCRIPTORS_ASSUMED: usize = 1024;

/// The part of the memory that the tail cache takes by itself, and its bound.
const TAIL_CACHE_SHARE: u64 = 8;
const TAIL_CACHE_BYTES_MAX: u64 = 4 * GIB;

/// Where the memory of the machine cannot be read.
const MEMORY_BYTES_ASSUMED: u64 = 2 * GIB;

/// Why the shards cannot have the CPUs that the configuration names.
#[derive(Debug, Error)]
pub(crate) enum CpuError {
    /// A CPU is offline, not there, or not one of the process's.
    #[error("cores names CPU {cpu}, which this process may not use; it may use {}", cpu_list(.allowed))]
    NotAllowed {
        /// The CPU.
        cpu: usize,
        /// What may be used.
        allowed: Vec<CpuId>,
    },
    /// The kernel did not answer.
    #[error("cannot find out which CPUs this process may use: {0}")]
    Unknown(#[source] std::io::Error),
}

/// The CPU of each shard, in the order of the shards.
///
/// # Errors
/// When the configuration names a CPU that the process may not use.
pub(crate) fn cpus(config: &Config) -> Result<Vec<CpuId>, CpuError> {
    let allowed = executor::cpus_allowed().map_err(CpuError::Unknown)?;
    let Cores::List(wanted) = &config.cores else { return Ok(allowed) };
    let find = |cpu: &usize| allowed.iter().copied().find(|allowed| usize::try_from(allowed.get()) == Ok(*cpu));
    wanted
        .iter()
        .map(|cpu| find(cpu).ok_or_else(|| CpuError::NotAllowed { cpu: *cpu, allowed: allowed.clone() }))
        .collect()
}

/// `0, 1, 3`.
pub(crate) fn cpu_list(cpus: &[CpuId]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How many files a broker with so many executors may open. It raises its soft limit by itself, as this does.
pub(crate) enum OpenFiles {
    Enough(u64),
    /// It serves, and there is little left for partitions and connections.
    Few(Problem),
    /// It would fail in the middle of its start.
    TooFew(Problem),
    Unknown(std::io::Error),
}

pub(crate) fn open_files(executors: usize) -> OpenFiles {
    let limit = match executor::raise_open_files() {
        Ok(limit) if limit >= OPEN_FILES_WANTED => return OpenFiles::Enough(limit),
        Ok(limit) => limit,
        Err(error) => return OpenFiles::Unknown(error),
    };
    let needed = executors as u64 * DESCRIPTORS_PER_EXECUTOR + DESCRIPTORS_BESIDE;
    let how_to_mend = format!(
        "Raise the hard limit to {OPEN_FILES_WANTED} or more: `ulimit -n {OPEN_FILES_WANTED}` in the shell that starts it, \
         `LimitNOFILE={OPEN_FILES_WANTED}` in a systemd unit, or `--ulimit nofile={OPEN_FILES_WANTED}` for a container. A \
         broker has a file open for each partition and connection."
    );
    let problem = |what: String| Problem { subject: OPEN_FILES, what, how_to_mend };
    if limit < needed {
        return OpenFiles::TooFew(problem(format!("only {limit}, and a broker needs {needed} to start")));
    }
    OpenFiles::Few(problem(format!("only {limit}")))
}

/// Sealed segments that each of so many shards may have open: a quarter of the descriptors that the process may have,
/// which leaves the rest to active segments and connections.
pub(crate) fn sealed_open_max(shards: usize) -> usize {
    let descriptors = executor::raise_open_files().ok().and_then(|limit| usize::try_from(limit).ok());
    let share = descriptors.unwrap_or(DESCRIPTORS_ASSUMED) / SEALED_SHARE / shards.max(1);
    share.clamp(SEALED_OPEN_MIN, SEALED_OPEN_MAX)
}

/// Bytes of the tail cache of all shards together.
pub(crate) fn tail_cache_bytes(setting: Automatic) -> u64 {
    match setting {
        Automatic::Fixed(bytes) => bytes,
        Automatic::Auto => (memory_bytes() / TAIL_CACHE_SHARE).clamp(MIB, TAIL_CACHE_BYTES_MAX),
    }
}

/// Memory that the process may use: the machine's, or less where a control group says so.
#[allow(clippy::disallowed_methods, reason = "tables of the kernel, read before the executors are there")]
fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| control_group_limit(&text));
    machine.into_iter().chain(group).min().unwrap_or(MEMORY_BYTES_ASSUMED)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least `memory.max` on the way from the process's control group to the root (cgroups(7), version 2).
#[allow(clippy::disallowed_methods, reason = "as above")]
fn control_group_limit(cgroups: &str) -> Option<u64> {
    let group = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |dir: &Path| {
        let text = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(dir).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Path::new(group).ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        assert_eq!(meminfo_total("MemTotal:       24590332 kB\nMemFree: 1 kB\n"), Some(24_590_332 << 10));
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
        assert!(memory_bytes() > 0);
    }

    #[test]
    fn the_tail_cache_is_a_share_with_a_bound() {
        assert_eq!(tail_cache_bytes(Automatic::Fixed(5 * MIB)), 5 * MIB);
        let bytes = tail_cache_bytes(Automatic::Auto);
        assert!((MIB..=TAIL_CACHE_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn only_allowed_cpus_carry_shards() {
        let allowed = executor::cpus_allowed().expect("the kernel says");
        let mut config = Config::default();
        assert_eq!(cpus(&config).expect("all"), allowed);
        config.cores = Cores::List(vec![4000]);
        let error = cpus(&config).expect_err("no such CPU").to_string();
        assert!(error.contains("CPU 4000") && error.contains(&cpu_list(&allowed)), "{error}");
    }
}
