//! Several executors in one simulation, and the channels between them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::channel::{OneshotSender, bounded, oneshot};
use crate::executor::{ExecutorConfig, spawn_executor};
use crate::local::Dropped;
use crate::sim::CoreConfig;
use crate::task::{self, Gate};
use crate::time::{Instant, sleep};

fn named(name: &str) -> ExecutorConfig {
    ExecutorConfig { name: name.to_owned(), ..ExecutorConfig::default() }
}

#[test]
fn every_core_finds_itself_wherever_its_code_runs() {
    let own_context = || Rc::as_ptr(&crate::backend::current()).addr();
    Sim::new(SimConfig::default()).run(|| async {
        let (noted, mut notes) = bounded(2);
        for _ in 0..2 {
            let noted = noted.clone();
            spawn_executor(named("other"), move || async move {
                let own = own_context();
                let gate = Gate::new();
                gate.spawn("on the same core", async move {
                    sleep(Duration::from_millis(1)).await;
                    assert_eq!(own_context(), own);
                })
                .unwrap();
                gate.close().await;
                noted.send(own).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            })
            .unwrap();
        }
        let first = own_context();
        let contexts = [notes.recv().await.unwrap(), notes.recv().await.unwrap(), own_context()];
        assert_eq!(contexts[2], first);
        assert_eq!(BTreeSet::from(contexts).len(), 3, "each core has one of its own");
    });
}

#[test]
fn to_join_never_stops_the_simulation() {
    let sim = Sim::new(SimConfig::default());
    let (early, late) = sim.run(|| async {
        let sleeper = || async {
            sleep(Duration::from_secs(1)).await;
            7
        };
        (spawn_executor(named("a"), sleeper).unwrap(), spawn_executor(named("b"), sleeper).unwrap())
    });
    assert_eq!(early.join().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    sim.run(|| sleep(Duration::from_secs(2)));
    assert_eq!(late.join().unwrap(), 7);
}

#[test]
fn an_executor_ends_with_its_main_future_and_drops_its_tasks() {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        let (never, is_dropped) = oneshot::<()>();
        let executor = spawn_executor(named("short"), move || async move {
            task::spawn("for ever", async move {
                let _never = never;
                std::future::pending::<()>().await;
            });
            task::yield_now().await;
        });
        assert_eq!(is_dropped.await, Err(Dropped));
        executor.unwrap().join().unwrap();
    });
}

#[test]
fn messages_of_one_sender_arrive_in_order_and_those_of_two_mix_in_every_way() {
    let mixes: BTreeSet<Vec<(usize, u32)>> = (0..64)
        .map(|seed| {
            Sim::new(SimConfig::with_seed(seed)).run(|| async {
                let (sender, mut receiver) = bounded(6);
                for number in 0..2 {
                    let sender = sender.clone();
                    spawn_executor(named("sender"), move || async move {
                        for message in 0..3 {
                            task::yield_now().await;
                            sender.send((number, message)).await.unwrap();
                        }
                    })
                    .unwrap();
                }
                drop(sender);
                let mut received = Vec::new();
                while let Some(message) = receiver.recv().await {
                    received.push(message);
                }
                for number in 0..2 {
                    let of_one: Vec<u32> =
                        received.iter().filter(|(from, _)| *from == number).map(|(_, m)| *m).collect();
                    assert_eq!(of_one, [0, 1, 2], "seed {seed}");
                }
                received
            })
        })
        .collect();
    assert!(mixes.len() > 8, "{mixes:?}");
}

#[test]
fn a_wake_up_between_cores_takes_its_time() {
    let wake = Duration::from_millis(3)..=Duration::from_millis(4);
    let cores = CoreConfig { wake, slow_one_in: 0, pause_one_in: 0, ..CoreConfig::default() };
    let sim = Sim::new(SimConfig { cores, ..SimConfig::default() });
    sim.run(|| async {
        let (requests, mut inbox) = bounded::<OneshotSender<Instant>>(1);
        spawn_executor(named("answers"), move || async move {
            while let Some(reply) = inbox.recv().await {
                reply.send(Instant::now()).unwrap();
            }
        })
        .unwrap();
        sleep(Duration::from_millis(1)).await;
        let asked = Instant::now();
        let (reply, answer) = oneshot();
        requests.send(reply).await.unwrap();
        let answered = answer.await.unwrap();
        let bounds = Duration::from_millis(3)..Duration::from_millis(5);
        assert!(bounds.contains(&answered.saturating_duration_since(asked)), "the one who answers slept");
        assert!(bounds.contains(&answered.elapsed()), "so did the one who asked");
    });
}

#[test]
fn a_core_that_stands_still_holds_up_nobody_else() {
    let pause = Duration::from_millis(50)..=Duration::from_millis(50);
    let longest = (0..32)
        .map(|seed| {
            let cores = CoreConfig { pause_one_in: 64, pause: pause.clone(), ..CoreConfig::default() };
            Sim::new(SimConfig { seed, cores, ..SimConfig::default() }).run(|| async {
                let (noted, mut notes) = bounded(1024);
                for core in 0..2 {
                    let noted = noted.clone();
                    spawn_executor(named("ticks"), move || async move {
                        for _ in 0..200 {
                            sleep(Duration::from_micros(100)).await;
                            noted.try_send((core, Instant::now())).unwrap();
                        }
                    })
                    .unwrap();
                }
                drop(noted);
                sleep(Duration::from_secs(5)).await;
                let mut ticks = [Vec::new(), Vec::new()];
                while let Some((core, at)) = notes.recv().await {
                    ticks[core].push(at);
                }
                // How often the second core ticks while the first one stands still for the first time.
                let gap = ticks[0].windows(2).find(|two| two[1].saturating_duration_since(two[0]) > *pause.start());
                gap.map_or(0, |two| ticks[1].iter().filter(|at| (two[0]..two[1]).contains(at)).count())
            })
        })
        .max();
    assert!(longest > Some(20), "{longest:?}");
}

#[test]
fn a_kill_ends_every_core_of_the_process_and_none_elsewhere() {
    let sim = Sim::new(SimConfig::default());
    let ticks = Rc::new(RefCell::new([0; 2]));
    let of_process = ticks.clone();
    sim.run(|| async {
        let (noted, mut notes) = bounded::<()>(1);
        task::spawn("counts", async move {
            while notes.recv().await.is_some() {
                of_process.borrow_mut()[0] += 1;
            }
        });
        spawn_executor(named("ticks"), move || async move {
            while noted.send(()).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        })
        .unwrap();
    });
    let of_other = ticks.clone();
    sim.elsewhere("outlives", || async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            of_other.borrow_mut()[1] += 1;
        }
    });
    sim.run(|| sleep(Duration::from_millis(5_500)));
    assert_eq!(*ticks.borrow(), [6, 5]);
    sim.kill();
    sim.run(|| sleep(Duration::from_secs(5)));
    assert_eq!(*ticks.borrow(), [6, 10]);
    sim.crash();
    sim.run(|| sleep(Duration::from_secs(5)));
    assert_eq!(ticks.borrow()[0], 6);
    assert!(ticks.borrow()[1] >= 15);
    drop(sim);
    assert_eq!(Rc::strong_count(&ticks), 1, "everything was dropped");
}
