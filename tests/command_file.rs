//! `ringmq run FILE`, and the samples in `configs/commands`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ringmq_tests::{Broker, CommandOutput, new_directory, run_ringmq};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root").join("configs/commands")
}

/// Runs a file against a broker that it does not name.
fn run_file(broker: &Broker, file: &Path) -> CommandOutput {
    broker.run(&["run", file.to_str().expect("a text path")], b"")
}

#[test]
fn every_sample_does_what_its_name_says() {
    let broker = Broker::start();
    let steps = [
        ("create-topic.toml", "created topic sample with 4 partition(s)\n"),
        ("list-topics.toml", "\"name\":\"sample\""),
        ("describe-topic.toml", "3600000"),
        ("produce.toml", "count=100"),
        ("consume.json", "sample=a sample [source=configs/commands]\n"),
        ("delete-topic.json", "deleted topic sample\n"),
    ];
    for (sample, printed) in steps {
        let output = run_file(&broker, &samples().join(sample)).expect_success().stdout_text();
        assert!(output.contains(printed), "{sample}: {output}");
        if sample == "consume.json" {
            assert_eq!(output.lines().count(), 10);
        }
    }
    let there = std::fs::read_dir(samples()).expect("samples").map(|entry| entry.expect("an entry").file_name());
    let there: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(there, steps.map(|(sample, _)| sample.to_owned()).into(), "each sample is run here");
}

#[test]
fn the_file_says_where_and_how_long_and_flags_go_over_it() {
    let broker = Broker::start();
    let dir = new_directory();
    let file = dir.path().join("list.toml");
    let text =
        |brokers: &str| format!("brokers = [{brokers}]\ntimeout = \"300ms\"\n[command]\nname = \"topic list\"\n");
    let flagless = |brokers: &str| {
        std::fs::write(&file, text(brokers)).expect("written");
        run_ringmq(&["run", file.to_str().expect("a text path")], b"")
    };
    // One that answers is enough.
    flagless(&format!("\"127.0.0.1:1\", \"{}\"", broker.address())).expect_success();
    let refused = flagless("\"127.0.0.1:1\"");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("127.0.0.1:1"), "{}", refused.stderr);
    run_file(&broker, &file).expect_success();
}

#[test]
fn a_wrong_file_does_nothing_and_says_why() {
    let dir = new_directory();
    let run = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("written");
        run_ringmq(&["run", file.to_str().expect("a text path")], b"")
    };
    let cases = [
        (
            "a.toml",
            "[command]\nname = \"create-topic\"\ntopic = \"t\"\npartitions = -1",
            "a.toml:4: error: invalid value '-1' for '--partitions <N>'",
        ),
        ("a.toml", "[command]\nname = \"create-topic\"", "<TOPIC>"),
        ("a.toml", "[command]\nname = \"demo\"", "no command `demo` that a file can hold"),
        (
            "a.json",
            "{\"command\": {\"name\": \"consume\",\n \"topik\": \"t\"}}",
            "a.json:2: `consume` has no `topik` (the nearest is `topic` = ",
        ),
        (
            "a.toml",
            "[command]\nname = \"topic list\"\n[x]",
            "a.toml:3: unknown key `x`; at the top of the file there are brokers, timeout, command",
        ),
        ("a.toml", "timeout = \"soon\"\n[command]\nname = \"topic list\"", "a.toml:1: error: invalid value 'soon'"),
        ("a.toml", "[command]\nname = \"topic list\"\nbrokers = [\"a:1\"]", "`brokers` belongs at the top of the file"),
        ("a.json", "{\"command\": \"consume\"}", "line 1 column"),
    ];
    for (name, text, why) in cases {
        let output = run(name, text);
        assert_eq!(output.code, Some(2), "{text}: {output:?}");
        assert!(output.stderr.contains(name) && output.stderr.contains(why), "{text}: {}", output.stderr);
    }
    let missing = run_ringmq(&["run", "/no/such/file.toml"], b"");
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("/no/such/file.toml"), "{}", missing.stderr);
}
