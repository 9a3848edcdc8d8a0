//! What becomes of changes that are not durable when the power goes.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::content::Sequence;
use crate::buffer::BLOCK_BYTES;
use crate::sim::dice::Dice;

/// What the drive writes at once or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// What a crash did to changes that were not durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Writes that are there as if they had been flushed (unless a later one covers them).
    pub writes_kept: u64,
    /// Writes of which nothing is left.
    pub writes_dropped: u64,
    /// Writes that are there in parts: a beginning, some blocks, or some sectors.
    pub writes_torn: u64,
    /// Directory entries made, moved or removed that stayed so.
    pub entries_kept: u64,
    /// Directory entries made, moved or removed that are as before.
    pub entries_dropped: u64,
}

/// The draws of one crash. A write meets one fate in all of its blocks; writes and entries are independent of each
/// other, so any may land without any other.
pub(crate) struct Fates<'a> {
    dice: &'a mut Dice,
    tear: bool,
    mood: Mood,
    writes: BTreeMap<Sequence, Fate>,
    entries_kept: u64,
    entries_dropped: u64,
}

/// Some crashes are extreme, for independent draws alone would hardly ever produce them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    KeepsNothing,
    KeepsEverything,
    Mixed,
}

#[derive(Debug)]
enum Fate {
    Kept,
    Dropped,
    /// A beginning of some length, in blocks.
    Prefix {
        ended: bool,
    },
    /// Each block for itself, with that many chances in eight.
    Blocks {
        chances: u32,
    },
    /// Each sector for itself.
    Sectors,
}

impl<'a> Fates<'a> {
    pub(crate) fn draw(dice: &'a mut Dice, tear: bool) -> Fates<'a> {
        let mood = match dice.below(8) {
            0 => Mood::KeepsNothing,
            1 => Mood::KeepsEverything,
            _ => Mood::Mixed,
        };
        Fates { dice, tear, mood, writes: BTreeMap::new(), entries_kept: 0, entries_dropped: 0 }
    }

    /// A crash that keeps nothing but what it must.
    #[cfg(test)]
    pub(crate) fn keeping_nothing(dice: &'a mut Dice) -> Fates<'a> {
        Fates { mood: Mood::KeepsNothing, ..Fates::draw(dice, true) }
    }

    pub(crate) fn report(&self) -> CrashReport {
        let count = |fits: fn(&Fate) -> bool| self.writes.values().filter(|fate| fits(fate)).count() as u64;
        CrashReport {
            writes_kept: count(|fate| matches!(fate, Fate::Kept)),
            writes_dropped: count(|fate| matches!(fate, Fate::Dropped)),
            writes_torn: count(|fate| !matches!(fate, Fate::Kept | Fate::Dropped)),
            entries_kept: self.entries_kept,
            entries_dropped: self.entries_dropped,
        }
    }

    /// How many of a file's `count` changes of size and allocation are kept, from the oldest on.
    pub(crate) fn layouts_kept(&mut self, count: usize) -> usize {
        match self.mood {
            Mood::KeepsNothing => 0,
            Mood::KeepsEverything => count,
            Mood::Mixed => self.dice.below(count + 1),
        }
    }

    /// Whether a directory entry's change stays, if those that it needs do.
    pub(crate) fn keeps_entry(&mut self, needs_met: bool) -> bool {
        let wanted = match self.mood {
            Mood::KeepsNothing => false,
            Mood::KeepsEverything => true,
            Mood::Mixed => self.dice.coin(),
        };
        let kept = wanted && needs_met;
        if kept {
            self.entries_kept += 1;
        } else {
            self.entries_dropped += 1;
        }
        kept
    }

    /// The block as the write `sequence` leaves it over `old`, or nothing when none of it landed.
    /// A write's blocks are asked for in ascending order.
    pub(crate) fn land_block(
        &mut self,
        sequence: Sequence,
        old: Option<&Rc<[u8]>>,
        new: &Rc<[u8]>,
    ) -> Option<Rc<[u8]>> {
        let Fates { dice, tear, mood, writes, .. } = self;
        match writes.entry(sequence).or_insert_with(|| Fate::draw(dice, *mood, *tear)) {
            Fate::Kept => Some(new.clone()),
            Fate::Dropped => None,
            Fate::Prefix { ended } => {
                *ended |= dice.chance(1, 8);
                (!*ended).then(|| new.clone())
            }
            Fate::Blocks { chances } => dice.chance(*chances, 8).then(|| new.clone()),
            Fate::Sectors => Some(mix_sectors(dice, old, new)),
        }
    }
}

impl Fate {
    fn draw(dice: &mut Dice, mood: Mood, tear: bool) -> Fate {
        match mood {
            Mood::KeepsNothing => return Fate::Dropped,
            Mood::KeepsEverything => return Fate::Kept,
            Mood::Mixed => {}
        }
        match dice.below(if tear { 8 } else { 4 }) {
            0 | 1 => Fate::Kept,
            2 | 3 => Fate::Dropped,
            4 => Fate::Prefix { ended: false },
            5 => Fate::Blocks { chances: 4 },
            6 => Fate::Blocks { chances: if dice.coin() { 7 } else { 1 } },
            _ => Fate::Sectors,
        }
    }
}

fn mix_sectors(dice: &mut Dice, old: Option<&Rc<[u8]>>, new: &Rc<[u8]>) -> Rc<[u8]> {
    let mut mixed = old.map_or_else(|| vec![0; BLOCK_BYTES], |old| old.to_vec());
    for (sector, landed) in mixed.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
        if dice.coin() {
            sector.copy_from_slice(landed);
        }
    }
    mixed.into()
}
