//! `serve --check`, and how a wrong configuration is told.

#![allow(clippy::disallowed_methods, reason = "a test, on no executor")]

use std::path::PathBuf;
use std::process::{Command, Output};

use ringmq::config::values::{Automatic, Cores, LogLevel};
use ringmq::config::{Config, file};
use tempfile::TempDir;

fn serve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq")).arg("serve").args(args).output().expect("ringmq runs")
}

fn config_file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ringmq.toml");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

fn printed(output: &Output) -> Config {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file::parse(&text, "printed").expect("what --check prints is a valid file")
}

#[test]
fn check_prints_what_would_be_in_force() {
    let config = printed(&serve(&["--check"]));
    let Cores::List(cores) = &config.cores else { panic!("\"all\" is told as a list: {config:?}") };
    assert!(!cores.is_empty());
    let Automatic::Fixed(bytes) = config.tail_cache_bytes else { panic!("\"auto\" is told as a number: {config:?}") };
    assert!(bytes >= 1 << 20);
    let (cores, tail_cache_bytes) = (config.cores.clone(), config.tail_cache_bytes);
    assert_eq!(config, Config { cores, tail_cache_bytes, ..Config::default() });
}

#[test]
fn flags_go_over_the_file() {
    let text = "listen = \"127.0.0.1:1\"\ndata_dir = \"/one\"\nlog_level = \"warn\"\nrequest_bytes_max = 17000000\n";
    let (_dir, path) = config_file(text);
    let path = path.to_str().expect("a text path");
    let config = printed(&serve(&["--config", path, "--listen", "[::1]:2", "--log-level", "debug", "--check"]));
    assert_eq!(config.listen.to_string(), "[::1]:2");
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.data_dir.to_str(), Some("/one"));
    assert_eq!(config.request_bytes_max, 17_000_000);
    assert!(!std::path::Path::new("/one").exists(), "a check makes nothing");
}

#[test]
fn the_reference_file_passes_the_check() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/broker.toml");
    printed(&serve(&["--config", reference, "--check"]));
}

#[test]
fn mistakes_are_named_with_file_and_line_and_exit_code_2() {
    let cases = [
        ("\nrequest_byte_max = 5\n", ":2: unknown key request_byte_max; the nearest valid key is request_bytes_max"),
        ("writes_in_flight_max = 100\n", ":1: writes_in_flight_max = 100 is out of range; valid: 1 to 64"),
        ("listen = \"nowhere\"\n", ":1: listen = \"nowhere\": "),
    ];
    for (text, expected) in cases {
        let (_dir, path) = config_file(text);
        let path = path.to_str().expect("a text path");
        for flags in [&["--config", path, "--check"][..], &["--config", path]] {
            let output = serve(flags);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains(&format!("{path}{expected}")), "{stderr}");
        }
    }
    let output = serve(&["--config", "/no/such/file.toml", "--check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.toml"));
}

#[test]
fn cores_that_the_process_may_not_use_are_refused() {
    let output = serve(&["--cores", "4000", "--check"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("CPU 4000") && stderr.contains("it may use"), "{stderr}");
}
