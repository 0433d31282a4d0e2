//! LoRA deltas of the decoder's linear layers, and the gradients of their factors.
//!
//! A layer's effective weight is the frozen base weight, plus the folded delta of earlier epochs, plus the
//! adapter's delta `s · B · A`. Start reading at [`LoraDeltas`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matmul::{LowRank, Weight, thin};
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::view::{View, ViewMut};
use crate::model::projection::Projection;
use crate::model::weights::Weights;

/// Folded LoRA deltas of a task's earlier epochs, by layer.
pub(crate) type FoldedDeltas = BTreeMap<(usize, Projection), FoldedDelta>;

/// The folded LoRA delta `B · A` of one layer, frozen, with the scale inside.
#[derive(Clone, Debug)]
pub(crate) struct FoldedDelta {
    rank: usize,
    /// (rank, inputs).
    a: Vec<f32>,
    /// (outputs, rank).
    b: Vec<f32>,
}

/// An adapter's LoRA deltas, on top of the folded deltas of earlier epochs.
#[derive(Debug, Default)]
pub(crate) struct LoraDeltas<'a> {
    pub(crate) layers: BTreeMap<(usize, Projection), LoraDelta<'a>>,
    folded_deltas: Option<&'a FoldedDeltas>,
    /// Effective weights as f32, where [`LoraDeltas::fold`] computed them once for all passes.
    folded: BTreeMap<(usize, Projection), Matrix>,
}

/// The LoRA delta of one layer: `scale · B · A`.
#[derive(Debug)]
pub(crate) struct LoraDelta<'a> {
    /// (rank, inputs); `R · A` where there is a core `R`.
    pub(crate) a: Cow<'a, [f32]>,
    /// (outputs, rank).
    pub(crate) b: &'a [f32],
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    pub(crate) trained: TrainedFactors<'a>,
}

/// Which factors of a delta are trained, and their ranges in the trained vector.
#[derive(Debug)]
pub(crate) enum TrainedFactors<'a> {
    Factors {
        a: Option<Range<usize>>,
        b: Option<Range<usize>>,
    },
    /// `R` of `B · R · A`: (rank, rank).
    Core {
        /// `A`: (rank, inputs).
        a: &'a [f32],
        range: Range<usize>,
    },
}

impl FoldedDelta {
    /// A delta `B · A` of `b`: (outputs, rank) and `a`: (rank, inputs).
    pub(crate) fn new(rank: usize, a: Vec<f32>, b: Vec<f32>) -> Self {
        Self { rank, a, b }
    }

    /// (rank, inputs).
    pub(crate) fn a(&self) -> &[f32] {
        &self.a
    }

    /// (outputs, rank).
    pub(crate) fn b(&self) -> &[f32] {
        &self.b
    }

    fn pair(&self) -> LowRank<'_> {
        LowRank { scale: 1.0, rank: self.rank, a: &self.a, b: &self.b }
    }
}

impl<'a> LoraDeltas<'a> {
    /// An adapter's deltas, without folded deltas.
    pub(crate) fn of(layers: BTreeMap<(usize, Projection), LoraDelta<'a>>) -> Self {
        Self { layers, ..Self::default() }
    }

    /// The same deltas on top of the folded deltas of earlier epochs.
    pub(crate) fn on(self, folded_deltas: &'a FoldedDeltas) -> Self {
        Self { folded_deltas: Some(folded_deltas), ..self }
    }

    fn pairs(&self, at: (usize, Projection)) -> [Option<LowRank<'_>>; 2] {
        let folded_delta =
            self.folded_deltas.and_then(|folded_deltas| folded_deltas.get(&at)).map(FoldedDelta::pair);
        [folded_delta, self.layers.get(&at).map(LoraDelta::pair)]
    }

    /// Computes the effective weights once, as f32, instead of in each product.
    pub(crate) fn fold(&mut self, weights: &Weights) -> Result<()> {
        let folded_deltas = self.folded_deltas.into_iter().flat_map(BTreeMap::keys);
        let all: BTreeSet<(usize, Projection)> = self.layers.keys().chain(folded_deltas).copied().collect();
        for at in all {
            let Some(block) = weights.blocks.get(at.0) else { continue };
            let matrix = &block.linear(at.1).weight;
            let mut numbers = vec![0.0; matrix.rows() * matrix.columns()];
            Weight { matrix, pairs: self.pairs(at) }.widen(0, &mut numbers)?;
            let matrix = Matrix::new(matrix.rows(), matrix.columns(), Numbers::F32(numbers))?;
            self.folded.insert(at, matrix);
        }
        Ok(())
    }

    /// A layer's effective weight: as [`Self::fold`] computed it, or the base weight with its deltas.
    pub(crate) fn weight<'w>(&'w self, at: (usize, Projection), weights: &'w Matrix) -> Weight<'w> {
        match self.folded.get(&at) {
            Some(matrix) => Weight { matrix, pairs: [None; 2] },
            None => Weight { matrix: weights, pairs: self.pairs(at) },
        }
    }

    /// The adapter's delta of a layer.
    pub(crate) fn layer(&self, at: (usize, Projection)) -> Option<&LoraDelta<'_>> {
        self.layers.get(&at)
    }

    /// Index of the lowest block with a delta of the adapter.
    pub(crate) fn lowest(&self) -> Option<usize> {
        self.layers.keys().map(|(layer, _)| *layer).min()
    }
}

impl LoraDelta<'_> {
    fn pair(&self) -> LowRank<'_> {
        LowRank { scale: self.scale, rank: self.rank, a: &self.a, b: self.b }
    }

    /// Whether the gradient needs `x · Aᵀ`.
    fn needs_inputs(&self) -> bool {
        match &self.trained {
            TrainedFactors::Factors { b, .. } => b.is_some(),
            TrainedFactors::Core { .. } => true,
        }
    }

    /// Whether the gradient needs `dy · B`.
    fn needs_outputs(&self) -> bool {
        match &self.trained {
            TrainedFactors::Factors { a, .. } => a.is_some(),
            TrainedFactors::Core { .. } => true,
        }
    }

    /// The `A` of `x · Aᵀ`, without the core.
    fn inputs_factor(&self) -> &[f32] {
        match &self.trained {
            TrainedFactors::Factors { .. } => &self.a,
            TrainedFactors::Core { a, .. } => a,
        }
    }
}

/// Adds to `into`, the gradient of the trained vector, the gradients of layers `y = x · (W + s · B · R · A)ᵀ`
/// that share the input `x`: `dB = s · dyᵀ · (x · Aᵀ)`, `dA = s · (dy · B)ᵀ · x`,
/// `dR = s · (dy · B)ᵀ · (x · Aᵀ)`.
pub(crate) fn gradients(
    team: Team,
    x: View<'_>,
    layers: &[(&LoraDelta<'_>, View<'_>)],
    into: &mut [f32],
) -> Result<()> {
    let (rows, inputs) = (x.rows, x.columns);
    // (x · Aᵀ)ᵀ of all layers, stacked: (sum of ranks, rows).
    let with_inputs: Vec<_> = layers.iter().filter(|(delta, _)| delta.needs_inputs()).collect();
    let factors: Vec<f32> =
        with_inputs.iter().flat_map(|(delta, _)| delta.inputs_factor()).copied().collect();
    let width = factors.len() / inputs.max(1);
    let mut right = vec![0.0; rows * width];
    thin::inner(team, 1.0, View::whole(&factors, inputs), x, ViewMut::whole(&mut right, rows))?;
    let right = View::whole(&right, rows);
    // (dy · B)ᵀ of all layers, stacked: (sum of ranks, rows).
    let with_outputs: Vec<_> = layers.iter().filter(|(delta, _)| delta.needs_outputs()).collect();
    let total: usize = with_outputs.iter().map(|(delta, _)| delta.rank).sum();
    let mut left = vec![0.0; rows * total];
    let mut rest = ViewMut::whole(&mut left, rows);
    for (delta, dy) in &with_outputs {
        let (part, later) = rest.split_at_row(delta.rank);
        thin::inner(team, 1.0, View::whole(delta.b, delta.rank).t(), *dy, part)?;
        rest = later;
    }
    let left = View::whole(&left, rows);
    let mut at = 0;
    for (delta, dy) in &with_inputs {
        let right = right.rows(at..at + delta.rank);
        at += delta.rank;
        if let TrainedFactors::Factors { b: Some(range), .. } = &delta.trained {
            let mut turned = vec![0.0; range.len()];
            thin::outer(team, delta.scale, right, *dy, ViewMut::whole(&mut turned, dy.columns))?;
            for (j, turned) in turned.chunks_exact(dy.columns.max(1)).enumerate() {
                let db = into[range.clone()].iter_mut().skip(j).step_by(delta.rank);
                db.zip(turned).for_each(|(db, x)| *db += x);
            }
        }
    }
    let mut das = vec![0.0; total * inputs];
    if with_outputs.iter().any(|(delta, _)| matches!(delta.trained, TrainedFactors::Factors { .. })) {
        thin::outer(team, 1.0, left, x, ViewMut::whole(&mut das, inputs))?;
    }
    let mut at = 0;
    for (delta, _) in &with_outputs {
        let here = at..at + delta.rank;
        at += delta.rank;
        match &delta.trained {
            TrainedFactors::Factors { a: Some(range), .. } => {
                let da = &das[here.start * inputs..here.end * inputs];
                into[range.clone()].iter_mut().zip(da).for_each(|(sum, da)| *sum += delta.scale * da);
            }
            TrainedFactors::Factors { a: None, .. } => {}
            TrainedFactors::Core { range, .. } => {
                let before = with_inputs.iter().take_while(|(other, _)| !std::ptr::eq(*other, *delta));
                let from: usize = before.map(|(other, _)| other.rank).sum();
                let right = right.rows(from..from + delta.rank);
                let into = ViewMut::whole(&mut into[range.clone()], delta.rank);
                gemm(delta.scale, left.rows(here), right.t(), 1.0, into)?;
            }
        }
    }
    Ok(())
}
