//! `ringmq log dump`: one file, or all segments of a partition, as they stand.

use std::io;
use std::path::{Path, PathBuf};

use ringmq_runtime::fs;
use ringmq_shard::inspect::{
    FrameReader, IndexFile, InspectError, Stretch, TableFact, guard, inspect_journal_file, read_generation_table,
    read_index, read_producer_snapshot,
};
use ringmq_wire::Offset;
use ringmq_wire::batch::{Scratch, split_batches};

use super::dump_line::{
    BatchLine, BlockLine, FrameLine, IndexLine, JournalLine, ProducersLine, RecordLine, UnreadableLine,
};
use super::{LogError, on_executor};
use crate::cli::{LogDumpArgs, OutputFormat};
use crate::commands::CommandError;
use crate::exit::Exit;
use crate::output;

/// Prints what is in a file.
///
/// # Errors
/// When it cannot be read, or is none of ours, or a broker uses it. What is damaged is printed as such.
pub(crate) fn run(args: &LogDumpArgs) -> Result<Exit, CommandError> {
    let path = std::path::absolute(&args.path).map_err(LogError::from)?;
    let dump = Dump {
        detail: args.detail(),
        json: args.output.output == OutputFormat::Json,
        from: Offset::checked(args.from).unwrap_or(Offset::ZERO),
        left: args.limit.unwrap_or(u64::MAX),
    };
    on_executor(move || async move { dump.path(&path).await })??;
    Ok(Exit::Done)
}

/// How much is told of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// A line for each frame.
    Frames,
    /// A line for each batch.
    Batches,
    /// A line for each record.
    Records,
}

struct Dump {
    detail: Detail,
    json: bool,
    /// What ends at or below that offset is passed over.
    from: Offset,
    /// Lines that may still be printed.
    left: u64,
}

/// A line of a dump.
pub(super) trait Line: serde::Serialize {
    fn to_text(&self) -> String;
}

impl Dump {
    async fn path(mut self, path: &Path) -> Result<(), CommandError> {
        // For as long as it is read.
        let _directory = guard(path).await.map_err(|error| LogError::from(InspectError::from(error)))?;
        let extension = |path: &Path| path.extension().and_then(|extension| extension.to_str()).map(str::to_owned);
        match extension(path).as_deref() {
            Some("log") => self.segment(path).await,
            Some("index" | "timeindex") => self.index(path).await,
            Some("table") => self.table(path).await,
            Some("producers") => self.producers(path).await,
            Some("ring" | "relaxed" | "aside") => self.journal(path).await,
            _ => {
                let entries = fs::read_dir(path).await.unwrap_or_default();
                let segments: Vec<PathBuf> = entries
                    .iter()
                    .filter(|entry| entry.name.ends_with(".log"))
                    .map(|entry| path.join(&entry.name))
                    .collect();
                if segments.is_empty() {
                    return Err(LogError::UnknownFile { path: path.to_owned() }.into());
                }
                for segment in segments {
                    self.segment(&segment).await?;
                }
                Ok(())
            }
        }
    }

    async fn segment(&mut self, path: &Path) -> Result<(), CommandError> {
        let mut reader = FrameReader::open(path).await.map_err(LogError::from)?;
        while self.left > 0 {
            match reader.next().await.map_err(LogError::from)? {
                None => break,
                Some(Stretch::Unreadable { bytes, fault }) => self.print(&UnreadableLine::new(path, bytes, fault))?,
                Some(Stretch::Frame { info, .. }) if info.next_offset <= self.from => {}
                Some(Stretch::Frame { position, info, payload }) => match self.detail {
                    Detail::Frames => self.print(&FrameLine::new(path, position, &info))?,
                    Detail::Batches | Detail::Records => self.batches(path, position, &payload)?,
                },
            }
        }
        Ok(())
    }

    /// The batches of a payload, whose frame or entry begins at `position`.
    fn batches(&mut self, path: &Path, position: u64, payload: &[u8]) -> Result<(), CommandError> {
        let mut scratch = Scratch::default();
        for batch in split_batches(payload) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.print(&UnreadableLine::of_batch(path, position, &error)),
            };
            if batch.header().next_offset() <= self.from {
                continue;
            }
            if self.detail == Detail::Batches {
                self.print(&BatchLine::new(path, position, &batch))?;
                continue;
            }
            let records = match batch.records(&mut scratch) {
                Ok(records) => records,
                Err(error) => return self.print(&UnreadableLine::of_batch(path, position, &error)),
            };
            for record in records {
                match record {
                    Ok(record) if record.offset < self.from => {}
                    Ok(record) => self.print(&RecordLine::new(path, position, &record))?,
                    Err(error) => return self.print(&UnreadableLine::of_batch(path, position, &error)),
                }
            }
        }
        Ok(())
    }

    async fn index(&mut self, path: &Path) -> Result<(), CommandError> {
        let index = read_index(path).await.map_err(LogError::from)?;
        let (coverage, lines): (_, Vec<IndexLine>) = match index {
            IndexFile::Offsets(coverage, entries) => (coverage, entries.iter().map(IndexLine::of_place).collect()),
            IndexFile::Times(coverage, entries) => (coverage, entries.iter().map(IndexLine::of_time).collect()),
        };
        self.print(&IndexLine::of_coverage(path, &coverage))?;
        let from = self.from;
        lines.iter().filter(|line| line.offset() >= Some(from.get())).try_for_each(|line| self.print(line))
    }

    async fn table(&mut self, path: &Path) -> Result<(), CommandError> {
        let blocks = read_generation_table(path).await.map_err(LogError::from)?;
        for (number, block) in (0..).zip(blocks) {
            let facts: &[TableFact] = block.as_deref().unwrap_or_default();
            self.print(&BlockLine::new(path, number, block.is_some(), facts))?;
        }
        Ok(())
    }

    async fn producers(&mut self, path: &Path) -> Result<(), CommandError> {
        let snapshot = read_producer_snapshot(path).await.map_err(LogError::from)?;
        self.print(&ProducersLine::of_snapshot(path, &snapshot))?;
        snapshot.producers().try_for_each(|producer| self.print(&ProducersLine::of_producer(&producer)))
    }

    async fn journal(&mut self, path: &Path) -> Result<(), CommandError> {
        let found = inspect_journal_file(path).await.map_err(|error| LogError::from(InspectError::from(error)))?;
        if found.rings.is_empty() && found.asides.is_empty() {
            return Err(LogError::UnknownFile { path: path.to_owned() }.into());
        }
        let blocks = found.rings.iter().map(|ring| &ring.blocks).chain(found.asides.iter().map(|aside| &aside.blocks));
        for blocks in blocks {
            for block in &blocks.missing {
                self.print(&JournalLine::missing(path, *block))?;
            }
            let from = self.from;
            for entry in blocks.entries.iter().filter(|entry| entry.header.next_offset > from) {
                match self.detail {
                    Detail::Frames => self.print(&JournalLine::new(path, entry))?,
                    Detail::Batches | Detail::Records => self.batches(path, entry.block.get(), &entry.payload)?,
                }
            }
        }
        Ok(())
    }

    /// Prints a line, unless there were enough.
    fn print(&mut self, line: &impl Line) -> Result<(), CommandError> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let printed: io::Result<()> = if self.json { output::print_json(line) } else { output::print(&line.to_text()) };
        Ok(printed?)
    }
}
