//! A broker as a child process, from start to end.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use ringmq_client::BrokerAddress;
use thiserror::Error;

/// A small journal: one of the default size takes a moment to be prepared.
const CONFIG: &str = "journal_ring_bytes = 4194304\n";

/// What a broker that does not start has said, at most.
const LOG_BYTES_MAX: u64 = 64 << 10;

/// Why there is no broker.
#[derive(Debug, Error)]
pub(crate) enum BrokerError {
    /// The process cannot be started, or its files not made.
    #[error("cannot start a broker in {} ({source}); name another directory with --dir, or ask `ringmq doctor`", .dir.display())]
    Start { dir: PathBuf, source: io::Error },
    /// It ended, or said something else.
    #[error("the broker in {} did not start; `ringmq doctor` tells what this machine lacks. It said:\n{log}", .dir.display())]
    NotReady { dir: PathBuf, log: String },
}

/// A broker's process; dropping it kills it, and its files have no writer left.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running broker; dropping it kills it.
#[derive(Debug)]
pub(super) struct Broker {
    process: Process,
    /// Where it listens.
    pub address: BrokerAddress,
}

impl Broker {
    /// Starts one with its data in `dir`, and waits until it takes requests. Dropping the future kills it.
    pub(super) async fn start(dir: &Path) -> Result<Self, BrokerError> {
        let command = serve(dir).map_err(|source| BrokerError::Start { dir: dir.to_owned(), source })?;
        Self::start_as(command, dir).await
    }

    async fn start_as(mut command: Command, dir: &Path) -> Result<Self, BrokerError> {
        let failed = |source| BrokerError::Start { dir: dir.to_owned(), source };
        let mut process = Process(command.spawn().map_err(failed)?);
        let stdout = process.0.stdout.take();
        // On another thread only as long as the process is there.
        let line = tokio::task::spawn_blocking(move || stdout.and_then(first_line)).await;
        let line = line.map_err(|error| failed(error.into()))?;
        match line.as_deref().and_then(ready) {
            Some(address) => Ok(Self { process, address }),
            None => {
                // Whatever it is that it does instead.
                let _ = process.0.kill();
                let mut log = String::new();
                if let Some(stderr) = process.0.stderr.take() {
                    // What is not text stays away; the cause was told before.
                    let _ = stderr.take(LOG_BYTES_MAX).read_to_string(&mut log);
                }
                Err(BrokerError::NotReady { dir: dir.to_owned(), log: log.trim_end().to_owned() })
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// SIGKILL, and its end.
    pub(super) fn kill(mut self) -> io::Result<()> {
        self.process.0.kill()?;
        self.process.0.wait().map(drop)
    }
}

/// The directory that holds the data.
pub(super) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// `ringmq serve`, still to be started.
fn serve(dir: &Path) -> io::Result<Command> {
    let config = dir.join("broker.toml");
    std::fs::write(&config, CONFIG)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(data_dir(dir))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// What it prints first; `None` when it ends before.
fn first_line(stdout: ChildStdout) -> Option<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).ok()?;
    Some(line)
}

/// The address that it prints once it takes requests; `None` when it says something else.
fn ready(line: &str) -> Option<BrokerAddress> {
    line.trim_end().strip_prefix("ringmq ready ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn whoever_no_longer_waits_for_a_broker_leaves_no_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        // It never says that it is ready.
        let silent = shell(&format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let is_there = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                started = Broker::start_as(silent, dir.path()) => panic!("{started:?}"),
                () = is_there => {}
            }
        });
        let pid = std::fs::read_to_string(&file).expect("written");
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "process {pid} is still there");
        // Waits for the thread that reads.
        drop(runtime);
    }

    #[tokio::test]
    async fn one_that_ends_is_told_with_what_it_said() {
        let error = Broker::start_as(shell("echo no room >&2; exit 3"), Path::new("somewhere")).await;
        let error = error.expect_err("no broker").to_string();
        assert!(error.contains("somewhere did not start") && error.ends_with("no room"), "{error}");
    }
}
