//! Where the built commands are, and how to run one to its end.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The path of a binary that `cargo test --workspace` built beside this test.
///
/// # Panics
/// When it has not been built, with the command that builds it.
pub fn target_binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path is known");
    // target/<profile>/deps/<test> -> target/<profile>/<name>; an example or a binary stands one level higher already.
    let profile_dir = test.ancestors().skip(1).find(|dir| dir.join(name).is_file());
    match profile_dir {
        Some(dir) => dir.join(name),
        None => {
            panic!("{name} is not built beside {}: run `cargo build -p ringmq -p ringmq-bench` first", test.display())
        }
    }
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct CommandOutput {
    /// Whether the exit code was 0.
    pub success: bool,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error as text.
    pub stderr: String,
}

impl CommandOutput {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed, with what it wrote.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.success, "exit code {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout_text(), self.stderr);
        self
    }
}

/// Says on the console, whatever the test runner captures, that a test passes without having examined anything.
///
/// # Panics
/// When standard error is closed.
pub fn not_examined(test: &str, why: &str) {
    writeln!(std::io::stderr(), "\nNOT EXAMINED {test}: {why}").expect("standard error is open");
}

/// `ringmq` with pipes for all its streams, still to be started.
pub fn ringmq(args: &[&str]) -> Command {
    piped(Command::new(target_binary("ringmq")), args)
}

/// Runs `ringmq` with `args` to its end; `stdin` is all it reads.
pub fn run_ringmq(args: &[&str], stdin: &[u8]) -> CommandOutput {
    run(ringmq(args), stdin)
}

/// Runs `ringmq-bench` with `args` to its end.
pub fn run_bench(args: &[&str]) -> CommandOutput {
    run(piped(Command::new(target_binary("ringmq-bench")), args), b"")
}

/// Sends a process a signal by its name, such as `TERM`.
///
/// # Panics
/// When it has ended already.
#[track_caller]
pub fn send_signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {} failed", child.id());
}

fn piped(mut command: Command, args: &[&str]) -> Command {
    command.args(args).env_remove("RINGMQ_BROKERS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with pipes for its streams to its end.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> CommandOutput {
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let bytes = stdin.to_vec();
    // A thread of its own, so that neither side waits for the other with a full pipe.
    let writer = std::thread::spawn(move || {
        // A command that refuses its arguments does not read its input: a broken pipe is its right.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().expect("the command can be waited for");
    writer.join().expect("the writer of standard input does not panic");
    CommandOutput {
        success: output.status.success(),
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
