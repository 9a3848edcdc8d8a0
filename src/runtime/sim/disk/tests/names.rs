//! The tree of directories: live against the real kernel, durable against the rules.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::sim::dice::{Dice, Purpose};
use crate::sim::disk::content::Sequence;
use crate::sim::disk::fate::Fates;
use crate::sim::disk::names::Namespace;
use crate::sim::disk::path::Names;

const PATHS: [&str; 10] = ["a", "b", "d", "d/a", "d/b", "e", "e/a", "d/e", "d/e/a", "e/d"];

#[derive(Clone, Debug)]
enum Step {
    CreateFile(&'static str),
    CreateDirectory(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    /// Submitted that many steps earlier than it completes.
    Sync(String, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || prop::sample::select(&PATHS[..]);
    let directory = prop::sample::select(&["", "d", "e", "d/e", "e/d"][..]);
    let step = prop_oneof![
        path().prop_map(Step::CreateFile),
        path().prop_map(Step::CreateDirectory),
        path().prop_map(Step::Remove),
        (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        (directory, 0..4_u64).prop_map(|(directory, ago)| Step::Sync(directory.to_owned(), ago)),
    ];
    // The directories come first, so that most of what follows finds them.
    vec(step, 1..40).prop_map(|mut steps| {
        steps.splice(0..0, [Step::CreateDirectory("d"), Step::CreateDirectory("e"), Step::CreateDirectory("d/e")]);
        steps
    })
}

fn names(path: &str) -> Names {
    Names::parse(Path::new(path)).unwrap()
}

/// The tree's file for a step, as the real kernel would be asked for it.
fn apply(tree: &mut Namespace, number: u64, step: &Step) -> io::Result<()> {
    let sequence = Sequence(number);
    match step {
        Step::CreateFile(path) => tree.create_file(sequence, &names(path)).map(drop),
        Step::CreateDirectory(path) => tree.create_directory(sequence, &names(path)).map(drop),
        Step::Remove(path) => tree.remove(sequence, &names(path)).map(drop),
        Step::Rename(from, to) => tree.rename(sequence, &names(from), &names(to)).map(drop),
        Step::Sync(path, ago) => {
            if let Ok(directory) = tree.lookup(&names(path)) {
                tree.sync(directory, Sequence(number.saturating_sub(*ago)));
            }
            Ok(())
        }
    }
}

fn apply_all(steps: &[Step]) -> Namespace {
    let mut tree = Namespace::new();
    for (number, step) in (1..).zip(steps) {
        // Whether the step was possible is none of this history's business.
        let _ = apply(&mut tree, number, step);
    }
    tree
}

fn apply_really(root: &Path, step: &Step) -> io::Result<()> {
    match step {
        Step::CreateFile(path) => fs::File::create_new(root.join(path)).map(drop),
        Step::CreateDirectory(path) => fs::create_dir(root.join(path)),
        Step::Remove(path) if root.join(path).is_dir() => fs::remove_dir(root.join(path)),
        Step::Remove(path) => fs::remove_file(root.join(path)),
        Step::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
        Step::Sync(..) => Ok(()),
    }
}

fn real_files(root: &Path, below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            real_files(root, &path, found);
        } else {
            found.push(format!("/{}", path.strip_prefix(root).unwrap().display()));
        }
    }
}

fn paths(tree: &Namespace, durable: bool) -> Vec<String> {
    tree.files(durable).into_iter().map(|(path, _)| path.as_ref().to_owned()).collect()
}

/// A directory and all below it.
fn directories(tree: &Namespace, path: &str) -> Vec<String> {
    let entries = tree.list(&names(path)).unwrap();
    let children = entries.iter().filter(|(_, is_directory)| *is_directory);
    let below = children.flat_map(|(name, _)| directories(tree, &format!("{path}/{name}")));
    std::iter::once(path.to_owned()).chain(below).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_live_tree_is_what_the_kernel_would_have(steps in steps()) {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Namespace::new();
        for (number, step) in (1..).zip(&steps) {
            let simulated = apply(&mut tree, number, step).map_err(|error| error.kind());
            let real = apply_really(root.path(), step).map_err(|error| error.kind());
            prop_assert_eq!(simulated, real, "{:?}", step);
        }
        let mut expected = Vec::new();
        real_files(root.path(), root.path(), &mut expected);
        expected.sort();
        prop_assert_eq!(paths(&tree, false), expected);
    }

    #[test]
    fn synchronising_every_directory_settles_everything(steps in steps(), seed: u64) {
        let mut tree = apply_all(&steps);
        let number = steps.len() as u64 + 1;
        for directory in directories(&tree, "") {
            apply(&mut tree, number, &Step::Sync(directory, 0)).unwrap();
        }
        let live = tree.files(false);
        prop_assert_eq!(&tree.files(true), &live);
        tree.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        prop_assert_eq!(tree.files(false), live);
    }

    #[test]
    fn a_crash_that_keeps_nothing_leaves_the_durable_tree(steps in steps()) {
        let mut tree = apply_all(&steps);
        let durable = tree.files(true);
        tree.crash(&mut Fates::keeping_nothing(&mut Dice::new(0, Purpose::Fate)));
        prop_assert_eq!(tree.files(false), durable);
    }

    #[test]
    fn after_a_crash_a_file_has_one_name_and_one_that_it_had_before(steps in steps(), seed: u64) {
        let mut had = BTreeSet::new();
        let mut tree = Namespace::new();
        for (number, step) in (1..).zip(&steps) {
            let _ = apply(&mut tree, number, step);
            had.extend(tree.files(false).into_iter().map(|(path, inode)| (inode, last_name(&path))));
        }
        tree.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        let left = tree.files(false);
        prop_assert_eq!(&tree.files(true), &left, "what a crash left is durable");
        let inodes: BTreeSet<_> = left.iter().map(|(_, inode)| *inode).collect();
        prop_assert_eq!(inodes.len(), left.len(), "a file has two names: {:?}", left);
        for (path, inode) in &left {
            prop_assert!(had.contains(&(*inode, last_name(path))), "{path} was never the name of {inode:?}");
            let found = tree.path_of(*inode);
            prop_assert_eq!(found.as_ref(), Some(path));
        }
    }
}

fn last_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
