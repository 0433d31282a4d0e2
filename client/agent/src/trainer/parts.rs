//! What is too long for one message goes in parts, and is put together again, bounded.

use zeroize::Zeroizing;

use super::message::{Kind, Part};

/// Bytes of one part of what is larger than a frame.
pub(super) const PART_BYTES: usize = 1 << 20;

/// The parts of `bytes`; one that is empty where it is.
pub(super) fn parts(kind: Kind, bytes: &[u8]) -> impl Iterator<Item = Part> {
    let last = bytes.len().div_ceil(PART_BYTES).max(1);
    (1..=last)
        .zip(bytes.chunks(PART_BYTES).chain(bytes.is_empty().then_some(bytes)))
        .map(move |(number, part)| Part { kind: kind.into(), bytes: part.to_vec(), is_last: number == last })
}

/// What was put together, and what it is.
pub(super) type Whole = (Kind, Zeroizing<Vec<u8>>);

/// What comes in parts, bounded by what is expected.
#[derive(Default)]
pub(super) struct Assembly {
    kind: Option<Kind>,
    bytes: Zeroizing<Vec<u8>>,
}

/// Parts that do not belong together, or are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssemblyError {
    /// A part of something else, or of nothing.
    #[error("a part of what is not expected")]
    Kind,
    /// More than is expected.
    #[error("more than the {most} bytes that are expected")]
    TooLong {
        /// So many are.
        most: u64,
    },
}

impl Assembly {
    /// Takes a part of what may have so many bytes in all, by its kind; gives it when it is whole.
    pub(super) fn add(
        &mut self,
        part: Part,
        most: impl Fn(Kind) -> Option<u64>,
    ) -> Result<Option<Whole>, AssemblyError> {
        let kind = Kind::try_from(part.kind).map_err(|_| AssemblyError::Kind)?;
        if self.kind.is_some_and(|begun| begun != kind) {
            return Err(AssemblyError::Kind);
        }
        let most = most(kind).ok_or(AssemblyError::Kind)?;
        let len = self.bytes.len().saturating_add(part.bytes.len());
        if u64::try_from(len).unwrap_or(u64::MAX) > most {
            return Err(AssemblyError::TooLong { most });
        }
        self.kind = Some(kind);
        let is_last = part.is_last;
        let part = part.take();
        if is_last && self.bytes.is_empty() {
            self.kind = None;
            return Ok(Some((kind, part)));
        }
        self.extend(&part);
        if !is_last {
            return Ok(None);
        }
        self.kind = None;
        Ok(Some((kind, std::mem::take(&mut self.bytes))))
    }

    /// Appends without leaving a copy in memory that is given back as it is.
    fn extend(&mut self, part: &[u8]) {
        let len = self.bytes.len() + part.len();
        if len > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(len.max(2 * self.bytes.capacity())));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(part);
    }

    /// Whether something has begun and is not whole.
    pub(super) fn is_in_parts(&self) -> bool {
        self.kind.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything of one kind, of so many bytes.
    fn assembled(bytes: &[u8], most: u64) -> Result<Vec<u8>, AssemblyError> {
        let mut assembly = Assembly::default();
        for part in parts(Kind::Checkpoint, bytes) {
            if let Some((kind, whole)) =
                assembly.add(part, |kind| (kind == Kind::Checkpoint).then_some(most))?
            {
                assert_eq!(kind, Kind::Checkpoint);
                assert!(!assembly.is_in_parts());
                return Ok(whole.to_vec());
            }
            assert!(assembly.is_in_parts());
        }
        panic!("the last part is marked as such")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn parts_make_the_whole_and_no_more_than_is_expected(len in 0_usize..3 * PART_BYTES) {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let most = u64::try_from(len).unwrap();
            prop_assert!(assembled(&bytes, most).unwrap() == bytes);
            if let Some(less) = most.checked_sub(1) {
                prop_assert_eq!(assembled(&bytes, less), Err(AssemblyError::TooLong { most: less }));
            }
        }
    }

    #[test]
    fn parts_of_two_kinds_are_not_put_together() {
        let part = |kind: i32, is_last| Part { kind, bytes: vec![1], is_last };
        let mut assembly = Assembly::default();
        let most = |kind| (kind != Kind::None).then_some(100);
        assert!(assembly.add(part(Kind::Checkpoint.into(), false), most).unwrap().is_none());
        assert_eq!(assembly.add(part(Kind::Newest.into(), true), most).unwrap_err(), AssemblyError::Kind);
        for kind in [0, 77] {
            let refused = Assembly::default().add(part(kind, true), most).unwrap_err();
            assert_eq!(refused, AssemblyError::Kind);
        }
    }
}
