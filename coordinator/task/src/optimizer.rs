//! The server optimiser: how a mean update becomes the next version (Reddi et al. 2021, arXiv 2003.00295).

use std::ops::Range;

use proto::training::ServerOptimizer;

/// What the optimiser carries from version to version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl OptimizerState {
    /// Both moments as one vector, for an artefact.
    pub fn to_vector(&self) -> Vec<f32> {
        [self.first.as_slice(), self.second.as_slice()].concat()
    }

    /// Reads what [`OptimizerState::to_vector`] wrote for an adapter of `len` parameters.
    pub fn from_vector(vector: &[f32], len: usize) -> Option<Self> {
        match vector.len() {
            0 => Some(Self::default()),
            n if n == len => Some(Self { first: vector.to_vec(), second: Vec::new() }),
            n if n == 2 * len => Some(Self { first: vector[..len].to_vec(), second: vector[len..].to_vec() }),
            _ => None,
        }
    }

    /// Moves the numbers at `places` in `parameters` by the mean update `mean`, which is as long as they are; the
    /// others stay, and so do their moments. Numbers that are not there yet in the moments are zero.
    pub fn apply_at(
        &mut self,
        optimizer: ServerOptimizer,
        parameters: &mut [f32],
        places: &[Range<usize>],
        mean: &[f32],
    ) {
        if let [whole] = places
            && *whole == (0..parameters.len())
        {
            return self.apply(optimizer, parameters, mean);
        }
        let gather = |from: &[f32]| -> Vec<f32> {
            let part = |range: &Range<usize>| from.get(range.clone()).unwrap_or_default().to_vec();
            places.iter().flat_map(part).collect()
        };
        let scatter = |part: &[f32], to: &mut Vec<f32>| {
            if !part.is_empty() {
                to.resize(parameters.len(), 0.0);
                for (x, y) in places.iter().cloned().flatten().zip(part) {
                    to[x] = *y;
                }
            }
        };
        let mut part = Self { first: gather(&self.first), second: gather(&self.second) };
        let mut moved = gather(parameters);
        part.apply(optimizer, &mut moved, mean);
        scatter(&part.first, &mut self.first);
        scatter(&part.second, &mut self.second);
        for (x, y) in places.iter().cloned().flatten().zip(moved) {
            parameters[x] = y;
        }
    }

    /// Moves `parameters` by the mean update `mean`, both of one length.
    pub fn apply(&mut self, optimizer: ServerOptimizer, parameters: &mut [f32], mean: &[f32]) {
        match optimizer {
            ServerOptimizer::FedAvg { rate } => {
                for (x, update) in parameters.iter_mut().zip(mean) {
                    *x = narrow(f64::from(*x) + rate * f64::from(*update));
                }
            }
            ServerOptimizer::FedAvgM { rate, momentum } => {
                self.first.resize(mean.len(), 0.0);
                for ((x, m), update) in parameters.iter_mut().zip(&mut self.first).zip(mean) {
                    *m = narrow(momentum * f64::from(*m) + f64::from(*update));
                    *x = narrow(f64::from(*x) + rate * f64::from(*m));
                }
            }
            ServerOptimizer::FedAdam { rate, beta1, beta2, tau } => {
                self.first.resize(mean.len(), 0.0);
                self.second.resize(mean.len(), 0.0);
                let moments = self.first.iter_mut().zip(&mut self.second);
                for ((x, (m, v)), update) in parameters.iter_mut().zip(moments).zip(mean) {
                    let update = f64::from(*update);
                    *m = narrow(beta1 * f64::from(*m) + (1.0 - beta1) * update);
                    *v = narrow(beta2 * f64::from(*v) + (1.0 - beta2) * update * update);
                    *x = narrow(f64::from(*x) + rate * f64::from(*m) / (f64::from(*v).sqrt() + tau));
                }
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f32]) {
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn averaging_moves_by_the_mean() {
        let mut x = [1.0, 2.0];
        OptimizerState::default().apply(ServerOptimizer::FedAvg { rate: 0.5 }, &mut x, &[2.0, -4.0]);
        close(&x, &[2.0, 0.0]);
    }

    #[test]
    fn momentum_remembers_the_earlier_update() {
        let mut state = OptimizerState::default();
        let (mut x, optimizer) = ([0.0], ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 });
        state.apply(optimizer, &mut x, &[1.0]);
        state.apply(optimizer, &mut x, &[1.0]);
        close(&x, &[2.5]);
        assert_eq!(OptimizerState::from_vector(&state.to_vector(), 1), Some(state));
    }

    #[test]
    fn a_half_moves_with_its_own_moments_and_the_other_stays() {
        let (mut halves, mut state) = (OptimizerState::default(), [1.0, 2.0, 3.0, 4.0]);
        let optimizer = ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 };
        let (even, odd) = ([1..2, 3..4], [0..1, 2..3]);
        halves.apply_at(optimizer, &mut state, &even, &[1.0, 10.0]);
        close(&state, &[1.0, 3.0, 3.0, 14.0]);
        halves.apply_at(optimizer, &mut state, &odd, &[1.0, 1.0]);
        close(&state, &[2.0, 3.0, 4.0, 14.0]);
        halves.apply_at(optimizer, &mut state, &even, &[0.0, 0.0]);
        close(&state, &[2.0, 3.5, 4.0, 19.0]);
        assert_eq!(OptimizerState::from_vector(&halves.to_vector(), 4), Some(halves));
    }

    #[test]
    fn adam_follows_algorithm_2() {
        let mut state = OptimizerState::default();
        let optimizer = ServerOptimizer::FedAdam { rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.001 };
        let mut x = [0.0];
        state.apply(optimizer, &mut x, &[2.0]);
        // m = 0.2, v = 0.04, x = 0.1 · 0.2 / (0.2 + 0.001)
        close(&x, &[0.099_502_49]);
    }
}
