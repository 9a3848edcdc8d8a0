//! Cuts a stream of chunks into lines without copying those that lie within one chunk.

use thiserror::Error;

/// One line of the input, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'c> {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes as they came: a carriage return before the newline belongs to them.
    pub bytes: &'c [u8],
}

/// A line that no batch can hold.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {number} is longer than {bytes_max} bytes, the most that a batch of this topic holds (batch_bytes_max)")]
pub(super) struct LineTooLong {
    /// Its number, from 1.
    pub number: u64,
    /// The bound that it passes.
    pub bytes_max: usize,
}

/// The splitter. Its memory is one chunk and one line of at most `line_bytes_max`.
#[derive(Debug)]
pub(super) struct LineSplitter {
    line_bytes_max: usize,
    chunk: Vec<u8>,
    position: usize,
    /// The beginning of a line whose end is not in the chunk.
    partial: Vec<u8>,
    /// Whether `partial` was handed out as a whole line and is to be emptied.
    partial_done: bool,
    lines: u64,
}

impl LineSplitter {
    /// A splitter that refuses lines beyond `line_bytes_max`.
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, chunk: Vec::new(), position: 0, partial: Vec::new(), partial_done: false, lines: 0 }
    }

    /// Takes the next piece of the input; the one before it must have been used up by [`Self::next_line`].
    pub(super) fn feed(&mut self, chunk: Vec<u8>) {
        debug_assert!(self.position >= self.chunk.len(), "the chunk before is used up");
        self.chunk = chunk;
        self.position = 0;
    }

    /// The next line that ends in what was fed; `None` asks for more.
    ///
    /// # Errors
    /// [`LineTooLong`], as soon as that much of the line was seen.
    pub(super) fn next_line(&mut self) -> Result<Option<Line<'_>>, LineTooLong> {
        if std::mem::take(&mut self.partial_done) {
            self.partial.clear();
        }
        let rest = self.chunk.get(self.position..).unwrap_or_default();
        let newline = memchr::memchr(b'\n', rest);
        let piece = rest.get(..newline.unwrap_or(rest.len())).unwrap_or_default();
        if self.partial.len() + piece.len() > self.line_bytes_max {
            return Err(LineTooLong { number: self.lines + 1, bytes_max: self.line_bytes_max });
        }
        self.position += piece.len() + 1;
        if newline.is_none() {
            self.partial.extend_from_slice(piece);
            return Ok(None);
        }
        self.lines += 1;
        if self.partial.is_empty() {
            return Ok(Some(Line { number: self.lines, bytes: piece }));
        }
        self.partial.extend_from_slice(piece);
        self.partial_done = true;
        Ok(Some(Line { number: self.lines, bytes: &self.partial }))
    }

    /// The last line, when the input ended without a newline.
    pub(super) fn finish(&mut self) -> Option<Line<'_>> {
        if self.partial_done || self.partial.is_empty() {
            return None;
        }
        self.partial_done = true;
        self.lines += 1;
        Some(Line { number: self.lines, bytes: &self.partial })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let mut splitter = LineSplitter::new(16);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk.to_vec());
            while let Some(line) = splitter.next_line().expect("short lines") {
                lines.push((line.number, line.bytes.to_vec()));
            }
        }
        lines.extend(splitter.finish().map(|line| (line.number, line.bytes.to_vec())));
        assert_eq!(splitter.finish(), None, "the last line comes once");
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_input_is_cut() {
        let input = b"a\n\nbc\r\n\xff\xfe\nlast";
        let whole = split(&[input]);
        let expected: Vec<(u64, Vec<u8>)> =
            vec![(1, b"a".to_vec()), (2, vec![]), (3, b"bc\r".to_vec()), (4, vec![0xff, 0xfe]), (5, b"last".to_vec())];
        assert_eq!(whole, expected);
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            assert_eq!(split(&[head, tail]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(split(&single), expected);
    }

    #[test]
    fn the_end_of_the_input_adds_no_empty_line() {
        assert_eq!(split(&[b""]), []);
        assert_eq!(split(&[b"a\n"]), [(1, b"a".to_vec())]);
        assert_eq!(split(&[b"\n"]), [(1, vec![])]);
    }

    #[test]
    fn a_long_line_is_named_before_it_is_whole() {
        let mut splitter = LineSplitter::new(4);
        splitter.feed(b"1234\n123".to_vec());
        assert_eq!(splitter.next_line().expect("fits").expect("a line").bytes, b"1234");
        assert_eq!(splitter.next_line(), Ok(None));
        splitter.feed(b"45".to_vec());
        assert_eq!(splitter.next_line(), Err(LineTooLong { number: 2, bytes_max: 4 }));
    }
}
