use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[cfg(feature = "sim")]
use crate::sim::{Sim, SimConfig};
#[cfg(feature = "sim")]
use crate::time;

use super::{DeviceBudget, DeviceBudgetConfig, Enter, InFlight, IoClass, PASSED_OVER_MAX};

const CONFIG: DeviceBudgetConfig = DeviceBudgetConfig {
    journal_bytes_max: 10,
    append_bytes_max: 10,
    tail_read_bytes_max: 10,
    background_bytes_max: 10,
};

fn poll(enter: &mut Pin<Box<Enter>>) -> Poll<InFlight> {
    enter.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Requests that were asked for; each goes when polled and granted.
struct Waiting(Vec<(IoClass, Pin<Box<Enter>>)>);

impl Waiting {
    fn ask(budget: &DeviceBudget, classes: &[IoClass], bytes: usize) -> Waiting {
        let mut waiting: Vec<_> = classes.iter().map(|class| (*class, Box::pin(budget.enter(*class, bytes)))).collect();
        for (_, enter) in &mut waiting {
            assert!(poll(enter).is_pending());
        }
        Waiting(waiting)
    }

    /// Ends one request after the other and returns the order in which they went.
    fn finish_all(mut self, held: InFlight) -> Vec<IoClass> {
        let mut order = Vec::new();
        let mut in_flight = Some(held);
        while !self.0.is_empty() {
            drop(in_flight.take());
            let next = self.0.iter_mut().enumerate().find_map(|(index, (_, enter))| match poll(enter) {
                Poll::Ready(granted) => Some((index, granted)),
                Poll::Pending => None,
            });
            let (index, granted) = next.expect("one goes when another ends");
            order.push(self.0.remove(index).0);
            in_flight = Some(granted);
        }
        order
    }
}

fn hold(budget: &DeviceBudget, class: IoClass, bytes: usize) -> InFlight {
    match poll(&mut Box::pin(budget.enter(class, bytes))) {
        Poll::Ready(in_flight) => in_flight,
        Poll::Pending => panic!("{class:?} has to wait"),
    }
}

#[test]
fn the_foreground_never_waits_for_the_background_nor_for_one_another() {
    let budget = DeviceBudget::new(CONFIG);
    let _background = hold(&budget, IoClass::Compaction, 10);
    let _waiting = Waiting::ask(&budget, &[IoClass::Checkpoint, IoClass::ColdRead, IoClass::Compaction], 10);
    for class in [IoClass::Journal, IoClass::Append, IoClass::TailRead] {
        let held = hold(&budget, class, 10);
        let waits = Waiting::ask(&budget, &[class], 1);
        assert_eq!(waits.finish_all(held), [class], "each has a bound of its own");
    }
}

#[test]
fn the_background_goes_by_class_and_then_by_age() {
    use IoClass::{Checkpoint, ColdRead, Compaction};
    let budget = DeviceBudget::new(CONFIG);
    let held = hold(&budget, Compaction, 10);
    let asked = [Compaction, ColdRead, Checkpoint, Compaction, Checkpoint, ColdRead];
    let waiting = Waiting::ask(&budget, &asked, 10);
    assert_eq!(waiting.finish_all(held), [Checkpoint, Checkpoint, ColdRead, ColdRead, Compaction, Compaction]);
}

#[test]
fn nobody_is_passed_over_for_ever() {
    use IoClass::{Checkpoint, ColdRead, Compaction};
    let budget = DeviceBudget::new(CONFIG);
    let held = hold(&budget, Checkpoint, 10);
    let mut asked = vec![Compaction, ColdRead];
    asked.extend([Checkpoint; 20]);
    let order = Waiting::ask(&budget, &asked, 10).finish_all(held);
    let place = |class| order.iter().position(|other| *other == class).expect("everyone went");
    let limit = PASSED_OVER_MAX as usize;
    assert_eq!((place(ColdRead), place(Compaction)), (limit, limit + 1));
}

#[test]
fn bytes_are_counted_and_more_than_the_bound_goes_alone() {
    let budget = DeviceBudget::new(CONFIG);
    let six = hold(&budget, IoClass::ColdRead, 6);
    let four = hold(&budget, IoClass::Checkpoint, 4);
    let mut oversized = Box::pin(budget.enter(IoClass::Checkpoint, 25));
    let mut small = Box::pin(budget.enter(IoClass::Checkpoint, 1));
    assert!(poll(&mut oversized).is_pending());
    assert!(poll(&mut small).is_pending());
    drop(six);
    assert!(poll(&mut oversized).is_pending());
    assert!(poll(&mut small).is_pending(), "within a class nobody overtakes");
    drop(four);
    let alone = poll(&mut oversized);
    assert!(alone.is_ready());
    assert!(poll(&mut small).is_pending());
    drop(alone);
    assert!(poll(&mut small).is_ready());
}

#[test]
fn a_dropped_request_leaves_the_queue_and_gives_back_what_it_got() {
    let budget = DeviceBudget::new(CONFIG);
    let held = hold(&budget, IoClass::ColdRead, 10);
    let mut granted_unseen = Box::pin(budget.enter(IoClass::ColdRead, 10));
    let mut abandoned = Box::pin(budget.enter(IoClass::ColdRead, 10));
    let mut last = Box::pin(budget.enter(IoClass::ColdRead, 10));
    for enter in [&mut granted_unseen, &mut abandoned, &mut last] {
        assert!(poll(enter).is_pending());
    }
    drop(abandoned);
    drop(held);
    drop(granted_unseen);
    let last = poll(&mut last);
    assert!(last.is_ready());
    drop(last);
    assert_eq!(format!("{budget:?}"), "[(0, 10), (0, 10), (0, 10), (0, 10)]");
}

#[cfg(feature = "sim")]
#[test]
fn the_rest_is_as_long_as_the_request_or_twice_that_and_never_longer_than_the_most() {
    for (class, factor) in [(IoClass::ColdRead, 1), (IoClass::Compaction, 2)] {
        for (took_ms, rest_ms) in [(20, 20 * factor), (400, 400 * factor), (3_000, 1_000)] {
            let sim = Sim::new(SimConfig::default());
            let rest = sim.run(move || async move {
                let budget = DeviceBudget::new(CONFIG);
                let _foreground = hold(&budget, IoClass::Append, 1);
                let request = hold(&budget, class, 1);
                time::sleep(Duration::from_millis(took_ms)).await;
                drop(request);
                budget.rest(class)
            });
            let slept_longer = Duration::from_millis(2);
            let wanted = Duration::from_millis(rest_ms);
            assert!(
                rest >= wanted.saturating_sub(slept_longer) && rest <= wanted + slept_longer * 2,
                "{class:?} {rest:?}"
            );
        }
    }
}

/// Whether a class leaves the device alone after a request that went while `others` were there, or right after them.
fn rests_after(class: IoClass, others: &[IoClass], stay: bool) -> bool {
    let budget = DeviceBudget::new(CONFIG);
    let mut there: Vec<_> = others.iter().map(|class| hold(&budget, *class, 1)).collect();
    if !stay {
        there.clear();
    }
    drop((hold(&budget, class, 1), there));
    budget.yielding.rests_until[class as usize].get().is_some()
}

#[test]
fn readers_of_a_backlog_and_compaction_rest_where_someone_waits_for_the_device() {
    for (class, stay) in
        [IoClass::ColdRead, IoClass::Compaction].into_iter().flat_map(|class| [(class, false), (class, true)])
    {
        for other in [IoClass::Journal, IoClass::Append, IoClass::TailRead] {
            assert!(rests_after(class, &[other], stay), "{class:?} beside {other:?}");
        }
        assert!(!rests_after(class, &[], stay) && !rests_after(class, &[IoClass::Checkpoint], stay), "{class:?}");
    }
    for class in [IoClass::Journal, IoClass::Append, IoClass::TailRead, IoClass::Checkpoint, IoClass::Recovery] {
        assert!(!rests_after(class, &[IoClass::Append], true), "{class:?} rests for nobody");
    }
}

#[test]
fn a_request_that_is_given_back_never_was_at_the_device() {
    let budget = DeviceBudget::new(CONFIG);
    let foreground = hold(&budget, IoClass::Append, 1);
    hold(&budget, IoClass::ColdRead, 10).give_back();
    assert!(budget.yielding.rests_until[IoClass::ColdRead as usize].get().is_none());
    assert_eq!(budget.stats().classes[IoClass::ColdRead as usize].requests, 0);
    drop((hold(&budget, IoClass::Checkpoint, 10), foreground));
}

#[test]
fn the_rest_after_the_longest_of_several_requests_counts() {
    let budget = DeviceBudget::new(CONFIG);
    let _foreground = hold(&budget, IoClass::Append, 1);
    let long = hold(&budget, IoClass::ColdRead, 1);
    while long.started.elapsed() < Duration::from_millis(50) {}
    let short = hold(&budget, IoClass::ColdRead, 1);
    drop(long);
    let rest = budget.yielding.rests_until[IoClass::ColdRead as usize].get();
    drop(short);
    assert!(rest.is_some() && budget.yielding.rests_until[IoClass::ColdRead as usize].get() >= rest);
}

#[test]
fn who_had_the_turn_and_rested_goes_next() {
    use IoClass::{Checkpoint, ColdRead};
    let budget = DeviceBudget::new(CONFIG);
    let held = hold(&budget, Checkpoint, 10);
    let mut waiting = Waiting::ask(&budget, &[Checkpoint, ColdRead, Checkpoint], 6);
    // Larger than the bound: it goes alone, and would wait for as long as others come.
    let mut again = Box::pin(budget.enter_again(ColdRead, 25));
    assert!(poll(&mut again).is_pending());
    waiting.0.push((ColdRead, again));
    assert_eq!(waiting.finish_all(held), [ColdRead, Checkpoint, Checkpoint, ColdRead]);
}
