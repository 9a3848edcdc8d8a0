//! A broker of one's own for the tests of programs that use the client; with the feature `testing`.
//!
//! It is a process of the real broker, on a port and in a directory that nothing else uses, so many can run at once. It is
//! killed, and its directory removed, when it is dropped.
//!
//! ```no_run
//! use ringmq_client::testing::Broker;
//! use ringmq_client::NewTopic;
//!
//! // With #[tokio::test] above it.
//! async fn orders_are_stored() {
//!     let broker = Broker::start().unwrap();
//!     let client = broker.client().await.unwrap();
//!     client.admin().create_topic(NewTopic::new("orders")).await.unwrap();
//!     client.producer().send("orders", "12.50").await.unwrap();
//! }
//! ```
//!
//! **The binary.** `RINGMQ_BINARY` says where `ringmq` is. Without that it is looked for beside the test (where Cargo puts
//! the binaries of the same workspace), then on `PATH`.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::error::Error;

/// Names the broker's binary.
const BINARY_VARIABLE: &str = "RINGMQ_BINARY";
/// A broker that is not ready, or has not ended, by then never will be: long, for a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A journal of the default size takes its time to be prepared, and tests store little. Configured unless the test does.
const JOURNAL_RING: (&str, u64) = ("journal_ring_bytes", 4 << 20);
/// What is kept of what the broker logs.
const LOG_BYTES_MAX: usize = 64 * 1024;

/// A running broker.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = ringmq_client::testing::Broker::start()?;
/// let client = broker.client().await?;
/// println!("{:?} at {}", client.admin().list_topics().await?, broker.address());
/// broker.stop()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: SocketAddr,
    /// Ends with the process; behind a lock so that tests can share the broker.
    printed: Mutex<Receiver<String>>,
    /// What it logs, when it has ended.
    log: Option<JoinHandle<String>>,
    _directory: TempDir,
}

/// Why there is no broker, or it did not end well.
///
/// ```no_run
/// use ringmq_client::testing::{Broker, BrokerError};
/// match Broker::start() {
///     Err(BrokerError::NoBinary { .. }) => println!("not examined: there is no broker here"),
///     Err(error) => panic!("{error}"),
///     Ok(broker) => println!("a broker at {}", broker.address()),
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker's binary is nowhere.
    #[error(
        "there is no broker to start: {variable} {named}, there is no {name} beside the test {} \
         or one directory above it, and none on PATH; build one with `cargo build -p ringmq`, or set {variable} to its path",
        beside.display(),
        variable = BINARY_VARIABLE
    )]
    NoBinary {
        /// What the environment variable says.
        named: String,
        /// The name that was looked for.
        name: String,
        /// The program beside which it was looked for.
        beside: PathBuf,
    },
    /// The process cannot be started, or its directory cannot be made.
    #[error("the broker {} cannot be started ({source}); check that it is a program, and the space for temporary files", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The process ended, or was killed after a minute, before it was ready.
    #[error("the broker did not get ready ({how}); it logged:\n{log}")]
    NotReady {
        /// How that went.
        how: String,
        /// What it wrote to standard error.
        log: String,
    },
    /// The process ended with an error when it was stopped, or had to be killed.
    #[error("the broker did not end well ({how}); it logged:\n{log}")]
    Unclean {
        /// How that went.
        how: String,
        /// What it wrote to standard error.
        log: String,
    },
}

/// As text: `unwrap` in a test shows this.
impl fmt::Debug for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Broker {
    /// Starts a broker on a port of its own of 127.0.0.1, and waits until it is ready. That takes a moment, in which the
    /// calling thread is blocked.
    ///
    /// ```no_run
    /// let broker = ringmq_client::testing::Broker::start()?;
    /// println!("a broker is ready at {}", broker.address());
    /// # Ok::<(), ringmq_client::testing::BrokerError>(())
    /// ```
    ///
    /// # Errors
    /// [`BrokerError`], with what the broker logged.
    pub fn start() -> Result<Self, BrokerError> {
        Self::start_with("")
    }

    /// As [`Broker::start`], with further lines for its configuration file. Without a line `journal_ring_bytes` the journal
    /// is a small one, of 4 MiB.
    ///
    /// ```no_run
    /// let broker = ringmq_client::testing::Broker::start_with("producer_expiry_ms = 60000\n")?;
    /// # Ok::<(), ringmq_client::testing::BrokerError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_with(config: &str) -> Result<Self, BrokerError> {
        let binary = binary()?;
        let failed = |source| BrokerError::Start { binary: binary.clone(), source };
        let directory = tempfile::Builder::new().prefix("ringmq-").tempdir().map_err(failed)?;
        let config_file = directory.path().join("broker.toml");
        std::fs::write(&config_file, configuration(config)).map_err(failed)?;

        let mut command = Command::new(&binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--config"]).arg(config_file);
        command.arg("--data-dir").arg(directory.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;

        let mut log = child.stderr.take().map(|pipe| std::thread::spawn(move || beginning(pipe)));
        let (sender, printed) = sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            // Only the first line is waited for; the pipe is read on all the same.
            std::thread::spawn(move || each_line(stdout, |line| drop(sender.try_send(line))));
        }
        let ready = printed.recv_timeout(PATIENCE);
        let address = ready.as_ref().ok().and_then(|line| line.strip_prefix("ringmq ready ")?.parse().ok());
        match address {
            Some(address) => {
                let printed = Mutex::new(printed);
                Ok(Self { child, address, printed, log, _directory: directory })
            }
            None => {
                let ended = end(&mut child);
                let how = match ready {
                    Ok(line) => format!("it printed `{line}`"),
                    Err(RecvTimeoutError::Timeout) => format!("killed after {PATIENCE:?}"),
                    Err(RecvTimeoutError::Disconnected) => ended,
                };
                Err(BrokerError::NotReady { how, log: text(&mut log) })
            }
        }
    }

    /// Where it listens.
    ///
    /// ```no_run
    /// # fn example(broker: ringmq_client::testing::Broker) -> Result<(), ringmq_client::Error> {
    /// let client = ringmq_client::blocking::Client::connect(broker.address())?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new client of it, with default options. The future does not borrow the broker, so any task can have it.
    ///
    /// ```no_run
    /// # async fn example(broker: ringmq_client::testing::Broker) -> Result<(), ringmq_client::Error> {
    /// let client = broker.client().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn client(&self) -> impl Future<Output = Result<Client, Error>> + Send + use<> {
        Client::connect(self.address)
    }

    /// Ends it as an operator would, by SIGTERM (which `sh` sends), and waits until it has stored everything; where there
    /// are no signals, it is killed. The calling thread is blocked meanwhile.
    ///
    /// ```no_run
    /// # fn example(broker: ringmq_client::testing::Broker) -> Result<(), ringmq_client::testing::BrokerError> {
    /// broker.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BrokerError::Unclean`], with what the broker logged.
    pub fn stop(mut self) -> Result<(), BrokerError> {
        let how = match self.ended() {
            Ok(status) if status.success() || !cfg!(unix) => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // Whatever went wrong, it has an end now.
        end(&mut self.child);
        Err(BrokerError::Unclean { how, log: text(&mut self.log) })
    }

    /// Asks the process to end, and waits until it has.
    fn ended(&mut self) -> io::Result<ExitStatus> {
        terminate(&mut self.child)?;
        let printed = self.printed.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            match printed.recv_timeout(PATIENCE) {
                Ok(_) => {}
                // The pipe's end is the process's.
                Err(RecvTimeoutError::Disconnected) => return self.child.wait(),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!("it had not ended after {PATIENCE:?}")));
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends the process, if it has not ended by itself, and says how it did.
fn end(child: &mut Child) -> String {
    // One that is ending stays with its own status.
    let _ = child.kill();
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// The standard library sends no signal but the one that kills. A shell sends it by itself (POSIX, `kill`); slim images
/// have no program `kill`.
fn terminate(child: &mut Child) -> io::Result<()> {
    if !cfg!(unix) {
        return child.kill();
    }
    let command = format!("sh -c 'kill -TERM {}'", child.id());
    let failed = |how: &dyn fmt::Display| {
        io::Error::other(format!("`{command}`, which was to stop it, failed: {how}; is there a shell on PATH?"))
    };
    let status = Command::new("sh").args(["-c", "kill -TERM \"$0\""]).arg(child.id().to_string()).status();
    let status = status.map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&status)) }
}

/// The configuration file: what tests need as a rule, where `config` says nothing else, and `config`.
fn configuration(config: &str) -> String {
    let (key, value) = JOURNAL_RING;
    let keys = config.lines().filter_map(|line| line.split_once('='));
    let is_given = keys.map(|(key, _)| key.trim().trim_matches(['"', '\''])).any(|given| given == key);
    if is_given { config.to_owned() } else { format!("{key} = {value}\n{config}") }
}

/// Calls `take` with each line of a pipe, to its end, so that the process never blocks on it.
fn each_line(pipe: impl Read, mut take: impl FnMut(String)) {
    let (mut pipe, mut line) = (BufReader::new(pipe), Vec::new());
    while pipe.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        take(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// Reads a pipe to its end, and gives what it began with.
fn beginning(pipe: impl Read) -> String {
    let mut text = String::new();
    each_line(pipe, |line| {
        if text.len() + line.len() < LOG_BYTES_MAX {
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// What a process that has ended has logged.
fn text(log: &mut Option<JoinHandle<String>>) -> String {
    log.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
}

fn binary() -> Result<PathBuf, BrokerError> {
    let test = env::current_exe().unwrap_or_default();
    find(env::var_os(BINARY_VARIABLE).map(PathBuf::from), &test, &env::var_os("PATH").unwrap_or_default())
}

/// What the variable names is it, or there is none: another broker than the one that was asked for would be a surprise.
fn find(named: Option<PathBuf>, test: &Path, path: &std::ffi::OsStr) -> Result<PathBuf, BrokerError> {
    let name = format!("ringmq{}", env::consts::EXE_SUFFIX);
    // target/PROFILE/deps/TEST, or target/PROFILE/examples/EXAMPLE: the binaries are one level higher.
    let beside = test.ancestors().skip(1).take(2).map(|directory| directory.join(&name));
    let found = match &named {
        Some(named) => Some(named.clone()).filter(|named| named.is_file()),
        None => {
            let on_path = env::split_paths(path).map(|directory| directory.join(&name));
            beside.chain(on_path).find(|file| file.is_file())
        }
    };
    found.ok_or_else(|| {
        let named = match named {
            Some(named) => format!("names {}, which is no file", named.display()),
            None => "is not set".to_owned(),
        };
        BrokerError::NoBinary { named, name, beside: test.to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One broker may serve a whole test binary (`LazyLock`, `Arc`), and any task may connect to it.
    #[test]
    fn a_broker_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        fn spawned(broker: &Broker) -> impl Future + Send + 'static + use<> {
            broker.client()
        }
        shared::<Broker>();
        shared::<BrokerError>();
        let _ = spawned;
    }

    #[test]
    #[cfg(unix)]
    fn a_process_is_told_to_end() {
        let mut child = Command::new("sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        terminate(&mut child).unwrap();
        let status = child.wait().unwrap().to_string();
        assert!(status.contains("15"), "{status}");
    }

    #[test]
    fn the_journal_is_small_unless_the_test_says_how_large() {
        assert_eq!(configuration(""), "journal_ring_bytes = 4194304\n");
        let others = "# journal_ring_bytes = 1\nproducer_expiry_ms = 60000\n";
        assert_eq!(configuration(others), format!("journal_ring_bytes = 4194304\n{others}"));
        for given in ["journal_ring_bytes=8388608\n", "producer_expiry_ms = 1\n \"journal_ring_bytes\" = 8388608"] {
            assert_eq!(configuration(given), given);
        }
    }

    #[test]
    fn the_binary_is_the_named_one_else_the_one_beside_the_test_else_the_one_on_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = |place: &str| {
            let file = directory.path().join(place).join(format!("ringmq{}", env::consts::EXE_SUFFIX));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            file
        };
        let (named, built, installed) = (file("named"), file("target/debug"), file("bin"));
        let test = directory.path().join("target/debug/deps/test-1");
        let path = env::join_paths([directory.path().join("none"), directory.path().join("bin")]).unwrap();

        let text = format!("{:?}", find(None, &test, &path).unwrap_err());
        let tells = ["RINGMQ_BINARY is not set", "target/debug/deps/test-1", "PATH", "cargo build -p ringmq"];
        assert!(tells.iter().all(|told| text.contains(told)), "{text}");
        std::fs::write(&installed, "").unwrap();
        assert_eq!(find(None, &test, &path).unwrap(), installed);
        std::fs::write(&built, "").unwrap();
        assert_eq!(find(None, &test, &path).unwrap(), built);
        let text = find(Some(named.clone()), &test, &path).unwrap_err().to_string();
        assert!(text.contains(&format!("RINGMQ_BINARY names {}, which is no file", named.display())), "{text}");
        std::fs::write(&named, "").unwrap();
        assert_eq!(find(Some(named.clone()), &test, &path).unwrap(), named);
    }
}
