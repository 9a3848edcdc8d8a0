use std::time::Duration;

use clap::Parser;

use ringmq_runtime::executor;

use super::cores::SPIN_BEFORE_PARK;
use super::{Arguments, Flush, Limits, Load, disk, loopback, measure, paced, pipe};

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

/// Figures of a slow machine.
pub(crate) fn limits() -> Limits {
    Limits {
        disk_write_bytes_per_second: 9e6,
        disk_read_bytes_per_second: 1e7,
        dsync_4k_us_p50: 200.0,
        loopback_bytes_per_second: 2e7,
        rtt_us_p50: 30.0,
        pipe_bytes_per_second: 8e6,
        pipe_dsync_bytes_per_second: 8e6,
        pipe_fdatasync_bytes_per_second: 7e6,
        cores: 2,
        paced_10k_us: None,
        paced_100k_us: None,
    }
}

#[test]
fn arguments_have_defaults_and_bounds() {
    let parse = |words: &[&str]| CommandLine::try_parse_from([&["limits"], words].concat()).map(|line| line.arguments);
    let defaults = parse(&[]).expect("everything has a default");
    assert_eq!((defaults.dir.to_str(), defaults.gib, defaults.json), (Some("."), 4, false));
    assert!(parse(&["--gib", "0"]).is_err());
    assert!(parse(&["--gib", "1025"]).is_err());
    assert!(parse(&["--json", "--dir", "/data"]).expect("both are known").json);
}

#[test]
fn the_yardstick_looks_for_work_as_long_as_the_broker() {
    let defaults = include_str!("../../configs/broker.toml");
    let line = format!("spin_before_park_us = {}\n", SPIN_BEFORE_PARK.as_micros());
    assert!(defaults.contains(&line), "{line}");
}

#[test]
fn a_missing_directory_is_a_clear_error() {
    let arguments = Arguments { dir: "/nowhere/at/all".into(), gib: 1, paced: false, json: true };
    let error = measure(&arguments).expect_err("it is not there");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

/// Every measurement runs, moves its bytes and cleans up; what the figures are is not this test's business.
#[test]
fn every_measurement_has_a_figure_and_leaves_nothing_behind() {
    const BYTES: u64 = 32 << 20;
    let program = std::env::current_exe().expect("a program has a path");
    let dir = tempfile::tempdir_in(program.parent().expect("in a directory")).expect("a directory can be made");
    let cores = executor::cpus_allowed().expect("the kernel says");
    let disk = disk::throughput(cores[0], dir.path(), BYTES).expect("measured");
    let load = Load { batch_bytes: 10_000, interval: Duration::from_millis(1), batches: 200 };
    let paced = paced::latency(cores[0], dir.path(), load).expect("measured");
    let figures = [
        paced.p50,
        paced.max,
        disk.write_bytes_per_second,
        disk.read_bytes_per_second,
        loopback::throughput(&cores, BYTES).expect("measured"),
        pipe::throughput(&cores, dir.path(), BYTES, Flush::EachWrite).expect("measured"),
        pipe::throughput(&cores, dir.path(), BYTES, Flush::Together).expect("measured"),
    ];
    assert!(figures.iter().all(|figure| figure.is_finite() && *figure > 0.0), "{figures:?}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}
