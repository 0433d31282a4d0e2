//! What earlier epochs left: a frozen change of the base, as two thin factors for each layer.
//!
//! When a frozen factor is drawn anew, the product of the epoch that ends is added here. The rank is bounded: what
//! does not fit is replaced by the nearest product that does. Only the coordinator computes it, and devices fetch
//! the result by its hash, so all have the same bits.

use super::low_rank::Product;
use super::{AdapterError, LoraPair, Module, check_vector};

/// A frozen change of the base: `W + B · A` for each of its layers, the scale inside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    rank: u32,
    pairs: Vec<FoldedPair>,
}

/// The change of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedPair {
    /// The layer.
    pub module: Module,
    /// `A`: (rank, inputs).
    pub a: Vec<f32>,
    /// `B`: (outputs, rank), the scale inside.
    pub b: Vec<f32>,
}

impl Folded {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The rank of every pair; 0 where there is none.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The changed layers, in the adapter's order.
    pub fn pairs(&self) -> &[FoldedPair] {
        &self.pairs
    }

    /// This and `scale` times the product of `pairs`, whose rank is `rank`; of rank `most` at most, the nearest such
    /// where the sum's is larger. The layers are those of `pairs`.
    #[must_use]
    pub fn plus(&self, pairs: &[LoraPair<'_>], rank: u32, scale: f32, most: u32) -> Self {
        let whole = self.rank.saturating_add(rank);
        let kept = whole.min(most);
        let sum = |pair: &LoraPair<'_>| {
            let inputs = pair.module.inputs as usize;
            let new = Product::new(&pair.a, &pair.b, (rank as usize, inputs), f64::from(scale));
            let sum = match self.pairs.iter().find(|known| known.module == *pair.module) {
                Some(known) => Product::new(&known.a, &known.b, (self.rank as usize, inputs), 1.0).plus(new),
                None => new,
            };
            let (mut a, mut b) =
                (if sum.a.len() > kept as usize { sum.truncated(kept as usize) } else { sum }).to_factors();
            // Every pair has one rank, so that the bytes need not say it.
            widen(&mut a, &mut b, pair.module, kept as usize);
            FoldedPair { module: pair.module.clone(), a, b }
        };
        Self { rank: kept, pairs: pairs.iter().map(sum).collect() }
    }

    /// The nearest product of rank `rank` for every layer, as factors.
    pub(super) fn nearest(&self, rank: u32) -> Self {
        let cut = |pair: &FoldedPair| {
            let inputs = pair.module.inputs as usize;
            let product = Product::new(&pair.a, &pair.b, (self.rank as usize, inputs), 1.0);
            let (mut a, mut b) = product.truncated(rank as usize).to_factors();
            widen(&mut a, &mut b, &pair.module, rank as usize);
            FoldedPair { module: pair.module.clone(), a, b }
        };
        Self { rank, pairs: self.pairs.iter().map(cut).collect() }
    }

    /// Layer by layer `A`, then `B`, row by row.
    pub fn to_vector(&self) -> Vec<f32> {
        self.pairs.iter().flat_map(|pair| pair.a.iter().chain(&pair.b)).copied().collect()
    }

    /// Reads what [`Folded::to_vector`] wrote for `modules`, of rank 1 to `most`.
    pub fn from_vector(modules: &[Module], vector: &[f32], most: u32) -> Result<Self, AdapterError> {
        let sides = |module: &Module| module.inputs as usize + module.outputs as usize;
        let one: usize = modules.iter().map(sides).sum();
        let found = vector.len();
        let rank = u32::try_from(found.checked_div(one).unwrap_or(0)).unwrap_or(u32::MAX);
        if rank == 0 || rank > most || !found.is_multiple_of(one) {
            return Err(AdapterError::Folded { one, most, found });
        }
        check_vector("changes of earlier epochs", found, vector)?;
        let mut rest = vector;
        let mut take = |side: u32| {
            let (part, after) = rest.split_at(rank as usize * side as usize);
            rest = after;
            part.to_vec()
        };
        let pair = |module: &Module| {
            let (a, b) = (take(module.inputs), take(module.outputs));
            FoldedPair { module: module.clone(), a, b }
        };
        Ok(Self { rank, pairs: modules.iter().map(pair).collect() })
    }
}

/// Adds zero rows and columns up to a rank.
fn widen(a: &mut Vec<f32>, b: &mut Vec<f32>, module: &Module, rank: usize) {
    let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
    let had = a.len().checked_div(inputs).unwrap_or(0);
    if had < rank {
        a.resize(rank * inputs, 0.0);
        let mut wide = vec![0.0; rank * outputs];
        for (to, from) in wide.chunks_exact_mut(rank).zip(b.chunks_exact(had.max(1))) {
            to[..from.len()].copy_from_slice(from);
        }
        *b = wide;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<Module> {
        vec![
            Module { name: "first".into(), inputs: 5, outputs: 3 },
            Module { name: "second".into(), inputs: 4, outputs: 7 },
        ]
    }

    /// Products of rank 2 that depend on `seed`.
    fn pairs(modules: &[Module], seed: usize) -> Vec<LoraPair<'_>> {
        let numbers = |len: u32, at: usize| {
            (0..2 * len as usize).map(|i| ((i * i + seed * 17 + at * 5 + i) as f32 * 0.73).sin()).collect()
        };
        modules
            .iter()
            .map(|module| LoraPair { module, a: numbers(module.inputs, 1), b: numbers(module.outputs, 2) })
            .collect()
    }

    /// `scale · B · A` of every layer, added up.
    fn dense(a: &[f32], b: &[f32], module: &Module, scale: f32) -> Vec<f32> {
        let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
        let rank = a.len() / inputs;
        let at =
            |i: usize, j: usize| (0..rank).map(|k| b[i * rank + k] * a[k * inputs + j]).sum::<f32>() * scale;
        (0..outputs * inputs).map(|ij| at(ij / inputs, ij % inputs)).collect()
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() < 1e-5, "{x} is not {y}");
        }
    }

    #[test]
    fn what_is_folded_is_the_sum_of_the_products_as_long_as_its_rank_fits() {
        let modules = modules();
        let folded =
            Folded::default().plus(&pairs(&modules, 1), 2, 1.5, 4).plus(&pairs(&modules, 2), 2, 0.5, 4);
        assert_eq!(folded.rank(), 4);
        for (i, pair) in folded.pairs().iter().enumerate() {
            let [one, two] = [(1, 1.5), (2, 0.5)].map(|(seed, scale)| {
                let pairs = pairs(&modules, seed);
                dense(&pairs[i].a, &pairs[i].b, pairs[i].module, scale)
            });
            let sum: Vec<f32> = one.iter().zip(&two).map(|(x, y)| x + y).collect();
            close(&dense(&pair.a, &pair.b, &pair.module, 1.0), &sum);
        }
    }

    #[test]
    fn a_bounded_rank_is_kept_and_a_narrow_layer_loses_nothing_by_it() {
        let modules = modules();
        let free =
            (1..=4).fold(Folded::default(), |sum, seed| sum.plus(&pairs(&modules, seed), 2, 1.0, u32::MAX));
        let bound = (1..=4).fold(Folded::default(), |sum, seed| sum.plus(&pairs(&modules, seed), 2, 1.0, 3));
        assert_eq!((free.rank(), bound.rank()), (8, 3));
        // `first` has three outputs: rank 3 is all of it.
        let [free, bound] =
            [&free, &bound].map(|folded| dense(&folded.pairs[0].a, &folded.pairs[0].b, &modules[0], 1.0));
        close(&free, &bound);
    }

    #[test]
    fn bytes_read_back_and_those_of_another_adapter_are_refused() {
        let modules = modules();
        let folded = Folded::default().plus(&pairs(&modules, 1), 2, 1.0, 4);
        let vector = folded.to_vector();
        assert_eq!(Folded::from_vector(&modules, &vector, 4).unwrap(), folded);
        let refused = |vector: &[f32], most| Folded::from_vector(&modules, vector, most).unwrap_err();
        assert_eq!(refused(&vector[1..], 4), AdapterError::Folded { one: 19, most: 4, found: 37 });
        assert_eq!(refused(&vector, 1), AdapterError::Folded { one: 19, most: 1, found: 38 });
        assert_eq!(refused(&[], 1), AdapterError::Folded { one: 19, most: 1, found: 0 });
        let mut broken = vector;
        broken[3] = f32::NAN;
        assert!(matches!(refused(&broken, 4), AdapterError::NotFinite { index: 3, .. }));
    }
}
