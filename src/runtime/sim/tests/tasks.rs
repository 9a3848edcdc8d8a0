//! Tasks, clock, timers and random numbers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::local::{Event, oneshot};
use crate::task::{self, Gate, spawn, spawn_background, yield_now};
use crate::time::{Instant, sleep, timeout, wall_clock};

/// The message of the panic that `run` ends with.
fn panic_of(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it should panic");
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| payload.downcast_ref::<&str>().unwrap().to_string())
}

#[test]
fn the_clock_jumps_to_the_next_timer() {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        let (start, wall) = (Instant::now(), wall_clock());
        let woken = Rc::new(RefCell::new(Vec::new()));
        let gate = Gate::new();
        for hours in [3, 1, 2] {
            let woken = woken.clone();
            let sleeper = async move {
                sleep(Duration::from_secs(hours * 3600)).await;
                woken.borrow_mut().push((hours, start.elapsed().as_secs() / 3600));
            };
            gate.spawn("sleeper", sleeper).unwrap();
        }
        gate.close().await;
        assert_eq!(*woken.borrow(), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!((wall_clock() - wall) / 3_600_000, 3);
    });
    // As far as the last timer, and not beyond: what the polls between took is far below a second.
    let last = Duration::from_secs(3 * 3600);
    assert!((last..last + Duration::from_secs(1)).contains(&sim.now()), "{:?}", sim.now());
}

#[test]
fn the_wall_clock_can_be_set_and_the_monotonic_one_cannot() {
    let sim = Sim::new(SimConfig { wall_clock_ms: 1_000_000, ..SimConfig::default() });
    let read = || async { (Instant::now(), wall_clock()) };
    let (before, wall) = sim.run(read);
    assert_eq!(wall, 1_000_000);
    sim.step_wall_clock(-400_000);
    let (after, wall) = sim.run(read);
    assert_eq!(wall, 600_000);
    assert!(after >= before);
}

#[test]
fn ready_tasks_run_in_the_order_of_the_seed() {
    let order = |seed| {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let order = Rc::new(RefCell::new(Vec::new()));
        sim.run(|| async {
            let gate = Gate::new();
            for number in 0..3 {
                let order = order.clone();
                gate.spawn("numbered", async move { order.borrow_mut().push(number) }).unwrap();
            }
            gate.close().await;
        });
        order.take()
    };
    let orders: BTreeSet<Vec<i32>> = SEEDS.map(order).collect();
    assert_eq!(orders.len(), 6, "every order of three occurs: {orders:?}");
}

#[test]
fn a_deadlock_names_those_who_wait() {
    let message = panic_of(|| {
        Sim::new(SimConfig::with_seed(99)).run(|| async {
            let (_sender, receiver) = oneshot::<()>();
            let never = Event::new();
            spawn("flusher", async move { never.listen().await });
            let _ = receiver.await;
        });
    });
    assert!(message.starts_with("deadlock"), "{message}");
    for part in ["seed 99", "main (task 1)", "flusher (task 2)", "Polled"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
}

#[test]
fn a_livelock_ends() {
    let message = panic_of(|| {
        let config = SimConfig { polls_max: 1000, ..SimConfig::default() };
        Sim::new(config).run(|| async {
            loop {
                yield_now().await;
            }
        });
    });
    assert!(message.starts_with("livelock"), "{message}");
}

#[test]
fn a_spinning_task_keeps_neither_timers_nor_requests_waiting() {
    Sim::new(SimConfig::default()).run(|| async {
        let done = Rc::new(Cell::new(0));
        let count = || {
            let done = done.clone();
            move || done.set(done.get() + 1)
        };
        let (slept, opened) = (count(), count());
        spawn("sleeper", async move {
            sleep(Duration::from_millis(1)).await;
            slept();
        });
        spawn("opener", async move {
            File::open("/a", CREATE).await.unwrap();
            opened();
        });
        while done.get() < 2 {
            yield_now().await;
        }
    });
}

#[test]
fn tasks_stand_still_between_runs_and_are_dropped_by_a_crash() {
    struct OnDrop(Rc<Cell<bool>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            // Whatever a drop does on its way out finds the simulation alive, the clock too: both panic without one.
            spawn("spawned while dropping", async { panic!("never polled") });
            let _ = Instant::now();
            self.0.set(true);
        }
    }
    let sim = Sim::new(SimConfig::default());
    let (steps, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (task_steps, guard) = (steps.clone(), OnDrop(dropped.clone()));
    sim.run(|| async {
        spawn_background("ticker", async move {
            let _guard = guard;
            loop {
                sleep(Duration::from_secs(10)).await;
                task_steps.set(task_steps.get() + 1);
            }
        });
        sleep(Duration::from_secs(35)).await;
    });
    assert_eq!(steps.get(), 3);
    sim.run(|| sleep(Duration::from_secs(20)));
    assert_eq!(steps.get(), 5);
    sim.crash();
    assert!(dropped.get());
    sim.run(|| sleep(Duration::from_secs(100)));
    assert_eq!(steps.get(), 5);
}

#[test]
fn dropping_the_simulation_drops_its_tasks() {
    let alive = Rc::new(());
    let held = alive.clone();
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        spawn("holder", async move {
            sleep(Duration::from_secs(1)).await;
            drop(held);
        });
        yield_now().await;
    });
    assert_eq!(Rc::strong_count(&alive), 2);
    drop(sim);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn a_waker_may_outlive_its_task_and_be_used_during_a_poll() {
    let sim = Sim::new(SimConfig::default());
    let kept = sim.run(|| async {
        let (sender, receiver) = oneshot();
        spawn("short", async move {
            let mut polls = 0;
            let waker = poll_fn(|cx| {
                polls += 1;
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
                if polls < 3 { Poll::Pending } else { Poll::Ready(cx.waker().clone()) }
            });
            let _ = sender.send(waker.await);
        });
        let waker = receiver.await.unwrap();
        waker.wake_by_ref();
        yield_now().await;
        waker
    });
    sim.crash();
    kept.wake_by_ref();
    sim.run(|| async { yield_now().await });
    drop(sim);
    kept.wake();
}

#[test]
fn a_timeout_gives_up_or_takes_its_timer_back() {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        assert!(timeout(Duration::from_secs(1), sleep(Duration::from_secs(2))).await.is_err());
        assert!(timeout(Duration::from_secs(3600), sleep(Duration::from_secs(2))).await.is_ok());
    });
    assert!(sim.now() < Duration::from_secs(10));
    // Had the timer of an hour stayed, the clock would jump to it here instead of seeing the deadlock.
    let message = panic_of(|| sim.run(std::future::pending));
    assert!(message.starts_with("deadlock"), "{message}");
    assert!(sim.now() < Duration::from_secs(10));
}

#[test]
fn a_stop_signal_reaches_its_task() {
    Sim::new(SimConfig::default()).run(|| async {
        let (handle, stop) = task::stop();
        let gate = Gate::new();
        gate.spawn("worker", async move { assert!(stop.or_stop(std::future::pending::<()>()).await.is_none()) })
            .unwrap();
        sleep(Duration::from_secs(1)).await;
        handle.stop();
        gate.close().await;
    });
}

#[test]
fn the_power_does_not_go_from_within() {
    let sim = Sim::new(SimConfig::default());
    let message = panic_of(|| sim.run(|| async { _ = sim.crash() }));
    assert!(message.contains("runs an executor already"), "{message}");
}

#[test]
fn random_numbers_and_map_orders_replay() {
    let draw = |seed| {
        Sim::new(SimConfig::with_seed(seed)).run(|| async {
            let mut map = crate::random::Map::default();
            map.extend((0..100).map(|key| (key, ())));
            (crate::random::u64(), map.keys().copied().collect::<Vec<i32>>())
        })
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1).0, draw(2).0);
    assert_ne!(draw(1).1, draw(2).1);
}

#[test]
fn channels_work_between_tasks() {
    Sim::new(SimConfig::default()).run(|| async {
        let (sender, mut receiver) = crate::channel::bounded(1);
        spawn("sender", async move {
            for number in 0..100 {
                sender.send(number).await.unwrap();
            }
        });
        let mut received = Vec::new();
        while let Some(number) = receiver.recv().await {
            received.push(number);
        }
        assert!(received.into_iter().eq(0..100));
    });
}
