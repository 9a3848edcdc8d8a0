use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::{Dropped, Event, Semaphore, oneshot};

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Wakes>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Task {
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl Task {
    fn new() -> Task {
        let wakes = Arc::<Wakes>::default();
        Task { waker: wakes.clone().into(), wakes }
    }

    fn poll<F: Future>(&self, future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.waker))
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

#[test]
fn event_ends_the_wait_of_every_listener_made_before() {
    let event = Event::new();
    let (one, two) = (Task::new(), Task::new());
    let mut early = pin!(event.listen());
    let mut unpolled = pin!(event.listen());
    assert!(one.poll(early.as_mut()).is_pending());
    event.notify_all();
    let mut late = pin!(event.listen());
    assert_eq!(one.wakes(), 1);
    assert!(one.poll(early.as_mut()).is_ready());
    assert!(one.poll(unpolled.as_mut()).is_ready(), "a signal between listening and polling is not lost");
    assert!(two.poll(late.as_mut()).is_pending());
    event.notify_all();
    assert_eq!((one.wakes(), two.wakes()), (1, 1));
    assert!(two.poll(late.as_mut()).is_ready());
}

#[test]
fn event_forgets_dropped_listeners() {
    let event = Event::new();
    let task = Task::new();
    for _ in 0..3 {
        let mut first = Box::pin(event.listen());
        let mut second = Box::pin(event.listen());
        let mut third = Box::pin(event.listen());
        for listener in [&mut first, &mut second, &mut third] {
            assert!(task.poll(listener.as_mut()).is_pending());
        }
        drop(second);
        drop(third);
        assert_eq!(format!("{event:?}"), "Event { waiting: 1 }");
        drop(first);
    }
    assert_eq!(format!("{event:?}"), "Event { waiting: 0 }");
    event.notify_all();
    assert_eq!(task.wakes(), 0);
}

#[test]
fn listeners_that_take_turns_do_not_use_up_memory() {
    let event = Event::new();
    let task = Task::new();
    let mut waits = Box::pin(event.listen());
    assert!(task.poll(waits.as_mut()).is_pending());
    for _ in 0..10_000 {
        let mut next = Box::pin(event.listen());
        assert!(task.poll(next.as_mut()).is_pending());
        waits = next;
    }
    assert!(event.slots() <= 4, "two listeners at a time have {} slots", event.slots());
    event.notify_all();
    assert!(task.poll(waits.as_mut()).is_ready());
}

#[test]
fn event_wakes_the_task_that_polled_last() {
    let event = Event::new();
    let (before, after) = (Task::new(), Task::new());
    let mut listener = pin!(event.listen());
    assert!(before.poll(listener.as_mut()).is_pending());
    assert!(after.poll(listener.as_mut()).is_pending());
    event.notify_all();
    assert_eq!((before.wakes(), after.wakes()), (0, 1));
}

#[test]
fn oneshot_carries_one_value() {
    let task = Task::new();
    let (sender, receiver) = oneshot();
    let mut receiver = pin!(receiver);
    assert!(task.poll(receiver.as_mut()).is_pending());
    assert_eq!(sender.send(7), Ok(()));
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.poll(receiver.as_mut()), Poll::Ready(Ok(7)));
}

#[test]
fn oneshot_tells_that_the_other_side_is_gone() {
    let task = Task::new();
    let (sender, receiver) = oneshot::<u8>();
    let mut receiver = pin!(receiver);
    assert!(task.poll(receiver.as_mut()).is_pending());
    drop(sender);
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.poll(receiver.as_mut()), Poll::Ready(Err(Dropped)));

    let (sender, receiver) = oneshot();
    drop(receiver);
    assert_eq!(sender.send(7), Err(7));
}

#[test]
fn semaphore_serves_in_the_order_asked() {
    let semaphore = Semaphore::new(10);
    let task = Task::new();
    let held = semaphore.try_acquire(6).expect("six of ten");
    assert_eq!(semaphore.available(), 4);
    let mut large = pin!(semaphore.acquire(8));
    let mut small = pin!(semaphore.acquire(1));
    assert!(task.poll(large.as_mut()).is_pending());
    assert!(task.poll(small.as_mut()).is_pending(), "a small request waits behind a large one");
    assert!(semaphore.try_acquire(1).is_none(), "so does one that does not want to wait");
    drop(held);
    assert_eq!(task.wakes(), 2);
    let Poll::Ready(large) = task.poll(large.as_mut()) else { panic!("eight of ten are free") };
    let Poll::Ready(small) = task.poll(small.as_mut()) else { panic!("two of ten are free") };
    assert_eq!((large.units(), small.units(), semaphore.available()), (8, 1, 1));
    drop((large, small));
    assert_eq!(semaphore.available(), 10);
}

#[test]
fn semaphore_lets_more_than_it_has_pass_alone() {
    let semaphore = Semaphore::new(4);
    let task = Task::new();
    let held = semaphore.try_acquire(1).expect("one of four");
    let mut oversized = pin!(semaphore.acquire(9));
    assert!(task.poll(oversized.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(oversized) = task.poll(oversized.as_mut()) else { panic!("nothing else is out") };
    assert_eq!(semaphore.available(), 0);
    assert!(semaphore.try_acquire(1).is_none());
    drop(oversized);
    assert_eq!(semaphore.available(), 4);
}

#[test]
fn semaphore_passes_on_what_a_dropped_waiter_had() {
    let semaphore = Semaphore::new(2);
    let task = Task::new();
    let held = semaphore.try_acquire(2).expect("two of two");
    let mut granted_unseen = Box::pin(semaphore.acquire(2));
    let mut abandoned = Box::pin(semaphore.acquire(2));
    let mut last = pin!(semaphore.acquire(1));
    assert!(task.poll(granted_unseen.as_mut()).is_pending());
    assert!(task.poll(abandoned.as_mut()).is_pending());
    assert!(task.poll(last.as_mut()).is_pending());
    drop(held);
    drop(abandoned);
    drop(granted_unseen);
    assert!(task.poll(last.as_mut()).is_ready());
    assert_eq!(semaphore.available(), 2, "the permit of the last was dropped with its poll");
}
