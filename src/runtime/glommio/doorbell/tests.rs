use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::{AtTheDoor, Door};

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Wakes>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls a future that hands out the waker it is polled with.
fn waker_seen(at: &mut AtTheDoor, door: &Door, task: &Arc<Wakes>) -> Waker {
    let task = Waker::from(task.clone());
    let see = poll_fn(|cx| Poll::Ready(cx.waker().clone()));
    match at.poll(door, pin!(see), &Context::from_waker(&task)) {
        Poll::Ready(waker) => waker,
        Poll::Pending => panic!("it is ready at once"),
    }
}

#[test]
fn a_wake_goes_through_the_answerer() {
    let (door, task, answerer) = (Door::new(), Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut answer = pin!(Rc::clone(&door).answer());
    let answerer_waker = Waker::from(answerer.clone());
    let mut cx = Context::from_waker(&answerer_waker);
    assert!(answer.as_mut().poll(&mut cx).is_pending());

    let mut at = AtTheDoor::default();
    let outside = waker_seen(&mut at, &door, &task);
    std::thread::scope(|scope| {
        scope.spawn(|| outside.wake_by_ref());
    });
    outside.wake();
    assert_eq!((task.count(), answerer.count()), (0, 1), "one ring wakes the answerer, and it alone");
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    assert_eq!(task.count(), 1, "two rings for one place wake it once");

    let outside = waker_seen(&mut at, &door, &task);
    outside.wake();
    assert_eq!(answerer.count(), 2);
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    assert_eq!(task.count(), 2);
}

#[test]
fn places_are_used_again() {
    let (door, task) = (Door::new(), Arc::<Wakes>::default());
    for _ in 0..100 {
        let mut at = [AtTheDoor::default(), AtTheDoor::default()];
        let outside: Vec<_> = at.iter_mut().map(|at| waker_seen(at, &door, &task)).collect();
        drop(at);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(outside));
        });
    }
    assert_eq!(door.waiting.borrow().places.len(), 2);
}

#[test]
fn who_comes_from_another_executor_gets_a_new_place() {
    let (one, two, task) = (Door::new(), Door::new(), Arc::<Wakes>::default());
    let mut at = AtTheDoor::default();
    let _ = waker_seen(&mut at, &one, &task);
    let outside = waker_seen(&mut at, &two, &task);
    outside.wake();
    assert_eq!((one.bell.lock().wake.len(), two.bell.lock().wake.len()), (0, 1));
    assert_eq!(one.bell.lock().vacated, [0]);
}

#[test]
fn ringing_at_a_closed_door_is_harmless() {
    let (door, task) = (Door::new(), Arc::<Wakes>::default());
    let mut at = AtTheDoor::default();
    let outside = waker_seen(&mut at, &door, &task);
    door.close();
    outside.wake();
    let _ = waker_seen(&mut at, &door, &task);
    drop(door);
    drop(at);
    assert_eq!(task.count(), 0);
}
