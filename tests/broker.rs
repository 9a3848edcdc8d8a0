//! One broker process in a directory of its own.

use std::iter::successors;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, CommandOutput, send_signal, target_binary};

/// How many starts are killed more where none of them was still recovering.
const MORE_KILLED_MAX: usize = 12;

/// How a test wants its broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// `--listen`; port 0 by default. Once the broker is ready, the address that it has: so it is found there again.
    pub listen: String,
    /// `--cores`; all by default.
    pub cores: String,
    /// The text of a configuration file, if any.
    pub config: Option<String>,
    /// Further arguments of `ringmq serve`.
    pub args: Vec<String>,
    /// A command that ends in `exec "$@"` or the like: it gets the broker's command line as its last arguments.
    pub launcher: Vec<String>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        let (args, launcher) = (Vec::new(), Vec::new());
        // Many brokers run at once, and a journal of the default size takes its time to be prepared.
        let config = Some("journal_ring_bytes = 4194304\n".to_owned());
        Self { listen: "127.0.0.1:0".into(), cores: "all".into(), config, args, launcher }
    }
}

/// How a broker process ended, and what it left behind.
#[derive(Debug)]
pub struct Exit {
    /// The process's status.
    pub status: ExitStatus,
    /// Its standard error, as far as the test had not read it.
    pub log: String,
    /// The directory above its data.
    pub directory: TempDir,
}

/// A running broker. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: SocketAddr,
    options: BrokerOptions,
    log: Lines,
    /// Taken only at the end.
    directory: Option<TempDir>,
}

impl Broker {
    /// Starts a broker that logs little in a new directory below `dir`, for commands that report in text.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start_below(dir: &Path) -> Result<Self, String> {
        let created = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir));
        let directory = created.map_err(|error| format!("cannot make a directory in {}: {error}", dir.display()))?;
        let args = vec!["--log-level".into(), "warn".into()];
        let started = Self::start_in(directory, BrokerOptions { args, ..BrokerOptions::default() });
        started.map_err(|exit| format!("the broker ended with {} before it was ready:\n{}", exit.status, exit.log))
    }

    /// Ends a broker by SIGTERM, for commands that report in text.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn end_well(self) -> Result<(), String> {
        let exit = self.terminate();
        let told = || format!("SIGTERM ended the broker with {}:\n{}", exit.status, exit.log);
        if exit.status.success() { Ok(()) } else { Err(told()) }
    }

    /// Starts a broker with the default options in a new directory and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(BrokerOptions::default())
    }

    /// Starts a broker in a new directory and waits until it is ready.
    pub fn start_with(options: BrokerOptions) -> Self {
        Self::start_in(new_directory(), options)
            .unwrap_or_else(|exit| panic!("the broker did not start:\n{}", exit.log))
    }

    /// Starts a broker in `directory` and waits until it is ready.
    ///
    /// # Errors
    /// How it ended, when it ended before that; killed when it neither became ready nor ended.
    pub fn start_in(directory: TempDir, mut options: BrokerOptions) -> Result<Self, Exit> {
        let mut child = serve(directory.path(), &options).spawn().expect("the broker's binary can be started");
        let stdout = Lines::of(child.stdout.take().expect("standard output is piped"));
        let log = Lines::of(child.stderr.take().expect("standard error is piped"));
        let address = stdout.next().and_then(|line| line.strip_prefix("ringmq ready ")?.parse::<SocketAddr>().ok());
        match address {
            Some(address) => {
                options.listen = address.to_string();
                Ok(Self { child, address, options, log, directory: Some(directory) })
            }
            None => {
                // It may hang instead of ending: a test must not.
                let _ = child.kill();
                let status = child.wait().expect("the broker can be waited for");
                Err(Exit { status, log: log.rest().join("\n"), directory })
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

    /// The directory above its data.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.directory())
    }

    /// What it logs from now on.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// A client command with pipes for all its streams, still to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = process::ringmq(args);
        command.arg("--brokers").arg(self.address.to_string());
        command
    }

    /// Runs a client command to its end; `stdin` is all it reads.
    pub fn run(&self, args: &[&str], stdin: &[u8]) -> CommandOutput {
        process::run(self.command(args), stdin)
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.run(&["topic", "create", name, "--partitions", &partitions.to_string()], b"").expect_success();
    }

    /// SIGTERM, then its end.
    pub fn terminate(self) -> Exit {
        self.end("TERM")
    }

    /// SIGKILL, then its end.
    pub fn kill(self) -> Exit {
        self.end("KILL")
    }

    /// SIGTERM, a clean end, and the same broker again on the same directory and address.
    pub fn restart(self) -> Self {
        let options = self.options.clone();
        let exit = self.terminate();
        assert!(exit.status.success(), "SIGTERM ended the broker with {}:\n{}", exit.status, exit.log);
        Self::start_in(exit.directory, options).unwrap_or_else(|exit| panic!("no second start:\n{}", exit.log))
    }

    /// SIGKILL and the same broker again on the same directory and address.
    pub fn kill_and_restart(self) -> Self {
        let options = self.options.clone();
        let exit = self.kill();
        Self::start_in(exit.directory, options).unwrap_or_else(|exit| panic!("no start after a kill:\n{}", exit.log))
    }

    /// SIGKILL, as many starts as there are moments, each killed so long after it knows its partitions, and the same broker
    /// again. How many of these starts were still recovering comes with it: where none was, up to twelve more
    /// are killed, each in half the time, until one was. The broker has to log at level info.
    ///
    /// # Panics
    /// When a start ends by itself, with what the broker logged.
    pub fn kill_and_restart_after(self, moments: &[Duration]) -> (Self, usize) {
        let options = self.options.clone();
        let exit = self.kill();
        let in_recovery = |moment: &Duration| is_killed_in_recovery(exit.directory.path(), &options, *moment);
        let mut killed = moments.iter().filter(|moment| in_recovery(moment)).count();
        let sooner = |moment: &Duration| Some(*moment / 2);
        let mut more = successors(moments.iter().min().and_then(sooner), sooner).take(MORE_KILLED_MAX);
        if killed == 0 && more.any(|moment| in_recovery(&moment)) {
            killed = 1;
        }
        let broker = Self::start_in(exit.directory, options);
        (broker.unwrap_or_else(|exit| panic!("no start after a kill:\n{}", exit.log)), killed)
    }

    /// Sends the process a signal by its name, such as `USR1`.
    pub fn signal(&self, name: &str) {
        send_signal(&self.child, name);
    }

    /// Sends the process a signal by its name and waits for its end.
    pub fn end(mut self, signal: &str) -> Exit {
        self.signal(signal);
        let status = self.child.wait().expect("the broker can be waited for");
        let directory = self.directory.take().expect("it has one until it ends");
        Exit { status, log: self.log.rest().join("\n"), directory }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for one broker. It lies beside the build, not in the system's temporary one, which may be in memory.
///
/// # Panics
/// When it cannot be made.
pub fn new_directory() -> TempDir {
    let target = target_binary("ringmq").ancestors().nth(2).map(Path::to_path_buf).expect("a target directory");
    tempfile::Builder::new().prefix("broker-").tempdir_in(target).expect("a temporary directory")
}

/// Where in its directory a broker has its data.
pub fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Starts a broker and kills it so long `after` it knows its partitions. Whether it was not ready yet.
fn is_killed_in_recovery(directory: &Path, options: &BrokerOptions, after: Duration) -> bool {
    let mut child = serve(directory, options).spawn().expect("the broker's binary can be started");
    let stdout = Lines::of(child.stdout.take().expect("standard output is piped"));
    let log = Lines::of(child.stderr.take().expect("standard error is piped"));
    let mut logged = Vec::new();
    let knows_its_partitions = loop {
        let Some(line) = log.next() else { break false };
        logged.push(line);
        if logged.last().is_some_and(|line| line.contains("the metadata is complete")) {
            break true;
        }
    };
    std::thread::sleep(after);
    // Already ended is seen by its status.
    let _ = child.kill();
    let status = child.wait().expect("the broker can be waited for");
    if !knows_its_partitions || status.signal().is_none() {
        logged.extend(log.rest());
        panic!("no start after a kill: {status}\n{}", logged.join("\n"));
    }
    stdout.next().is_none()
}

/// `ringmq serve` as the options say.
fn serve(directory: &Path, options: &BrokerOptions) -> Command {
    let mut line = options.launcher.clone();
    line.extend([target_binary("ringmq").display().to_string(), "serve".into()]);
    line.extend(["--listen".into(), options.listen.clone(), "--cores".into(), options.cores.clone()]);
    line.extend(["--data-dir".into(), data_dir(directory).display().to_string()]);
    if let Some(config) = &options.config {
        let path = directory.join("broker.toml");
        std::fs::write(&path, config).expect("the configuration can be written");
        line.extend(["--config".into(), path.display().to_string()]);
    }
    line.extend_from_slice(&options.args);
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
