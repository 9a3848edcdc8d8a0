//! The figures of several runs: what a scenario writes, and what a comparison reads.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::{html, json};

/// Figures of several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What they are about.
    pub title: String,
    /// In the order in which they were measured.
    pub results: Vec<Report>,
}

/// A page that compares the figures of several runs
#[derive(Debug, Args)]
pub struct Arguments {
    /// What `--json` printed, of single measurements and of scenarios
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The page, which needs no network and no other file
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
}

/// Why there is no page.
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
}

/// Writes the page.
///
/// # Errors
/// [`ResultsError`].
pub fn run(arguments: &Arguments) -> Result<(), ResultsError> {
    let read = arguments.files.iter().map(|path| Results::read(path)).collect::<Result<Vec<_>, _>>()?;
    let title = read.iter().map(|results| results.title.as_str()).collect::<Vec<_>>().join(", ");
    let several = read.len() > 1;
    let named = |results: Results| {
        let Results { title, results } = results;
        let name = move |report: Report| match several && report.name != title {
            true => Report { name: format!("{title}: {}", report.name), ..report },
            false => report,
        };
        results.into_iter().map(name).collect::<Vec<_>>()
    };
    let all = Results { title, results: read.into_iter().flat_map(named).collect() };
    let written = all.write_html(&arguments.html);
    written.map_err(|source| ResultsError::File { path: arguments.html.clone(), source })
}

impl Results {
    /// Reads what a scenario or a single measurement printed; the latter takes the name of its file.
    fn read(path: &Path) -> Result<Self, ResultsError> {
        let unreadable = |source| ResultsError::File { path: path.to_owned(), source };
        let invalid = |source| ResultsError::Parse { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(invalid)?;
        if value.get("results").is_some() {
            return serde_json::from_value(value).map_err(invalid);
        }
        let title = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let report: Report = serde_json::from_value(value).map_err(invalid)?;
        Ok(Self { results: vec![Report { name: title.clone(), ..report }], title })
    }

    /// Prints one JSON object.
    pub(crate) fn print(&self) -> io::Result<()> {
        json::write_lines(self, &mut io::stdout().lock())
    }

    /// Writes a page with tables and plots.
    pub(crate) fn write_html(&self, path: &Path) -> io::Result<()> {
        html::write(path, &self.title, &self.results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

        let results = Results { title: "Two".into(), results: vec![report.clone(), report::tests::report("other")] };
        let mut text = Vec::new();
        json::write_lines(&results, &mut text).unwrap();
        std::fs::write(&several, text).unwrap();
        assert_eq!(Results::read(&several).unwrap(), results);

        let html = dir.path().join("out.html");
        run(&Arguments { files: vec![single, several], html: html.clone() }).unwrap();
        let page = std::fs::read_to_string(html).unwrap();
        for name in ["before, Two", ">before<", ">Two: produce<", ">Two: other<"] {
            assert!(page.contains(name), "{name}: {page}");
        }
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
