//! How far a long command is, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
                    Total::Partitions(_) => {
                        let rate = per_second(self.bytes, self.started.elapsed());
                        (self.partitions, format!("{}  {}/s", HumanBytes(self.bytes), HumanBytes(rate)))
                    }
                };
                // In this order: a frame is drawn at the first that changes, and the next one only some time later.
                bar.set_message(message);
                bar.set_position(position);
            }
            Form::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_INTERVAL;
                    let elapsed = self.started.elapsed();
                    say(&format!("{}{}", self.line(elapsed), self.left(elapsed)));
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
            say(&self.line(self.started.elapsed()));
        }
    }

    /// What was done so far, and how fast.
    fn line(&self, elapsed: Duration) -> String {
        let (records, bytes) = (count(self.records), HumanBytes(self.bytes));
        let rate = HumanBytes(per_second(self.bytes, elapsed));
        format!("{records} records ({bytes}) {} in {elapsed:.1?}, {rate}/s", self.done)
    }

    /// What is left of the time, if what it takes goes on as it was, and is known.
    fn left(&self, elapsed: Duration) -> String {
        let (done, all) = match self.total {
            Total::Unknown => return String::new(),
            Total::Bytes(all) => (self.bytes, all),
            Total::Records(all) => (self.records, all),
            Total::Partitions(all) => (self.partitions, all),
        };
        if done == 0 {
            return String::new();
        }
        let left = u128::from(all.saturating_sub(done)) * elapsed.as_millis() / u128::from(done);
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
        format!(", {} left", HumanDuration(left))
    }
}

/// Progress is a courtesy: without a standard error there is nobody to miss it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn per_second(amount: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(amount) * 1000 / elapsed.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(total: Total) -> Progress {
        Progress { form: Form::Nothing, ..Progress::hidden(total, "checked", Instant::now()) }
    }

    #[test]
    fn a_line_tells_the_rate_and_the_time_left() {
        let after = Duration::from_secs(10);
        let totals = [Total::Bytes(8 << 20), Total::Records(4_000), Total::Partitions(4)]
            .map(|total| (total, ", 30 seconds left"));
        for (total, left) in
            totals.into_iter().chain([(Total::Unknown, ""), (Total::Records(1_000), ", 0 seconds left")])
        {
            let mut progress = lines(total);
            assert_eq!(progress.left(after), "", "nothing is done yet: {total:?}");
            progress.add_partition(1_000, 2 << 20);
            assert_eq!(progress.line(after), "1,000 records (2.00 MiB) checked in 10.0s, 204.80 KiB/s");
            assert_eq!(progress.left(after), left, "{total:?}");
        }
    }
}
