//! How far a produce is, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where nobody sees a bar, a line this often shows that it goes on.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The display.
#[derive(Debug)]
pub(super) struct Progress {
    form: Form,
    started: Instant,
    records: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Form {
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl Progress {
    /// A display for an input of `bytes_total` bytes, where that is known.
    pub(super) fn new(bytes_total: Option<u64>) -> Self {
        let started = Instant::now();
        let form = if std::io::stderr().is_terminal() {
            Form::Bar(bar(bytes_total))
        } else {
            Form::Lines { next: started + LINE_INTERVAL }
        };
        Self { form, started, records: 0, bytes: 0 }
    }

    /// Counts acknowledged records and the input bytes that they stand for.
    pub(super) fn acknowledged(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        match &mut self.form {
            Form::Bar(bar) => {
                bar.set_position(self.bytes);
                bar.set_message(HumanCount(self.records).to_string());
            }
            Form::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_INTERVAL;
                    // Progress is a courtesy: without a standard error there is nobody to miss it.
                    let _ = writeln!(std::io::stderr(), "{}", summary(self.records, self.bytes, self.started));
                }
            }
        }
    }

    /// Takes the bar away and says the sum.
    pub(super) fn finish(self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
            let _ = writeln!(std::io::stderr(), "{}", summary(self.records, self.bytes, self.started));
        }
    }
}

fn bar(bytes_total: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes_total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            "{bar:30} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg} records acknowledged  {eta} left",
        ),
        None => (
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            "{spinner} {bytes}  {binary_bytes_per_sec}  {msg} records acknowledged",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(records: u64, bytes: u64, started: Instant) -> String {
    let elapsed = started.elapsed();
    format!("{} records ({}) acknowledged in {elapsed:.1?}", HumanCount(records), HumanBytes(bytes))
}
