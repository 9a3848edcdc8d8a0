//! Every command of the README runs as it stands there, its program too, and the commands of CONTRIBUTING name what is
//! there.

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
        .replace("cargo run --release -p ringmq-bench -- ", &format!("{profile}/ringmq-bench "))
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
        let printed = run_in_root(&command, &broker.address().to_string());
        if command.contains("consume hello") {
            assert_eq!(printed.matches("hello, ring\n").count(), 3, "{printed}");
            assert!(printed.contains("one line, one record\n"), "{printed}");
        }
        if command.ends_with("--example hello") {
            // As often as one likes.
            for printed in [printed, run_in_root(&command, &broker.address().to_string())] {
                assert!(printed.contains("stored in partition"), "{printed}");
                assert!(printed.contains("read Some(b\"hello from Rust\") at offset"), "{printed}");
            }
        }
    }
}

#[test]
fn the_program_of_the_readme_is_the_example_that_is_built_and_run() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README is there");
    let program = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    let example = std::fs::read_to_string(root().join("examples/hello.rs")).expect("the example is there");
    // Above it stand the lines on lints that every program of the workspace has.
    let (_, example) = example.split_once("\n\n").expect("a head and a program");
    assert_eq!(program, example);
}

/// Runs a command on this build in the root of the clone; gives what it prints.
fn run_in_root(command: &str, brokers: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &on_this_build(command)])
        .env("RINGMQ_BROKERS", brokers)
        .current_dir(root())
        .output()
        .expect("bash runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{command}` ended with {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// The commands in the table of CONTRIBUTING. Most build half of the workspace, so all but one are not run: it is looked
/// whether the packages, tests, scripts and fuzz targets that they name are there.
#[test]
fn the_commands_of_contributing_name_what_is_there() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("CONTRIBUTING is there");
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let commands: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(commands.len() >= 5, "CONTRIBUTING lost its commands: {commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        for pair in words.windows(2) {
            match pair {
                ["-p", package] => assert!(packages().contains(&(*package).to_owned()), "`{command}`: {package}"),
                ["--test", test] => {
                    let source = test_source(test);
                    let named = words.iter().skip_while(|word| *word != test).skip(1);
                    for filter in named.filter(|word| word.starts_with(|first: char| first.is_ascii_alphabetic())) {
                        let is_there = source.lines().any(|line| line.starts_with("fn ") && line.contains(filter));
                        assert!(is_there, "`{command}`: no test of that name");
                    }
                }
                _ => {}
            }
        }
        if words[0].starts_with("scripts/") {
            assert!(root().join(words[0]).is_file(), "`{command}`");
        }
        if words[0] == "scripts/fuzz" {
            assert!(root().join(format!("fuzz/targets/{}.rs", words[2])).is_file(), "`{command}`");
        }
        if words.contains(&"--help") {
            assert!(run_in_root(command, "").contains("Usage:"), "`{command}`");
        }
    }
}

/// The text of a test target: one file, or a folder of them.
fn test_source(target: &str) -> String {
    let file = root().join(format!("tests/{target}.rs"));
    let folder = root().join(format!("tests/{target}"));
    let files = match std::fs::read_dir(&folder) {
        Ok(entries) if !file.exists() => {
            entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
        }
        _ => vec![file],
    };
    files.iter().map(|file| std::fs::read_to_string(file).expect("the source of a test target")).collect()
}

/// The names of the workspace's packages.
fn packages() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let (_, members) = manifest.split_once("members = [").expect("members");
    let members = members.split(']').next().expect("an end").split('"').skip(1).step_by(2);
    let name = |member: &str| {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a member's manifest");
        manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a name").trim_matches('"').to_owned()
    };
    members.map(name).collect()
}
