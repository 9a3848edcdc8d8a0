//! The walk of one `consume`: find the offsets, fetch ahead, print, save the positions.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use ringmq_client::{Client, Error};
use ringmq_wire::batch::{Scratch, split_batches};
use ringmq_wire::{Offset, PartitionIndex};

use super::fetch::{self, Chunk, damaged};
use super::format::RecordWriter;
use super::out::Out;
use super::range::{self, Range};
use super::saver::{Saver, Todo};
use crate::cli::ConsumeArgs;
use crate::commands::progress::{Progress, Total};
use crate::commands::{CommandError, connection};
use crate::exit::{self, Exit};

/// What is being printed when the command is to end has this long to go out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Prints the records that were asked for; the fetching goes on while standard output is slow. A partition that cannot be
/// read is told on standard error; the others go on.
///
/// # Errors
/// When the topic, a partition or an offset is unknown, a broker does not answer, or standard output fails.
pub(crate) async fn run(args: &ConsumeArgs) -> Result<Exit, CommandError> {
    let client = connect(args).await?;
    let consumer = client.consumer();
    let mut saver = Saver::open(args, &client).await?;
    let ranges = range::ranges(&consumer, args, &saver.positions).await?;
    ranges.unreadable.iter().for_each(|error| exit::report(error));
    let exit = if ranges.unreadable.is_empty() { Exit::Done } else { Exit::Failed };
    ranges.readable.iter().for_each(|range| saver.positions.set(range.partition, range.from));
    // Also before anything is printed: where `--from latest` begins would be another place the next time.
    saver.save()?;
    let watches = args.follow && args.partition.is_none();
    let watch_from = watches.then_some(ranges.readable.len() + ranges.unreadable.len());
    let mut printer = Printer::new(args, &ranges.readable).map_err(CommandError::Setup)?;
    let chunks = fetch::start(&consumer, &args.topic, ranges.readable, watch_from);
    let ended = print(chunks, &mut printer, &mut saver).await;
    printer.progress.finish();
    saver.save()?;
    Ok(match ended? {
        Exit::Done => exit,
        other => other,
    })
}

/// A client; one that follows hears soon of partitions that are added.
async fn connect(args: &ConsumeArgs) -> Result<Client, Error> {
    let builder = connection::builder(&args.connection);
    let builder = if args.follow { builder.metadata_age_max(fetch::WATCH_INTERVAL) } else { builder };
    builder.connect().await
}

/// Prints chunks until enough is printed, or there are no more.
async fn print(
    mut chunks: tokio::sync::mpsc::Receiver<Result<Chunk, CommandError>>,
    printer: &mut Printer,
    saver: &mut Saver,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    while printer.wants_more() {
        let chunk = tokio::select! {
            biased;
            todo = saver.next() => match todo {
                Todo::End => return Ok(Exit::Interrupted),
                Todo::Save => {
                    saver.save()?;
                    continue;
                }
            },
            chunk = chunks.recv() => match chunk {
                Some(chunk) => chunk,
                None => break,
            },
        };
        let printed = match chunk {
            Ok(chunk) => printer.print(&chunk, saver).await,
            Err(error) => Err(error),
        };
        match printed {
            Ok(Exit::Done) => {}
            Ok(ended) => return Ok(ended),
            Err(error) if error.is_of_one_partition() => {
                exit::report(&error);
                exit = Exit::Failed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

struct Printer {
    writer: RecordWriter,
    out: Out,
    /// What one chunk is printed as; written in one go.
    text: Vec<u8>,
    scratch: Scratch,
    /// How many more records are wanted.
    left: Option<u64>,
    /// Partitions with a damaged batch: what lies behind it is not shown as if nothing were missing.
    damaged: BTreeSet<PartitionIndex>,
    progress: Progress,
}

/// What was made of a chunk.
struct Rendered {
    records: u64,
    /// Where the partition goes on.
    next: Offset,
    outcome: Result<(), CommandError>,
}

impl Printer {
    fn new(args: &ConsumeArgs, ranges: &[Range]) -> io::Result<Self> {
        let (format, topic, null) = (args.record_format(), args.topic.clone(), args.null.clone());
        Ok(Self {
            writer: RecordWriter { format, topic, null },
            out: Out::start()?,
            text: Vec::new(),
            scratch: Scratch::default(),
            left: args.count,
            damaged: BTreeSet::new(),
            progress: progress(args, ranges),
        })
    }

    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    /// Prints a chunk and moves its partition's position behind it; [`Exit::Interrupted`] when it is to end meanwhile, and
    /// nobody reads.
    async fn print(&mut self, chunk: &Chunk, saver: &mut Saver) -> Result<Exit, CommandError> {
        let partition = chunk.range.partition;
        if self.damaged.contains(&partition) {
            return Ok(Exit::Done);
        }
        // What stands before a damaged batch is good, so it is printed before the error is told.
        let rendered = self.render(chunk);
        let bytes = self.text.len() as u64;
        let (written, exit) = self.write(saver).await?;
        if written {
            saver.moved_to(partition, rendered.next);
            self.progress.add(rendered.records, bytes);
        }
        if rendered.outcome.is_err() {
            self.damaged.insert(partition);
        }
        match exit {
            Exit::Done => rendered.outcome.map(|()| exit),
            ended => Ok(ended),
        }
    }

    /// Writes what is rendered: whether all of it went out, and whether the command is to end.
    async fn write(&mut self, saver: &mut Saver) -> Result<(bool, Exit), CommandError> {
        self.out.write(std::mem::take(&mut self.text));
        let ended = loop {
            tokio::select! {
                biased;
                written = self.out.written() => {
                    self.text = written?;
                    return Ok((true, Exit::Done));
                }
                todo = saver.next() => match todo {
                    Todo::Save => saver.save()?,
                    Todo::End => break Exit::Interrupted,
                },
            }
        };
        let written = tokio::time::timeout(LAST_WORDS, self.out.written()).await;
        let written = written.ok().transpose()?;
        Ok((written.is_some(), ended))
    }

    fn render(&mut self, chunk: &Chunk) -> Rendered {
        self.text.clear();
        let mut rendered = Rendered { records: 0, next: chunk.range.from, outcome: Ok(()) };
        rendered.outcome = self.try_render(chunk, &mut rendered);
        if rendered.outcome.is_ok() && self.wants_more() {
            // Also past what compaction has taken away behind the last record.
            rendered.next = chunk.range.end.map_or(chunk.next, |end| chunk.next.min(end));
        }
        rendered
    }

    fn try_render(&mut self, chunk: &Chunk, rendered: &mut Rendered) -> Result<(), CommandError> {
        let range = chunk.range;
        let failed = |source| damaged(range.partition, range.from, source);
        for batch in split_batches(&chunk.batches) {
            let batch = batch.map_err(failed)?;
            batch.verify_checksum().map_err(failed)?;
            // Marks the end of a transaction, and holds nothing for consumers.
            if batch.header().attributes.is_control() {
                continue;
            }
            for record in batch.records(&mut self.scratch).map_err(failed)? {
                let record = record.map_err(failed)?;
                if record.offset < range.from || range.end.is_some_and(|end| record.offset >= end) {
                    continue;
                }
                match &mut self.left {
                    Some(0) => return Ok(()),
                    Some(left) => *left -= 1,
                    None => {}
                }
                self.writer.write(range.partition, &record, &mut self.text)?;
                rendered.records += 1;
                rendered.next = record.offset.checked_add(1).unwrap_or(record.offset);
            }
        }
        Ok(())
    }
}

/// A display for what goes into a file: on a terminal the records are to be seen themselves, and what reads a pipe may
/// print there.
fn progress(args: &ConsumeArgs, ranges: &[Range]) -> Progress {
    if args.follow || !is_file(&io::stdout()).unwrap_or(false) {
        return Progress::none();
    }
    let total: u64 = ranges.iter().filter_map(Range::len).sum();
    Progress::new(Total::Records(args.count.map_or(total, |count| count.min(total))), "printed")
}

fn is_file(stream: &impl AsFd) -> io::Result<bool> {
    let file = File::from(stream.as_fd().try_clone_to_owned()?);
    Ok(file.metadata()?.is_file())
}
