//! Puts real text through a broker that is stopped in the middle, and proves that every byte comes back.
//!
//! `ringmq-roundtrip term|kill --ringmq PATH --dir DIR --mib N TEXT_ROOT…` takes text files below the roots, sends one record a
//! line keyed by file through 8 partitions, and after two fifths of it ends the broker (SIGTERM or SIGKILL) while
//! produces are in flight, starts it again and goes on. Then it reads everything back and compares, by key: the order of
//! the lines, and the SHA-256 of the whole.
//!
//! After SIGTERM nothing may be there twice: what the broker had read it has answered. After SIGKILL a batch that was
//! never acknowledged, and so was sent again, may be.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

mod check;
mod corpus;
mod send;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use corpus::Corpus;
use server::{Server, Signal};

const PARTITIONS: u32 = 8;
const TOPIC: &str = "roundtrip";

struct Arguments {
    signal: Signal,
    ringmq: PathBuf,
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
    let (mut ringmq, mut dir, mut mib, mut roots) = (None, None, 1024_u64, Vec::new());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--ringmq" => ringmq = Some(PathBuf::from(value()?)),
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--mib" => mib = value()?.parse().map_err(|error| format!("--mib: {error}"))?,
            _ => roots.push(PathBuf::from(arg)),
        }
    }
    Ok(Arguments {
        signal,
        ringmq: ringmq.ok_or("--ringmq PATH is missing")?,
        dir: dir.ok_or("--dir DIR is missing")?,
        bytes: mib << 20,
        roots,
    })
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

    let mut server = Server::start(&arguments.ringmq, &arguments.dir)?;
    let client = server.client().await?;
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
    server.end(arguments.signal)?;
    server.start_again()?;
    let sent = sending.await.map_err(|error| format!("the sender panicked: {error}"))??;
    println!("{} batches acknowledged, {} of them sent more than once", sent.batches.len(), sent.sent_again);

    let client = server.client().await?;
    let found = check::read_and_check(&client, &corpus, &sent, arguments.signal).await?;
    server.end(Signal::Term)?;
    println!("{} keys in order, SHA-256 equal; {} records twice", corpus.files().len(), found.records_twice);
    println!("counted {}", found.records);
    Ok(())
}
