//! Places in a roster, and sets of them.

use thiserror::Error;

/// A device's place in the roster, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(u16);

impl DeviceIndex {
    /// The place as a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<u16> for DeviceIndex {
    fn from(place: u16) -> Self {
        Self(place)
    }
}

impl From<DeviceIndex> for u16 {
    fn from(index: DeviceIndex) -> Self {
        index.0
    }
}

impl From<DeviceIndex> for usize {
    fn from(index: DeviceIndex) -> Self {
        index.0.into()
    }
}

impl PartialEq<u16> for DeviceIndex {
    fn eq(&self, other: &u16) -> bool {
        self.0 == *other
    }
}

impl std::fmt::Display for DeviceIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of places of a roster, as a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSet {
    places: usize,
    bitmap: Vec<u8>,
}

/// Why something is not a set of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IndexSetError {
    /// The roster has no such place.
    #[error("place {index} in a roster of {places}")]
    OutOfRange {
        /// The place asked for.
        index: DeviceIndex,
        /// The places there are.
        places: usize,
    },
    /// There are too few or too many bytes.
    #[error("a bitmap of {got} bytes, expected {expected}")]
    Length {
        /// The bytes that such a bitmap has.
        expected: usize,
        /// The bytes that came.
        got: usize,
    },
    /// A bit behind the last place is set, so the bytes are not canonical.
    #[error("a padding bit is set in the last byte {last:#04x}")]
    Padding {
        /// The last byte.
        last: u8,
    },
}

impl IndexSet {
    /// The empty set over a roster of `places` devices.
    pub fn new(places: usize) -> Self {
        Self { places, bitmap: vec![0; places.div_ceil(8)] }
    }

    /// The set of every place of a roster of `places` devices.
    pub fn full(places: usize) -> Self {
        let mut set = Self::new(places);
        set.bitmap.fill(0xff);
        if let Some(last) = set.bitmap.last_mut() {
            *last &= used_bits(places);
        }
        set
    }

    /// Puts a place into the set; false if it was there. Fails if the roster
    /// has no such place.
    pub fn insert(&mut self, index: impl Into<DeviceIndex>) -> Result<bool, IndexSetError> {
        let index = index.into();
        let places = self.places;
        let place = usize::from(index);
        match self.bitmap.get_mut(place / 8) {
            Some(byte) if place < places => {
                let bit = 1 << (place % 8);
                let added = *byte & bit == 0;
                *byte |= bit;
                Ok(added)
            }
            _ => Err(IndexSetError::OutOfRange { index, places }),
        }
    }

    /// Puts in a place that the roster is known to have.
    pub(crate) fn put(&mut self, index: DeviceIndex) {
        let put = self.insert(index);
        debug_assert!(put.is_ok(), "{put:?}");
    }

    /// Takes a place out of the set; false if it was not there.
    pub fn remove(&mut self, index: impl Into<DeviceIndex>) -> bool {
        let index = index.into();
        let present = self.contains(index);
        if let Some(byte) = self.bitmap.get_mut(usize::from(index) / 8) {
            *byte &= !(1 << (usize::from(index) % 8));
        }
        present
    }

    /// Whether a place is in the set; false for a place that does not exist.
    pub fn contains(&self, index: impl Into<DeviceIndex>) -> bool {
        let place = usize::from(index.into());
        self.bitmap.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0)
    }

    /// How many places are in the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether no place is in the set.
    pub fn is_empty(&self) -> bool {
        self.bitmap.iter().all(|byte| *byte == 0)
    }

    /// How many places the roster has.
    pub const fn places(&self) -> usize {
        self.places
    }

    /// Whether every place in this set is in `other`, over the same roster.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.places == other.places && self.bitmap.iter().zip(&other.bitmap).all(|(a, b)| a & !b == 0)
    }

    /// The places in this set that are not in `other`.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        for (byte, gone) in self.bitmap.iter_mut().zip(&other.bitmap) {
            *byte &= !gone;
        }
        self
    }

    /// The places in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = DeviceIndex> + Clone {
        let end = u16::try_from(self.places).unwrap_or(u16::MAX);
        (0..end).map(DeviceIndex).filter(|index| self.contains(*index))
    }

    /// The bitmap: place `i` is bit `i mod 8` of byte `⌊i / 8⌋`.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bitmap.clone()
    }

    /// The set with this bitmap. Fails on a wrong length and on a bit behind
    /// the last place.
    pub fn from_bytes(bytes: &[u8], places: usize) -> Result<Self, IndexSetError> {
        let expected = places.div_ceil(8);
        if bytes.len() != expected {
            return Err(IndexSetError::Length { expected, got: bytes.len() });
        }
        match bytes.last() {
            Some(last) if last & !used_bits(places) != 0 => Err(IndexSetError::Padding { last: *last }),
            _ => Ok(Self { places, bitmap: bytes.to_vec() }),
        }
    }
}

/// The bits of the last byte of a bitmap that stand for a place.
const fn used_bits(places: usize) -> u8 {
    match places % 8 {
        0 => 0xff,
        used => (1 << used) - 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_behaves_like_an_ordered_set(members: BTreeSet<u8>, extra in 0_usize..20) {
            let places = members.last().map_or(0, |last| usize::from(*last) + 1) + extra;
            let mut set = IndexSet::new(places);
            for member in &members {
                prop_assert_eq!(set.insert(u16::from(*member)), Ok(true));
                prop_assert_eq!(set.insert(u16::from(*member)), Ok(false));
            }
            prop_assert_eq!(set.len(), members.len());
            prop_assert!(set.iter().map(DeviceIndex::get).eq(members.into_iter().map(u16::from)));
            prop_assert_eq!(IndexSet::from_bytes(&set.to_bytes(), places), Ok(set.clone()));
            prop_assert!(set.is_subset_of(&IndexSet::full(places)));
            let rest = IndexSet::full(places).without(&set);
            prop_assert_eq!(rest.len() + set.len(), places);
        }
    }

    #[test]
    fn a_place_outside_the_roster_is_refused() {
        let mut set = IndexSet::new(3);
        let index = DeviceIndex(3);
        assert_eq!(set.insert(3), Err(IndexSetError::OutOfRange { index, places: 3 }));
        assert!(!set.contains(3));
        assert!(!set.contains(999));
    }

    #[test]
    fn a_bitmap_of_another_length_or_with_padding_is_refused() {
        let length = IndexSetError::Length { expected: 1, got: 2 };
        assert_eq!(IndexSet::from_bytes(&[0, 0], 8), Err(length));
        let padding = IndexSetError::Padding { last: 0b1000 };
        assert_eq!(IndexSet::from_bytes(&[0b1000], 3), Err(padding));
        assert_eq!(IndexSet::from_bytes(&[0b100], 3).map(|set| set.len()), Ok(1));
    }
}
