//! The broker under test: a process that is ended and started again on the same port and directory.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringmq_client::Client;

/// How the broker is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Term,
    Kill,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Term => "SIGTERM",
            Self::Kill => "SIGKILL",
        })
    }
}

/// A broker process; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    ringmq: PathBuf,
    dir: PathBuf,
    child: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(ringmq: &Path, dir: &Path) -> Result<Self, String> {
        let (child, address) = serve(ringmq, dir, "127.0.0.1:0")?;
        Ok(Self { ringmq: ringmq.to_path_buf(), dir: dir.to_path_buf(), child, address })
    }

    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        (self.child, self.address) = serve(&self.ringmq, &self.dir, &self.address)?;
        Ok(())
    }

    /// Sends the signal and waits for the end; after SIGTERM that end must be a success.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<(), String> {
        let name = if signal == Signal::Term { "-TERM" } else { "-KILL" };
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status();
        if !sent.is_ok_and(|status| status.success()) {
            return Err(format!("{signal} could not be sent"));
        }
        let status = self.child.wait().map_err(|error| format!("waiting for the broker: {error}"))?;
        if signal == Signal::Term && !status.success() {
            return Err(format!("SIGTERM ended the broker with {status}"));
        }
        Ok(())
    }

    pub(crate) async fn client(&self) -> Result<Client, String> {
        Client::connect(&self.address).await.map_err(|error| format!("cannot connect to {}: {error}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(ringmq: &Path, dir: &Path, listen: &str) -> Result<(Child, String), String> {
    let mut child = Command::new(ringmq)
        .args(["serve", "--log-level", "warn", "--listen", listen, "--data-dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", ringmq.display()))?;
    let stdout = child.stdout.take().ok_or("standard output is piped")?;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("ringmq ready ") {
            return Ok((child, address.to_owned()));
        }
    }
    // Its standard output ended: it is about to end too, and has said why on standard error.
    let status = child.wait().map_err(|error| format!("waiting for the broker: {error}"))?;
    Err(format!("the broker ended with {status} before it was ready"))
}
