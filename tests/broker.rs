//! One broker process in a directory of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::target_binary;

/// Long enough for a debug broker on a busy machine; a condition that is not met by then is not met at all.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How a test wants its broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// `--listen`; port 0 by default.
    pub listen: String,
    /// `--cores`; all by default.
    pub cores: String,
    /// The text of a configuration file, if any.
    pub config: Option<String>,
    /// Further arguments of `ringmq serve`.
    pub args: Vec<String>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0".into(), cores: "all".into(), config: None, args: Vec::new() }
    }
}

/// How a broker process ended, and what it had logged.
#[derive(Debug)]
pub struct Exit {
    /// The process's status.
    pub status: ExitStatus,
    /// Its standard error.
    pub log: String,
}

/// A running broker. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: SocketAddr,
    options: BrokerOptions,
    directory: TempDir,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Broker {
    /// Starts a broker with the default options in a new directory and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(BrokerOptions::default())
    }

    /// Starts a broker in a new directory and waits until it is ready.
    pub fn start_with(options: BrokerOptions) -> Self {
        // Beside the build, not in /tmp: that may be a tmpfs, which has no direct I/O.
        let target = target_binary("ringmq").ancestors().nth(2).map(Path::to_path_buf).expect("a target directory");
        let directory = tempfile::Builder::new().prefix("broker-").tempdir_in(target).expect("a temporary directory");
        Self::start_in(directory, options).unwrap_or_else(|exit| panic!("the broker did not start:\n{}", exit.log))
    }

    /// Starts a broker in `directory`; gives back how it ended when it ends before it is ready.
    pub fn start_in(directory: TempDir, options: BrokerOptions) -> Result<Self, Exit> {
        let mut command = Command::new(target_binary("ringmq"));
        command.arg("serve").arg("--listen").arg(&options.listen).arg("--cores").arg(&options.cores);
        command.arg("--data-dir").arg(directory.path().join("data"));
        if let Some(config) = &options.config {
            let path = directory.path().join("broker.toml");
            std::fs::write(&path, config).expect("the configuration can be written");
            command.arg("--config").arg(path);
        }
        command.args(&options.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the broker's binary can be started");
        let log = collect(child.stderr.take().expect("standard error is piped"));
        match ready_address(child.stdout.take().expect("standard output is piped")) {
            Some(address) => Ok(Self { child, address, options, directory, log: Some(log) }),
            None => {
                // It may hang instead of ending: a test must not.
                let _ = child.kill();
                let status = child.wait().expect("the broker can be waited for");
                Err(Exit { status, log: log.join().expect("the log reader does not panic") })
            }
        }
    }

    /// The address that it printed.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// SIGTERM, then its end.
    pub fn terminate(self) -> (Exit, TempDir) {
        self.end(signal_name::TERM)
    }

    /// SIGKILL, then its end.
    pub fn kill(self) -> (Exit, TempDir) {
        self.end(signal_name::KILL)
    }

    /// SIGTERM, a clean end, and the same broker again on the same directory.
    pub fn restart(self) -> Self {
        let options = self.options.clone();
        let (exit, directory) = self.terminate();
        assert!(exit.status.success(), "SIGTERM ended the broker with {}:\n{}", exit.status, exit.log);
        Self::start_in(directory, options).unwrap_or_else(|exit| panic!("no second start:\n{}", exit.log))
    }

    /// SIGKILL and the same broker again on the same directory.
    pub fn kill_and_restart(self) -> Self {
        let options = self.options.clone();
        let (_, directory) = self.kill();
        Self::start_in(directory, options).unwrap_or_else(|exit| panic!("no start after a kill:\n{}", exit.log))
    }

    /// Sends the process a signal by its name, such as `USR1`.
    pub fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    fn end(mut self, signal: &str) -> (Exit, TempDir) {
        send_signal(self.child.id(), signal);
        let status = self.child.wait().expect("the broker can be waited for");
        let log = self.log.take().map(|log| log.join().expect("the log reader does not panic")).unwrap_or_default();
        let empty = tempfile::tempdir().expect("a temporary directory");
        (Exit { status, log }, std::mem::replace(&mut self.directory, empty))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names as `kill` takes them.
mod signal_name {
    pub(super) const TERM: &str = "TERM";
    pub(super) const KILL: &str = "KILL";
}

fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {pid} failed");
}

/// Reads a stream to its end on a thread of its own, so that the broker never blocks on a full pipe.
fn collect(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A killed broker ends its pipe; what was read until then counts.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The address of the line `ringmq ready ADDR`; none when the stream ends or nothing comes in time.
fn ready_address(stdout: impl Read + Send + 'static) -> Option<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("ringmq ready ") {
                // The test may have given up already.
                let _ = sender.send(address.parse().ok());
            }
        }
    });
    receiver.recv_timeout(READY_WITHIN).ok().flatten()
}
