//! The layout of an adapter's flat vectors: which of their ranges are the LoRA factors of which layer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use proto::adapter::{AdapterError, AdapterSpec, Folded, Module, ModuleSlots, Slot};

use crate::base::Base;
use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::view::{View, ViewMut};
use crate::model::delta::{FoldedDelta, FoldedDeltas, LoraDelta, LoraDeltas, TrainedFactors};
use crate::model::projection::Projection;

/// An adapter's modules, matched to the base's layers.
#[derive(Debug)]
pub(crate) struct AdapterLayout<'a> {
    scale: f32,
    rank: usize,
    modules: Vec<(usize, Projection, ModuleSlots<'a>)>,
    trained_len: usize,
}

/// Why an adapter does not fit a base.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModuleError {
    /// The spec is invalid.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter changes a layer that the base does not have.
    #[error("the base has no layer `{0}`")]
    NoSuchModule(String),
    /// The adapter names one layer twice.
    #[error("the adapter names `{0}` twice")]
    RepeatedModule(String),
    /// The adapter's layer has another shape than the base's.
    #[error("the base's `{name}` is {expected:?} (outputs, inputs), the adapter's {found:?}")]
    ModuleShape {
        /// The layer.
        name: String,
        /// Outputs and inputs in the base.
        expected: (usize, usize),
        /// Outputs and inputs in the adapter.
        found: (usize, usize),
    },
}

impl<'a> AdapterLayout<'a> {
    /// Matches every module of `spec` to a layer of `base`; fails if the spec is invalid, or a layer is
    /// missing, named twice or of another shape.
    pub(crate) fn new(base: &Base, spec: &'a AdapterSpec) -> std::result::Result<Self, ModuleError> {
        spec.check_local()?;
        let known = known(base);
        let (mut seen, mut modules) = (BTreeSet::new(), Vec::new());
        for slots in spec.slots() {
            let module = slots.module;
            let (layer, projection) = find(base, &known, module)?;
            if !seen.insert((layer, projection)) {
                return Err(ModuleError::RepeatedModule(module.name.clone()));
            }
            modules.push((layer, projection, slots));
        }
        let (scale, rank) = (spec.scale(), spec.rank as usize);
        Ok(Self { scale, rank, modules, trained_len: spec.trained_len() })
    }

    /// Length of the trained vector.
    pub(crate) fn trained_len(&self) -> usize {
        self.trained_len
    }

    /// The layers that the adapter changes, in its order.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (usize, Projection)> {
        self.modules.iter().map(|(layer, projection, _)| (*layer, *projection))
    }

    /// The LoRA deltas of these vectors, which must have the lengths of the spec.
    pub(crate) fn deltas<'v>(&self, frozen: &'v [f32], trained: &'v [f32]) -> Result<LoraDeltas<'v>> {
        let read = |slot: &Slot| match slot {
            Slot::Frozen(range) => (&frozen[range.clone()], None),
            Slot::Trained(range) => (&trained[range.clone()], Some(range.clone())),
        };
        let mut layers = BTreeMap::new();
        for (layer, projection, slots) in &self.modules {
            let ((a, a_range), (b, b_range)) = (read(&slots.a), read(&slots.b));
            let (a, trained) = match &slots.core {
                None => (Cow::Borrowed(a), TrainedFactors::Factors { a: a_range, b: b_range }),
                Some(range) => {
                    let core = View::whole(&trained[range.clone()], self.rank);
                    let inputs = slots.module.inputs as usize;
                    let mut product = vec![0.0; a.len()];
                    gemm(1.0, core, View::whole(a, inputs), 0.0, ViewMut::whole(&mut product, inputs))?;
                    (Cow::Owned(product), TrainedFactors::Core { a, range: range.clone() })
                }
            };
            let delta = LoraDelta { a, b, rank: self.rank, scale: self.scale, trained };
            layers.insert((*layer, *projection), delta);
        }
        Ok(LoraDeltas::of(layers))
    }
}

/// Every linear layer of the base as (block, projection), by its name.
fn known(base: &Base) -> BTreeMap<String, (usize, Projection)> {
    let blocks = 0..base.config().num_layers;
    blocks
        .flat_map(|layer| Projection::ALL.map(|projection| (projection.name(layer), (layer, projection))))
        .collect()
}

fn find(
    base: &Base,
    known: &BTreeMap<String, (usize, Projection)>,
    module: &Module,
) -> std::result::Result<(usize, Projection), ModuleError> {
    let Some(&(layer, projection)) = known.get(&module.name) else {
        return Err(ModuleError::NoSuchModule(module.name.clone()));
    };
    let (outputs, inputs) = projection.shape(base.config());
    if (module.outputs as usize, module.inputs as usize) != (outputs, inputs) {
        return Err(ModuleError::ModuleShape {
            name: module.name.clone(),
            expected: (outputs, inputs),
            found: (module.outputs as usize, module.inputs as usize),
        });
    }
    Ok((layer, projection))
}

/// The folded LoRA deltas of earlier epochs, by layer; fails if the base lacks a layer, or has it in another
/// shape.
pub(crate) fn folded_deltas(base: &Base, folded: &Folded) -> std::result::Result<FoldedDeltas, ModuleError> {
    let (known, rank) = (known(base), folded.rank() as usize);
    let folded_delta = |pair: &proto::adapter::FoldedPair| {
        let at = find(base, &known, &pair.module)?;
        Ok((at, FoldedDelta::new(rank, pair.a.clone(), pair.b.clone())))
    };
    folded.pairs().iter().map(folded_delta).collect()
}

/// Checks an adapter against a base; fails if its spec is invalid, or a layer is missing, named twice or of
/// another shape.
pub fn check_modules(base: &Base, spec: &AdapterSpec) -> std::result::Result<(), ModuleError> {
    AdapterLayout::new(base, spec).map(drop)
}
