use super::{CpuId, ExecutorConfig, cpus_allowed, spawn_executor, thread_cpus_allowed};
use crate::testing::{run, scratch};
use crate::{buffer, file, task};

#[test]
fn runs_its_future_and_returns_what_it_returns() {
    assert_eq!(run(|| async { 42 }), 42);
}

#[test]
fn is_pinned_where_asked_and_nowhere_else() {
    let allowed = cpus_allowed().expect("the kernel says");
    for cpu in &allowed {
        let config = ExecutorConfig { cpu: Some(*cpu), ..ExecutorConfig::default() };
        let of_thread = spawn_executor(config, || async { thread_cpus_allowed() });
        let of_thread = of_thread.expect("an executor starts").join().expect("an executor ends");
        assert_eq!(of_thread.expect("the kernel says"), [*cpu]);
    }
    let unpinned = run(|| async { thread_cpus_allowed() }).expect("the kernel says");
    assert_eq!(unpinned, allowed);
    let within_pinned =
        spawn_executor(ExecutorConfig { cpu: Some(allowed[0]), ..Default::default() }, || async { cpus_allowed() });
    let within_pinned = within_pinned.expect("an executor starts").join().expect("an executor ends");
    assert_eq!(within_pinned.expect("the kernel says"), allowed, "the process's processors, not the thread's");
}

#[test]
fn refuses_a_processor_that_is_not_there() {
    let config = ExecutorConfig { cpu: Some(CpuId::new(100_000)), ..ExecutorConfig::default() };
    let error = spawn_executor(config, || async {}).expect_err("no machine has that many");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("processor 100000"), "{error}");
}

#[test]
fn a_panic_is_an_error_to_the_one_who_joins() {
    let handle =
        spawn_executor::<(), _>(ExecutorConfig::default(), || async { panic!("on purpose") }).expect("it starts");
    let error = handle.join().expect_err("it panicked");
    assert!(error.to_string().contains("panic"), "{error}");
}

#[test]
fn waits_for_writes_that_nobody_waits_for_any_more() {
    let dir = scratch();
    let path = dir.path().join("written");
    run({
        let path = path.clone();
        move || async move {
            let options = file::OpenOptions { create_new: true, ..Default::default() };
            let file = file::File::open(&path, options).await.expect("created");
            let mut buf = buffer::AlignedBuf::zeroed(1 << 20);
            buf.fill(7);
            let buf = buf.freeze();
            let write = file.write_at(&buf, 0, file::IoClass::Append);
            // Polled once, so that it is submitted, and dropped.
            assert!(futures_lite::future::poll_once(write).await.is_none());
        }
    });
    let written = std::fs::read(path).expect("readable");
    assert_eq!(written, vec![7; 1 << 20]);
}

#[test]
fn ends_with_tasks_left_behind() {
    run(|| async {
        task::spawn("for ever", std::future::pending());
        task::spawn_background("for ever", std::future::pending());
        let listener = crate::net::TcpListener::bind("127.0.0.1:0".parse().expect("an address"), Default::default());
        let listener = listener.expect("a free port");
        task::spawn("accepts", async move {
            assert!(listener.accept().await.is_err(), "told that the executor ends");
        });
        task::yield_now().await;
    });
}

#[test]
fn the_limit_of_open_files_is_raised_to_its_bound() {
    let raised = super::raise_open_files().expect("no privilege is needed");
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the kernel says");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line for it");
    let [soft, hard] = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!((soft, hard), (hard, raised.to_string().as_str()), "{line}");
}
