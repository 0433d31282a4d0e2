//! Choices drawn from a seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream of choices is for. Streams of different domains have nothing
/// in common, whatever their seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    /// The general text of the base model.
    Base,
    /// Who the personas are.
    Person,
    /// What a persona writes.
    Messages,
    /// Who the public sample's writers are.
    PublicPerson,
    /// What the public sample says.
    PublicMessages,
}

impl Domain {
    fn tag(self) -> [u8; 8] {
        *match self {
            Self::Base => b"base    ",
            Self::Person => b"person  ",
            Self::Messages => b"messages",
            Self::PublicPerson => b"pub pers",
            Self::PublicMessages => b"pub mess",
        }
    }
}

/// A stream of choices.
#[derive(Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of `domain` for `seed`, number `index`.
    pub(super) fn new(domain: Domain, seed: u64, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&domain.tag());
        key[8..16].copy_from_slice(&seed.to_le_bytes());
        key[16..24].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number below `bound`; 0 where `bound` is 0. The bias is below
    /// `bound` / 2⁶⁴, which no text can show.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, or the empty string where there are none.
    pub(super) fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items.get(self.below(items.len())).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_zero_gives_zero() {
        let mut dice = Dice::new(Domain::Base, 1, 2);
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick(&[]), "");
    }

    #[test]
    fn domains_do_not_share_a_stream() {
        let draw = |domain| Dice::new(domain, 1, 2).below(1 << 40);
        assert_ne!(draw(Domain::Person), draw(Domain::PublicPerson));
        assert_ne!(draw(Domain::Messages), draw(Domain::PublicMessages));
    }
}
