//! `ringmq-bench` as a command. Because this test exists, `cargo test --workspace` also builds the binary, which the tests
//! against a real broker use.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq-bench")).args(args).output().expect("the built command starts")
}

#[test]
fn every_verb_explains_its_flags() {
    for (verb, flags) in [
        ("produce", &["--brokers", "--topic", "--partitions", "--producers", "--record-bytes", "--batch-bytes"][..]),
        ("produce", &["--in-flight", "--acks", "--records", "--warmup", "--payload", "--json"]),
        ("consume", &["--brokers", "--topic", "--partitions", "--consumers", "--records", "--json"]),
        ("produce", &["--rate", "--duration", "--keys", "--key-distribution", "--idempotent"]),
        ("end-to-end", &["--rate", "--duration", "--producers", "--consumers", "--fetch-bytes", "--json"]),
        ("mixed", &["--rate", "--backlog", "--readers", "--producers", "--consumers", "--html"]),
        ("run", &["--scale", "--keep", "--json", "--html"]),
        ("report", &["--html"]),
        ("produce", &["--by"]),
        ("consume", &["--by", "--duration"]),
        ("end-to-end", &["--by"]),
        ("discover", &["--brokers", "--clients", "--count", "--json"]),
        ("limits", &["--dir", "--json"]),
    ] {
        let output = bench(&[verb, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{verb} --help: {}", output.status);
        for flag in flags {
            assert!(help.contains(flag), "{verb} --help does not name {flag}:\n{help}");
        }
    }
}

#[test]
fn the_version_names_the_commit() {
    let output = bench(&["--version"]);
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = concat!("ringmq-bench ", env!("CARGO_PKG_VERSION"), " (commit ");
    assert!(version.starts_with(start) && version.trim_end().ends_with(')'), "{version}");
}

#[test]
fn what_cannot_be_done_exits_with_an_error() {
    let unknown = bench(&["measure"]);
    assert!(!unknown.status.success());
    // Port 1 is reserved (tcpmux): nobody listens there.
    let refused = bench(&[
        "consume",
        "--brokers",
        "127.0.0.1:1",
        "--topic",
        "t",
        "--partitions",
        "1",
        "--consumers",
        "1",
        "--records",
        "1",
    ]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("127.0.0.1:1"), "{refused:?}");
}
