//! The tree of directories, twice: as lookups see it (live), and as a crash cannot change it (durable).
//!
//! Between the two lie changes of entries whose directories have not been synchronised since. A change needs the
//! earlier ones that touch the same name or the same file: so a file is never left with half a name, or with two.
//! The removal of a directory needs all that emptied it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use super::content::Sequence;
use super::fate::Fates;
use super::path::Names;

/// A file's or directory's number; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InodeId(u64);

/// The root directory, which is always there.
const ROOT: InodeId = InodeId(0);

/// A name in a directory.
type Entry = (InodeId, Rc<str>);

#[derive(Debug, Default)]
struct Directory {
    live: BTreeMap<Rc<str>, InodeId>,
    durable: BTreeMap<Rc<str>, InodeId>,
}

/// A change of one or two entries that is not known to be durable.
#[derive(Debug)]
struct EntryChange {
    sequence: Sequence,
    inode: InodeId,
    removes: Option<Entry>,
    adds: Option<Entry>,
    /// What had the added name before.
    replaces: Option<InodeId>,
    /// The directories that have not been synchronised since. Moving between two needs both: what one of them alone
    /// would give differs between file systems.
    unsynced: Vec<InodeId>,
    moves_directory: bool,
    /// The directory, then empty, that lost its name.
    removes_directory: Option<InodeId>,
}

/// What makes one change need another: they touch the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Touch {
    Name(Entry),
    Inode(InodeId),
    /// Two moves of directories in the wrong order could close a circle.
    Moves,
}

/// The tree of directories.
#[derive(Debug)]
pub(crate) struct Namespace {
    directories: BTreeMap<InodeId, Directory>,
    /// The live entry of every inode but the root; there are no hard links.
    parents: BTreeMap<InodeId, Entry>,
    changes: Vec<EntryChange>,
    inodes_made: u64,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        Namespace {
            directories: BTreeMap::from([(ROOT, Directory::default())]),
            parents: BTreeMap::new(),
            changes: Vec::new(),
            inodes_made: 0,
        }
    }

    /// The inode that has this name now.
    pub(crate) fn lookup(&self, names: &Names) -> io::Result<InodeId> {
        self.walk(&names.0)
    }

    /// The inode that a crash which keeps nothing would leave under this name.
    pub(crate) fn lookup_durable(&self, names: &Names) -> Option<InodeId> {
        let step = |at, name| self.directories.get(&at)?.durable.get(name).copied();
        names.0.iter().try_fold(ROOT, step)
    }

    fn walk(&self, names: &[Rc<str>]) -> io::Result<InodeId> {
        let step = |at, name| {
            let directory = self.directories.get(&at).ok_or_else(|| os_error(libc::ENOTDIR))?;
            directory.live.get(name).copied().ok_or_else(|| os_error(libc::ENOENT))
        };
        names.iter().try_fold(ROOT, step)
    }

    /// The directory that holds, or would hold, the last name.
    fn place(&self, names: &Names) -> io::Result<Entry> {
        let (name, directory) = names.split_last().ok_or_else(|| os_error(libc::EBUSY))?;
        let directory = self.walk(directory)?;
        if !self.directories.contains_key(&directory) {
            return Err(os_error(libc::ENOTDIR));
        }
        Ok((directory, name.clone()))
    }

    pub(crate) fn is_directory(&self, inode: InodeId) -> bool {
        self.directories.contains_key(&inode)
    }

    /// Whether the inode has a name now.
    pub(crate) fn is_linked(&self, inode: InodeId) -> bool {
        inode == ROOT || self.parents.contains_key(&inode)
    }

    /// Where the inode is now, as text; an unlinked one has no name.
    pub(crate) fn path_of(&self, inode: InodeId) -> Option<Rc<str>> {
        let mut names = Vec::new();
        let mut at = inode;
        while at != ROOT {
            let (directory, name) = self.parents.get(&at)?;
            names.push(name.clone());
            at = *directory;
        }
        names.reverse();
        Some(Names(names).text())
    }

    /// The entries of a directory: name, and whether it is a directory itself; ascending.
    pub(crate) fn list(&self, names: &Names) -> io::Result<Vec<(Rc<str>, bool)>> {
        let inode = self.walk(&names.0)?;
        let directory = self.directories.get(&inode).ok_or_else(|| os_error(libc::ENOTDIR))?;
        Ok(directory.live.iter().map(|(name, inode)| (name.clone(), self.is_directory(*inode))).collect())
    }

    /// Every file's path and inode, ascending by path; of the durable tree if asked so.
    pub(crate) fn files(&self, durable: bool) -> Vec<(Rc<str>, InodeId)> {
        let mut found = Vec::new();
        let mut to_visit = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = to_visit.pop() {
            let Some(directory) = self.directories.get(&inode) else {
                found.push((path.into(), inode));
                continue;
            };
            let entries = if durable { &directory.durable } else { &directory.live };
            to_visit.extend(entries.iter().map(|(name, inode)| (format!("{path}/{name}"), *inode)));
        }
        found.sort();
        found
    }

    /// Makes a file's entry. The caller knows that the name is free or says so.
    pub(crate) fn create_file(&mut self, sequence: Sequence, names: &Names) -> io::Result<InodeId> {
        self.create(sequence, names)
    }

    pub(crate) fn create_directory(&mut self, sequence: Sequence, names: &Names) -> io::Result<InodeId> {
        let inode = self.create(sequence, names)?;
        self.directories.insert(inode, Directory::default());
        Ok(inode)
    }

    fn create(&mut self, sequence: Sequence, names: &Names) -> io::Result<InodeId> {
        let place = self.place(names)?;
        if self.directories[&place.0].live.contains_key(&place.1) {
            return Err(os_error(libc::EEXIST));
        }
        self.inodes_made += 1;
        let inode = InodeId(self.inodes_made);
        self.change(sequence, inode, None, Some(place), None);
        Ok(inode)
    }

    /// Takes a file's or an empty directory's name away.
    pub(crate) fn remove(&mut self, sequence: Sequence, names: &Names) -> io::Result<InodeId> {
        let place = self.place(names)?;
        let inode = self.walk(&names.0)?;
        if self.directories.get(&inode).is_some_and(|directory| !directory.live.is_empty()) {
            return Err(os_error(libc::ENOTEMPTY));
        }
        self.change(sequence, inode, Some(place), None, None);
        Ok(inode)
    }

    /// Gives a file or directory another name; returns the file that had it before.
    pub(crate) fn rename(&mut self, sequence: Sequence, from: &Names, to: &Names) -> io::Result<Option<InodeId>> {
        let old_place = self.place(from)?;
        let new_place = self.place(to)?;
        let inode = self.walk(&from.0)?;
        if old_place == new_place {
            return Ok(None);
        }
        if self.is_directory(inode) && to.0.starts_with(&from.0) {
            return Err(os_error(libc::EINVAL));
        }
        if from.0.starts_with(&to.0) {
            return Err(os_error(libc::ENOTEMPTY));
        }
        let replaces = self.directories[&new_place.0].live.get(&new_place.1).copied();
        match replaces.map(|replaced| (self.directories.get(&replaced), self.is_directory(inode))) {
            Some((Some(_), false)) => return Err(os_error(libc::EISDIR)),
            Some((None, true)) => return Err(os_error(libc::ENOTDIR)),
            Some((Some(directory), true)) if !directory.live.is_empty() => return Err(os_error(libc::ENOTEMPTY)),
            _ => {}
        }
        self.change(sequence, inode, Some(old_place), Some(new_place), replaces);
        Ok(replaces)
    }

    fn change(
        &mut self,
        sequence: Sequence,
        inode: InodeId,
        removes: Option<Entry>,
        adds: Option<Entry>,
        replaces: Option<InodeId>,
    ) {
        if let Some((directory, name)) = &removes {
            self.live_entries(*directory).remove(name);
            self.parents.remove(&inode);
        }
        if let Some(replaced) = replaces {
            self.parents.remove(&replaced);
        }
        if let Some((directory, name)) = &adds {
            self.live_entries(*directory).insert(name.clone(), inode);
            self.parents.insert(inode, (*directory, name.clone()));
        }
        let mut unsynced: Vec<InodeId> = [&removes, &adds].into_iter().flatten().map(|(parent, _)| *parent).collect();
        unsynced.dedup();
        let moves_directory = removes.is_some() && adds.is_some() && self.is_directory(inode);
        let loses_name = if adds.is_some() { replaces } else { Some(inode) };
        let removes_directory = loses_name.filter(|inode| self.is_directory(*inode));
        self.changes.push(EntryChange {
            sequence,
            inode,
            removes,
            adds,
            replaces,
            unsynced,
            moves_directory,
            removes_directory,
        });
    }

    fn live_entries(&mut self, directory: InodeId) -> &mut BTreeMap<Rc<str>, InodeId> {
        &mut self.directories.get_mut(&directory).expect("place() found this directory").live
    }

    /// A directory was synchronised by a request submitted when `upto` was the newest change: its entries up to there
    /// are durable, and what they need. Returns whether a name is gone for good.
    pub(crate) fn sync(&mut self, directory: InodeId, upto: Sequence) -> bool {
        for change in self.changes.iter_mut().filter(|change| change.sequence <= upto) {
            change.unsynced.retain(|unsynced| *unsynced != directory);
        }
        self.persist(|change| change.unsynced.is_empty())
    }

    /// Makes every change durable that is `chosen`, and the earlier ones that it needs. Returns whether one of them
    /// takes a name away.
    fn persist(&mut self, chosen: impl Fn(&EntryChange) -> bool) -> bool {
        let mut needed = BTreeSet::new();
        let mut emptied = BTreeSet::new();
        let mut to_persist = BTreeSet::new();
        for change in self.changes.iter().rev() {
            let is_needed = change.touches().any(|touch| needed.contains(&touch)) || change.is_within(&emptied);
            if is_needed || chosen(change) {
                needed.extend(change.touches());
                emptied.extend(change.removes_directory);
                to_persist.insert(change.sequence);
            }
        }
        let mut names_gone = false;
        for change in std::mem::take(&mut self.changes) {
            if to_persist.contains(&change.sequence) {
                self.apply_durably(&change);
                names_gone |= change.adds.is_none() || change.replaces.is_some();
            } else {
                self.changes.push(change);
            }
        }
        names_gone
    }

    fn apply_durably(&mut self, change: &EntryChange) {
        if let Some((directory, name)) = &change.removes
            && let Some(directory) = self.directories.get_mut(directory)
        {
            directory.durable.remove(name);
        }
        if let Some((directory, name)) = &change.adds
            && let Some(directory) = self.directories.get_mut(directory)
        {
            directory.durable.insert(name.clone(), change.inode);
        }
    }

    /// Takes a name away behind the program's back, durable at once. Returns the inode that had it.
    pub(crate) fn remove_durably(&mut self, sequence: Sequence, names: &Names) -> io::Result<InodeId> {
        let inode = self.remove(sequence, names)?;
        self.persist(|change| change.sequence == sequence);
        Ok(inode)
    }

    /// The power went: changes that are not durable are kept or dropped by the dice, and what is left is all that
    /// there is.
    pub(crate) fn crash(&mut self, fates: &mut Fates<'_>) {
        let mut dropped = BTreeSet::new();
        let mut not_emptied = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let is_touched = change.touches().any(|touch| dropped.contains(&touch));
            let is_not_empty = change.removes_directory.is_some_and(|directory| not_emptied.contains(&directory));
            if fates.keeps_entry(!is_touched && !is_not_empty) {
                self.apply_durably(&change);
            } else {
                dropped.extend(change.touches());
                not_emptied.extend(change.directories());
            }
        }
        self.parents.clear();
        for (inode, directory) in &mut self.directories {
            directory.live = directory.durable.clone();
            self.parents.extend(directory.live.iter().map(|(name, child)| (*child, (*inode, name.clone()))));
        }
        self.collect();
    }

    /// Forgets directories that no name leads to, now or after any crash, and returns every inode that some name
    /// leads to.
    pub(crate) fn collect(&mut self) -> BTreeSet<InodeId> {
        let mut reachable = BTreeSet::new();
        let mut to_visit = vec![ROOT];
        loop {
            while let Some(inode) = to_visit.pop() {
                if reachable.insert(inode)
                    && let Some(directory) = self.directories.get(&inode)
                {
                    to_visit.extend(directory.live.values().chain(directory.durable.values()));
                }
            }
            for change in self.changes.iter().filter(|change| change.is_within(&reachable)) {
                let mentioned = [Some(change.inode), change.replaces].into_iter().flatten();
                to_visit.extend(mentioned.filter(|inode| !reachable.contains(inode)));
            }
            if to_visit.is_empty() {
                break;
            }
        }
        self.changes.retain(|change| change.is_within(&reachable));
        self.directories.retain(|inode, _| reachable.contains(inode));
        self.parents.retain(|inode, _| reachable.contains(inode));
        reachable
    }
}

impl EntryChange {
    fn touches(&self) -> impl Iterator<Item = Touch> {
        let names = [&self.removes, &self.adds].into_iter().flatten().cloned().map(Touch::Name);
        let inodes = [Some(self.inode), self.replaces].into_iter().flatten().map(Touch::Inode);
        names.chain(inodes).chain(self.moves_directory.then_some(Touch::Moves))
    }

    /// Those whose entries it changes.
    fn directories(&self) -> impl Iterator<Item = InodeId> {
        [&self.removes, &self.adds].into_iter().flatten().map(|(directory, _)| *directory)
    }

    fn is_within(&self, directories: &BTreeSet<InodeId>) -> bool {
        self.directories().any(|directory| directories.contains(&directory))
    }
}

/// What the kernel would answer.
pub(crate) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
