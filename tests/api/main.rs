//! What the client crate shows to the programs that use it: nothing of it changes unnoticed (`src/client/api.txt`), and all
//! of it is documented as far as these can rely on.

#[cfg(test)]
mod kept;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod text;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::shared::unproved;
    use crate::sources::{Documented, Sources};
    use crate::text::text;

    /// Set to write what is there instead of comparing it.
    const WRITE: &str = "RINGMQ_API_WRITE";

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root").join("src/client")
    }

    fn client() -> Sources {
        Sources::read(&root())
    }

    fn wire() -> Sources {
        Sources::read(&root().with_file_name("wire"))
    }

    fn documented(sources: &Sources) -> Vec<Documented> {
        sources.public().values().flat_map(|module| &module.items).flat_map(|item| item.documented()).collect()
    }

    fn without_cancellation(documented: &[Documented]) -> Vec<&str> {
        let silent =
            |item: &&Documented| item.is_async && !item.text.lines().any(|line| line.trim() == "# Cancellation");
        documented.iter().filter(silent).map(|item| item.path.as_str()).collect()
    }

    fn without_example(documented: &[Documented]) -> Vec<&str> {
        let silent = |item: &&Documented| !item.text.contains("```") && !is_plain(&item.path);
        documented.iter().filter(silent).map(|item| item.path.as_str()).collect()
    }

    /// Constants and the names of types need no example.
    fn is_plain(path: &str) -> bool {
        ["DEFAULT_PORT", "BoxError"].contains(&path)
    }

    #[test]
    fn the_public_api_is_as_it_was_agreed_on() {
        let (file, now) = (root().join("api.txt"), text(&client(), &wire()));
        if std::env::var_os(WRITE).is_some() {
            return std::fs::write(file, now).expect("the snapshot can be written");
        }
        let agreed = std::fs::read_to_string(&file).expect("the snapshot is there");
        let only = |one: &str, other: &str, sign: &str| -> String {
            let lines = one.lines().filter(|line| !other.lines().any(|found| found == *line));
            lines.map(|line| format!("{sign} {line}\n")).collect()
        };
        assert!(
            now == agreed,
            "the client's public API has changed:\n{}{}\nA program that uses the client may not compile any more when a \
             line goes or changes, nor always when one comes. If it is meant: run `{WRITE}=1 cargo test -p ringmq-tests \
             --test api`, commit src/client/api.txt with the change, and say in CHANGELOG.md what programs have to do \
             (CONTRIBUTING.md, \"The client's API\").",
            only(&agreed, &now, "-"),
            only(&now, &agreed, "+"),
        );
    }

    #[test]
    fn every_future_says_what_dropping_it_does() {
        let documented = documented(&client());
        assert!(documented.iter().filter(|item| item.is_async).count() > 30, "the search finds them");
        let silent = without_cancellation(&documented);
        assert!(silent.is_empty(), "these lack a section `# Cancellation`: {silent:#?}");
    }

    #[test]
    fn everything_public_has_an_example() {
        let documented = documented(&client());
        assert!(documented.len() > 150, "the search finds them");
        let silent = without_example(&documented);
        assert!(silent.is_empty(), "{} of {} lack an example: {silent:#?}", silent.len(), documented.len());
    }

    /// What the client passes on of other crates, by its own documentation. Codes of errors are in no listing of sources.
    #[test]
    fn everything_that_is_passed_on_has_an_example() {
        let (client, wire) = (client(), wire());
        let public = client.public();
        let foreign: Vec<&Vec<String>> =
            public.values().flat_map(|module| &module.foreign).map(|(_, path)| path).collect();
        assert!(foreign.len() > 20, "the search finds them");
        for path in foreign.into_iter().filter(|path| path.last().is_none_or(|name| name != "ErrorCode")) {
            let item = wire.named(&path[1..]).unwrap_or_else(|| panic!("{path:?} is nowhere declared"));
            assert!(item.documented()[0].text.contains("```"), "{path:?} lacks an example");
        }
    }

    #[test]
    fn every_type_is_shared_between_threads() {
        let missing = unproved(&client());
        assert!(missing.is_empty(), "name these in tests/api/shared.rs: {missing:?}");
        assert_eq!(unproved(&Sources::of("pub enum Unknown {}\npub fn function() {}")), ["Unknown"]);
    }

    #[test]
    fn what_is_missing_is_seen() {
        let sources = Sources::of(
            "/// A.\npub struct Open { pub seen: u8, hidden: u8 }\n\
             impl Open {\n\
             /// # Cancellation\n/// None.\n/// ```\n/// ```\npub async fn told(&self) {}\n\
             /// Not.\npub async fn silent(&self) -> u8 { 7 }\n\
             async fn private(&self) {}\n}\n\
             impl Drop for Open { fn drop(&mut self) {} }\n\
             pub trait Taken { fn take(self); }\n\
             impl Taken for &str { fn take(self) {} }\n\
             impl<T: Taken> Taken for Vec<T> { fn take(self) {} }\n\
             struct Private;\nimpl Private { pub async fn unreachable(&self) {} }",
        );
        let documented = documented(&sources);
        assert_eq!(without_cancellation(&documented), ["Open::silent"]);
        assert_eq!(without_example(&documented), ["Open", "Open::silent", "Taken", "Taken::take"]);
        let expected = "// ringmq_client\n\n\npub struct Open {\n    pub seen: u8,\n    // and what is private\n}\n\
                        impl Open {\n    pub async fn silent(&self) -> u8;\n    pub async fn told(&self);\n}\n\
                        impl Drop for Open;\n\n\
                        pub trait Taken {\n    fn take(self);\n}\n\
                        impl Taken for &str;\nimpl<T: Taken> Taken for Vec<T>;\n";
        assert_eq!(text(&sources, &sources), expected);
    }

    #[test]
    fn futures_that_no_async_function_gives_are_seen() {
        let sources = Sources::of(
            "pub struct Pending;\nimpl Future for Pending { type Output = (); }\n\
             impl Pending {\n\
             pub fn named(&self) -> Result<Pending, ()> { Ok(Pending) }\n\
             pub fn boxed(&self) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>, ()> { Err(()) }\n\
             pub fn nameless(&self) -> impl Future<Output = ()> + use<> { async {} }\n\
             pub fn none(&self) -> impl Iterator<Item = u8> { None.into_iter() }\n}",
        );
        let documented = documented(&sources);
        assert_eq!(without_cancellation(&documented), ["Pending", "Pending::boxed", "Pending::nameless"]);
    }

    #[test]
    fn what_the_listing_does_not_know_is_refused() {
        for unknown in [
            "mod inner { pub struct Open; } pub use inner::*;",
            "pub use std::{fmt::{self, *}};",
            "pub static SHOWN: u8 = 7;",
            "#[macro_export] macro_rules! shown { () => {}; }",
            "pub union Either { one: u8, other: i8 }",
        ] {
            let seen = std::panic::catch_unwind(|| text(&Sources::of(unknown), &Sources::of("")));
            assert!(seen.is_err(), "{unknown}");
        }
        let fine = "static SHOWN: u8 = 7; macro_rules! hidden { () => {}; } use std::fmt::*;";
        assert_eq!(text(&Sources::of(fine), &Sources::of("")), "// ringmq_client\n");
    }
}
