//! Tells a binary the commit that it is built from: `ringmq`, and `ringmq-bench`, which is built with this script too.
//!
//! `RINGMQ_COMMIT` in the environment wins; then git is asked; a build outside of a clone says `unknown`.
#![forbid(unsafe_code)]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RINGMQ_COMMIT");
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = std::env::var("RINGMQ_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    let commit = commit.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=RINGMQ_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// One line of what git answers; nothing when there is no git or no clone.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
