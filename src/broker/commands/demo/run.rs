//! The story that the demonstration tells, step by step.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{HumanBytes, HumanCount};
use ringmq_client::{Client, NewTopic, TopicDescription};
use tempfile::TempDir;
use thiserror::Error;

use super::broker::{Broker, BrokerError, data_dir};
use super::transfer::{self, Received};
use crate::cli::DemoArgs;
use crate::commands::{CommandError, Interrupt};
use crate::exit::Exit;
use crate::output;

const TOPIC: &str = "demo";
const PARTITIONS: u32 = 4;

/// The file is held in memory, to be compared with what comes back.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Files of the data directory that are shown.
const FILES_SHOWN_MAX: usize = 12;

/// What is sent where no file is named.
const README: &[u8] = include_bytes!("../../../../README.md");

/// Why the demonstration failed.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    /// The file cannot be read.
    #[error("cannot read {} ({source}); check its name and permissions", .file.display())]
    File { file: PathBuf, source: io::Error },
    /// The file is too large for a demonstration.
    #[error(
        "{} has {}, and a demonstration takes {} at most; `ringmq produce` takes any",
        .file.display(), HumanBytes(*.bytes), HumanBytes(FILE_BYTES_MAX)
    )]
    TooLarge { file: PathBuf, bytes: u64 },
    /// There is no room for the broker's directory.
    #[error("cannot make a directory in {}: {source}; name another one with --dir", .dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    /// The broker does not start.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker cannot be killed.
    #[error("cannot kill the broker ({0}); end the process by hand")]
    Kill(#[source] io::Error),
    /// What came back is not what was sent.
    #[error(
        "{records} records came back of {lines} lines, and the first that differs is line {first}: this is a defect, please report it"
    )]
    Different { records: u64, lines: usize, first: usize },
}

/// Tells the story; an interrupt ends it, and leaves nothing behind.
///
/// # Errors
/// What went wrong at the step that it came to.
pub(crate) async fn run(args: &DemoArgs) -> Result<Exit, CommandError> {
    let mut interrupt = Interrupt::listen().map_err(CommandError::Setup)?;
    tokio::select! {
        biased;
        () = interrupt.received() => Ok(Exit::Interrupted),
        told = tell(args) => told.map(|()| Exit::Done),
    }
}

async fn tell(args: &DemoArgs) -> Result<(), CommandError> {
    let (name, file) = file(args.file.as_deref())?;
    let lines = transfer::lines(&file);
    let dir = directory(args)?;

    heading("A broker")?;
    command(&format!("ringmq serve --listen 127.0.0.1:0 --data-dir {}", data_dir(dir.path()).display()))?;
    let (broker, client, took) = start(dir.path()).await?;
    let pid = broker.pid();
    let shards: usize = client.admin().describe_cluster().await?.brokers.iter().map(|broker| broker.shards.len()).sum();
    say(&format!(
        "It answers on {} after {took:.0?}, as process {pid}. It runs {shards} shard(s): threads that own some of the \
         partitions each, and share nothing.",
        broker.address
    ))?;

    heading("A topic")?;
    command(&format!("ringmq topic create {TOPIC} --partitions {PARTITIONS}"))?;
    client.admin().create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS)).await?;

    heading("A file")?;
    let started = Instant::now();
    let batches = transfer::send(&client, TOPIC, PARTITIONS, &lines).await?;
    let (count, took) = (HumanCount(lines.len() as u64), started.elapsed());
    say(&format!(
        "{name}: {}, {count} lines. Each line was sent as a record, with its number in a header: {batches} batches, one \
         after the other, in {took:.0?}. The broker acknowledged each of them, and that means: it is on disk, flushed.",
        HumanBytes(file.len() as u64)
    ))?;
    let before = client.admin().describe_topic(TOPIC).await?;
    output::print(&offsets(&before))?;
    say(
        "Offsets count the records of a partition. A reader names the offset where it begins, and keeps its own position.",
    )?;

    heading("A crash")?;
    command(&format!("kill -9 {pid}"))?;
    broker.kill().map_err(DemoError::Kill)?;
    drop(client);
    let (broker, client, took) = start(dir.path()).await?;
    let after = client.admin().describe_topic(TOPIC).await?;
    let kept =
        if ends(&before) == ends(&after) { "the offsets are what they were" } else { "the offsets have changed" };
    say(&format!(
        "The process had no time to write or close anything. A new one on the same directory looked through the files \
         and answered after {took:.0?}: {kept}."
    ))?;

    heading("Everything back")?;
    command(&format!("ringmq consume {TOPIC}"))?;
    let started = Instant::now();
    let received = transfer::receive(&client, TOPIC, lines.len()).await?;
    compare(&lines, &received)?;
    say(&format!(
        "{count} records in {:.0?}; put in the order of their lines they are the file, byte for byte.",
        started.elapsed()
    ))?;

    heading("On disk")?;
    output::print(&files(&data_dir(dir.path())))?;
    say("Directories are named by the topic's id and the partition; a .log file by the first offset in it.")?;
    drop(broker);
    go_on(args.keep, dir)
}

/// The file to send, and what it is called.
fn file(path: Option<&Path>) -> Result<(String, Bytes), DemoError> {
    let Some(path) = path else {
        return Ok(("README.md, which is part of this program".to_owned(), Bytes::from_static(README)));
    };
    let failed = |source| DemoError::File { file: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(DemoError::TooLarge { file: path.to_owned(), bytes });
    }
    Ok((path.display().to_string(), std::fs::read(path).map_err(failed)?.into()))
}

/// Where the broker lives.
fn directory(args: &DemoArgs) -> Result<TempDir, DemoError> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix("ringmq-demo-").disable_cleanup(args.keep).tempdir_in(&parent);
    made.map_err(|source| DemoError::Directory { dir: parent, source })
}

/// A broker on the directory, a client of it, and how long it took to answer.
async fn start(dir: &Path) -> Result<(Broker, Client, Duration), CommandError> {
    let started = Instant::now();
    let broker = Broker::start(dir).await.map_err(DemoError::from)?;
    let client = Client::connect(broker.address.clone()).await?;
    Ok((broker, client, started.elapsed()))
}

fn compare(lines: &[Bytes], received: &Received) -> Result<(), DemoError> {
    let differs = |(sent, came): (&Bytes, &Option<Bytes>)| came.as_ref() != Some(sent);
    let first = lines.iter().zip(&received.lines).position(differs);
    if first.is_none() && received.records == lines.len() as u64 {
        return Ok(());
    }
    // With a record too many, no line may differ.
    let first = first.map_or(lines.len(), |place| place) + 1;
    Err(DemoError::Different { records: received.records, lines: lines.len(), first })
}

fn ends(topic: &TopicDescription) -> Vec<i64> {
    topic.partitions.iter().map(|partition| partition.log_end_offset.get()).collect()
}

fn offsets(topic: &TopicDescription) -> String {
    let row = |partition: &ringmq_client::DescribedPartition| {
        let (start, end) = (partition.log_start_offset, partition.log_end_offset);
        vec![partition.metadata.partition.to_string(), start.to_string(), end.to_string()]
    };
    indented(&output::table(&["PARTITION", "FIRST_OFFSET", "NEXT_OFFSET"], topic.partitions.iter().map(row)))
}

/// The files below a directory, the longest paths last, with their sizes.
fn files(dir: &Path) -> String {
    let mut found = Vec::new();
    collect(dir, dir, &mut found);
    found.sort();
    let hidden = found.len().saturating_sub(FILES_SHOWN_MAX);
    found.truncate(FILES_SHOWN_MAX);
    let rows = found.into_iter().map(|(path, bytes)| vec![path.display().to_string(), HumanBytes(bytes).to_string()]);
    let mut shown = indented(&output::table(&["FILE", "SIZE"], rows));
    if hidden > 0 {
        shown.push_str(&format!("\n   and {hidden} more"));
    }
    shown
}

/// What cannot be looked at is not shown: the broker is running, and files come and go.
fn collect(root: &Path, dir: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            collect(root, &path, found);
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push((relative.to_owned(), metadata.len()));
        }
    }
}

/// What to do next, and where the data is, or that it is gone.
fn go_on(keep: bool, dir: TempDir) -> Result<(), CommandError> {
    heading("And now")?;
    for (line, what) in [
        ("ringmq serve", "a broker for you, with its data in ./ringmq-data"),
        ("ringmq topic create orders --partitions 8", "in another terminal"),
        ("echo one record | ringmq produce orders", "any text, a record a line"),
        ("ringmq consume orders --follow", "what is there, and what comes"),
        ("ringmq --help", "everything else"),
    ] {
        output::print(&format!("   {line:<43}  {what}"))?;
    }
    let path = dir.path().to_owned();
    drop(dir);
    output::print("")?;
    let end = if keep {
        format!("The broker is stopped. Its data is in {}.", path.display())
    } else {
        "The broker is stopped, and its directory is removed.".to_owned()
    };
    Ok(output::print(&end)?)
}

fn heading(text: impl Display) -> io::Result<()> {
    output::print(&format!("\n{}", output::bold(&text.to_string())))
}

fn command(line: &str) -> io::Result<()> {
    output::print(&format!("   $ {line}"))
}

fn say(text: &str) -> io::Result<()> {
    output::print(&indented(&wrapped(text)))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}

/// Lines of at most 90 characters, where words allow it.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 90 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_missing_changed_or_too_many_is_told() {
        let lines = transfer::lines(&Bytes::from_static(b"a\nb"));
        let received = |second: Option<&'static str>, records| Received {
            lines: vec![Some(Bytes::from_static(b"a")), second.map(Bytes::from)],
            records,
        };
        compare(&lines, &received(Some("b"), 2)).expect("the same");
        for (second, records, told) in
            [(Some("c"), 2, "first that differs is line 2"), (None, 1, "1 records"), (Some("b"), 3, "3 records")]
        {
            let error = compare(&lines, &received(second, records)).expect_err("different").to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn words_stay_whole_and_lines_short() {
        let text = "word ".repeat(50);
        let wrapped = wrapped(text.trim_end());
        assert!(wrapped.lines().all(|line| line.len() <= 90), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().count(), 50);
    }
}
