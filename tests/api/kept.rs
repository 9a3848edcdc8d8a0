//! What programs could rely on in one version they can rely on until a version says otherwise.

use std::collections::{BTreeMap, BTreeSet};

/// What `agreed` promises and `now` does not keep; both are listings of the public API.
pub(crate) fn gone(agreed: &str, now: &str) -> Vec<String> {
    promises(agreed).difference(&promises(now)).cloned().collect()
}

/// Whether programs may have to change between these versions: before 1.0 the second number says so (semver.org, 4).
pub(crate) fn may_break(from: &str, to: &str) -> bool {
    let significant = |version: &str| -> Vec<u64> {
        let numbers: Vec<u64> = version.split('.').map(|part| part.parse().expect("a version")).collect();
        let first = numbers.iter().position(|number| *number > 0).unwrap_or(numbers.len() - 1);
        [&numbers[..=first], &[first as u64]].concat()
    };
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    significant(from) != significant(to) && numbers(from) < numbers(to)
}

/// One by one what a listing promises, each with where it stands.
fn promises(listing: &str) -> BTreeSet<String> {
    let mut promises = BTreeSet::new();
    let mut place = String::new();
    let mut attributes: Vec<&str> = Vec::new();
    // What only one who names all of it may rely on: all variants, all fields, all that a trait wants.
    let mut whole: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut module = "";
    let lines = joined(listing);
    for line in &lines {
        match line.trim_start() {
            text if line.starts_with("// ") => module = text,
            text if text.starts_with("#[") => attributes.push(line.trim()),
            text if line.starts_with(' ') => {
                attributes.clear();
                if text == "// and what is private" {
                    whole.remove(&place);
                    continue;
                }
                promises.insert(format!("{place} {text}"));
                if let Some(all) = whole.get_mut(&place) {
                    all.push(text.to_owned());
                }
            }
            "}" => attributes.clear(),
            text => {
                place = format!("{module}: {text}");
                promises.insert(place.clone());
                let derived = attributes.iter().filter_map(|line| line.strip_prefix("#[derive(")?.strip_suffix(")]"));
                promises.extend(
                    derived.flat_map(|all| all.split(", ")).map(|derived| format!("{place} derives {derived}")),
                );
                let is_whole = ["pub enum", "pub struct", "pub trait"].iter().any(|kind| text.starts_with(kind));
                if is_whole && !attributes.contains(&"#[non_exhaustive]") {
                    whole.insert(place.clone(), Vec::new());
                }
                attributes.clear();
            }
        }
    }
    promises.extend(whole.into_iter().map(|(place, all)| format!("{place} and nothing but {}", all.join(" "))));
    promises
}

/// The lines, those of one signature joined.
fn joined(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in listing.lines().filter(|line| !line.is_empty()) {
        let goes_on = ["     ", "    )", "    }", "    where"].iter().any(|start| line.starts_with(start));
        match lines.last_mut() {
            Some(last) if goes_on => *last = format!("{last} {}", line.trim()),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sources::Sources;
    use crate::text::text;

    #[test]
    fn nothing_goes_or_changes_without_a_version_that_says_so() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root").join("src/client");
        let names = std::fs::read_dir(&root).expect("the crate").map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let versions: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix("api-")?.strip_suffix(".txt")?.to_owned())).collect();
        let [version] = &versions[..] else { panic!("one file api-VERSION.txt is wanted: {versions:?}") };
        let agreed = std::fs::read_to_string(root.join(format!("api-{version}.txt"))).expect("it can be read");
        let now = text(&Sources::read(&root), &Sources::read(&root.with_file_name("wire")));
        let gone = gone(&agreed, &now);
        let ours = env!("CARGO_PKG_VERSION");
        assert!(
            gone.is_empty() || may_break(version, ours),
            "these went or changed, and the version is {ours}:\n{}\nPrograms made for {version} may not compile any more: \
             keep them, or raise the version in Cargo.toml (CONTRIBUTING.md, \"The client's API\").",
            gone.join("\n")
        );
    }

    #[test]
    fn what_breaks_programs_is_seen_and_what_only_adds_is_not() {
        let agreed = "// m\n\n#[derive(Debug, Clone)]\npub struct A {\n    // and what is private\n}\nimpl A {\n    \
                      pub fn one(\n        &self,\n        a: u8,\n    ) -> u8;\n    pub fn two(&self);\n}\n\n\
                      #[derive(Debug)]\npub enum E {\n    One,\n}\n\n#[derive(Debug)]\n#[non_exhaustive]\npub enum O {\n    One,\n}\n";
        let lost = |old: &str, new: &str| {
            assert!(agreed.contains(old), "{old}");
            gone(agreed, &agreed.replacen(old, new, 1))
        };
        assert_eq!(lost("    pub fn two(&self);\n", ""), ["// m: impl A { pub fn two(&self);"]);
        assert_eq!(lost("a: u8", "a: u16").len(), 1);
        assert_eq!(lost("Debug, Clone", "Debug"), ["// m: pub struct A { derives Clone"]);
        assert_eq!(lost("    One,\n}\n\n", "    One,\n    Two,\n}\n\n").len(), 1, "who matches all variants");
        assert_eq!(lost("pub enum E", "#[non_exhaustive]\npub enum E").len(), 1);
        for (old, new) in [
            ("    pub fn two(&self);\n", "    pub fn three(&self);\n    pub fn two(&self);\n"),
            ("#[derive(Debug, Clone)]", "#[derive(Debug, Clone, Copy)]"),
            ("#[non_exhaustive]\npub enum O {\n", "#[non_exhaustive]\npub enum O {\n    Two,\n"),
            ("    pub fn two", "    #[must_use]\n    pub fn two"),
        ] {
            assert_eq!(lost(old, new), [""; 0], "{new}");
        }
    }

    #[test]
    fn the_first_number_that_counts_says_that_programs_may_break() {
        for (from, to) in [("0.2.0", "0.3.0"), ("0.2.7", "1.0.0"), ("1.2.3", "2.0.0"), ("0.0.1", "0.0.2")] {
            assert!(may_break(from, to) && !may_break(to, from), "{from} {to}");
        }
        for (from, to) in [("0.2.0", "0.2.0"), ("0.2.0", "0.2.9"), ("1.2.3", "1.9.0")] {
            assert!(!may_break(from, to), "{from} {to}");
        }
    }
}
