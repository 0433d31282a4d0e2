//! Drawing an index from given weights with an alias table.

use std::hint::select_unpredictable;

use rand_core::CryptoRng;

use crate::{double::Double, entropy::Entropy};

/// The weights are rounded to multiples of two to the minus this.
const WEIGHT_BITS: u32 = 127;

/// Bits of a threshold that are compared at first.
const FIRST_BITS: u32 = 24;

/// The alias method of Vose 1991 ("A linear algorithm for generating random
/// numbers with a given distribution",
/// <https://doi.org/10.1109/32.92917>). Unlike the paper it is built in
/// integers, so that after the weights are rounded nothing else is lost, and
/// it has a power of two of cells.
#[derive(Clone)]
pub(super) struct AliasTable {
    cells: Vec<Cell>,
    /// The whole thresholds, hardly ever looked at.
    thresholds: Vec<u128>,
}

/// A cell gives its own index when a uniform number of 128 bits is below its
/// threshold, its alias otherwise.
#[derive(Clone, Copy)]
struct Cell {
    /// The first [`FIRST_BITS`] bits of the threshold.
    threshold: u32,
    alias: u32,
}

impl AliasTable {
    /// Builds the table for at least one and at most 2^31 weights, none
    /// negative and the first the largest.
    pub(super) fn new(weights: &[Double]) -> Self {
        let size = weights.len().next_power_of_two();
        let capacity = 1u128 << (WEIGHT_BITS - size.trailing_zeros());
        let mut masses = rounded(weights);
        masses.resize(size, 0);

        let mut aliases: Vec<u32> = (0..).take(size).collect();
        let mut thresholds = vec![u128::MAX; size];
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (index, &mass) in (0u32..).zip(&masses) {
            if mass < capacity {
                small.push(index);
            } else {
                large.push(index);
            }
        }
        // The masses that are left always average to the capacity, so while
        // there is a small cell there is a large one to fill it.
        while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
            let (from, to) = (giver as usize, taker as usize);
            aliases[to] = giver;
            thresholds[to] = masses[to] << (128 - capacity.trailing_zeros());
            masses[from] -= capacity - masses[to];
            if masses[from] < capacity {
                large.pop();
                small.push(giver);
            }
        }
        let cells = thresholds
            .iter()
            .zip(aliases)
            .map(|(threshold, alias)| {
                let threshold = (threshold >> (128 - FIRST_BITS)) as u32;
                Cell { threshold, alias }
            })
            .collect();
        Self { cells, thresholds }
    }

    /// Draws an index. `index_bits` holds a uniform cell in its low bits,
    /// `first_bits` is uniform with 24 bits and independent of it.
    #[inline]
    pub(super) fn pick<R: CryptoRng>(
        &self,
        index_bits: u64,
        first_bits: u64,
        entropy: &mut Entropy<'_, R>,
    ) -> u32 {
        let mask = self.cells.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the mask keeps the bits that fit an index, which fits a u32"
        )]
        let (index, own) = {
            let index = index_bits as usize & mask;
            (index, index as u32)
        };
        let cell = self.cells[index];
        let threshold = u64::from(cell.threshold);
        if first_bits == threshold {
            return if self.tied_is_below(index, entropy) { own } else { cell.alias };
        }
        select_unpredictable(first_bits < threshold, own, cell.alias)
    }

    /// Whether a number that begins like the threshold of a cell is below it.
    #[cold]
    fn tied_is_below<R: CryptoRng>(&self, index: usize, entropy: &mut Entropy<'_, R>) -> bool {
        let number = u128::from(entropy.u64()) << 64 | u128::from(entropy.u64());
        number >> FIRST_BITS < self.thresholds[index] << FIRST_BITS >> FIRST_BITS
    }
}

/// The weights as integers whose sum is exactly 2^127. Each is off by less than
/// 3 units, beyond the relative error of a [`Double`]; the first takes up the
/// errors of all the others.
fn rounded(weights: &[Double]) -> Vec<u128> {
    let total = weights.iter().rev().fold(Double::ZERO, |sum, &weight| sum + weight);
    let mut masses: Vec<u128> = weights
        .iter()
        .map(|&weight| (weight / total).times_power_of_two(WEIGHT_BITS.cast_signed()).to_u128())
        .collect();
    let sum = masses.iter().fold(0u128, |sum, mass| sum.wrapping_add(*mass));
    if let Some(first) = masses.first_mut() {
        *first = first.wrapping_add((1u128 << WEIGHT_BITS).wrapping_sub(sum));
    }
    masses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mass of every index, from the cells, in units of 2^−127.
    fn masses(table: &AliasTable) -> Vec<u128> {
        let mut masses = vec![0u128; table.cells.len()];
        let bits = 1 + table.cells.len().trailing_zeros();
        let capacity = 1u128 << (128 - bits);
        for (index, cell) in table.cells.iter().enumerate() {
            let threshold = table.thresholds[index];
            let own = if cell.alias as usize == index { capacity } else { threshold >> bits };
            masses[index] += own;
            masses[cell.alias as usize] += capacity - own;
        }
        masses
    }

    #[test]
    fn the_cells_give_back_the_weights() {
        for count in [1u32, 2, 3, 5, 64, 1000] {
            let weights: Vec<_> = (0..count).map(|k| Double::from(1.0 / f64::from(1 + k * k))).collect();
            let expected = rounded(&weights);
            assert_eq!(expected.iter().sum::<u128>(), 1 << 127);
            let found = masses(&AliasTable::new(&weights));
            assert_eq!(found[..expected.len()], expected[..]);
            assert!(found[expected.len()..].iter().all(|&mass| mass == 0));
        }
    }

    #[test]
    fn rounding_is_within_a_few_units() {
        let weights = [Double::ONE, Double::ONE, Double::ONE];
        let third = (1u128 << 127) / 3;
        for mass in rounded(&weights) {
            // 106 bits are all that a weight has.
            assert!(mass.abs_diff(third) < 1 << 24, "{mass}");
        }
    }
}
