//! Which gradients a pass is to make, and where it adds them.

use std::collections::BTreeMap;

use crate::model::delta::LoraDeltas;
use crate::model::projection::Projection;

/// Where gradients are added.
#[derive(Debug)]
pub(crate) enum GradientTarget<'a> {
    /// The adapter's trained vector.
    Adapter(&'a mut [f32]),
    /// Weights of the base itself.
    Weights(&'a mut WeightGradients),
}

/// Gradients of weights of the base.
#[derive(Debug, Default)]
pub(crate) struct WeightGradients {
    /// Linear layers, each like its weight.
    pub(crate) linears: BTreeMap<(usize, Projection), Vec<f32>>,
    /// Everything else, where it is wanted.
    pub(crate) rest: Option<Rest>,
}

/// Gradients of all weights that are in no linear layer of a block.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) embed: Vec<f32>,
    /// None where the output layer is the embedding.
    pub(crate) head: Option<Vec<f32>>,
    pub(crate) norm: Vec<f32>,
    /// The two norms of each block.
    pub(crate) norms: Vec<[Vec<f32>; 2]>,
}

impl GradientTarget<'_> {
    /// The lowest block below whose input nothing has a gradient.
    pub(crate) fn lowest(&self, deltas: &LoraDeltas<'_>) -> usize {
        match self {
            Self::Adapter(_) => deltas.lowest().unwrap_or(usize::MAX),
            Self::Weights(WeightGradients { rest: Some(_), .. }) => 0,
            Self::Weights(weights) => {
                weights.linears.keys().map(|(layer, _)| *layer).min().unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether anything of this layer is learned.
    pub(crate) fn wants(&self, deltas: &LoraDeltas<'_>, layer: (usize, Projection)) -> bool {
        match self {
            Self::Adapter(_) => deltas.layer(layer).is_some(),
            Self::Weights(weights) => weights.linears.contains_key(&layer),
        }
    }

    /// Whether the gradient goes on below the lowest block.
    pub(crate) fn embedding(&mut self) -> Option<&mut Rest> {
        match self {
            Self::Adapter(_) => None,
            Self::Weights(weights) => weights.rest.as_mut(),
        }
    }
}
