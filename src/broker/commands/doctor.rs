//! `ringmq doctor`: what this machine has and lacks for a broker, and how to mend it.

use std::path::{Path, PathBuf};

use ringmq_runtime::executor::CpuId;
use ringmq_runtime::probe::{self, Finding, Problem};
use serde::Serialize;

use super::CommandError;
use crate::cli::{DoctorArgs, OutputFormat};
use crate::config::Config;
use crate::exit::Exit;
use crate::serve::machine::{self, CpuError, OpenFiles};
use crate::{config, output};

/// Below this, a broker would soon refuse records.
const FREE_DISK_BYTES_WANTED: u64 = 1 << 30;

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    subject: &'static str,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    how_to_mend: Option<String>,
}

impl From<Result<Finding, Problem>> for Check {
    fn from(result: Result<Finding, Problem>) -> Self {
        match result {
            Ok(Finding { subject, detail }) => Self { subject, ok: true, detail, how_to_mend: None },
            Err(Problem { subject, what, how_to_mend }) => {
                Self { subject, ok: false, detail: what, how_to_mend: Some(how_to_mend) }
            }
        }
    }
}

impl From<Result<Vec<CpuId>, CpuError>> for Check {
    fn from(cpus: Result<Vec<CpuId>, CpuError>) -> Self {
        let subject = "CPUs";
        match cpus {
            Ok(cpus) => {
                let detail = format!("{} shard(s), on {}", cpus.len(), machine::cpu_list(&cpus));
                Self { subject, ok: true, detail, how_to_mend: None }
            }
            Err(error) => {
                let how_to_mend = "Name CPUs that this process may use in `cores`, or say \"all\".".to_owned();
                Self { subject, ok: false, detail: error.to_string(), how_to_mend: Some(how_to_mend) }
            }
        }
    }
}

/// Probes the machine and prints one line for each finding.
///
/// # Errors
/// When the configuration cannot be read or the report cannot be printed.
pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, CommandError> {
    let mut config = match &args.config {
        Some(path) => config::file::read(path)?,
        None => Config::default(),
    };
    if let Some(dir) = &args.data_dir {
        config.data_dir.clone_from(dir);
    }
    let checks = examine(&config);
    match args.output.output {
        OutputFormat::Text => output::print(&render(&checks))?,
        OutputFormat::Json => output::print_json(&checks)?,
    }
    Ok(if checks.iter().all(|check| check.ok) { Exit::Done } else { Exit::Failed })
}

fn examine(config: &Config) -> Vec<Check> {
    let dir = existing(&config.data_dir);
    let cpus = machine::cpus(config);
    let executors = cpus.as_ref().map_or(1, Vec::len) + 1;
    let io_uring = probe::io_uring();
    let locked_memory = probe::locked_memory(executors, machine::IO_MEMORY_BYTES);
    // It takes an executor to find out, and an executor takes these.
    let open_files = machine::open_files(executors);
    let may_run = io_uring.is_ok() && locked_memory.is_ok() && !matches!(open_files, OpenFiles::TooFew(_));
    let polling = if may_run { probe::disk_polling(&dir) } else { Err(not_examined()) };
    let findings = [
        probe::kernel(),
        io_uring,
        locked_memory,
        probe::direct_io(&dir),
        probe::outlives_power(&dir),
        polling,
        probe::free_disk(&dir, FREE_DISK_BYTES_WANTED),
    ];
    findings.into_iter().map(Check::from).chain([Check::from(open_files), Check::from(cpus)]).collect()
}

impl From<OpenFiles> for Check {
    fn from(open_files: OpenFiles) -> Self {
        let subject = machine::OPEN_FILES;
        match open_files {
            OpenFiles::Enough(limit) => {
                let detail = format!("{limit}, one for each partition and connection");
                Self { subject, ok: true, detail, how_to_mend: None }
            }
            OpenFiles::Few(problem) | OpenFiles::TooFew(problem) => Self::from(Err(problem)),
            OpenFiles::Unknown(error) => {
                let detail = format!("the limit cannot be read: {error}");
                Self { subject, ok: false, detail, how_to_mend: Some("See getrlimit(2).".to_owned()) }
            }
        }
    }
}

fn not_examined() -> Problem {
    Problem {
        subject: "disk polling",
        what: "not looked at, because it takes io_uring, locked memory and descriptors".to_owned(),
        how_to_mend: "Mend those first, then ask again.".to_owned(),
    }
}

/// The data directory, or what it would be made in.
fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn render(checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let verdict = if check.ok { output::green("ok     ") } else { output::red("problem") };
        lines.push(format!("{verdict}  {}: {}", check.subject, check.detail));
        lines.extend(check.how_to_mend.iter().map(|how| format!("         {how}")));
    }
    lines.join("\n")
}
