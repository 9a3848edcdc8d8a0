//! `ringmq stats`: what each shard of each broker has done, and how long it took.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_client::{BrokerId, BrokerStats, NamedValue, ShardStats};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::{CommandError, Interrupt, connect};
use crate::cli::{OutputFormat, StatsArgs};
use crate::exit::{self, Exit};
use crate::output;

/// Prints them once, or again and again.
///
/// # Errors
/// When no broker answers, or they cannot be printed.
pub(crate) async fn run(args: &StatsArgs) -> Result<Exit, CommandError> {
    let admin = connect(&args.connection).await?.admin();
    let Some(seconds) = args.watch else {
        return print(admin.stats_of_brokers().await?, args.output.output);
    };
    let mut interrupt = Interrupt::listen().map_err(CommandError::Setup)?;
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = interrupt.received() => return Ok(Exit::Interrupted),
        }
        print(admin.stats_of_brokers().await?, args.output.output)?;
    }
}

/// Prints what the brokers say; one that says nothing is told of on standard error.
fn print(brokers: Vec<BrokerStats>, format: OutputFormat) -> Result<Exit, CommandError> {
    let (mut exit, mut answered) = (Exit::Done, Vec::with_capacity(brokers.len()));
    let is_one = brokers.len() == 1;
    for BrokerStats { id, address, shards } in brokers {
        match shards {
            Ok(shards) => answered.push((id, address, shards)),
            Err(error) => {
                exit::report(&format!("broker {id} at {address}: {error}"));
                exit = Exit::Failed;
            }
        }
    }
    match format {
        OutputFormat::Text => {
            for (id, address, shards) in answered {
                let heading = if is_one { String::new() } else { format!("broker {id} at {address}\n\n") };
                output::print(&format!("{heading}{}", text(&shards)))?;
            }
        }
        OutputFormat::Json => {
            let all = answered.iter().flat_map(|(id, _, shards)| shards.iter().map(|shard| Shard::new(*id, shard)));
            output::print_json(&all.collect::<Vec<_>>())?;
        }
    }
    Ok(exit)
}

#[derive(Serialize)]
struct Shard<'a> {
    broker: i32,
    shard: u16,
    requests: BTreeMap<&'a str, u64>,
    counters: BTreeMap<&'a str, u64>,
    gauges: BTreeMap<&'a str, u64>,
    stages: Vec<Stage<'a>>,
    device: Vec<Device<'a>>,
    stalls: Vec<Stall<'a>>,
}

#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    count: u64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    requests: u64,
    bytes: u64,
    busy_ns: u64,
    longest_ns: u64,
}

#[derive(Serialize)]
struct Stall<'a> {
    task: &'a str,
    count: u64,
    longest_ns: u64,
}

impl<'a> Shard<'a> {
    fn new(broker: BrokerId, stats: &'a ShardStats) -> Self {
        let values = |values: &'a [NamedValue]| values.iter().map(|named| (named.name.as_str(), named.value)).collect();
        let stages = stats.stages.iter().map(|stage| Stage {
            name: &stage.name,
            count: stage.count,
            p50_ns: stage.p50_ns,
            p99_ns: stage.p99_ns,
            p999_ns: stage.p999_ns,
            max_ns: stage.max_ns,
        });
        let device = stats.device.iter().map(|used| Device {
            name: &used.name,
            requests: used.requests,
            bytes: used.bytes,
            busy_ns: used.busy_ns,
            longest_ns: used.longest_ns,
        });
        let stalls = stats.stalls.iter().map(|stall| Stall {
            task: &stall.task,
            count: stall.count,
            longest_ns: stall.longest_ns,
        });
        Self {
            broker: broker.get(),
            shard: stats.shard.get(),
            requests: values(&stats.requests),
            counters: values(&stats.counters),
            gauges: values(&stats.gauges),
            stages: stages.collect(),
            device: device.collect(),
            stalls: stalls.collect(),
        }
    }
}

/// Four tables: numbers by name with a column a shard, and what has several numbers a line.
fn text(shards: &[ShardStats]) -> String {
    let microseconds = |nanoseconds: u64| format!("{}.{}", nanoseconds / 1000, nanoseconds % 1000 / 100);
    let stages = shards.iter().flat_map(|shard| shard.stages.iter().map(move |stage| (shard.shard, stage)));
    let stages = stages.map(|(shard, stage)| {
        let took = [stage.p50_ns, stage.p99_ns, stage.p999_ns, stage.max_ns].map(microseconds);
        [vec![shard.to_string(), stage.name.clone(), stage.count.to_string()], took.to_vec()].concat()
    });
    let device = shards.iter().flat_map(|shard| shard.device.iter().map(move |used| (shard.shard, used)));
    let device = device.map(|(shard, used)| {
        let mean = used.busy_ns.checked_div(used.requests).unwrap_or_default();
        let (requests, bytes) = (used.requests.to_string(), used.bytes.to_string());
        vec![shard.to_string(), used.name.clone(), requests, bytes, microseconds(mean), microseconds(used.longest_ns)]
    });
    let stalls = shards.iter().flat_map(|shard| shard.stalls.iter().map(move |stall| (shard.shard, stall)));
    let stalls = stalls.map(|(shard, stall)| {
        vec![shard.to_string(), stall.task.clone(), stall.count.to_string(), microseconds(stall.longest_ns)]
    });
    [
        by_name(shards),
        output::table(&["SHARD", "STAGE", "COUNT", "P50_US", "P99_US", "P999_US", "MAX_US"], stages),
        output::table(&["SHARD", "DEVICE", "REQUESTS", "BYTES", "MEAN_US", "LONGEST_US"], device),
        output::table(&["SHARD", "STALLED_TASK", "COUNT", "LONGEST_US"], stalls),
    ]
    .join("\n\n")
}

/// What is one number a shard.
fn by_name(shards: &[ShardStats]) -> String {
    let mut rows: BTreeMap<(u8, &str), BTreeMap<u16, u64>> = BTreeMap::new();
    for shard in shards {
        for (kind, values) in (0_u8..).zip([&shard.gauges, &shard.counters, &shard.requests]) {
            for NamedValue { name, value } in values {
                rows.entry((kind, name)).or_default().insert(shard.shard.get(), *value);
            }
        }
    }
    let columns = shards.iter().map(|shard| format!("SHARD_{}", shard.shard));
    let head: Vec<String> = ["NOW_AND_SO_FAR".to_owned()].into_iter().chain(columns).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows = rows.into_iter().map(|((kind, name), values)| {
        let name = if kind == 2 { format!("requests {name}") } else { name.to_owned() };
        let value = |shard: &ShardStats| values.get(&shard.shard.get()).copied().unwrap_or_default().to_string();
        [name].into_iter().chain(shards.iter().map(value)).collect()
    });
    output::table(&head, rows)
}
