//! A broker as a child process, from start to end.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    #[error("cannot start a broker in {}: {source}", .dir.display())]
    Start { dir: PathBuf, source: io::Error },
    /// It ended, or said something else.
    #[error("the broker in {} did not start; `ringmq doctor` tells what this machine lacks. It said:\n{log}", .dir.display())]
    NotReady { dir: PathBuf, log: String },
}

/// A running broker; dropping it kills it.
#[derive(Debug)]
pub(super) struct Broker {
    child: Child,
    /// Where it listens.
    pub address: BrokerAddress,
}

impl Broker {
    /// Starts one with its data in `dir`, and waits until it takes requests.
    pub(super) fn start(dir: &Path) -> Result<Self, BrokerError> {
        let failed = |source| BrokerError::Start { dir: dir.to_owned(), source };
        let mut child = spawn(dir).map_err(failed)?;
        match ready(&mut child) {
            Some(address) => Ok(Self { child, address }),
            None => {
                // Whatever it is that it does instead.
                let _ = child.kill();
                let mut log = String::new();
                if let Some(stderr) = child.stderr.take() {
                    // What is not text stays away; the cause was told before.
                    let _ = stderr.take(LOG_BYTES_MAX).read_to_string(&mut log);
                }
                let _ = child.wait();
                Err(BrokerError::NotReady { dir: dir.to_owned(), log: log.trim_end().to_owned() })
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and its end.
    pub(super) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory that holds the data.
pub(super) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn spawn(dir: &Path) -> io::Result<Child> {
    let config = dir.join("broker.toml");
    std::fs::write(&config, CONFIG)?;
    Command::new(std::env::current_exe()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(data_dir(dir))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The address that it prints once it takes requests; `None` when it ends before, or says something else.
fn ready(child: &mut Child) -> Option<BrokerAddress> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    line.trim_end().strip_prefix("ringmq ready ")?.parse().ok()
}
