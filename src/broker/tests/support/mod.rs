//! A broker process of this build in a directory of its own, and commands that talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A debug build on a busy machine takes its time; what is not there by then does not come.
const WITHIN: Duration = Duration::from_secs(60);

/// `ringmq` with its standard streams as pipes.
pub(crate) fn ringmq(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(args).env_remove("RINGMQ_BROKERS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Sends a signal by its name, such as `TERM`.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name}");
}

/// The lines of a pipe, read on a thread of its own.
pub(crate) struct Lines(std::sync::mpsc::Receiver<String>);

impl Lines {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self(receiver)
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        match self.0.recv_timeout(WITHIN) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no line within {WITHIN:?}"),
        }
    }

    /// Skips to the line that contains `text`.
    pub(crate) fn until(&self, text: &str) -> String {
        std::iter::from_fn(|| self.next())
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no line with {text}"))
    }

    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A running broker; killed when it is dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: String,
    pub(crate) log: Lines,
    dir: Option<TempDir>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        // Below the build's own directory: the system's temporary one may have no direct I/O.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Self::start_in(dir, &[])
    }

    /// Starts on the data that a broker before left in `dir`.
    pub(crate) fn start_in(dir: TempDir, flags: &[&str]) -> Self {
        let data = dir.path().join("data");
        let mut args = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().expect("a text path")];
        args.extend_from_slice(flags);
        let mut child = ringmq(&args).spawn().expect("the broker starts");
        let stdout = Lines::of(child.stdout.take().expect("a pipe"));
        let log = Lines::of(child.stderr.take().expect("a pipe"));
        let Some(line) = stdout.next() else { panic!("the broker did not start:\n{}", log.rest().join("\n")) };
        let address = line.strip_prefix("ringmq ready ").expect("the ready line").to_owned();
        Self { child, address, log, dir: Some(dir) }
    }

    /// A client command that is still to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = ringmq(args);
        command.arg("--brokers").arg(&self.address);
        command
    }

    /// Runs a client command to its end.
    pub(crate) fn run(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(args).spawn().expect("ringmq starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        let bytes = stdin.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that refuses its arguments does not read its input.
            let _ = pipe.write_all(&bytes);
        });
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("the writer ends");
        output
    }

    /// As [`Self::run`]; the standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn stdout(&self, args: &[&str], stdin: &[u8]) -> String {
        let output = self.run(args, stdin);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Sends a signal, and gives the status, the rest of the log and the directory.
    pub(crate) fn end(mut self, name: &str) -> (ExitStatus, Vec<String>, TempDir) {
        self.signal(name);
        let status = self.child.wait().expect("it ends");
        (status, self.log.rest(), self.dir.take().expect("it has one until it ends"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
