use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::{Gate, GateClosed, spawn, spawn_background, stalls, stop, yield_now, yield_to_io};
use crate::testing::run;
use crate::{local, time};

#[test]
fn a_task_is_not_polled_within_spawn() {
    run(|| async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let (sender, receiver) = local::oneshot();
        {
            let mut borrowed = log.borrow_mut();
            let log = log.clone();
            spawn("appends", async move {
                log.borrow_mut().push("task");
                sender.send(()).expect("the test waits");
            });
            borrowed.push("spawner");
        }
        receiver.await.expect("the task ran");
        assert_eq!(*log.borrow(), ["spawner", "task"]);
    });
}

#[test]
fn both_queues_run_and_yielding_lets_others_in() {
    run(|| async {
        let turns = Rc::new(RefCell::new(Vec::new()));
        let gate = Gate::new();
        for name in ["a", "b"] {
            let turns = turns.clone();
            let task = async move {
                for _ in 0..3 {
                    turns.borrow_mut().push(name);
                    yield_now().await;
                }
            };
            gate.spawn(name, task).expect("the gate is open");
        }
        gate.close().await;
        assert_eq!(turns.borrow().concat(), "ababab");

        let (sender, receiver) = local::oneshot();
        spawn_background("background", async move { sender.send(5).expect("the test waits") });
        assert_eq!(receiver.await, Ok(5));
    });
}

#[test]
fn yield_to_io_lets_timers_fire_under_load() {
    run(|| async {
        let fired = Rc::new(Cell::new(false));
        spawn("timer", {
            let fired = fired.clone();
            async move {
                time::sleep(Duration::from_millis(1)).await;
                fired.set(true);
            }
        });
        // Without a look at the timers this would go on until the executor is preempted, or for ever.
        while !fired.get() {
            yield_to_io().await;
        }
    });
}

#[test]
fn gate_waits_for_all_and_lets_nothing_new_in() {
    run(|| async {
        let gate = Gate::new();
        let ended = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let ended = ended.clone();
            gate.spawn("counted", async move {
                time::sleep(Duration::from_millis(1)).await;
                ended.set(ended.get() + 1);
            })
            .expect("the gate is open");
        }
        let pass = gate.enter().expect("the gate is open");
        assert_eq!(gate.running(), 11);
        spawn("leaves", async move {
            yield_now().await;
            drop(pass);
        });
        assert!(!gate.is_closed());
        gate.close().await;
        assert!(gate.is_closed());
        assert_eq!((ended.get(), gate.running()), (10, 0));
        assert_eq!(gate.spawn("late", async {}), Err(GateClosed));
        gate.close().await;
    });
}

#[test]
fn stop_reaches_everyone_and_stays() {
    run(|| async {
        let (handle, stop) = stop();
        let gate = Gate::new();
        let told = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (stop, told) = (stop.clone(), told.clone());
            gate.spawn("waits", async move {
                assert_eq!(stop.or_stop(std::future::pending::<()>()).await, None);
                told.set(told.get() + 1);
            })
            .expect("the gate is open");
        }
        assert_eq!(stop.or_stop(async { 3 }).await, Some(3));
        yield_now().await;
        assert_eq!(told.get(), 0);
        handle.stop();
        gate.close().await;
        assert_eq!(told.get(), 5);
        assert!(stop.is_stopped());
        stop.stopped().await;
        assert_eq!(stop.or_stop(async { 3 }).await, None);
    });
}

#[test]
fn a_poll_that_holds_the_core_is_named() {
    let stalls = run(|| async {
        let gate = Gate::new();
        for _ in 0..2 {
            gate.spawn("hog", async {
                let start = std::time::Instant::now();
                while start.elapsed() < Duration::from_millis(6) {
                    std::hint::spin_loop();
                }
            })
            .expect("the gate is open");
        }
        gate.close().await;
        stalls()
    });
    let hog = stalls.iter().find(|stall| stall.task == "hog").expect("the detector saw it");
    assert_eq!(hog.count, 2);
    assert!(hog.longest >= Duration::from_millis(6));
}
