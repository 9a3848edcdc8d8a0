//! Every command of the README runs as it stands there.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringmq_tests::{Broker, target_binary};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root").to_path_buf()
}

/// The lines of every `sh` block.
fn commands(readme: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.is_empty() => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

/// The same command on what this test run has built, instead of on a release build.
fn on_this_build(command: &str) -> String {
    let ringmq = target_binary("ringmq");
    let profile = ringmq.parent().expect("a profile directory").display().to_string();
    command
        .replace("cargo run --example ", &format!("{profile}/examples/"))
        .replace("target/release/ringmq", &ringmq.display().to_string())
}

#[test]
fn every_command_of_the_readme_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README is there");
    // These two are run by scripts/check-start, and by whoever runs this test.
    let elsewhere = ["scripts/start", "scripts/test"];
    let commands: Vec<String> =
        commands(&readme).into_iter().filter(|command| !elsewhere.contains(&command.as_str())).collect();
    assert!(commands.len() >= 8, "the README lost its commands: {commands:?}");

    let broker = Broker::start();
    for command in commands {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &on_this_build(&command)])
            .env("RINGMQ_BROKERS", broker.address().to_string())
            .current_dir(root())
            .output()
            .expect("bash runs");
        assert!(
            output.status.success(),
            "`{command}` ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if command.contains("consume hello") {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.matches("hello, ring\n").count(), 3, "{text}");
            assert!(text.contains("one line, one record\n"), "{text}");
        }
    }
}
