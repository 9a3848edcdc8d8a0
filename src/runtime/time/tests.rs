use std::future::pending;
use std::time::Duration;

use super::{Elapsed, Instant, sleep, timeout, wall_clock};
use crate::testing::run;

#[test]
fn sleep_waits_no_less() {
    run(|| async {
        for duration in [Duration::ZERO, Duration::from_micros(50), Duration::from_millis(3)] {
            let start = Instant::now();
            sleep(duration).await;
            assert!(start.elapsed() >= duration);
        }
        // Longer than any clock goes; the timer must be made and dropped without harm.
        assert_eq!(timeout(Duration::from_millis(1), sleep(Duration::MAX)).await.map_err(drop), Err(()));
    });
}

#[test]
fn timeout_returns_what_comes_first() {
    run(|| async {
        assert_eq!(timeout(Duration::from_secs(60), async { 1 }).await, Ok(1));
        let short = Duration::from_millis(1);
        assert_eq!(timeout(short, pending::<()>()).await, Err(Elapsed(short)));
    });
}

#[test]
fn instants_of_different_threads_compare() {
    let before = Instant::now();
    let within = run(|| async { Instant::now() });
    assert!(before <= within && within <= Instant::now());
    assert_eq!(before.saturating_duration_since(before + Duration::from_secs(1)), Duration::ZERO);
    assert!(before + Duration::MAX > within);
}

#[test]
fn wall_clock_is_in_milliseconds_since_the_epoch() {
    const SEPTEMBER_2020: i64 = 1_600_000_000_000;
    const YEAR_2200: i64 = 7_258_118_400_000;
    assert!((SEPTEMBER_2020..YEAR_2200).contains(&wall_clock()));
}
