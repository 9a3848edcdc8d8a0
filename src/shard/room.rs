//! Room that all connections of a shard share, and how it is kept from those who would take all of it.
//!
//! A bound that is shared can be used up by few: by peers that announce much and send it slowly, or take nothing of what
//! they asked for. Three rules keep the others served: each connection has an allowance that nobody else can use, no
//! connection gets more than a part of what is shared, and whoever waits for something that may never come gives its
//! room back when it is wanted ([`FetchRoom`]).

use ringmq_runtime::local::{Event, Listener, Permit, Semaphore};

/// One connection's way to room: its allowance, then what it may have of what all share.
pub(crate) struct Room {
    allowance: Semaphore,
    allowance_max: usize,
    /// What it may have of what all share.
    pub(crate) connection: Semaphore,
    /// What all share.
    pub(crate) shared: Semaphore,
}

/// Room that was taken; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// In the connection's allowance, or in what it may have of what all share.
    connection: Option<Permit>,
    /// In what all share.
    shared: Option<Permit>,
}

impl Held {
    pub(crate) fn new(connection: Option<Permit>, shared: Permit) -> Self {
        Self { connection, shared: Some(shared) }
    }

    /// Whether no room was taken.
    pub(crate) fn is_none(&self) -> bool {
        self.connection.is_none() && self.shared.is_none()
    }

    /// Gives back what is held beyond `units`.
    pub(crate) fn shrink_to(&mut self, units: usize) {
        let permits = self.connection.iter_mut().chain(&mut self.shared);
        permits.for_each(|permit| permit.shrink_to(units));
    }
}

impl Room {
    pub(crate) fn new(allowance: usize, connection_max: usize, shared: &Semaphore) -> Self {
        Self {
            allowance: Semaphore::new(allowance),
            allowance_max: allowance,
            connection: Semaphore::new(connection_max),
            shared: shared.clone(),
        }
    }

    /// Room in the connection's own allowance, if it is there now.
    pub(crate) fn of_allowance(&self, units: usize) -> Option<Held> {
        // A semaphore lets more than it has pass alone; an allowance is for little.
        let permit = (units <= self.allowance_max).then(|| self.allowance.try_acquire(units))?;
        permit.map(|permit| Held { connection: Some(permit), shared: None })
    }

    /// Waits for room.
    pub(crate) async fn acquire(&self, units: usize) -> Held {
        match self.of_allowance(units) {
            Some(held) => held,
            None => Held::new(Some(self.connection.acquire(units).await), self.shared.acquire(units).await),
        }
    }
}

/// Whether anyone waits for room of a semaphore.
pub(crate) fn is_waited_for(semaphore: &Semaphore) -> bool {
    // Nothing at all is granted at once unless others come first.
    semaphore.try_acquire(0).is_none()
}

/// Room for the fetches of a shard. One that waits for records gives its room to one that has none: an answer that comes
/// early costs its client another request, but no answer at all would cost it everything.
pub(crate) struct FetchRoom {
    bytes: Semaphore,
    wanted: Event,
}

/// A fetch's place.
pub(crate) struct FetchPlace {
    pub(crate) room: Permit,
    /// Done when the room is wanted: the fetch must wait no longer.
    pub(crate) wanted: Listener,
    /// It is wanted already.
    pub(crate) is_wanted: bool,
}

impl FetchRoom {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Semaphore::new(bytes_max), wanted: Event::new() }
    }

    /// What is left of the room, in bytes.
    pub(crate) fn available(&self) -> usize {
        self.bytes.available()
    }

    /// Waits for room, which those who only wait for records make.
    pub(crate) async fn enter(&self, bytes: usize) -> FetchPlace {
        let room = match self.bytes.try_acquire(bytes) {
            Some(room) => room,
            None => {
                self.wanted.notify_all();
                self.bytes.acquire(bytes).await
            }
        };
        // Whoever came to wait between the grant and now has called in vain.
        FetchPlace { room, wanted: self.wanted.listen(), is_wanted: is_waited_for(&self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What is there at once.
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match poll(pin!(future)) {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => None,
        }
    }

    #[test]
    fn little_finds_room_whatever_the_others_hold() {
        let shared = Semaphore::new(100);
        let [greedy, modest] = [0, 1].map(|_| Room::new(10, 100, &shared));
        let _all = now(greedy.acquire(100)).expect("nobody else has any");
        assert!(now(modest.acquire(11)).is_none(), "more than an allowance is shared");
        let little = now(modest.acquire(10)).expect("its own allowance");
        assert!(now(modest.acquire(1)).is_none(), "the allowance is a bound as well");
        assert!(!is_waited_for(&shared), "who gave up waits no longer");
        drop(little);
        assert!(modest.of_allowance(10).is_some());
    }

    #[test]
    fn one_connection_gets_no_more_than_its_part() {
        let shared = Semaphore::new(100);
        let [greedy, other] = [0, 1].map(|_| Room::new(0, 60, &shared));
        let mut first = now(greedy.acquire(60)).expect("its part");
        assert!(now(greedy.acquire(1)).is_none());
        assert!(now(other.acquire(40)).is_some());
        first.shrink_to(20);
        assert!(now(greedy.acquire(40)).is_some());
        assert_eq!(shared.available(), 80);
    }

    #[test]
    fn a_fetch_that_waits_gives_its_room_to_one_that_has_none() {
        let room = FetchRoom::new(10);
        let FetchPlace { room: held, wanted, is_wanted } = now(room.enter(8)).expect("there is room");
        assert!(!is_wanted);
        let mut wanted = pin!(wanted);
        assert!(poll(wanted.as_mut()).is_pending());

        let mut second = pin!(room.enter(3));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(wanted.as_mut()).is_ready(), "it is told");
        let mut third = pin!(room.enter(9));
        assert!(poll(third.as_mut()).is_pending());
        drop(held);
        let Poll::Ready(second) = poll(second.as_mut()) else { panic!("there is room now") };
        assert!(second.is_wanted, "the third has called before the second could hear it");
        drop(second);
        let Poll::Ready(third) = poll(third.as_mut()) else { panic!("there is room now") };
        assert!(!third.is_wanted);
    }
}
