//! Brings the latest image to every shard, and knows how far each one is.
//!
//! One task a shard, so that a slow shard delays nobody else and still ends up with the latest image. Nothing queues:
//! while a shard applies one image, later ones replace each other.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::channel::{self, Sender};
use ringmq_runtime::local::Event;
use ringmq_runtime::task::{self, Gate, Stop, StopHandle};
use ringmq_wire::{Offset, ShardIndex};

use crate::metadata::Image;
use crate::request::MetadataUpdate;

#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Rc<Shared>,
    tasks: Gate,
    stop: StopHandle,
}

struct Shared {
    latest: RefCell<Arc<Image>>,
    published: Event,
    shards: RefCell<Vec<Progress>>,
    progressed: Event,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The shard has no image yet.
    Starting,
    /// The shard has applied the image of this version.
    Applied(Offset),
    /// The shard takes no images any more.
    Ended,
}

/// A shard ended before it applied an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardEnded(pub(crate) ShardIndex);

impl Publisher {
    /// Begins to send `image` to `shards`, which are in the order of their indexes.
    pub(crate) fn start(shards: Vec<Sender<MetadataUpdate>>, image: Arc<Image>) -> Publisher {
        let shared = Rc::new(Shared {
            latest: RefCell::new(image),
            published: Event::new(),
            shards: RefCell::new(vec![Progress::Starting; shards.len()]),
            progressed: Event::new(),
        });
        let tasks = Gate::new();
        let (stop, stopped) = task::stop();
        for (index, shard) in shards.into_iter().enumerate() {
            let (shared, stopped) = (shared.clone(), stopped.clone());
            let follow = async move {
                follow(&shared, &stopped, index, &shard).await;
                shared.set(index, Progress::Ended);
            };
            tasks.spawn("controller: publish to a shard", follow).expect("the gate was made above and is open");
        }
        Publisher { shared, tasks, stop }
    }

    /// Makes `image` the one that shards get from now on.
    pub(crate) fn publish(&self, image: Arc<Image>) {
        *self.shared.latest.borrow_mut() = image;
        self.shared.published.notify_all();
    }

    /// Waits until every shard has applied an image of this version or a later one.
    pub(crate) async fn applied(&self, version: Offset) -> Result<(), ShardEnded> {
        loop {
            let progressed = self.shared.progressed.listen();
            let lagging = self.lagging(version);
            if let Some(ended) = self.ended(&lagging) {
                return Err(ShardEnded(ended));
            }
            if lagging.is_empty() {
                return Ok(());
            }
            progressed.await;
        }
    }

    /// The shards that have not applied an image of this version.
    pub(crate) fn lagging(&self, version: Offset) -> Vec<ShardIndex> {
        let behind = |progress: Progress| !matches!(progress, Progress::Applied(applied) if applied >= version);
        let shards = self.shared.shards.borrow();
        shards.iter().zip(0..).filter(|(progress, _)| behind(**progress)).map(|(_, n)| ShardIndex::new(n)).collect()
    }

    fn ended(&self, among: &[ShardIndex]) -> Option<ShardIndex> {
        let shards = self.shared.shards.borrow();
        among.iter().copied().find(|shard| shards[usize::from(shard.get())] == Progress::Ended)
    }

    /// Ends the tasks; shards see the end of their channel.
    pub(crate) async fn close(&self) {
        self.stop.stop();
        self.tasks.close().await;
    }
}

/// Sends one image after the other until the shard or the publisher ends.
async fn follow(shared: &Shared, stopped: &Stop, index: usize, shard: &Sender<MetadataUpdate>) {
    let mut sent = None;
    while let Some(image) = stopped.or_stop(shared.later_than(sent)).await {
        let version = image.applied();
        let (applied, shard_applied) = channel::oneshot();
        let Some(Ok(())) = stopped.or_stop(shard.send(MetadataUpdate { image, applied })).await else { return };
        let Some(Ok(())) = stopped.or_stop(shard_applied).await else { return };
        sent = Some(version);
        shared.set(index, Progress::Applied(version));
    }
}

impl Shared {
    /// The latest image, as soon as it is later than what was `sent`.
    async fn later_than(&self, sent: Option<Offset>) -> Arc<Image> {
        loop {
            let published = self.published.listen();
            let latest = self.latest.borrow().clone();
            if sent.is_none_or(|sent| latest.applied() > sent) {
                return latest;
            }
            published.await;
        }
    }

    fn set(&self, index: usize, progress: Progress) {
        self.shards.borrow_mut()[index] = progress;
        self.progressed.notify_all();
    }
}
