//! Text from outside, made fit for an error message.

use std::fmt;

/// The first characters of a text that came from outside: quoted, escaped, and never long, so that neither a message nor
/// a terminal suffers from what a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    shown: Box<str>,
    cut: bool,
}

impl Excerpt {
    const CHARS_MAX: usize = 32;

    pub(crate) fn new(text: &str) -> Excerpt {
        let shown: String = text.chars().take(Self::CHARS_MAX).collect();
        let cut = shown.len() < text.len();
        Excerpt { shown: shown.into(), cut }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.shown, if self.cut { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_text_is_cut_and_escaped() {
        assert_eq!(Excerpt::new("a.b").to_string(), "\"a.b\"");
        assert_eq!(Excerpt::new("\u{1b}[2J\n").to_string(), "\"\\u{1b}[2J\\n\"");
        assert_eq!(Excerpt::new(&"ä".repeat(1000)).to_string(), format!("\"{}\"…", "ä".repeat(32)));
    }
}
