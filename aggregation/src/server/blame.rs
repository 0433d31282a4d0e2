//! Whose shares are used first: those of the holders that were least often
//! found wrong.

use std::collections::BTreeMap;

use crate::index::DeviceIndex;

/// What one owner's holders share among them.
const UNIT: u64 = 1 << 32;

/// How much each holder is to blame for shares that were found wrong.
///
/// A wrong share is its holder's fault or its owner's, who may have dealt it
/// wrong; which of the two, nobody can tell. So blame decides only whose shares
/// are tried first, and forbids none. Each owner gives one unit, in equal
/// parts to all whose shares of its seed are wrong: however many honest holders
/// f corrupt owners deal wrong shares to, they spread f units over them, while
/// whoever lies about an honest owner's seed shares its unit with at most f − 1
/// others.
#[derive(Clone, Debug, Default)]
pub(super) struct Blame(BTreeMap<DeviceIndex, u64>);

impl Blame {
    /// Holders whose shares of one seed are wrong.
    pub(super) fn put_on(&mut self, wrong: &[DeviceIndex]) {
        let part = UNIT / (wrong.len() as u64).max(1);
        for holder in wrong {
            *self.0.entry(*holder).or_default() += part;
        }
    }

    /// How much this holder is to blame.
    pub(super) fn of(&self, holder: DeviceIndex) -> u64 {
        self.0.get(&holder).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places: &[u16]) -> Vec<DeviceIndex> {
        places.iter().copied().map(DeviceIndex::from).collect()
    }

    #[test]
    fn who_is_blamed_with_many_others_is_blamed_less() {
        let mut blame = Blame::default();
        blame.put_on(&places(&[1, 2, 3, 4]));
        blame.put_on(&places(&[5, 6]));
        blame.put_on(&places(&[4]));
        let of = |place: u16| blame.of(place.into());
        assert!(of(0) < of(1) && of(1) == of(3) && of(3) < of(5) && of(6) < of(4));
    }
}
