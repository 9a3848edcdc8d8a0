//! How much of what one shard sends is held ahead of the reader, in bytes.
//!
//! Of the window's bytes some are granted and have not come, some wait for the reader, and some the reader has freed: they
//! are granted next. The three always add up to the window; a frame larger than what was granted makes the first negative.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The window of one shard. It outlives the subscriptions that use it, one after the other.
#[derive(Debug)]
pub(crate) struct Window {
    bytes_max: u32,
    bytes: Mutex<Bytes>,
    changed: Notify,
    /// Held by the subscription that uses it.
    place: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Bytes {
    /// They wait for the reader.
    held: u64,
    /// The reader is done with them, and they have not been granted again.
    freed: u64,
}

/// Bytes that wait for the reader, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    window: Arc<Window>,
    bytes: u64,
}

impl Window {
    pub(crate) fn new(bytes_max: u32) -> Self {
        let (bytes_max, place) = (bytes_max.max(1), Arc::new(Semaphore::new(1)));
        Self { bytes_max, bytes: Mutex::default(), changed: Notify::new(), place }
    }

    /// The right to use it; `None` while another has it.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.place.clone().try_acquire_owned().ok()
    }

    /// The first credit of a subscription, once half of the window is free. What was granted before counts no more.
    pub(crate) async fn open(&self) -> u32 {
        let opened = |bytes: &mut Bytes| {
            let free = u64::from(self.bytes_max).saturating_sub(bytes.held);
            (free >= self.worth_while()).then(|| {
                bytes.freed = 0;
                free
            })
        };
        self.until(opened).await
    }

    /// What the reader has freed, once it is half of the window: fewer grants are as good.
    pub(crate) async fn freed(&self) -> u32 {
        self.until(|bytes| (bytes.freed >= self.worth_while()).then(|| std::mem::take(&mut bytes.freed))).await
    }

    /// Bytes that have come and wait for the reader.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.bytes().held += bytes;
        Held { window: self.clone(), bytes }
    }

    fn worth_while(&self) -> u64 {
        u64::from(self.bytes_max).div_ceil(2)
    }

    async fn until(&self, take: impl Fn(&mut Bytes) -> Option<u64>) -> u32 {
        loop {
            let changed = self.changed.notified();
            if let Some(bytes) = take(&mut self.bytes()) {
                return u32::try_from(bytes).unwrap_or(u32::MAX);
            }
            changed.await;
        }
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut bytes = self.window.bytes();
        bytes.held -= self.bytes;
        bytes.freed += self.bytes;
        drop(bytes);
        // One at most waits: the subscription that uses it.
        self.window.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// What a future gives at once, if it does.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    proptest! {
        #[test]
        fn granted_held_and_freed_bytes_add_up_and_it_never_stalls(
            bytes_max in 1_u32..100,
            steps in prop::collection::vec((any::<bool>(), 1_usize..60), 0..200),
        ) {
            let window = Arc::new(Window::new(bytes_max));
            let mut granted = i64::from(at_once(window.open()).expect("nothing is held"));
            prop_assert_eq!(granted, i64::from(bytes_max));
            let mut held = std::collections::VecDeque::new();
            for (comes, bytes) in steps {
                if comes && granted > 0 {
                    granted -= i64::try_from(bytes).unwrap();
                    held.push_back(window.hold(bytes));
                } else {
                    held.pop_front();
                }
                if let Some(freed) = at_once(window.freed()) {
                    granted += i64::from(freed);
                }
                let state = window.bytes();
                let behind = i64::try_from(state.held + state.freed).unwrap();
                prop_assert_eq!(granted + behind, i64::from(bytes_max));
            }
            held.clear();
            granted += at_once(window.freed()).map_or(0, i64::from);
            prop_assert!(granted > 0, "the reader has read all, and nothing may come");
        }
    }

    #[tokio::test]
    async fn what_an_ended_subscription_left_for_the_reader_is_not_granted_to_the_next() {
        let window = Arc::new(Window::new(100));
        let place = window.enter().unwrap();
        assert!(window.enter().is_none());
        assert_eq!(window.open().await, 100);
        let (first, second) = (window.hold(40), window.hold(30));
        drop(place);

        let _place = window.enter().unwrap();
        assert!(at_once(window.open()).is_none());
        let opening = tokio::spawn({
            let window = window.clone();
            async move { window.open().await }
        });
        drop(first);
        assert_eq!(opening.await.unwrap(), 70);
        assert!(at_once(window.freed()).is_none());
        drop(second);
        assert!(at_once(window.freed()).is_none(), "30 of 100 are not worth a request");
        drop(window.hold(20));
        assert_eq!(at_once(window.freed()), Some(50));
    }
}
