//! How an adapter begins: factors and trained vectors drawn from a seed.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{AdapterSpec, Slot, narrow};
use crate::ids::Digest;
use crate::linear::{normalize, orthogonalize};

impl AdapterSpec {
    /// The frozen factors of a [`Factors::Seeded`](super::Factors::Seeded) adapter: orthonormal rows of `A`, orthonormal columns of `B`.
    ///
    /// Only additions, multiplications, divisions and square roots, so that every machine draws the same bits.
    pub fn seeded_factors(&self, seed: &Digest) -> Vec<f32> {
        let rank = self.rank as usize;
        let mut factors = Vec::with_capacity(self.frozen_len());
        for slots in self.slots() {
            let mut rng = module_rng(seed, &slots.module.name);
            if matches!(slots.a, Slot::Frozen(_)) {
                let rows = orthonormal_rows(&mut rng, rank, slots.module.inputs as usize);
                factors.extend(rows.iter().flatten().map(|&x| narrow(x)));
            }
            if matches!(slots.b, Slot::Frozen(_)) {
                let columns = orthonormal_rows(&mut rng, rank, slots.module.outputs as usize);
                for row in 0..slots.module.outputs as usize {
                    factors.extend(columns.iter().map(|column| narrow(column[row])));
                }
            }
        }
        factors
    }

    /// The trained vector of version 0, whose product is zero in every module. Where `A` is trained beside `B` it
    /// begins with the operator's, if there is one, else with one drawn from `seed`.
    pub fn initial(&self, seed: &Digest, given: Option<&[f32]>) -> Vec<f32> {
        let mut trained = vec![0.0; self.trained_len()];
        if self.method.has_frozen_factors() {
            return trained;
        }
        let mut given = given.map(|given| given.iter());
        for slots in self.slots() {
            let Slot::Trained(range) = slots.a else { continue };
            if let Some(given) = &mut given {
                trained[range].iter_mut().zip(given).for_each(|(x, y)| *x = *y);
            } else {
                let mut rng = module_rng(seed, &slots.module.name);
                let rows = orthonormal_rows(&mut rng, self.rank as usize, slots.module.inputs as usize);
                trained[range].iter_mut().zip(rows.iter().flatten()).for_each(|(x, y)| *x = narrow(*y));
            }
        }
        trained
    }
}

fn module_rng(seed: &Digest, name: &str) -> ChaCha20Rng {
    let mut material = b"nightshift factors v1".to_vec();
    material.extend_from_slice(&seed.0);
    material.extend_from_slice(name.as_bytes());
    ChaCha20Rng::from_seed(Digest::of(&material).0)
}

/// Gram–Schmidt, twice for accuracy, on rows of nearly normal numbers. No more rows than columns can be orthogonal to each
/// other: where there are more, so many at a time are.
fn orthonormal_rows(rng: &mut impl Rng, rows: usize, columns: usize) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = Vec::with_capacity(rows);
    while all.len() < rows && columns > 0 {
        let wanted = columns.min(rows - all.len());
        let mut basis: Vec<Vec<f64>> = Vec::with_capacity(wanted);
        while basis.len() < wanted {
            let mut row: Vec<f64> = (0..columns).map(|_| bell(rng)).collect();
            orthogonalize(&mut row, &basis, |_, _| {});
            if normalize(&mut row, 1e-6).is_some() {
                basis.push(row);
            }
        }
        all.append(&mut basis);
    }
    all
}

/// The sum of twelve uniform numbers, centred: variance one, no transcendental function.
fn bell(rng: &mut impl Rng) -> f64 {
    (0..12).map(|_| f64::from(rng.next_u32()) / 4_294_967_296.0).sum::<f64>() - 6.0
}
