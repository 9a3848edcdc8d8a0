//! Paths of the simulated file system, and patterns over them.

use std::io;
use std::path::{Component, Path};
use std::rc::Rc;

/// The names from the root down. Relative paths begin at the root as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<Rc<str>>);

impl Names {
    /// # Errors
    /// `..`, and names that are not UTF-8: our files have neither.
    pub(crate) fn parse(path: &Path) -> io::Result<Names> {
        let refuse = |why: &str| {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("simulated path {}: {why}", path.display())))
        };
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => match name.to_str() {
                    Some(name) => names.push(Rc::from(name)),
                    None => return refuse("a name is not UTF-8"),
                },
                Component::ParentDir | Component::Prefix(_) => return refuse("only plain names are known"),
            }
        }
        Ok(Names(names))
    }

    /// The directory's names and the last one.
    pub(crate) fn split_last(&self) -> Option<(&Rc<str>, &[Rc<str>])> {
        self.0.split_last()
    }

    /// As the trace and the fault patterns show it: absolute.
    pub(crate) fn text(&self) -> Rc<str> {
        format!("/{}", self.0.join("/")).into()
    }
}

/// Whether `path` fits `pattern`, in which `*` stands for any text, also across directories. A leading `/` counts in
/// neither.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.trim_start_matches('/').split('*');
    let mut rest = path.trim_start_matches('/');
    let first = parts.next().unwrap_or_default();
    let Some(stripped) = rest.strip_prefix(first) else { return false };
    rest = stripped;
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_with_and_without_stars() {
        for (pattern, path, fits) in [
            ("/a/b.log", "a/b.log", true),
            ("a/b.log", "/a/b.log.tmp", false),
            ("*", "/anything/at/all", true),
            ("*.log", "/a/b.log", true),
            ("*.log", "/a/b.index", false),
            ("a/*/0*.log", "/a/b/c/00.log", true),
            ("a/*/0*.log", "/a/00.log", false),
            ("a*a", "/a", false),
            ("a*a", "/aa", true),
            ("a*b*c", "/acb", false),
        ] {
            assert_eq!(matches(pattern, path), fits, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_refused() {
        assert!(Names::parse(Path::new("a/../b")).is_err());
        assert_eq!(&*Names::parse(Path::new("./a//b")).unwrap().text(), "/a/b");
    }
}
