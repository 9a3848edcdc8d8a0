//! How far a long command is, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where nobody sees a bar, a line this often shows that it goes on.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What is known beforehand of how much there is to do; the time left follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// Nothing.
    Unknown,
    /// So many bytes.
    Bytes(u64),
    /// So many records.
    Records(u64),
    /// So many partitions.
    Partitions(u64),
}

/// The display.
#[derive(Debug)]
pub(crate) struct Progress {
    form: Form,
    total: Total,
    /// What happens to the records, such as `acknowledged`.
    done: &'static str,
    started: Instant,
    partitions: u64,
    records: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Form {
    Bar(ProgressBar),
    Lines { next: Instant },
    Nothing,
}

impl Progress {
    /// A display of records that are `done`, such as `acknowledged`.
    pub(crate) fn new(total: Total, done: &'static str) -> Self {
        let started = Instant::now();
        let form = if std::io::stderr().is_terminal() {
            Form::Bar(bar(total, done))
        } else {
            Form::Lines { next: started + LINE_INTERVAL }
        };
        Self { form, ..Self::hidden(total, done, started) }
    }

    /// No display, for records that are to be seen on the terminal themselves.
    pub(crate) fn none() -> Self {
        Self::hidden(Total::Unknown, "", Instant::now())
    }

    fn hidden(total: Total, done: &'static str, started: Instant) -> Self {
        Self { form: Form::Nothing, total, done, started, partitions: 0, records: 0, bytes: 0 }
    }

    /// Counts records, and the bytes that they stand for.
    pub(crate) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        match &mut self.form {
            Form::Bar(bar) => {
                let (position, message) = match self.total {
                    Total::Unknown | Total::Bytes(_) => (self.bytes, count(self.records)),
                    Total::Records(_) => (self.records, HumanBytes(self.bytes).to_string()),
                    Total::Partitions(_) => (self.partitions, HumanBytes(self.bytes).to_string()),
                };
                bar.set_position(position);
                bar.set_message(message);
            }
            Form::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_INTERVAL;
                    self.tell();
                }
            }
            Form::Nothing => {}
        }
    }

    /// Counts one partition more, with what is in it.
    pub(crate) fn add_partition(&mut self, records: u64, bytes: u64) {
        self.partitions += 1;
        self.add(records, bytes);
    }

    /// Takes the bar away and says the sum.
    pub(crate) fn finish(self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
            self.tell();
        }
    }

    fn tell(&self) {
        let (records, bytes, elapsed) = (count(self.records), HumanBytes(self.bytes), self.started.elapsed());
        let line = format!("{records} records ({bytes}) {} in {elapsed:.1?}", self.done);
        // Progress is a courtesy: without a standard error there is nobody to miss it.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn count(records: u64) -> String {
    HumanCount(records).to_string()
}

fn bar(total: Total, done: &str) -> ProgressBar {
    let (length, template) = match total {
        Total::Bytes(bytes) => (
            Some(bytes),
            format!(
                "{{bar:30}} {{bytes}}/{{total_bytes}}  {{binary_bytes_per_sec}}  {{msg}} records {done}  {{eta}} left"
            ),
        ),
        Total::Records(records) => (
            Some(records),
            format!("{{bar:30}} {{human_pos}}/{{human_len}} records {done}  {{per_sec}}  {{msg}}  {{eta}} left"),
        ),
        Total::Partitions(partitions) => {
            (Some(partitions), format!("{{bar:30}} {{pos}}/{{len}} partitions {done}  {{msg}}  {{eta}} left"))
        }
        Total::Unknown => (None, format!("{{spinner}} {{bytes}}  {{binary_bytes_per_sec}}  {{msg}} records {done}")),
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
