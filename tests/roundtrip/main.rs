//! Puts real text through a broker that is stopped in the middle, and proves that every byte comes back.
//!
//! `ringmq-roundtrip term|kill --dir DIR --mib N TEXT_ROOT…` takes text files below the roots, sends one record a line
//! keyed by file through 8 partitions of the `ringmq` beside it, and after two fifths of it ends the broker (SIGTERM or
//! SIGKILL) while produces are in flight, starts it again and goes on. Then it reads everything back and compares, by
//! key: the order of the lines, and the SHA-256 of the whole.
//!
//! Nothing may be there twice, whatever the signal: the producer sends again what was not acknowledged, and the broker
//! knows what it has stored.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

mod check;
mod corpus;
mod send;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use corpus::Corpus;
use ringmq_client::Client;
use ringmq_tests::Broker;

const PARTITIONS: u32 = 8;
const TOPIC: &str = "roundtrip";

/// How the broker is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Term,
    Kill,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Term => "SIGTERM",
            Self::Kill => "SIGKILL",
        })
    }
}

struct Arguments {
    signal: Signal,
    dir: PathBuf,
    bytes: u64,
    roots: Vec<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut args = std::env::args().skip(1);
    let signal = match args.next().as_deref() {
        Some("term") => Signal::Term,
        Some("kill") => Signal::Kill,
        other => return Err(format!("the first argument is term or kill, not {other:?}")),
    };
    let (mut dir, mut mib, mut roots) = (None, 1024_u64, Vec::new());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--mib" => mib = value()?.parse().map_err(|error| format!("--mib: {error}"))?,
            _ => roots.push(PathBuf::from(arg)),
        }
    }
    Ok(Arguments { signal, dir: dir.ok_or("--dir DIR is missing")?, bytes: mib << 20, roots })
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
            eprintln!("roundtrip: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let corpus = Arc::new(Corpus::gather(&arguments.roots, arguments.bytes)?);
    println!("{} bytes of text in {} files, {} lines", corpus.bytes(), corpus.files().len(), corpus.lines());

    let broker = Broker::start_below(&arguments.dir)?;
    let client = connect(&broker).await?;
    client
        .admin()
        .create_topic(ringmq_client::NewTopic::new(TOPIC).partitions(PARTITIONS))
        .await
        .map_err(|error| format!("cannot create the topic: {error}"))?;

    let progress = send::Progress::default();
    let sending = tokio::spawn(send::send_all(client, Arc::clone(&corpus), progress.clone()));
    progress.reached(corpus.bytes() * 2 / 5).await;
    let in_flight = progress.in_flight();
    println!("{} bytes acknowledged, {in_flight} produces in flight: {}", progress.acknowledged(), arguments.signal);
    if in_flight == 0 {
        return Err("no produce was in flight when the signal went out: this run proves nothing".into());
    }
    // On a thread of its own: the client tries on meanwhile.
    let back = move || match arguments.signal {
        Signal::Term => broker.restart(),
        Signal::Kill => broker.kill_and_restart(),
    };
    let broker = tokio::task::spawn_blocking(back).await.map_err(|error| format!("no second start: {error}"))?;
    let sent = sending.await.map_err(|error| format!("the sender panicked: {error}"))??;
    println!("{} batches acknowledged", sent.batches.len());

    let client = connect(&broker).await?;
    let records = check::read_and_check(&client, &corpus, &sent).await?;
    broker.end_well()?;
    println!("{} keys in order, SHA-256 equal, no record twice", corpus.files().len());
    println!("counted {records}");
    Ok(())
}

async fn connect(broker: &Broker) -> Result<Client, String> {
    let address = broker.address();
    // Longer than a broker takes to come back.
    let client = Client::builder().brokers(address).timeout(Duration::from_secs(60)).connect().await;
    client.map_err(|error| format!("cannot connect to {address}: {error}"))
}
