use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Closed, OneshotSender, TrySendError, bounded, oneshot};
use crate::executor::{ExecutorConfig, spawn_executor};
use crate::testing::run;
use crate::{local::Dropped, task, time};

/// What goes over a channel must wake an executor that sleeps, every time, and one that is about to fall asleep.
#[test]
fn two_executors_play_ping_pong_without_a_lost_wake_up() {
    const ROUNDS: u32 = 50_000;
    let (ping, mut pings) = bounded(1);
    let (pong, mut pongs) = bounded(1);
    let echo = spawn_executor(ExecutorConfig::default(), move || async move {
        while let Some(number) = pings.recv().await {
            pong.send(number).await.expect("the other side waits");
        }
    })
    .expect("an executor starts");
    run(move || async move {
        for number in 0..ROUNDS {
            ping.send(number).await.expect("the other side waits");
            assert_eq!(pongs.recv().await, Some(number));
        }
    });
    echo.join().expect("an executor ends");
}

#[test]
fn many_senders_one_receiver_and_a_bound() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 5_000;
    let (sender, mut receiver) = bounded(8);
    let handles: Vec<_> = (0..SENDERS)
        .map(|id| {
            let sender = sender.clone();
            spawn_executor(ExecutorConfig::default(), move || async move {
                for number in 0..EACH {
                    sender.send((id, number)).await.expect("the receiver waits");
                }
            })
            .expect("an executor starts")
        })
        .collect();
    drop(sender);
    let next = run(move || async move {
        let mut next = vec![0; usize::try_from(SENDERS).expect("few")];
        while let Some((id, number)) = receiver.recv().await {
            assert!(receiver.len() <= 8);
            let next = &mut next[usize::try_from(id).expect("few")];
            assert_eq!(number, *next, "the order of one sender holds");
            *next += 1;
        }
        next
    });
    assert_eq!(next, vec![EACH; next.len()]);
    for handle in handles {
        handle.join().expect("an executor ends");
    }
}

#[test]
fn a_full_channel_gives_the_message_back_and_a_closed_one_too() {
    let (sender, mut receiver) = bounded(1);
    assert_eq!(receiver.try_recv(), None);
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!((receiver.len(), receiver.try_recv(), receiver.is_empty()), (1, Some(1), true));
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(run(move || async move { sender.send(4).await }), Err(Closed(4)));
}

#[test]
fn a_receiver_that_gives_up_waiting_loses_nothing() {
    let (sender, mut receiver) = bounded(1);
    let (give_up, gave_up) = oneshot();
    let executor = spawn_executor(ExecutorConfig::default(), move || async move {
        assert!(time::timeout(Duration::from_millis(1), receiver.recv()).await.is_err());
        give_up.send(()).expect("the test waits");
        receiver.recv().await
    })
    .expect("an executor starts");
    run(move || gave_up).expect("it gave up");
    sender.send_blocking(9).expect("it waits again");
    assert_eq!(executor.join().expect("an executor ends"), Some(9));
}

#[test]
fn messages_that_nobody_takes_are_dropped_with_the_receiver() {
    let (sender, receiver) = bounded(2);
    let (reply, answer) = oneshot::<()>();
    sender.try_send(reply).expect("there is room");
    drop(receiver);
    assert_eq!(run(move || answer), Err(Dropped), "whoever waits for the answer learns that none will come");
    drop(sender);
}

#[test]
fn a_plain_thread_can_take_part() {
    let (sender, mut receiver) = bounded(2);
    let executor = spawn_executor(ExecutorConfig::default(), move || async move {
        for number in 0..100 {
            sender.send(number).await.expect("the thread waits");
        }
    })
    .expect("an executor starts");
    let received: Vec<_> = std::iter::from_fn(|| receiver.recv_blocking()).collect();
    assert_eq!(received, (0..100).collect::<Vec<_>>());
    executor.join().expect("an executor ends");
}

#[test]
fn oneshot_crosses_threads_and_tells_of_a_drop() {
    let (sender, receiver) = oneshot();
    let waits = spawn_executor(ExecutorConfig::default(), move || receiver).expect("an executor starts");
    run(move || async move {
        task::yield_now().await;
        sender.send("value").expect("the other side waits");
    });
    assert_eq!(waits.join().expect("an executor ends"), Ok("value"));

    let (sender, receiver) = oneshot::<()>();
    let waits = spawn_executor(ExecutorConfig::default(), move || receiver).expect("an executor starts");
    drop(sender);
    assert_eq!(waits.join().expect("an executor ends"), Err(Dropped));

    let (sender, receiver) = oneshot();
    drop(receiver);
    assert_eq!(sender.send(1), Err(1));
}

#[test]
fn a_channel_that_never_runs_dry_does_not_hold_the_core() {
    let (sender, mut receiver) = bounded(64);
    let floods =
        spawn_executor(ExecutorConfig::default(), move || async move { while sender.send(()).await.is_ok() {} });
    run(move || async move {
        let fired = Rc::new(Cell::new(false));
        task::spawn("timer", {
            let fired = fired.clone();
            async move {
                time::sleep(Duration::from_millis(1)).await;
                fired.set(true);
            }
        });
        // The timer never fires if the receiver only ever takes what is there.
        while !fired.get() {
            receiver.recv().await.expect("the other side floods");
        }
    });
    floods.expect("an executor starts").join().expect("an executor ends");
}

/// As shards talk: many tasks of one executor wait at the same time for answers that tasks of another give.
#[test]
fn many_requests_at_once_are_all_answered() {
    const TASKS: u64 = 64;
    const EACH: u64 = 500;
    let (requests, mut inbox) = bounded::<(u64, OneshotSender<u64>)>(16);
    let answers = spawn_executor(ExecutorConfig::default(), move || async move {
        let gate = task::Gate::new();
        while let Some((number, reply)) = inbox.recv().await {
            gate.spawn("answer", async move {
                task::yield_now().await;
                reply.send(number + 1).expect("the other side waits");
            })
            .expect("the gate is open");
        }
        gate.close().await;
    });
    let answered = run(move || async move {
        let gate = task::Gate::new();
        let answered = Rc::new(Cell::new(0));
        for task in 0..TASKS {
            let (requests, answered) = (requests.clone(), answered.clone());
            gate.spawn("ask", async move {
                for number in 0..EACH {
                    let number = task * EACH + number;
                    let (reply, answer) = oneshot();
                    requests.send((number, reply)).await.expect("the other side reads");
                    assert_eq!(answer.await, Ok(number + 1));
                    answered.set(answered.get() + 1);
                }
            })
            .expect("the gate is open");
        }
        gate.close().await;
        answered.get()
    });
    assert_eq!(answered, TASKS * EACH);
    answers.expect("an executor starts").join().expect("an executor ends");
}
