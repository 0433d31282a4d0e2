//! Frozen factors from text that belongs to nobody: the directions in which the base would change on it.

use engine::Blocks;
use engine::{Engine, TrainError};
use proto::adapter::{AdapterSpec, Method};

/// The factors of `epochs` epochs, one after another, from the base's gradient on `public`: for the first the
/// leading singular vectors of each layer, for the next those that follow. Where a layer has not that many, the
/// factors of fewer epochs; there is always one.
pub fn factors(
    engine: &Engine,
    spec: &AdapterSpec,
    epochs: u32,
    public: &Blocks,
    seed: [u8; 32],
) -> Result<Vec<f32>, TrainError> {
    let most = spec.modules.iter().map(|module| module.inputs.min(module.outputs) / spec.rank.max(1)).min();
    let epochs = epochs.min(most.unwrap_or(1)).max(1);
    // An adapter whose `A` is trained has one to begin with.
    let method = if spec.method.has_frozen_factors() { spec.method } else { Method::FrozenA };
    let wide = AdapterSpec { method, rank: spec.rank * epochs, ..spec.clone() };
    let all = engine.gradient_factors(&wide, public, seed)?;
    Ok((0..epochs).flat_map(|epoch| of_epoch(&wide, &all, spec.rank as usize, epoch as usize)).collect())
}

/// The part of the factors `all` of `wide` that one epoch has: `rank` rows of each `A`, `rank` columns of each `B`.
fn of_epoch(wide: &AdapterSpec, all: &[f32], rank: usize, epoch: usize) -> Vec<f32> {
    let (mut rest, mut part, width) = (all, Vec::new(), wide.rank as usize);
    let from = epoch * rank;
    let mut take = |len: usize| {
        let (head, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        head
    };
    for module in &wide.modules {
        let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
        if wide.method != Method::FrozenB {
            part.extend_from_slice(&take(width * inputs)[from * inputs..(from + rank) * inputs]);
        }
        if wide.method != Method::FrozenA {
            let rows = take(width * outputs).chunks_exact(width);
            part.extend(rows.flat_map(|row| &row[from..from + rank]));
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use proto::adapter::{Factors, Module};
    use proto::ids::Digest;

    use super::*;

    #[test]
    fn each_epoch_has_its_own_rows_and_columns() {
        let wide = AdapterSpec {
            method: Method::Core,
            rank: 4,
            alpha: 4.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: ["one", "two"].map(|name| Module { name: name.into(), inputs: 5, outputs: 6 }).to_vec(),
        };
        // Hundreds say the module and the factor, tens the vector, ones the place in it.
        let number = |of: usize, vector: usize, place: usize| (100 * of + 10 * vector + place) as f32;
        let mut all = Vec::new();
        for module in 0..2 {
            all.extend((0..4).flat_map(|v| (0..5).map(move |p| number(2 * module, v, p))));
            all.extend((0..6).flat_map(|p| (0..4).map(move |v| number(2 * module + 1, v, p))));
        }
        let second = of_epoch(&wide, &all, 2, 1);
        assert_eq!(second.len(), 2 * (2 * 5 + 2 * 6));
        assert_eq!(second[..6], [20.0, 21.0, 22.0, 23.0, 24.0, 30.0]);
        assert_eq!(second[10..14], [120.0, 130.0, 121.0, 131.0]);
        assert_eq!(second[22..24], [220.0, 221.0]);
    }
}
