//! The figures of several runs: what a scenario writes, and what a comparison reads.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::limits::Limits;
use crate::report::Report;
use crate::{html, json};

/// Figures of several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What they are about.
    pub title: String,
    /// What the machine could do at that time, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// In the order in which they were measured.
    pub results: Vec<Report>,
}

/// Compares the figures of several runs: as ratios to the first file's, and on a page
#[derive(Debug, Args)]
pub struct Arguments {
    /// What `--json` printed, of single measurements and of scenarios; of `limits` too, which then stand beside them
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Writes a page, which needs no network and no other file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file cannot be read, or the page not be written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file holds no figures.
    #[error("{}: no figures of `ringmq-bench ... --json`: {source}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Standard output is gone.
    #[error("the figures cannot be written: {0}")]
    Output(#[source] io::Error),
}

/// Prints the figures, with ratios to those of the first file, and writes the page.
///
/// # Errors
/// [`ResultsError`].
pub fn run(arguments: &Arguments) -> Result<(), ResultsError> {
    let read = arguments.files.iter().map(|path| Results::read(path)).collect::<Result<Vec<_>, _>>()?;
    let limits = read.iter().find_map(|read| read.limits.clone());
    let (paths, read): (Vec<&PathBuf>, Vec<Results>) =
        arguments.files.iter().zip(read).filter(|(_, read)| !read.results.is_empty()).unzip();
    let compared: Vec<Compared> = paths.into_iter().zip(&read).map(|(path, read)| Compared::new(path, read)).collect();
    let mut text = limits.as_ref().map(machine).unwrap_or_default();
    for (index, one) in compared.iter().enumerate() {
        one.write((index > 0).then_some(&compared[0]), limits.as_ref(), &mut text);
    }
    io::stdout().lock().write_all(text.as_bytes()).map_err(ResultsError::Output)?;
    let Some(path) = &arguments.html else { return Ok(()) };
    let written = Results { limits, ..all(&compared, &read) }.write_html(path);
    written.map_err(|source| ResultsError::File { path: path.clone(), source })
}

/// What the machine could do, in a line.
fn machine(limits: &Limits) -> String {
    let megabytes = |rate: f64| rate / 1e6;
    format!(
        "the machine\n  pipe {:.1} MB/s  loopback {:.1} MB/s  disk {:.1} MB/s written, {:.1} MB/s read\n",
        megabytes(limits.pipe_bytes_per_second),
        megabytes(limits.loopback_bytes_per_second),
        megabytes(limits.disk_write_bytes_per_second),
        megabytes(limits.disk_read_bytes_per_second),
    )
}

/// The results of several files together, told apart by their files' names.
fn all(compared: &[Compared<'_>], read: &[Results]) -> Results {
    let mut titles: Vec<&str> = read.iter().map(|results| results.title.as_str()).collect();
    titles.dedup();
    let named = |one: &Compared<'_>, report: &Report| match compared.len() > 1 && one.file != report.name {
        true => Report { name: format!("{}: {}", one.file, report.name), ..report.clone() },
        false => report.clone(),
    };
    let results = compared.iter().flat_map(|one| one.results.iter().map(|report| named(one, report)));
    Results { title: titles.join(", "), limits: None, results: results.collect() }
}

/// One file of several.
struct Compared<'a> {
    /// Its name.
    file: String,
    results: &'a [Report],
}

impl<'a> Compared<'a> {
    fn new(path: &Path, read: &'a Results) -> Self {
        Self { file: stem(path), results: &read.results }
    }

    /// A line for each result, with ratios to the result of `base` that has the same name, or to its only one where there
    /// is one of each, and with the part of what the machine could do, where that is known.
    fn write(&self, base: Option<&Compared<'_>>, limits: Option<&Limits>, out: &mut String) {
        for report in self.results {
            let same = base.and_then(|base| match (self.results, base.results) {
                ([_], [only]) => Some(only),
                _ => base.results.iter().find(|other| other.name == report.name),
            });
            let ratio = |figure: fn(&Report) -> Option<f64>| {
                let ratio =
                    same.and_then(|same| Some(figure(report)? / figure(same)?)).filter(|ratio| ratio.is_finite());
                ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"))
            };
            let Latency { p50, p99, p999, .. } = report.latency_us;
            let _ = writeln!(
                out,
                "{}: {}\n  {:.1} MB/s{}{}  p50 {:.0}{}  p99 {:.0}{}  p99.9 {:.0}{} µs  broker {}{} CPU s/GB, {}{} MB",
                self.file,
                report.name,
                report.bytes_per_second / 1e6,
                ratio(|report| Some(report.bytes_per_second)),
                limits.map_or_else(String::new, |limits| format!(", {} of the limit", html::of_limit(report, limits))),
                p50,
                ratio(|report| Some(report.latency_us.p50)),
                p99,
                ratio(|report| Some(report.latency_us.p99)),
                p999,
                ratio(|report| Some(report.latency_us.p999)),
                report.broker_cpu_seconds_per_gb.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2}")),
                ratio(|report| report.broker_cpu_seconds_per_gb),
                report
                    .broker_peak_memory_bytes
                    .map_or_else(|| "–".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
                ratio(|report| report.broker_peak_memory_bytes.map(|bytes| bytes as f64)),
            );
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Results {
    /// Reads what a scenario, a single measurement or `limits` printed; one without a title takes the name of its file.
    pub(crate) fn read(path: &Path) -> Result<Self, ResultsError> {
        let unreadable = |source| ResultsError::File { path: path.to_owned(), source };
        let invalid = |source| ResultsError::Parse { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(invalid)?;
        if value.get("results").is_some() {
            return serde_json::from_value(value).map_err(invalid);
        }
        let title = stem(path);
        if value.get("pipe_bytes_per_second").is_some() {
            let limits = Some(serde_json::from_value(value).map_err(invalid)?);
            return Ok(Self { title, limits, results: Vec::new() });
        }
        let report: Report = serde_json::from_value(value).map_err(invalid)?;
        Ok(Self { results: vec![Report { name: title.clone(), ..report }], limits: None, title })
    }

    /// Prints one JSON object.
    pub(crate) fn print(&self) -> io::Result<()> {
        json::write_lines(self, &mut io::stdout().lock())
    }

    /// Writes a page with tables and plots.
    pub(crate) fn write_html(&self, path: &Path) -> io::Result<()> {
        html::write(path, &self.title, &self.results, self.limits.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::report;

    #[test]
    fn what_was_printed_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (single, several) = (dir.path().join("before.json"), dir.path().join("b.json"));
        let report = report::tests::report("produce");
        std::fs::write(&single, serde_json::to_string(&report).unwrap()).unwrap();
        let found = Results::read(&single).unwrap();
        assert_eq!(found.title, "before");
        assert_eq!(found.results, [Report { name: "before".into(), ..report.clone() }]);

        let limits = Some(limits::tests::limits());
        let results =
            Results { title: "Two".into(), limits, results: vec![report.clone(), report::tests::report("other")] };
        let mut text = Vec::new();
        json::write_lines(&results, &mut text).unwrap();
        std::fs::write(&several, text).unwrap();
        assert_eq!(Results::read(&several).unwrap(), results);

        let html = dir.path().join("out.html");
        run(&Arguments { files: vec![single.clone(), several], html: Some(html.clone()) }).unwrap();
        let page = std::fs::read_to_string(&html).unwrap();
        for name in ["before, Two", ">before<", ">b: produce<", ">b: other<"] {
            assert!(page.contains(name), "{name}: {page}");
        }
        assert!(page.contains("What the machine could do"), "{page}");

        // What `limits` printed, beside what was measured.
        let machine = dir.path().join("machine.json");
        std::fs::write(&machine, serde_json::to_string(&limits::tests::limits()).unwrap()).unwrap();
        run(&Arguments { files: vec![machine, single], html: Some(html.clone()) }).unwrap();
        let page = std::fs::read_to_string(html).unwrap();
        assert!(page.contains("What the machine could do") && page.contains("<h1>before</h1>"), "{page}");
    }

    #[test]
    fn ratios_are_to_the_result_of_the_same_name() {
        let (slow, mut fast) = (report::tests::report("same"), report::tests::report("same"));
        fast.bytes_per_second *= 3.0;
        fast.latency_us.p99 /= 4.0;
        fast.broker_peak_memory_bytes = Some(75_000_000);
        let of = |report| Results {
            title: String::new(),
            limits: None,
            results: vec![report::tests::report("first"), report],
        };
        let (base, other) = (of(slow), of(fast));
        let (base, other) = (Compared::new(Path::new("a.json"), &base), Compared::new(Path::new("b.json"), &other));
        let mut text = String::new();
        other.write(Some(&base), None, &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "b: same");
        assert!(lines[3].contains("12.0 MB/s (3.00)") && lines[3].contains("p50 5001 (1.00)"), "{text}");
        assert!(lines[3].contains("(0.25)  p99.9") && lines[3].contains("broker 100.00 (1.00)"), "{text}");
        assert!(lines[3].ends_with("CPU s/GB, 75 (1.50) MB"), "{text}");
        text.clear();
        // Of a pipe of 8 MB/s.
        other.write(Some(&base), Some(&limits::tests::limits()), &mut text);
        assert!(text.contains("12.0 MB/s (3.00), 1.50 of the limit  p50"), "{text}");
    }

    #[test]
    fn files_that_hold_no_figures_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Results::read(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, ResultsError::File { .. }) && missing.to_string().contains("none"), "{missing}");
        for text in ["", "{}", "{\"results\": [1]}", "[1]"] {
            let path = dir.path().join("bad.json");
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Results::read(&path), Err(ResultsError::Parse { .. })), "{text}");
        }
    }
}
