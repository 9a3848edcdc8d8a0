//! Kills a broker under load, again and again, and proves that nothing acknowledged is lost.
//!
//! `ringmq-torture --dir DIR [--rounds N] [--partitions N] [--seed N] [--flush-interval-ms N]` starts the `ringmq` beside it, has several
//! producers write records of all sizes to many partitions and several consumers read them, ends the broker with SIGKILL
//! at a random moment, starts it again, and so on. After every start, and in the end, everything is read: each
//! acknowledged record is there, once, unchanged and at its offset, and whatever a consumer was given once is given
//! again.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

mod ledger;
mod load;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq_client::{Client, NewTopic};
use ringmq_tests::Broker;

use ledger::Ledger;
use load::Load;

const TOPIC: &str = "torture";
/// A broker lives at least so long under load, and at most twice as long.
const LIFE: Duration = Duration::from_millis(700);

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
    let mut broker = Broker::start_below(&dir)?;
    let client = connect(&broker).await?;
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    let topic = topic.setting("flush_interval_ms", flush_interval_ms.to_string());
    let created = client.admin().create_topic(topic).await;
    created.map_err(|error| format!("cannot create the topic: {error}"))?;

    let ledger = Arc::new(Ledger::new(partitions, flush_interval_ms > 0));
    let mut dice = load::dice(seed);
    for round in 1..=rounds {
        let load = Load::start(&client, &ledger, partitions, dice(u64::MAX));
        tokio::time::sleep(LIFE + Duration::from_millis(dice(700))).await;
        let before = ledger.acknowledged();
        let killed_at = Instant::now();
        // On a thread of its own: the clients try on meanwhile.
        let back = tokio::task::spawn_blocking(move || broker.kill_and_restart());
        broker = back.await.map_err(|error| format!("no start after round {round}: {error}"))?;
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
    broker.end_well()?;
    println!("{} records, each of them acknowledged and there once", ledger.stored());
    println!("counted {}", ledger.acknowledged());
    Ok(())
}

async fn connect(broker: &Broker) -> Result<Client, String> {
    let address = broker.address();
    let client = Client::builder().brokers(address).timeout(Duration::from_secs(60)).connect().await;
    client.map_err(|error| format!("cannot connect to {address}: {error}"))
}
