//! LoRA deltas on a device: `y += s · (x · Aᵀ) · Bᵀ`, and the gradients of their factors.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use crate::backend::candle::gradients::Gradients;
use crate::model::config::DecoderConfig;
use crate::model::delta::{FoldedDeltas, LoraDelta, LoraDeltas, TrainedFactors};
use crate::model::projection::Projection;

/// A linear layer of the base: (block, projection).
pub(super) type At = (usize, Projection);

/// `scale · B · A`.
#[derive(Debug)]
pub(super) struct LowRank {
    /// (rank, inputs).
    a: Tensor,
    /// (outputs, rank).
    b: Tensor,
    scale: f64,
}

/// An adapter's LoRA deltas, on top of the folded deltas of earlier epochs.
#[derive(Debug)]
pub(crate) struct Adapter<'a> {
    layers: BTreeMap<At, Layer>,
    folded_deltas: &'a BTreeMap<At, LowRank>,
}

/// The LoRA delta of one layer.
#[derive(Debug)]
struct Layer {
    pair: LowRank,
    trained: Factors,
}

/// Which factors of a delta are trained, and their ranges in the trained vector.
#[derive(Debug)]
enum Factors {
    Both {
        a: Option<Range<usize>>,
        b: Option<Range<usize>>,
    },
    /// `R` of `B · R · A`, and that `A`: (rank, inputs).
    Core {
        a: Tensor,
        range: Range<usize>,
    },
}

impl LowRank {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)? * self.scale
    }

    /// The gradient of `x` from `dy · B`.
    fn backward(&self, left: &Tensor) -> Result<Tensor> {
        left.matmul(&self.a)? * self.scale
    }
}

/// Copies the folded LoRA deltas of earlier epochs to a device.
pub(super) fn folded_deltas(
    config: &DecoderConfig,
    folded_deltas: &FoldedDeltas,
    device: &Device,
) -> Result<BTreeMap<At, LowRank>> {
    let pair = |(at, folded_delta): (&At, &crate::model::delta::FoldedDelta)| {
        let (outputs, inputs) = at.1.shape(config);
        let rank = folded_delta.a().len() / inputs;
        let a = Tensor::from_slice(folded_delta.a(), (rank, inputs), device)?;
        let b = Tensor::from_slice(folded_delta.b(), (outputs, rank), device)?;
        Ok((*at, LowRank { a, b, scale: 1.0 }))
    };
    // A delta of rank 0 adds nothing, and not every device multiplies empty matrices.
    folded_deltas.iter().filter(|(_, folded_delta)| !folded_delta.a().is_empty()).map(pair).collect()
}

impl<'a> Adapter<'a> {
    pub(super) fn new(
        config: &DecoderConfig,
        deltas: &LoraDeltas<'_>,
        folded_deltas: &'a BTreeMap<At, LowRank>,
        device: &Device,
    ) -> Result<Self> {
        let layer = |(at, delta): (&At, &LoraDelta<'_>)| {
            let (outputs, inputs) = at.1.shape(config);
            let wide = |a: &[f32]| Tensor::from_slice(a, (delta.rank, inputs), device);
            let b = Tensor::from_slice(delta.b, (outputs, delta.rank), device)?;
            let trained = match &delta.trained {
                TrainedFactors::Factors { a, b } => Factors::Both { a: a.clone(), b: b.clone() },
                TrainedFactors::Core { a, range } => Factors::Core { a: wide(a)?, range: range.clone() },
            };
            let pair = LowRank { a: wide(&delta.a)?, b, scale: f64::from(delta.scale) };
            Ok((*at, Layer { pair, trained }))
        };
        Ok(Self { layers: deltas.layers.iter().map(layer).collect::<Result<_>>()?, folded_deltas })
    }

    /// Index of the lowest block with a delta of the adapter.
    pub(super) fn lowest(&self) -> Option<usize> {
        self.layers.keys().map(|(layer, _)| *layer).min()
    }

    /// Adds a layer's deltas, folded and trained, for the input `x` to its output `y`.
    pub(super) fn forward(&self, at: At, x: &Tensor, mut y: Tensor) -> Result<Tensor> {
        let layer = self.layers.get(&at).map(|layer| &layer.pair);
        for pair in self.folded_deltas.get(&at).into_iter().chain(layer) {
            y = (y + pair.forward(x)?)?;
        }
        Ok(y)
    }

    /// Adds the gradients of a layer's trained factors to `gradients`, and its part of the gradient of the
    /// input `x` to `dx`, if that is computed: `dB = s · dyᵀ · (x · Aᵀ)`, `dA = s · (dy · B)ᵀ · x`,
    /// `dR = s · (dy · B)ᵀ · (x · Aᵀ)`, `dx += s · (dy · B) · A`.
    pub(super) fn backward(
        &self,
        at: At,
        (x, dy): (&Tensor, &Tensor),
        mut dx: Option<Tensor>,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        if let (Some(folded_delta), Some(sum)) = (self.folded_deltas.get(&at), &dx) {
            dx = Some((sum + folded_delta.backward(&dy.matmul(&folded_delta.b)?)?)?);
        }
        let Some(Layer { pair, trained }) = self.layers.get(&at) else { return Ok(dx) };
        let with_outputs = match trained {
            Factors::Both { a, .. } => a.is_some() || dx.is_some(),
            Factors::Core { .. } => true,
        };
        let left = if with_outputs { Some(dy.matmul(&pair.b)?) } else { None };
        if let (Some(left), Some(sum)) = (&left, &dx) {
            dx = Some((sum + pair.backward(left)?)?);
        }
        match (trained, &left) {
            (Factors::Both { a, b }, left) => {
                if let Some(range) = b {
                    let right = x.matmul(&pair.a.t()?)?;
                    gradients.add(range, &(dy.t()?.matmul(&right)? * pair.scale)?)?;
                }
                if let (Some(range), Some(left)) = (a, left) {
                    gradients.add(range, &(left.t()?.matmul(x)? * pair.scale)?)?;
                }
            }
            (Factors::Core { a, range }, Some(left)) => {
                let right = x.matmul(&a.t()?)?;
                gradients.add(range, &(left.t()?.matmul(&right)? * pair.scale)?)?;
            }
            (Factors::Core { .. }, None) => {}
        }
        Ok(dx)
    }
}
