//! Reading sealed segments in the background, so that rot is found before somebody needs what it took.

use std::io;
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::{File, IoClass};
use ringmq_wire::Offset;

use crate::check::FrameCheck;
use crate::failure::{Corruption, Damage};
use crate::log::Log;
use crate::scan::{FrameScanner, next_frame};
use crate::segment::Segment;
use crate::state::LogCore;

/// What reading a sealed segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Frames that are as they were written.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Where there is something else, by position.
    pub damage: Vec<Corruption>,
}

impl Log {
    /// The base offsets of the sealed segments, as they are now.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<Offset> {
        self.core().state.borrow().sealed.iter().map(|segment| segment.base).collect()
    }

    /// Reads the sealed segment with that base from its beginning to its end, and checks every frame. `pace` is awaited
    /// after so many bytes each time; when it says `false`, what was read so far is all. A segment that was deleted or
    /// compacted, before or meanwhile, has nothing to tell.
    ///
    /// # Errors
    /// When its file cannot be opened or read.
    pub async fn scrub(&self, base: Offset, mut pace: impl AsyncFnMut(u64) -> bool) -> io::Result<Scrubbed> {
        let log = self.core();
        let Some((segment, next)) = sealed(log, base) else { return Ok(Scrubbed::default()) };
        let Some(check) = log.frame_check(base) else { return Ok(Scrubbed::default()) };
        let scrubbed = match segment.open_for_reading().await {
            Ok(file) => read_all(log, &segment, next, check, &file, &mut pace).await,
            Err(error) => Err(error),
        };
        // Whatever was found then is not the log's.
        if segment.is_retired() { Ok(Scrubbed::default()) } else { scrubbed }
    }
}

/// The segment, and where the next one begins.
fn sealed(log: &LogCore, base: Offset) -> Option<(Rc<Segment>, Offset)> {
    let state = log.state.borrow();
    let at = state.sealed.iter().position(|segment| segment.base == base)?;
    let active = state.active.as_ref().map(|active| active.segment.base);
    let next = state.sealed.get(at + 1).map(|next| next.base).or(active)?;
    Some((state.sealed[at].clone(), next))
}

async fn read_all(
    log: &LogCore,
    segment: &Segment,
    next: Offset,
    check: FrameCheck,
    file: &File,
    pace: &mut impl AsyncFnMut(u64) -> bool,
) -> io::Result<Scrubbed> {
    let beginning = FramePlace { offset: segment.base, position: 0 };
    let mut scanner = FrameScanner::new(file, check.clone(), beginning).await?.with_class(IoClass::Compaction);
    let mut scrubbed = Scrubbed::default();
    while scanner.expected() < next {
        let read = match scanner.next().await? {
            Ok(header) => {
                scrubbed.frames += 1;
                u64::from(header.frame_bytes)
            }
            Err(fault) => {
                let (position, expected) = (scanner.position(), scanner.expected());
                let (id, segment) = (log.id, file.path().to_owned());
                let damage = Damage::Frame(fault);
                scrubbed.damage.push(Corruption { id, segment, position, expected, damage, proven_end: next });
                let (behind, limit) = (position + BLOCK_BYTES as u64, scanner.file_bytes());
                match next_frame(file, &check, IoClass::Compaction, behind, limit).await? {
                    Some(place) if place.offset >= expected => {
                        scanner.skip_to(place);
                        place.position - position
                    }
                    _ => return Ok(scrubbed),
                }
            }
        };
        scrubbed.bytes += read;
        if !pace(read).await {
            return Ok(scrubbed);
        }
    }
    Ok(scrubbed)
}
