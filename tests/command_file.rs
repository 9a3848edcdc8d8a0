//! `ringmq run FILE`, the samples in `configs/commands`, and what is made from the definitions: completions and pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

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
            "invalid value '-1' for '--partitions <N>'",
        ),
        ("a.toml", "[command]\nname = \"create-topic\"", "<TOPIC>"),
        ("a.toml", "[command]\nname = \"demo\"", "no command `demo` that a file can hold"),
        (
            "a.json",
            "{\"command\": {\"name\": \"consume\",\n \"topik\": \"t\"}}",
            "`consume` has no `topik` (the nearest is `topic`)",
        ),
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

#[test]
fn a_shell_completes_commands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run_ringmq(&["completions", shell], b"").expect_success().stdout_text();
        assert!(script.contains("key-separator"), "{shell}");
    }
    // As bash itself does it.
    let script = run_ringmq(&["completions", "bash"], b"").expect_success().stdout_text();
    let completed = |words: &str, at: usize| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _ringmq ringmq \"${{COMP_WORDS[COMP_CWORD]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &ask]).output().expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(completed("ringmq cons", 1), "consume");
    assert_eq!(completed("ringmq topic tr", 2), "trim");
    assert_eq!(completed("ringmq consume --fo", 2), "--follow --format");
}

#[test]
fn every_command_has_a_page() {
    let dir = new_directory();
    let pages = dir.path().join("man1");
    run_ringmq(&["man", "--dir", pages.to_str().expect("a text path")], b"").expect_success();
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("ringmq.1").contains(".TH ringmq 1"));
    assert!(page("ringmq-topic-create.1").contains("retention_ms"));
    let consume = page("ringmq-consume.1");
    assert!(consume.contains("\\-\\-resume") && consume.contains("Exit codes"), "{consume}");
    assert!(!pages.join("ringmq-create-topic.1").exists(), "hidden names have none");
    assert_eq!(run_ringmq(&["man", "consume"], b"").expect_success().stdout_text(), consume);
    assert_eq!(
        run_ringmq(&["man", "topic", "create"], b"").expect_success().stdout_text(),
        page("ringmq-topic-create.1")
    );
    let unknown = run_ringmq(&["man", "topic", "burn"], b"");
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("no command `topic burn`"), "{}", unknown.stderr);
}

#[test]
fn the_cluster_is_described_with_what_each_shard_owns() {
    let broker = Broker::start();
    broker.create_topic("a", 3);
    broker.create_topic("b", 2);
    let text = broker.run(&["cluster", "describe"], b"").expect_success().stdout_text();
    assert!(text.contains(&format!("controller leader: broker 0 at {}", broker.address())), "{text}");

    let json = broker.run(&["cluster", "describe", "--output", "json"], b"").expect_success();
    let cluster: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(cluster["controller"]["address"], broker.address().to_string());
    let shards = cluster["brokers"][0]["shards"].as_array().expect("shards");
    let mut owned: Vec<(String, u64)> = Vec::new();
    for shard in shards {
        let topics = shard["topics"].as_array().expect("topics");
        let here = topics.iter().flat_map(|topic| {
            let numbers = topic["partitions"].as_array().expect("partitions").iter();
            let name = topic["topic"].as_str().expect("a name");
            numbers.map(move |number| (name.to_owned(), number.as_u64().expect("a number")))
        });
        let here: Vec<_> = here.collect();
        assert_eq!(shard["partitions"].as_u64(), Some(here.len() as u64), "{cluster}");
        owned.extend(here);
    }
    owned.sort();
    let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)];
    assert_eq!(owned, expected.map(|(topic, partition)| (topic.to_owned(), partition)), "each once");
}

#[test]
fn the_demonstration_brings_every_byte_back_and_leaves_nothing() {
    let dir = new_directory();
    let text: Vec<u8> = (0..5000_u32).flat_map(|n| format!("line {n}\r\n\n\u{e9}").into_bytes()).collect();
    let file = dir.path().join("a file.txt");
    std::fs::write(&file, &text).expect("written");
    let place = dir.path().to_str().expect("a text path");
    for arguments in [vec!["demo", "--dir", place], vec!["demo", file.to_str().expect("text"), "--dir", place]] {
        let told = run_ringmq(&arguments, b"").expect_success().stdout_text();
        for part in ["kill -9", "the offsets are what they were", "byte for byte", ".log", "directory is removed"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains('\x1b'), "no colour in a pipe: {told}");
    }
    let left = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(left, 1, "the file alone");

    let nowhere = run_ringmq(&["demo", "--dir", "/no/such/directory"], b"");
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("/no/such/directory"), "{}", nowhere.stderr);
}
