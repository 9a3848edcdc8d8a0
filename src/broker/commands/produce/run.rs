//! The walk of one `produce`: read, batch, send, and tell what was acknowledged, however it ends.

use std::time::{Duration, SystemTime};

use ringmq_client::{Client, Error, TopicDescription};
use ringmq_wire::{PartitionIndex, Timestamp};
use thiserror::Error as ThisError;
use tokio::time::Instant;

use super::batcher::{Batcher, RecordError, SourceRecord, Target};
use super::input::{Input, InputError};
use super::lines::{Line, LineSplitter, LineTooLong};
use super::sender::{Sender, Sent};
use super::tally::Tally;
use crate::cli::{EscapedText, OutputFormat, ProduceArgs};
use crate::commands::progress::{Progress, Total};
use crate::commands::{CommandError, Interrupt, connect};
use crate::exit::{self, Exit};
use crate::output;

/// A record waits this long for more in its batch when the input pauses.
const LINGER: Duration = Duration::from_millis(5);

/// What the progress counts.
const ACKNOWLEDGED: &str = "acknowledged";

/// A topic that does not say how large its batches may be is of an older broker; this was its bound.
const BATCH_BYTES_MAX_ASSUMED: usize = 1 << 20;

/// Why a produce ended before its input did.
#[derive(Debug, ThisError)]
enum Early {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Line(#[from] LineTooLong),
    #[error("line {line} has no key: there is no \"{}\" in it", .separator.escape_ascii())]
    NoKey { line: u64, separator: Vec<u8> },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("a batch from lines {first} to {last} was not acknowledged: {source}")]
    NotAcknowledged { first: u64, last: u64, source: Box<Error> },
    #[error("interrupted")]
    Interrupted,
}

/// Sends every line, prints what was acknowledged, and says why if that is not everything.
///
/// # Errors
/// When nothing could be sent at all: no broker, no such topic or partition, no such file.
pub(crate) async fn run(args: &ProduceArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let topic = client.admin().describe_topic(&args.topic).await?;
    let mut produce = Produce::new(args, &client, &topic)?;
    let mut interrupt = Interrupt::listen().map_err(CommandError::Setup)?;
    let ended = match &args.message {
        Some(text) => {
            produce.progress = Progress::new(Total::Records(args.count), ACKNOWLEDGED);
            produce.send_message(text, args.count, &mut interrupt).await
        }
        None => {
            let mut input = Input::open(&args.file)?;
            let total = input.bytes_total().map_or(Total::Unknown, Total::Bytes);
            produce.progress = Progress::new(total, ACKNOWLEDGED);
            produce.send_lines(&mut input, &mut interrupt).await
        }
    };
    let ended = produce.finish(ended, &mut interrupt).await;
    produce.progress.finish();
    print_tally(&produce.tally, args.output.output)?;
    Ok(match ended {
        Ok(()) => Exit::Done,
        Err(early) => {
            exit::report(&format!("{early}; {} records were acknowledged", produce.tally.records()));
            if matches!(early, Early::Interrupted) { Exit::Interrupted } else { Exit::Failed }
        }
    })
}

struct Produce {
    batcher: Batcher,
    sender: Sender,
    form: Form,
    tally: Tally,
    progress: Progress,
}

/// What becomes of a line.
struct Form {
    keys: Keys,
    headers: Vec<(String, Option<String>)>,
    /// What stands for null.
    null: Option<String>,
}

/// Where keys come from.
enum Keys {
    None,
    /// Every record has this one.
    Fixed(String),
    /// What stands before this in each line.
    Before(EscapedText),
}

impl Form {
    fn new(args: &ProduceArgs) -> Self {
        let keys = match (&args.key, &args.key_separator) {
            (Some(key), _) => Keys::Fixed(key.clone()),
            (None, Some(separator)) => Keys::Before(separator.clone()),
            (None, None) => Keys::None,
        };
        Self { keys, headers: args.headers.clone(), null: args.null.clone() }
    }

    /// The headers of every record, as batches take them.
    fn headers(&self) -> Vec<(&str, Option<&[u8]>)> {
        self.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref().map(str::as_bytes))).collect()
    }

    /// The record that a line holds.
    fn record<'l>(
        &'l self,
        line: &Line<'l>,
        headers: &'l [(&'l str, Option<&'l [u8]>)],
    ) -> Result<SourceRecord<'l>, Early> {
        let (key, value) = match &self.keys {
            Keys::None => (None, line.bytes),
            Keys::Fixed(key) => (Some(key.as_bytes()), line.bytes),
            Keys::Before(separator) => {
                let separator = separator.as_bytes();
                let (key, value) = split_at_first(line.bytes, separator)
                    .ok_or_else(|| Early::NoKey { line: line.number, separator: separator.to_vec() })?;
                (Some(key), value)
            }
        };
        let present = |bytes: &&[u8]| self.null.as_ref().is_none_or(|null| null.as_bytes() != *bytes);
        Ok(SourceRecord {
            line: line.number,
            input_bytes: line.bytes.len() + 1,
            key: key.filter(present),
            value: Some(value).filter(present),
            headers,
        })
    }
}

impl Produce {
    fn new(args: &ProduceArgs, client: &Client, topic: &TopicDescription) -> Result<Self, CommandError> {
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let target = match args.partition {
            None => Target::Any,
            Some(partition) if partition < partitions => Target::Only(PartitionIndex::new(partition)),
            Some(partition) => {
                let name = topic.name.clone();
                return Err(CommandError::NoSuchPartition { topic: name, partition, partitions });
            }
        };
        Ok(Self {
            batcher: Batcher::new(target, partitions, batch_bytes_max(topic), args.compression.into()),
            sender: Sender::new(client.producer().delivery_timeout(client.options().timeout), topic.name.clone()),
            form: Form::new(args),
            tally: Tally::default(),
            progress: Progress::none(),
        })
    }

    /// Sends the same record `count` times.
    async fn send_message(&mut self, text: &str, count: u64, interrupt: &mut Interrupt) -> Result<(), Early> {
        for number in 1..=count {
            self.push(&Line { number, bytes: text.as_bytes() }, Timestamp::from(SystemTime::now()))?;
            // Time for answers, without one look at them a record.
            if number % 1024 == 0 || !self.sender.has_room() {
                self.collect_until_room(interrupt).await?;
            }
        }
        self.flush()
    }

    /// Sends every line of the input.
    async fn send_lines(&mut self, input: &mut Input, interrupt: &mut Interrupt) -> Result<(), Early> {
        let mut splitter = LineSplitter::new(self.batcher.line_bytes_max());
        let mut linger_until = None;
        loop {
            let deadline = *linger_until.get_or_insert_with(|| Instant::now() + LINGER);
            let lingering = !self.batcher.is_empty() && self.sender.is_idle();
            tokio::select! {
                biased;
                () = interrupt.received() => return Err(Early::Interrupted),
                Some(sent) = self.sender.next() => self.collect(sent)?,
                chunk = input.next_chunk(), if self.sender.has_room() => match chunk? {
                    Some(chunk) => self.push_chunk(&mut splitter, chunk)?,
                    None => break,
                },
                // Last on purpose: while there is input, batches fill up.
                () = tokio::time::sleep_until(deadline), if lingering => {
                    self.flush()?;
                    linger_until = None;
                }
            }
        }
        if let Some(line) = splitter.finish() {
            self.push(&line, Timestamp::from(SystemTime::now()))?;
        }
        self.flush()
    }

    fn push_chunk(&mut self, splitter: &mut LineSplitter, chunk: Vec<u8>) -> Result<(), Early> {
        let timestamp = Timestamp::from(SystemTime::now());
        splitter.feed(chunk);
        while let Some(line) = splitter.next_line()? {
            self.push(&line, timestamp)?;
        }
        Ok(())
    }

    /// Puts one line into a batch, and a full batch on its way.
    fn push(&mut self, line: &Line<'_>, timestamp: Timestamp) -> Result<(), Early> {
        let headers = self.form.headers();
        let record = self.form.record(line, &headers)?;
        if let Some(batch) = self.batcher.push(record, timestamp)? {
            self.sender.send(batch);
        }
        Ok(())
    }

    /// Puts every open batch on its way.
    fn flush(&mut self) -> Result<(), Early> {
        for batch in self.batcher.drain() {
            self.sender.send(batch?);
        }
        Ok(())
    }

    /// Counts an acknowledgement.
    fn collect(&mut self, sent: Sent) -> Result<(), Early> {
        let (first, last) = sent.lines;
        let delivered =
            sent.outcome.map_err(|source| Early::NotAcknowledged { first, last, source: Box::new(source) })?;
        let records = u64::from(sent.records);
        self.tally.add(sent.partition.get(), delivered.offsets.start.get(), records);
        self.progress.add(records, sent.input_bytes);
        Ok(())
    }

    async fn collect_until_room(&mut self, interrupt: &mut Interrupt) -> Result<(), Early> {
        tokio::task::yield_now().await;
        loop {
            tokio::select! {
                biased;
                () = interrupt.received() => return Err(Early::Interrupted),
                Some(sent) = self.sender.next() => self.collect(sent)?,
                () = std::future::ready(()), if self.sender.has_room() => return Ok(()),
            }
        }
    }

    /// Waits for what is in flight: after a failure too, so that the tally is whole. The first failure is told.
    async fn finish(&mut self, ended: Result<(), Early>, interrupt: &mut Interrupt) -> Result<(), Early> {
        let mut ended = ended;
        if ended.is_err() {
            self.sender.cancel();
        }
        loop {
            let failed = tokio::select! {
                biased;
                () = interrupt.received() => {
                    if matches!(ended, Err(Early::Interrupted)) {
                        // The second time: whoever asks twice does not want to wait.
                        return ended;
                    }
                    self.sender.cancel();
                    Err(Early::Interrupted)
                }
                sent = self.sender.next() => match sent {
                    Some(sent) => self.collect(sent),
                    None => return ended,
                },
            };
            ended = ended.and(failed);
        }
    }
}

fn print_tally(tally: &Tally, format: OutputFormat) -> std::io::Result<()> {
    for partition in tally.partitions() {
        match format {
            OutputFormat::Text => output::print(&partition.to_string())?,
            OutputFormat::Json => output::print_json(partition)?,
        }
    }
    Ok(())
}

fn batch_bytes_max(topic: &TopicDescription) -> usize {
    let setting = topic.settings.iter().find(|setting| setting.key == "batch_bytes_max");
    setting.and_then(|setting| setting.value.parse().ok()).unwrap_or(BATCH_BYTES_MAX_ASSUMED)
}

fn split_at_first<'l>(line: &'l [u8], separator: &[u8]) -> Option<(&'l [u8], &'l [u8])> {
    let position = memchr::memmem::find(line, separator)?;
    let (key, rest) = line.split_at_checked(position)?;
    Some((key, rest.get(separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_its_first_separator() {
        assert_eq!(split_at_first(b"k:v:w", b":"), Some((&b"k"[..], &b"v:w"[..])));
        assert_eq!(split_at_first(b":v", b":"), Some((&b""[..], &b"v"[..])));
        assert_eq!(split_at_first(b"k::", b"::"), Some((&b"k"[..], &b""[..])));
        assert_eq!(split_at_first(b"k", b":"), None);
        assert_eq!(split_at_first(b"\xff\t\xfe", b"\t"), Some((&b"\xff"[..], &b"\xfe"[..])));
    }
}
