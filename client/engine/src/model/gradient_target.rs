//! Which gradients the backward pass computes, and the buffers that it adds them to.

use std::collections::BTreeMap;

use crate::model::delta::LoraDeltas;
use crate::model::projection::Projection;

/// Which gradients to compute, with the buffers that they are added to.
#[derive(Debug)]
pub(crate) enum GradientTarget<'a> {
    /// The gradient of the adapter's trained vector, in the same layout.
    Adapter(&'a mut [f32]),
    /// Gradients of the base's own weights.
    Weights(&'a mut WeightGradients),
}

/// Gradients of weights of the base; those that are absent are not computed.
#[derive(Debug, Default)]
pub(crate) struct WeightGradients {
    /// Linear layers by (block, projection): (outputs, inputs), like the weight.
    pub(crate) linears: BTreeMap<(usize, Projection), Vec<f32>>,
    /// All other weights; `None` where they are frozen.
    pub(crate) rest: Option<Rest>,
}

/// Gradients of the weights outside the blocks' linear layers: embedding, LM head and norms.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) embed: Vec<f32>,
    /// `None` where the LM head is tied to the embedding; `embed` then has the gradient of both.
    pub(crate) head: Option<Vec<f32>>,
    pub(crate) norm: Vec<f32>,
    /// Per block, the norms before attention and before the MLP.
    pub(crate) norms: Vec<[Vec<f32>; 2]>,
}

impl GradientTarget<'_> {
    /// Index of the lowest block that the backward pass must reach; `usize::MAX` where nothing is trained.
    pub(crate) fn lowest(&self, deltas: &LoraDeltas<'_>) -> usize {
        match self {
            Self::Adapter(_) => deltas.lowest().unwrap_or(usize::MAX),
            Self::Weights(WeightGradients { rest: Some(_), .. }) => 0,
            Self::Weights(weights) => {
                weights.linears.keys().map(|(layer, _)| *layer).min().unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether this linear layer, or its adapter, has a gradient.
    pub(crate) fn wants(&self, deltas: &LoraDeltas<'_>, layer: (usize, Projection)) -> bool {
        match self {
            Self::Adapter(_) => deltas.layer(layer).is_some(),
            Self::Weights(weights) => weights.linears.contains_key(&layer),
        }
    }

    /// Gradients outside the linear layers, if they are computed: the backward pass then goes on to the
    /// embedding.
    pub(crate) fn embedding(&mut self) -> Option<&mut Rest> {
        match self {
            Self::Adapter(_) => None,
            Self::Weights(weights) => weights.rest.as_mut(),
        }
    }
}
