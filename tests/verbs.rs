//! What the command line has beside topics, records and logs: the cluster, the demonstration, completions, pages, colour.

use std::process::Command;
use std::time::{Duration, Instant};

use ringmq_tests::{Broker, data_dir, new_directory, not_examined, ringmq, run_ringmq, send_signal, target_binary};

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
    let file = dir.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let unwritable = run_ringmq(&["man", "--dir", file.join("man1").to_str().expect("a text path")], b"");
    assert_eq!(unwritable.code, Some(1), "the command line was right: {unwritable:?}");
    assert!(unwritable.stderr.contains("cannot write"), "{}", unwritable.stderr);
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

#[test]
fn a_demonstration_that_is_interrupted_leaves_nothing() {
    let dir = new_directory();
    for _ in 0..4 {
        let mut demo =
            ringmq(&["demo", "--dir", dir.path().to_str().expect("a text path")]).spawn().expect("it starts");
        // Its broker has just been started, and makes files.
        let patience = Instant::now() + Duration::from_secs(60);
        let has_data =
            || std::fs::read_dir(dir.path()).expect("there").flatten().any(|e| e.path().join("data").is_dir());
        while !has_data() {
            assert!(Instant::now() < patience, "there is no broker");
            std::thread::sleep(Duration::from_millis(1));
        }
        send_signal(&demo, "TERM");
        assert_eq!(demo.wait().expect("it ends").code(), Some(130));
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}

/// What a command prints on a terminal, as script(1) makes one; standard error is the same terminal.
fn on_a_terminal(args: &str, environment: &[(&str, &str)]) -> Option<String> {
    let line = format!("{} {args}", target_binary("ringmq").display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR").env_remove("RINGMQ_BROKERS");
    let output = script.envs(environment.iter().copied()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn colour_is_for_terminals_that_may_have_it() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let list = format!("topic list --brokers {}", broker.address());
    let Some(coloured) = on_a_terminal(&list, &[]) else {
        not_examined("colour_is_for_terminals_that_may_have_it", "script(1) is not installed");
        return;
    };
    assert!(coloured.contains("\x1b[1mNAME") && coloured.contains("\x1b[0m"), "{coloured:?}");
    let error = on_a_terminal("topic list --timeout 100ms --brokers 127.0.0.1:1", &[]).expect("script(1) is there");
    assert!(error.contains("\x1b[1;31mringmq:\x1b[0m "), "{error:?}");
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = on_a_terminal(&list, &[environment]).expect("script(1) is there");
        assert!(plain.contains("NAME") && !plain.contains('\x1b'), "{environment:?}: {plain:?}");
    }
    let allowed = on_a_terminal(&list, &[("NO_COLOR", "")]).expect("script(1) is there");
    assert!(allowed.contains("\x1b[1mNAME"), "an empty NO_COLOR forbids nothing: {allowed:?}");
}

#[test]
fn long_work_shows_how_far_it_is_on_a_terminal() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let brokers = broker.address();
    let produced = on_a_terminal(&format!("produce t --message m --count 50000 --brokers {brokers}"), &[]);
    let Some(produced) = produced else {
        not_examined("long_work_shows_how_far_it_is_on_a_terminal", "script(1) is not installed");
        return;
    };
    has_bar(&produced, "/50,000 records acknowledged  ", "/s  ");
    assert!(produced.contains("50,000 records") && produced.contains("acknowledged in "), "{produced:?}");
    let dir = new_directory();
    let file = dir.path().join("records.txt");
    let consume = format!("consume t --brokers {brokers} > {}", file.display());
    let line = on_a_terminal(&consume, &[]).expect("script(1) is there");
    has_bar(&line, "/50,000 records printed  ", "/s  ");
    assert!(line.contains("50,000 records") && line.contains("printed in "), "{line:?}");
    assert_eq!(std::fs::read(&file).expect("written").len(), 100_000);
    let seen = on_a_terminal(&format!("consume t --count 2 --brokers {brokers}"), &[]).expect("script(1) is there");
    assert_eq!(seen.replace('\r', ""), "m\nm\n", "records on the terminal stand alone");
    let stopped = broker.terminate();
    let checked = on_a_terminal(&format!("log check {}", data_dir(stopped.directory.path()).display()), &[]);
    has_bar(&checked.expect("script(1) is there"), "/1 partitions checked  ", "B/s  ");
}

/// What is drawn over before the end: how much there is, the rate and the time left.
fn has_bar(drawn: &str, all: &str, rate: &str) {
    let frame =
        drawn.split(['\r', '\n']).find(|frame| frame.contains(all)).unwrap_or_else(|| panic!("no bar: {drawn:?}"));
    let behind = frame.split_once(all).map_or("", |(_, behind)| behind);
    assert!(behind.contains(rate) && behind.contains(" left"), "{frame:?}");
}
