//! The walk of one `consume`: find the offsets, fetch ahead, print.

use std::collections::BTreeSet;
use std::io::{self, StdoutLock, Write};

use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::{Scratch, split_batches};

use super::fetch::{self, Chunk, damaged};
use super::format::write_record;
use super::range;
use crate::cli::{ConsumeArgs, RecordFormat};
use crate::commands::{CommandError, connect};
use crate::exit::{self, Exit};

/// Prints the records that were asked for. Runs on a thread that may block: standard output may be a slow pipe, and
/// the fetching goes on meanwhile. A partition that cannot be read is told on standard error; the others go on.
///
/// # Errors
/// When the topic, a partition or an offset is unknown, a broker does not answer, or standard output fails.
pub(crate) async fn run(args: &ConsumeArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let consumer = client.consumer();
    let ranges = range::ranges(&consumer, args).await?;
    ranges.unreadable.iter().for_each(|error| exit::report(error));
    let mut exit = if ranges.unreadable.is_empty() { Exit::Done } else { Exit::Failed };
    let mut chunks = fetch::start(&consumer, &args.topic, ranges.readable);
    let mut printer = Printer::new(args.record_format(), args.count);
    while printer.wants_more()
        && let Some(chunk) = chunks.recv().await
    {
        match chunk.and_then(|chunk| printer.print(&chunk)) {
            Ok(()) => {}
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
    format: RecordFormat,
    out: StdoutLock<'static>,
    /// What one chunk is printed as; written in one go.
    text: Vec<u8>,
    scratch: Scratch,
    /// How many more records are wanted.
    left: Option<u64>,
    /// Partitions with a damaged batch: what lies behind it is not shown as if nothing were missing.
    damaged: BTreeSet<PartitionIndex>,
}

impl Printer {
    fn new(format: RecordFormat, count: Option<u64>) -> Self {
        let (text, scratch, damaged) = (Vec::new(), Scratch::default(), BTreeSet::new());
        Self { format, out: io::stdout().lock(), text, scratch, left: count, damaged }
    }

    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    fn print(&mut self, chunk: &Chunk) -> Result<(), CommandError> {
        if self.damaged.contains(&chunk.range.partition) {
            return Ok(());
        }
        self.text.clear();
        // What stands before a damaged batch is good, so it is printed before the error is told.
        let rendered = self.render(chunk);
        self.out.write_all(&self.text)?;
        self.out.flush()?;
        if rendered.is_err() {
            self.damaged.insert(chunk.range.partition);
        }
        rendered
    }

    fn render(&mut self, chunk: &Chunk) -> Result<(), CommandError> {
        let range = chunk.range;
        let failed = |source| damaged(range.partition, range.from, source);
        for batch in split_batches(&chunk.batches) {
            let batch = batch.map_err(failed)?;
            batch.verify_checksum().map_err(failed)?;
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
                write_record(self.format, range.partition, &record, &mut self.text)?;
            }
        }
        Ok(())
    }
}
