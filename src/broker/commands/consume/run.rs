//! The walk of one `consume`: find the offsets, fetch ahead, print.

use std::io::{self, StdoutLock, Write};

use ringmq_wire::batch::{Scratch, split_batches};

use super::fetch::{self, Chunk, damaged};
use super::format::write_record;
use super::range;
use crate::cli::{ConsumeArgs, RecordFormat};
use crate::commands::{CommandError, connect};
use crate::exit::Exit;

/// Prints the records that were asked for. Runs on a thread that may block: standard output may be a slow pipe, and
/// the fetching goes on meanwhile.
///
/// # Errors
/// When the topic, a partition or an offset is unknown, a broker does not answer, or standard output fails.
pub async fn run(args: &ConsumeArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let consumer = client.consumer();
    let ranges = range::ranges(&consumer, args).await?;
    let mut chunks = fetch::start(&consumer, &args.topic, ranges);
    let mut printer = Printer::new(args.format, args.count);
    while printer.wants_more()
        && let Some(chunk) = chunks.recv().await
    {
        printer.print(&chunk?)?;
    }
    Ok(Exit::Done)
}

struct Printer {
    format: RecordFormat,
    out: StdoutLock<'static>,
    /// What one chunk is printed as; written in one go.
    text: Vec<u8>,
    scratch: Scratch,
    /// How many more records are wanted.
    left: Option<u64>,
}

impl Printer {
    fn new(format: RecordFormat, count: Option<u64>) -> Self {
        Self { format, out: io::stdout().lock(), text: Vec::new(), scratch: Scratch::default(), left: count }
    }

    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    fn print(&mut self, chunk: &Chunk) -> Result<(), CommandError> {
        self.text.clear();
        // What stands before a damaged batch is good, so it is printed before the error is told.
        let rendered = self.render(chunk);
        self.out.write_all(&self.text)?;
        self.out.flush()?;
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
