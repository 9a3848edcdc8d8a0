//! A ring in use: blocks go to the device, and are acknowledged in order.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_runtime::buffer::{AlignedBuf, IoBuf};
use ringmq_runtime::file::{File, IoClass};
use ringmq_runtime::local::{Event, Listener};
use ringmq_runtime::task::{self, Gate, Stop, StopHandle};
use ringmq_runtime::time::Instant;

use crate::aside::{check_range, copy};
use crate::block::{BlockHeader, ENTRY_HEADER_BYTES, Entry};
use crate::config::JournalConfig;
use crate::flush::flush_when_due;
use crate::idle::close_when_idle;
use crate::ledger::Ledger;
use crate::name::{Flushing, RingName};
use crate::number::{BlockNumber, UNIT_BYTES_U64};
use crate::ring::Ring;

/// The journal of one core. Clones share it.
///
/// The caller hands over a cargo with each block, such as who waits for it, and gets it back in the order of the
/// blocks: when the block is durable and all before it are (rule 3 of the storage protocol), or when the journal failed.
/// In a relaxed ring ([`Flushing::Relaxed`]) blocks are durable with the next flush, within the time that
/// [`Journal::flush_within`] sets; the caller may hear of them before ([`Journal::tell_written`]).
pub struct Journal<C>(Rc<Core<C>>);

impl<C> Clone for Journal<C> {
    fn clone(&self) -> Self {
        Journal(self.0.clone())
    }
}

/// What the journal and its tasks share.
pub(crate) struct Core<C> {
    name: RingName,
    pub(crate) config: JournalConfig,
    pub(crate) state: RefCell<State<C>>,
    /// Notified when there may be room, when a block was acknowledged, and when the journal failed.
    moved: Event,
    /// Notified when a flush may be due earlier than it was.
    pub(crate) hurried: Event,
    gate: Gate,
    pub(crate) stop: Stop,
    stop_handle: StopHandle,
}

pub(crate) struct State<C> {
    pub(crate) ledger: Ledger<C>,
    /// `None` once it is closed.
    pub(crate) file: Option<File>,
    pub(crate) closing: bool,
    /// Why nothing is written any more.
    pub(crate) failed: Option<Arc<io::Error>>,
    /// A task looks whether the ring is idle.
    pub(crate) watching: bool,
    /// A task flushes what is written.
    pub(crate) flushing: bool,
    /// Until when what is written is to be durable; of a relaxed ring.
    pub(crate) flush_by: Option<Instant>,
    /// `None` in a ring of which nobody wants to know, and once it is closed.
    on_written: Option<Rc<dyn Fn(C)>>,
    /// `None` once it is closed.
    on_durable: Option<Rc<dyn Fn(BlockNumber, C)>>,
    on_failed: Option<OnFailed<C>>,
}

type OnFailed<C> = Box<dyn FnOnce(Arc<io::Error>, Vec<C>)>;

impl<C> State<C> {
    pub(crate) fn takes_blocks(&self) -> bool {
        self.failed.is_none() && !self.closing
    }
}

impl<C: Clone + 'static> Journal<C> {
    /// Bytes that an entry with a payload of that length takes of a block's [room](Journal::room).
    #[must_use]
    pub const fn entry_bytes(payload_bytes: usize) -> usize {
        ENTRY_HEADER_BYTES + payload_bytes
    }

    /// Takes a ring into use. Its first block is durable when this returns, and frees all that the ring held: by then
    /// that is in durable frames or [aside](crate::keep_aside), and no frame of what was read is in flight. `config` is
    /// valid, and the one that the ring was made or taken up with.
    ///
    /// `on_durable` is called for each block that [`Journal::write`] wrote, in order, as soon as it and all before it
    /// are durable. `on_failed` is called once, if a write fails: with the cargos of all blocks that are not
    /// acknowledged. They may call any method. Both are let go of when the journal is [closed](Journal::close).
    ///
    /// # Errors
    /// When the first block cannot be written. The ring is not used in this life; what it holds stays as it is.
    pub async fn start(
        ring: Ring,
        config: JournalConfig,
        on_durable: impl Fn(BlockNumber, C) + 'static,
        on_failed: impl FnOnce(Arc<io::Error>, Vec<C>) + 'static,
    ) -> io::Result<Journal<C>> {
        let Ring { name, file, first } = ring;
        let mut ledger = Ledger::new(name, &config, first);
        let (header, buf) = build(&mut ledger, &[], None);
        file.write_at(&buf, ledger.position(header.number), IoClass::Journal).await?;
        ledger.land(header.number);
        if name.flushing == Flushing::Relaxed {
            file.fdatasync().await?;
            ledger.next_written();
            ledger.flushed(header.end());
        }
        ledger.acknowledge();
        let (stop_handle, stop) = task::stop();
        let state = State {
            ledger,
            file: Some(file),
            closing: false,
            failed: None,
            watching: false,
            flushing: false,
            flush_by: None,
            on_written: None,
            on_durable: Some(Rc::new(on_durable)),
            on_failed: Some(Box::new(on_failed)),
        };
        let core = Core {
            name,
            config,
            state: RefCell::new(state),
            moved: Event::new(),
            hurried: Event::new(),
            gate: Gate::new(),
            stop,
            stop_handle,
        };
        Ok(Journal(Rc::new(core)))
    }

    /// Of a relaxed ring: `on_written` is called for each block from now on, in order, as soon as it and all before it are
    /// in the page cache, where a killed process leaves them. It may call any method.
    pub fn tell_written(&self, on_written: impl Fn(C) + 'static) {
        self.0.state.borrow_mut().on_written = Some(Rc::new(on_written));
    }

    /// Of a relaxed ring: what was written is to be durable within that time, or as much earlier as another call or the
    /// ring wants it. Without it, a flush comes at once.
    pub fn flush_within(&self, time: Duration) {
        let mut state = self.0.state.borrow_mut();
        let by = Instant::now() + time;
        let is_earlier = state.flush_by.is_some_and(|before| by < before);
        state.flush_by = Some(state.flush_by.map_or(by, |before| before.min(by)));
        drop(state);
        if is_earlier {
            self.0.hurried.notify_all();
        }
    }

    /// Bytes of entries that a block written now could take: the sum of their [`Journal::entry_bytes`]. `None` when
    /// none can be written now: the ring is full, enough blocks are in flight, the journal failed or is closed. An entry
    /// of at most [`JournalConfig::entry_bytes_max`] fits sooner or later, if blocks are freed.
    pub fn room(&self) -> Option<usize> {
        let state = self.0.state.borrow();
        state.ledger.room().filter(|_| state.takes_blocks())
    }

    /// Writes a block with these entries, of one log in the order of their offsets; best those of one log side by side.
    /// The payloads are copied before this returns. Gives the block's number.
    ///
    /// # Panics
    /// When there are no entries, or they take more than [`Journal::room`] says.
    pub fn write(&self, entries: &[Entry<'_>], cargo: C) -> BlockNumber {
        let entry_bytes: usize = entries.iter().map(Entry::encoded_bytes).sum();
        let room = self.room();
        assert!(
            room.is_some_and(|room| (1..=room).contains(&entry_bytes)),
            "{entry_bytes} bytes, and room for {room:?}"
        );
        self.0.launch(entries, Some(cargo))
    }

    /// The caller needs no block below `number` any more: durable frames or an aside file have what they hold. It is a
    /// number that [`Journal::write`] or [`Journal::next_number`] gave. Blocks tell the next starts; where room is
    /// short, one is written just for that. What is free stays free: a lower number changes nothing.
    pub fn free_below(&self, number: BlockNumber) {
        self.0.state.borrow_mut().ledger.free_below(number);
        self.0.go_on();
    }

    /// Done once there may be room, a block was acknowledged or the journal failed. Take it before asking.
    pub fn moved(&self) -> Listener {
        self.0.moved.listen()
    }

    /// Why the journal failed, if it did. It takes no more blocks until the next start.
    pub fn failed(&self) -> Option<Arc<io::Error>> {
        self.0.state.borrow().failed.clone()
    }

    /// Bytes of the ring that hold blocks which are needed, or are not yet known to be free.
    pub fn used_bytes(&self) -> u64 {
        self.0.state.borrow().ledger.used_units() * UNIT_BYTES_U64
    }

    /// Whether it is time to free blocks: less than a quarter of the ring is left. The later that is done, the more appends of
    /// a log share a frame and its flush; what is left takes up what comes while the device stalls.
    pub fn is_filling(&self) -> bool {
        self.0.state.borrow().ledger.is_filling()
    }

    /// The size of the ring, in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.0.config.ring_bytes
    }

    /// The ring's name.
    pub fn name(&self) -> RingName {
        self.0.name
    }

    /// The number that the next block will have. When nothing in the ring is needed, that is what to free below.
    pub fn next_number(&self) -> BlockNumber {
        self.0.state.borrow().ledger.next()
    }

    /// All blocks below are durable and acknowledged.
    pub fn durable_through(&self) -> BlockNumber {
        self.0.state.borrow().ledger.durable_through()
    }

    /// Copies acknowledged blocks into an aside file, durably, because a partition with entries in them is offline. The
    /// caller frees them only when this is done. See [`keep_aside`](crate::keep_aside).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the blocks are free already, or not acknowledged; what the file system
    /// says.
    pub async fn keep_aside(&self, dir: &Path, blocks: Range<BlockNumber>) -> io::Result<()> {
        let (there, file) = {
            let state = self.0.state.borrow();
            (state.ledger.floor()..state.ledger.durable_through(), state.file.clone())
        };
        check_range(&blocks, there)?;
        let file = file.ok_or_else(|| io::Error::other("the journal is closed"))?;
        copy(dir, &file, self.0.name.number, self.0.config.geometry().units, blocks).await
    }

    /// Stops: takes no more blocks, waits for those in flight, writes a closing block if one is due, closes the file.
    ///
    /// # Errors
    /// When the journal failed, now or before, or the file cannot be closed.
    pub async fn close(&self) -> Result<(), Arc<io::Error>> {
        let core = &self.0;
        core.state.borrow_mut().closing = true;
        core.stop_handle.stop();
        core.moved.notify_all();
        core.hurried.notify_all();
        core.until_nothing_is_in_flight().await;
        if core.is_closing_block_due() {
            core.launch(&[], None);
            core.until_nothing_is_in_flight().await;
        }
        core.gate.close().await;
        let (file, failed) = {
            let mut state = core.state.borrow_mut();
            (state.on_written, state.on_durable, state.on_failed) = (None, None, None);
            (state.file.take(), state.failed.clone())
        };
        if let Some(file) = file {
            file.close().await.map_err(Arc::new)?;
        }
        failed.map_or(Ok(()), Err)
    }
}

impl<C> fmt::Debug for Journal<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.borrow();
        f.debug_struct("Journal")
            .field("name", &self.0.name)
            .field("next", &state.ledger.next())
            .finish_non_exhaustive()
    }
}

impl<C: Clone + 'static> Core<C> {
    /// Builds the next block and hands it to the device.
    pub(crate) fn launch(self: &Rc<Self>, entries: &[Entry<'_>], cargo: Option<C>) -> BlockNumber {
        let mut state = self.state.borrow_mut();
        let (header, buf) = build(&mut state.ledger, entries, cargo);
        let position = state.ledger.position(header.number);
        let file = state.file.clone().expect("it is closed only when nothing is written any more");
        drop(state);
        let core = self.clone();
        let write = async move {
            match file.write_at(&buf, position, IoClass::Journal).await {
                Ok(()) => core.landed(header.number),
                Err(error) => core.fail(error),
            }
        };
        // The gate is closed only when nothing is written any more.
        let spawned = self.gate.spawn("journal-write", write);
        debug_assert!(spawned.is_ok());
        header.number
    }

    fn landed(self: &Rc<Self>, number: BlockNumber) {
        {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.ledger.land(number);
        }
        while let Some((cargo, on_written)) = self.next_written() {
            if let (Some(cargo), Some(on_written)) = (cargo, on_written) {
                on_written(cargo);
            }
        }
        self.acknowledge();
    }

    /// Tells of the blocks that are durable now, and does what that allows.
    pub(crate) fn acknowledge(self: &Rc<Self>) {
        while let Some((number, cargo, on_durable)) = self.next_acknowledged() {
            if let (Some(cargo), Some(on_durable)) = (cargo, on_durable) {
                on_durable(number, cargo);
            }
        }
        self.go_on();
        self.moved.notify_all();
    }

    /// What is written next, and whom to tell; the state is not borrowed when it is told.
    #[allow(clippy::type_complexity)]
    fn next_written(&self) -> Option<(Option<C>, Option<Rc<dyn Fn(C)>>)> {
        let mut state = self.state.borrow_mut();
        let cargo = state.ledger.next_written()?;
        Some((cargo, state.on_written.clone()))
    }

    /// What is acknowledged next, and whom to tell; the state is not borrowed when it is told.
    #[allow(clippy::type_complexity)]
    fn next_acknowledged(&self) -> Option<(BlockNumber, Option<C>, Option<Rc<dyn Fn(BlockNumber, C)>>)> {
        let mut state = self.state.borrow_mut();
        let (number, cargo) = state.ledger.acknowledge()?;
        Some((number, cargo, state.on_durable.clone()))
    }

    /// Nothing is written to the ring any more, and nothing is tried again (rule 12 of the storage protocol). Blocks
    /// that were acknowledged stay so.
    pub(crate) fn fail(&self, error: io::Error) {
        let error = Arc::new(error);
        let (cargos, on_failed) = {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.failed = Some(error.clone());
            (state.ledger.give_up(), state.on_failed.take())
        };
        self.stop_handle.stop();
        if let Some(on_failed) = on_failed {
            on_failed(error, cargos);
        }
        self.moved.notify_all();
    }

    /// Writes the block, or starts the wait for one, that no caller asks for.
    fn go_on(self: &Rc<Self>) {
        self.see_to_flush();
        let mut state = self.state.borrow_mut();
        if !state.takes_blocks() {
            return;
        }
        if state.ledger.must_raise_floor() {
            drop(state);
            self.launch(&[], None);
        } else if state.ledger.is_open() && !state.watching {
            // A closed gate means that the journal is closed.
            state.watching = self.gate.spawn("journal-idle", close_when_idle(self.clone())).is_ok();
        }
    }

    /// Starts the task that flushes what is written, or hurries it.
    fn see_to_flush(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.ledger.unflushed().is_none() || state.failed.is_some() {
            return;
        }
        if !state.flushing {
            // A closed gate means that the journal is closed.
            state.flushing = self.gate.spawn("journal-flush", flush_when_due(self.clone())).is_ok();
        } else if self.is_flush_urgent(&state) {
            drop(state);
            self.hurried.notify_all();
        }
    }

    /// Whether no block was begun since `next` was the next number.
    pub(crate) fn wrote_nothing_since(&self, next: BlockNumber) -> bool {
        self.state.borrow().ledger.next() == next
    }

    /// Whether the next start would learn something from one more block.
    fn is_closing_block_due(&self) -> bool {
        let state = self.state.borrow();
        let ledger = &state.ledger;
        state.failed.is_none() && state.file.is_some() && (ledger.may_prove_newest() || ledger.is_floor_unannounced())
    }

    async fn until_nothing_is_in_flight(&self) {
        loop {
            let moved = self.moved.listen();
            if !self.state.borrow().ledger.is_in_flight() {
                return;
            }
            moved.await;
        }
    }
}

/// Builds the next block, and enters it into the ledger.
fn build<C>(ledger: &mut Ledger<C>, entries: &[Entry<'_>], cargo: Option<C>) -> (BlockHeader, IoBuf) {
    let header = ledger.header(entries.iter().map(Entry::encoded_bytes).sum());
    let mut buf = AlignedBuf::with_len(header.block_bytes());
    let checksum = header.encode(ledger.ends_before(), entries, &mut buf);
    ledger.launch(header, checksum, entries, cargo);
    (header, buf.freeze())
}
