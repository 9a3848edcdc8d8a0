//! What a run came across, read from what the broker left on the disk: without it the run proves little.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Blocks of the journal stand in units of so many bytes; the number of a block is its unit, counted on from lap to lap
/// (`docs/formats/journal.md`).
const UNIT: usize = 4096;
const BLOCK_MAGIC: &[u8] = b"RQJB";
const BLOCK_NUMBER_AT: usize = 16;

/// How often each of these happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Witness {
    /// A segment was full, and the next one began.
    pub(crate) rolls: u64,
    /// A ring of the journal was full, and began from its start.
    pub(crate) laps: u64,
    /// A start was killed before it had recovered.
    pub(crate) recoveries_killed: u64,
}

impl Witness {
    /// What the data directory of a stopped broker tells, whose logs keep every segment.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn of(data_dir: &Path, recoveries_killed: u64) -> io::Result<Self> {
        let mut witness = Self { recoveries_killed, ..Self::default() };
        let mut directories = vec![data_dir.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory)?.collect::<io::Result<Vec<_>>>()?;
            let paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
            let of_kind =
                |kind: &'static str| paths.iter().filter(move |path| path.extension() == Some(OsStr::new(kind)));
            witness.rolls += (of_kind("log").count() as u64).saturating_sub(1);
            for ring in of_kind("ring").chain(of_kind("relaxed")) {
                witness.laps += laps(&fs::read(ring)?);
            }
            directories.extend(paths.into_iter().filter(|path| path.is_dir()));
        }
        Ok(witness)
    }

    /// Whether each of them happened.
    pub(crate) fn saw_all(self) -> bool {
        self.rolls > 0 && self.laps > 0 && self.recoveries_killed > 0
    }
}

impl Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rolls, laps, recoveries_killed } = self;
        write!(f, "{rolls} segments rolled, rings wrapped {laps} times, {recoveries_killed} recoveries killed")
    }
}

/// How often a ring was written to its end.
fn laps(ring: &[u8]) -> u64 {
    let blocks = ring.chunks_exact(UNIT).filter(|unit| unit.starts_with(BLOCK_MAGIC));
    let number = |block: &[u8]| block[BLOCK_NUMBER_AT..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let units = (ring.len() / UNIT).max(1) as u64;
    blocks.filter_map(number).max().map_or(0, |last| last / units)
}
