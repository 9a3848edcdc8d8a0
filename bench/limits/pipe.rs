//! Network and disk together: what a durable produce cannot do without, and nothing else.
//!
//! Each of [`CONNECTIONS`] clients keeps [`IN_FLIGHT`] frames of [`FRAME_BYTES`] on their way. The server receives a
//! frame straight into aligned memory, computes its CRC32C, writes it to the preallocated file of the connection,
//! makes it durable, and answers with the checksum, which the client compares. Frames have no header, so the end of
//! one is the beginning of the next.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crc_fast::CrcAlgorithm;
use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::executor::CpuId;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::local::{Event, Semaphore};
use ringmq_runtime::net::{ReadHalf, WriteHalf};
use ringmq_runtime::task::{self, Gate};
use ringmq_runtime::time::Instant;
use ringmq_runtime::{fs, random};

use super::cores::Span;
use super::loopback::across;
use super::{CONNECTIONS, FRAME_BYTES};

/// Frames that a client sends before it waits for an answer.
const IN_FLIGHT: u64 = 2;

const CHECKSUM_BYTES: usize = 4;

/// How frames are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// The file is opened with `O_DSYNC`.
    EachWrite,
    /// One `fdatasync` at a time a file, for all its writes that completed before.
    Together,
}

/// Bytes per second from the first frame sent to the last answer received.
pub(super) fn throughput(cores: &[CpuId], dir: &Path, bytes: u64, flush: Flush) -> io::Result<f64> {
    let frames = bytes / (FRAME_BYTES * CONNECTIONS) as u64;
    let dir = dir.to_owned();
    let spans = across(
        cores,
        move |index, halves| serve(dir.join(format!("pipe-{index}")), frames, flush, halves),
        move |halves| drive(frames, halves),
    )?;
    Ok(Span::rate(&spans, frames * (FRAME_BYTES * CONNECTIONS) as u64))
}

fn checksum(frame: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // CRC32C fills the lower half of the number.
    let [_, _, _, _, checksum @ ..] = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, frame).to_be_bytes();
    checksum
}

/// The client's end.
async fn drive(frames: u64, (mut read, mut write): (ReadHalf, WriteHalf)) -> io::Result<Span> {
    let mut frame = vec![0; FRAME_BYTES];
    random::fill(&mut frame);
    let expected = checksum(&frame);
    // The server is ready when it has made space for its file.
    read.read_exact(&mut [0]).await?;
    let start = Instant::now();
    for sent in 0..frames + IN_FLIGHT {
        if sent >= IN_FLIGHT {
            let mut answer = [0; CHECKSUM_BYTES];
            read.read_exact(&mut answer).await?;
            if answer != expected {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame arrived damaged"));
            }
        }
        if sent < frames {
            write.write_all(&frame).await?;
        }
    }
    Ok(Span::since(start))
}

/// The server's end: receives one frame after the other, and has a task for each until it is answered.
async fn serve(path: PathBuf, frames: u64, flush: Flush, halves: (ReadHalf, WriteHalf)) -> io::Result<()> {
    let (mut read, mut write) = halves;
    let options = OpenOptions { write: true, create_new: true, dsync: flush == Flush::EachWrite };
    let file = File::open(&path, options).await?;
    file.preallocate(frames * FRAME_BYTES as u64).await?;
    file.fdatasync().await?;
    write.write_all(&[1]).await?;

    let connection = Rc::new(Connection::new(file.clone(), flush, write));
    let (stop, stopped) = task::stop();
    let failed = Rc::new(Cell::new(None));
    let gate = Gate::new();
    for index in 0..frames {
        let mut frame = AlignedBuf::with_len(FRAME_BYTES);
        match stopped.or_stop(read.read_exact(&mut frame)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(error),
            None => break,
        }
        let (connection, stop, failed) = (connection.clone(), stop.clone(), failed.clone());
        let store = async move {
            if let Err(error) = connection.store(frame, index * FRAME_BYTES as u64).await {
                failed.set(Some(error));
                stop.stop();
            }
        };
        gate.spawn("frame", store).map_err(io::Error::other)?;
    }
    gate.close().await;
    drop(connection);
    file.close().await?;
    fs::remove_file(&path).await?;
    failed.take().map_or(Ok(()), Err)
}

/// What the tasks of one connection share.
struct Connection {
    file: File,
    flush: Flush,
    /// Writes that completed, and how many of them are durable.
    written: Cell<u64>,
    durable: Cell<u64>,
    flushing: Cell<bool>,
    flush_ended: Event,
    /// Taken by whoever answers, in turn.
    write: Cell<Option<WriteHalf>>,
    turn: Semaphore,
}

impl Connection {
    fn new(file: File, flush: Flush, write: WriteHalf) -> Connection {
        Connection {
            file,
            flush,
            written: Cell::new(0),
            durable: Cell::new(0),
            flushing: Cell::new(false),
            flush_ended: Event::new(),
            write: Cell::new(Some(write)),
            turn: Semaphore::new(1),
        }
    }

    /// All that happens to a frame after it was received.
    async fn store(&self, frame: AlignedBuf, pos: u64) -> io::Result<()> {
        let answer = checksum(&frame);
        self.file.write_at(&frame.freeze(), pos, IoClass::Append).await?;
        match self.flush {
            Flush::EachWrite => {}
            Flush::Together => self.flushed().await?,
        }
        self.answer(answer).await
    }

    /// Waits for a flush that began after this call. One runs at a time, for everyone who waits when it begins.
    async fn flushed(&self) -> io::Result<()> {
        let mine = self.written.get() + 1;
        self.written.set(mine);
        while self.durable.get() < mine {
            let flush_ended = self.flush_ended.listen();
            if self.flushing.replace(true) {
                flush_ended.await;
                continue;
            }
            let covers = self.written.get();
            let flushed = self.file.fdatasync().await;
            if flushed.is_ok() {
                self.durable.set(covers);
            }
            self.flushing.set(false);
            self.flush_ended.notify_all();
            flushed?;
        }
        Ok(())
    }

    async fn answer(&self, answer: [u8; CHECKSUM_BYTES]) -> io::Result<()> {
        let _turn = self.turn.acquire(1).await;
        let Some(mut write) = self.write.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        write.write_all(&answer).await?;
        self.write.set(Some(write));
        Ok(())
    }
}
