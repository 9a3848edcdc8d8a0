//! Kills a broker under load, again and again, and proves that nothing acknowledged is lost.
//!
//! `ringmq-torture --dir DIR [--rounds N] [--partitions N] [--seed N] [--flush-interval-ms N]` starts the `ringmq` beside
//! it, has several producers write records of all sizes to many partitions and several consumers read them, ends the broker
//! with SIGKILL at a random moment, starts it again (every other time it kills starts as well, until one of them was still
//! recovering), and so on. After every start, and in the end, everything is read: each acknowledged record is there, once,
//! unchanged and at its offset, and whatever a consumer was given once is given again. Segments and rings are small, so that
//! segments roll and rings wrap: how often each happened is told in the end, and a run of some rounds in which one of them
//! did not has failed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

mod ledger;
mod load;
mod witness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq_client::{Client, NewTopic};
use ringmq_tests::{Broker, BrokerOptions, data_dir};

use ledger::Ledger;
use load::Load;
use witness::Witness;

const TOPIC: &str = "torture";
/// A broker lives at least so long under load, and at most twice as long.
const LIFE: Duration = Duration::from_millis(700);
/// A start that is killed lives at most so long after it knows its partitions.
const RECOVERY_MICROS_MAX: u64 = 30_000;
/// From so many rounds on everything has to have happened.
const ROUNDS_TELLING: u32 = 4;
/// As small as they may be.
const SEGMENT_BYTES: u32 = 1 << 20;
const RING_BYTES: u32 = 4 << 20;

struct Arguments {
    dir: PathBuf,
    rounds: u32,
    partitions: u32,
    seed: u64,
    /// The topic's setting: a kill loses nothing, whatever it is.
    flush_interval_ms: u32,
}

fn arguments() -> Result<Arguments, String> {
    let mut args = std::env::args().skip(1);
    let (mut dir, mut rounds, mut partitions, mut seed, mut flush_interval_ms) = (None, 20, 40, 1, 0);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = || value.parse().map_err(|error| format!("{arg}: {error}"));
        match arg.as_str() {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--rounds" => rounds = number()?,
            "--partitions" => partitions = number()?,
            "--seed" => seed = u64::from(number()?),
            "--flush-interval-ms" => flush_interval_ms = number()?,
            _ => return Err(format!("{arg} is unknown")),
        }
    }
    Ok(Arguments { dir: dir.ok_or("--dir DIR is missing")?, rounds, partitions, seed, flush_interval_ms })
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match arguments() {
        Ok(arguments) => run(arguments).await,
        Err(usage) => Err(usage),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { dir, rounds, partitions, seed, flush_interval_ms } = arguments;
    println!(
        "{rounds} rounds over {partitions} partitions, flush_interval_ms {flush_interval_ms}; again with --seed {seed}"
    );
    let mut broker = start_below(&dir)?;
    let client = connect(&broker).await?;
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    let topic = topic.setting("flush_interval_ms", flush_interval_ms.to_string());
    let topic = topic.setting("segment_bytes", SEGMENT_BYTES.to_string());
    let created = client.admin().create_topic(topic).await;
    created.map_err(|error| format!("cannot create the topic: {error}"))?;

    let ledger = Arc::new(Ledger::new(partitions, flush_interval_ms > 0));
    let (mut dice, mut recoveries_killed) = (load::dice(seed), 0);
    for round in 1..=rounds {
        let load = Load::start(&client, &ledger, partitions, dice(u64::MAX));
        tokio::time::sleep(LIFE + Duration::from_millis(dice(700))).await;
        let before = ledger.acknowledged();
        let killed_at = Instant::now();
        let moments: Vec<Duration> = match round % 2 {
            0 => (0..=dice(2)).map(|_| Duration::from_micros(dice(RECOVERY_MICROS_MAX))).collect(),
            _ => Vec::new(),
        };
        // On a thread of its own: the clients try on meanwhile.
        let back = tokio::task::spawn_blocking(move || broker.kill_and_restart_after(&moments));
        let (started, killed) = back.await.map_err(|error| format!("no start after round {round}: {error}"))?;
        broker = started;
        recoveries_killed += killed as u64;
        let down = killed_at.elapsed();
        load.stop().await?;
        ledger.check(&client).await.map_err(|error| format!("round {round}: {error}"))?;
        let open = ledger.stored() - ledger.acknowledged();
        if open > 0 {
            return Err(format!("round {round}: {open} records are stored that no producer was told of"));
        }
        println!("round {round}: {before} records acknowledged before SIGKILL, serving again after {down:.1?}");
    }
    if ledger.acknowledged() == 0 {
        return Err("nothing was ever acknowledged: this run proves nothing".into());
    }
    let exit = broker.terminate();
    if !exit.status.success() {
        return Err(format!("SIGTERM ended the broker with {}:\n{}", exit.status, exit.log));
    }
    let witness = Witness::of(&data_dir(exit.directory.path()), recoveries_killed);
    let witness = witness.map_err(|error| format!("cannot look at what the broker left: {error}"))?;
    println!("{witness}");
    if rounds >= ROUNDS_TELLING && !witness.saw_all() {
        return Err(format!("{witness}: this run proves little"));
    }
    println!("{} records, each of them acknowledged and there once", ledger.stored());
    println!("counted {}", ledger.acknowledged());
    Ok(())
}

/// Starts a broker in a new directory below `dir`.
fn start_below(dir: &Path) -> Result<Broker, String> {
    let created = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir));
    let directory = created.map_err(|error| format!("cannot make a directory in {}: {error}", dir.display()))?;
    let options =
        BrokerOptions { config: Some(format!("journal_ring_bytes = {RING_BYTES}\n")), ..BrokerOptions::default() };
    let started = Broker::start_in(directory, options);
    started.map_err(|exit| format!("the broker ended with {} before it was ready:\n{}", exit.status, exit.log))
}

async fn connect(broker: &Broker) -> Result<Client, String> {
    let address = broker.address();
    let client = Client::builder().brokers(address).timeout(Duration::from_secs(60)).connect().await;
    client.map_err(|error| format!("cannot connect to {address}: {error}"))
}
