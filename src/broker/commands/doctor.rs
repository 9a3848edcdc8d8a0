//! `ringmq doctor`: what this machine has and lacks for a broker, and how to mend it.

use std::path::{Path, PathBuf};

use ringmq_runtime::probe::{self, Finding, Problem};
use serde::Serialize;

use super::CommandError;
use crate::cli::{DoctorArgs, OutputFormat};
use crate::config::Config;
use crate::exit::Exit;
use crate::serve::machine;
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

/// Probes the machine and prints one line for each finding.
///
/// # Errors
/// When the configuration cannot be read or the report cannot be printed.
pub fn run(args: &DoctorArgs) -> Result<Exit, CommandError> {
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
    let mut checks: Vec<Check> =
        [probe::kernel(), probe::io_uring(), probe::locked_memory(executors, machine::IO_MEMORY_BYTES)]
            .into_iter()
            .map(Check::from)
            .collect();
    checks.extend(
        [probe::direct_io(&dir), probe::disk_polling(&dir), probe::free_disk(&dir, FREE_DISK_BYTES_WANTED)]
            .into_iter()
            .map(Check::from),
    );
    checks.push(match cpus {
        Ok(cpus) => Check {
            subject: "CPUs",
            ok: true,
            detail: format!("{} shard(s), on {}", cpus.len(), machine::cpu_list(&cpus)),
            how_to_mend: None,
        },
        Err(problem) => Check {
            subject: "CPUs",
            ok: false,
            detail: problem.to_string(),
            how_to_mend: Some("Name CPUs that this process may use in `cores`, or say \"all\".".to_owned()),
        },
    });
    checks
}

/// The data directory, or what it would be made in.
fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn render(checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let verdict = if check.ok { "ok     " } else { "problem" };
        lines.push(format!("{verdict}  {}: {}", check.subject, check.detail));
        lines.extend(check.how_to_mend.iter().map(|how| format!("         {how}")));
    }
    lines.join("\n")
}
