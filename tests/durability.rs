//! What is acknowledged is on disk, and damage is told from an end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ringmq_tests::{Broker, BrokerOptions, RawConnection, batch, data_dir, not_examined, produce_head};
use ringmq_wire::ErrorCode;

/// How many flushes the device below `dir` has completed, from the kernel's block statistics; none where the file
/// system shows no device, or the device has no volatile cache, so that nothing needs to be flushed.
fn device_flushes(dir: &Path) -> Option<u64> {
    let device = std::fs::metadata(dir).expect("the directory is there").dev();
    // How the C library takes a device number apart (makedev(3)).
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let block =
        std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).expect("a block device below the data");
    // A partition's queue is that of its disk.
    let disk = [block.clone(), block.parent().expect("not the root").to_path_buf()]
        .into_iter()
        .find(|path| path.join("queue").is_dir())
        .expect("a disk with a queue");
    let cache = std::fs::read_to_string(disk.join("queue/write_cache")).expect("a disk says what cache it has");
    if cache.trim() == "write through" {
        return None;
    }
    // Documentation/block/stat.rst: the 16th field counts flush requests completed.
    let stat = std::fs::read_to_string(disk.join("stat")).expect("a disk has statistics");
    let flushes = stat.split_whitespace().nth(15).expect("Linux 5.5 and newer count flushes");
    Some(flushes.parse().expect("a number"))
}

/// The segments of topics that a process has open for writing, each with the flags that it was opened with, as open(2)
/// numbers them.
fn segments_in_use(pid: u32) -> Vec<(PathBuf, u32)> {
    const O_ACCMODE: u32 = 0o3;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the broker runs").flatten();
    let flags_of = |name: &str| {
        // proc_pid_fdinfo(5): one of its lines is `flags:` with an octal number.
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    };
    descriptors
        .filter_map(|entry| Some((std::fs::read_link(entry.path()).ok()?, flags_of(entry.file_name().to_str()?)?)))
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|(path, flags)| flags & O_ACCMODE != 0 && !path.components().any(|part| part.as_os_str() == "metadata"))
        .collect()
}

#[test]
fn segments_are_written_past_the_cache_with_a_flush_in_each_write() {
    /// As most architectures number it; O_DIRECT has another number on Arm.
    const O_DSYNC: u32 = 0o10000;
    const O_DIRECT: u32 = if cfg!(target_arch = "aarch64") { 0o200000 } else { 0o40000 };
    let broker = Broker::start();
    broker.create_topic("flushed", 3);
    for partition in ["0", "1", "2"] {
        broker.run(&["produce", "flushed", "--partition", partition, "--message", "x"], b"").expect_success();
    }
    let segments = segments_in_use(broker.pid());
    assert_eq!(segments.len(), 3, "one for each partition: {segments:?}");
    for (path, flags) in segments {
        assert_eq!(flags & (O_DSYNC | O_DIRECT), O_DSYNC | O_DIRECT, "{}: {flags:o}", path.display());
    }
}

#[test]
fn each_serial_acknowledged_produce_flushes_the_device() {
    let broker = Broker::start();
    broker.create_topic("flushed", 1);
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let record = batch(&[b"on disk"]);
    let data = broker.data_dir();
    for number in 0..50 {
        let before = device_flushes(&data);
        let answer = connection.produce(&produce_head("flushed", &[(0, &record)]), std::slice::from_ref(&record));
        let answer = answer.expect("an answer").expect("no error");
        assert_eq!(answer.topics[0].partitions[0].error, ErrorCode::None);
        match (before, device_flushes(&data)) {
            (Some(before), Some(after)) => {
                assert!(after > before, "produce {number} was acknowledged after {before} flushes, still {after}");
            }
            _ => {
                not_examined("each_serial_acknowledged_produce_flushes_the_device", "no device with a volatile cache");
                return;
            }
        }
    }
}

/// The segment files below a data directory, in no order.
fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the broker").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_damaged_partition_goes_offline_and_the_rest_serves() {
    let broker = Broker::start();
    broker.create_topic("hurt", 3);
    for partition in ["0", "1", "2"] {
        for round in 0..3 {
            let text = format!("secret {partition} {round}\n").repeat(500);
            broker.run(&["produce", "hurt", "--partition", partition, "-"], text.as_bytes()).expect_success();
        }
    }
    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);

    // One bit of the first acknowledged record of partition 1.
    let files = segment_files(&data_dir(exit.directory.path()));
    let needle = b"secret 1 0";
    let (path, mut bytes, position) = files
        .iter()
        .find_map(|path| {
            let bytes = std::fs::read(path).expect("a segment can be read");
            let position = bytes.windows(needle.len()).position(|window| window == needle)?;
            Some((path.clone(), bytes, position))
        })
        .expect("the records are in a segment, as they were sent");
    bytes[position] ^= 1;
    std::fs::write(&path, &bytes).expect("a segment can be written");
    let damaged = bytes;

    let options = BrokerOptions::default();
    let broker = Broker::start_in(exit.directory, options).expect("the broker always boots");
    for partition in ["0", "2"] {
        let read = broker.run(&["consume", "hurt", "--partition", partition], b"").expect_success();
        assert_eq!(read.stdout_text().lines().count(), 1_500);
    }
    let read = broker.run(&["consume", "hurt", "--partition", "1"], b"");
    assert!(!read.success && read.stdout.is_empty(), "damaged records are not served: {read:?}");
    // The offline partition is named, and hides none of the others.
    for from in ["earliest", "0", "@0"] {
        let read = broker.run(&["consume", "hurt", "--from", from], b"");
        assert_eq!((read.code, read.stdout_text().lines().count()), (Some(1), 3_000), "{}", read.stderr);
        assert!(!read.stdout_text().contains("secret 1"));
        assert!(read.stderr.contains("partition 1 of topic `hurt`: PARTITION_OFFLINE"), "{}", read.stderr);
    }

    for partition in ["0", "2"] {
        broker.run(&["produce", "hurt", "--partition", partition, "--message", "more"], b"").expect_success();
    }
    let produced = broker.run(&["produce", "hurt", "--partition", "1", "--message", "x", "--timeout", "3s"], b"");
    assert!(!produced.success, "nothing is appended to a damaged log");
    let described = broker.run(&["topic", "describe", "hurt"], b"").expect_success();
    assert!(described.stdout_text().contains("offline"), "{}", described.stdout_text());

    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    let file = path.file_name().expect("a file").to_str().expect("a text name");
    assert!(exit.log.contains("hurt") && exit.log.contains(file), "the report names topic and file: {}", exit.log);
    assert!(std::fs::read(path).expect("still there") == damaged, "a damaged file is evidence: nothing changes it");
}

#[test]
fn what_was_never_acknowledged_may_be_cut_and_offsets_go_on() {
    // Without a journal the records are in the segment when they are acknowledged.
    let config = Some("journal_append_bytes_max = 0\n".to_owned());
    let options = BrokerOptions { config, ..BrokerOptions::default() };
    let broker = Broker::start_with(options.clone());
    broker.create_topic("torn", 1);
    for round in 0..5 {
        let message = format!("kept {round}");
        broker.run(&["produce", "torn", "--message", &message], b"").expect_success();
    }
    let exit = broker.kill();
    // Half of a write that never completed: garbage behind the last frame.
    let path = segment_files(&data_dir(exit.directory.path()))
        .into_iter()
        .find(|path| std::fs::read(path).expect("readable").windows(6).any(|window| window == b"kept 4"))
        .expect("the topic's segment");
    let mut bytes = std::fs::read(&path).expect("readable");
    let last = bytes.windows(6).rposition(|window| window == b"kept 4").expect("the last record");
    let behind = (last / 4096 + 1) * 4096;
    if bytes.len() < behind + 4096 {
        bytes.resize(behind + 4096, 0);
    }
    bytes[behind..behind + 4096].fill(0xa5);
    std::fs::write(&path, &bytes).expect("writable");

    let broker = Broker::start_in(exit.directory, options).expect("a torn tail does not stop the broker");
    let output = broker.run(&["produce", "torn", "--message", "next"], b"").expect_success();
    assert!(output.stdout_text().contains("first_offset=5 "), "offsets go on at 5: {}", output.stdout_text());
    let read = broker.run(&["consume", "torn"], b"").expect_success();
    assert_eq!(read.stdout_text(), "kept 0\nkept 1\nkept 2\nkept 3\nkept 4\nnext\n");
}

/// Waits until every shard of that many has its journal.
fn journals_in_use(broker: &Broker, shards: usize) {
    for _ in 0..shards {
        broker.log().until("the journal is in use");
    }
}

#[test]
fn what_only_the_journals_have_comes_back_with_another_number_of_cores() {
    let mut options = BrokerOptions { cores: "0,1".into(), ..BrokerOptions::default() };
    let mut broker = Broker::start_with(options.clone());
    journals_in_use(&broker, 2);
    broker.create_topic("moved", 6);
    let mut expected = Vec::new();
    for (round, (cores, shards)) in [("0", 1), ("0,1", 2), ("1", 1)].into_iter().enumerate() {
        let sent: Vec<String> = (0..6).map(|partition| format!("{round} in {partition}")).collect();
        for (partition, message) in sent.iter().enumerate() {
            let partition = partition.to_string();
            broker.run(&["produce", "moved", "--partition", &partition, "--message", message], b"").expect_success();
        }
        let exit = broker.kill();
        let in_a_segment = |message: &String| {
            segment_files(&data_dir(exit.directory.path())).iter().any(|file| {
                let bytes = std::fs::read(file).expect("a segment can be read");
                bytes.windows(message.len()).any(|window| window == message.as_bytes())
            })
        };
        assert!(!sent.iter().any(in_a_segment), "acknowledged by the journals alone");
        expected.extend(sent);

        options.cores = cores.into();
        broker = Broker::start_in(exit.directory, options.clone()).expect("another number of cores is no obstacle");
        journals_in_use(&broker, shards);
        let read = broker.run(&["consume", "moved"], b"").expect_success();
        let mut found: Vec<String> = read.stdout_text().lines().map(str::to_owned).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
