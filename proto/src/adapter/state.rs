//! An adapter at one version: what is frozen, what earlier epochs left, and what is trained from there on.

use super::{AdapterError, AdapterSpec, Folded, Method};

/// An adapter at one version, as it is trained from there on: an adapter whose method freezes a half for good, on a
/// base that is changed by what earlier epochs left.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The shape; of [`Method::Alternate`], the half whose turn it is.
    pub spec: AdapterSpec,
    /// The frozen factors, the other half among them.
    pub frozen: Vec<f32>,
    /// What earlier epochs left.
    pub folded: Folded,
    /// What is trained; an update is a difference of two such vectors.
    pub trained: Vec<f32>,
}

impl State {
    /// The adapter `spec` at `version`, whose frozen factors are `factors` and whose state is `trained`. Fails where
    /// a vector is not one of the adapter.
    pub fn at(
        spec: &AdapterSpec,
        version: u32,
        factors: Vec<f32>,
        folded: Folded,
        trained: &[f32],
    ) -> Result<Self, AdapterError> {
        spec.check_trained(trained)?;
        let half = spec.at(version);
        if spec.method != Method::Alternate {
            half.check_frozen(&factors)?;
            return Ok(Self { spec: half, frozen: factors, folded, trained: trained.to_vec() });
        }
        let gather = |ranges: Vec<std::ops::Range<usize>>| -> Vec<f32> {
            ranges.into_iter().flat_map(|range| trained[range].iter().copied()).collect()
        };
        // The other half is what the next version trains.
        let frozen = gather(spec.update_places(version.wrapping_add(1)));
        Ok(Self { spec: half, frozen, folded, trained: gather(spec.update_places(version)) })
    }

    /// The whole change as one adapter of two factors, of rank `rank` at most: exact where that holds it, else the
    /// nearest of that rank. Fails where a vector is not one of the adapter.
    pub fn shipped(&self, rank: u32) -> Result<(AdapterSpec, Vec<f32>), AdapterError> {
        let pairs = self.spec.pairs(&self.frozen, &self.trained)?;
        let of = |rank, alpha| AdapterSpec { method: Method::Both, rank, alpha, ..self.spec.clone() };
        if self.folded.is_empty() && rank >= self.spec.rank {
            let flat = pairs.iter().flat_map(|pair| pair.a.iter().chain(&pair.b)).copied().collect();
            return Ok((of(self.spec.rank, self.spec.alpha), flat));
        }
        let sum = self.folded.plus(&pairs, self.spec.rank, self.spec.scale(), u32::MAX);
        let sum = if sum.rank() > rank { sum.nearest(rank) } else { sum };
        Ok((of(sum.rank(), sum.rank() as f32), sum.to_vector()))
    }
}
