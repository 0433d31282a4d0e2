//! An input, read from its beginning to its end.

/// The bytes of an input that were not read yet. What is missing at the end reads as zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte, if there is one.
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// Two bytes, the low one first.
    pub(super) fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// A number below `bound`, and zero where nothing is below it.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// As many bytes as a number before them says, or as are left.
    pub(super) fn part(&mut self) -> &'a [u8] {
        let len = self.number().min(self.0.len());
        let (part, rest) = self.0.split_at(len);
        self.0 = rest;
        part
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}
