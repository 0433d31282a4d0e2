//! Where an adapter's flat vectors meet the decoder's layers.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Result, Tensor, Var};
use proto::adapter::{AdapterSpec, Folded, FoldedPair, Module, ModuleSlots, Slot};

use super::base::{Base, Projection};
use super::decoder::{Changes, Factors, Weights};
use super::engine::TrainError;
use super::tape::Gradients;

/// The layers of an adapter in the base, and the variables of the step that is under way.
pub(crate) struct Places<'a> {
    scale: f32,
    rank: usize,
    modules: Vec<(usize, Projection, ModuleSlots<'a>)>,
    /// Each variable and where its gradient belongs.
    variables: Vec<(std::ops::Range<usize>, Var)>,
}

/// How the trained part enters the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trained {
    Variable,
    Constant,
}

impl<'a> Places<'a> {
    /// Finds every module of `spec` in `base`; fails where there is none, or one of another shape.
    pub(crate) fn new(base: &Base, spec: &'a AdapterSpec) -> std::result::Result<Self, TrainError> {
        spec.check()?;
        let known = layers(base);
        let (mut seen, mut modules) = (BTreeSet::new(), Vec::new());
        for slots in spec.slots() {
            let module = slots.module;
            let (layer, projection) = find(base, &known, module)?;
            if !seen.insert((layer, projection)) {
                return Err(TrainError::RepeatedModule(module.name.clone()));
            }
            modules.push((layer, projection, slots));
        }
        Ok(Self { scale: spec.scale(), rank: spec.rank as usize, modules, variables: Vec::new() })
    }

    /// The adapter with a gradient on its trained part.
    pub(crate) fn variables(&mut self, frozen: &[f32], trained: &[f32]) -> Result<Changes> {
        let mut variables = Vec::new();
        let changes = self.changes(frozen, trained, Trained::Variable, &mut variables)?;
        self.variables = variables;
        Ok(changes)
    }

    /// The adapter without a gradient.
    pub(crate) fn constants(&self, frozen: &[f32], trained: &[f32]) -> Result<Changes> {
        self.changes(frozen, trained, Trained::Constant, &mut Vec::new())
    }

    fn changes(
        &self,
        frozen: &[f32],
        trained: &[f32],
        kind: Trained,
        variables: &mut Vec<(std::ops::Range<usize>, Var)>,
    ) -> Result<Changes> {
        let mut tensor = |slot: &Slot, shape: (usize, usize)| match slot {
            Slot::Frozen(range) => Tensor::from_slice(&frozen[range.clone()], shape, &Device::Cpu),
            Slot::Trained(range) if kind == Trained::Constant => {
                Tensor::from_slice(&trained[range.clone()], shape, &Device::Cpu)
            }
            Slot::Trained(range) => {
                let var = Var::from_slice(&trained[range.clone()], shape, &Device::Cpu)?;
                let tensor = var.as_tensor().clone();
                variables.push((range.clone(), var));
                Ok(tensor)
            }
        };
        let mut changes = Changes { scale: self.scale, factors: BTreeMap::new() };
        for (layer, projection, slots) in &self.modules {
            let (outputs, inputs) = (slots.module.outputs as usize, slots.module.inputs as usize);
            let a = tensor(&slots.a, (self.rank, inputs))?;
            let b = tensor(&slots.b, (outputs, self.rank))?;
            let core = match &slots.core {
                Some(core) => Some(tensor(&Slot::Trained(core.clone()), (self.rank, self.rank))?),
                None => None,
            };
            changes.factors.insert((*layer, *projection), Factors { a, b, core });
        }
        Ok(changes)
    }

    /// The gradients of [`Self::variables`] as one vector of `len` in the adapter's order.
    pub(crate) fn gather(&mut self, gradients: &Gradients, len: usize) -> Result<Vec<f32>> {
        let mut all = vec![0.0; len];
        for (range, var) in self.variables.drain(..) {
            if let Some(gradient) = gradients.get(&var) {
                all[range].copy_from_slice(&gradient.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(all)
    }

    /// The base with a gradient on the adapted weights, and these weights in the adapter's order.
    pub(crate) fn track_weights(&self, weights: &Weights) -> Result<(Weights, Vec<Var>)> {
        let (mut weights, mut vars) = (weights.clone(), Vec::new());
        for (layer, projection, _) in &self.modules {
            if let Some(block) = weights.blocks.get_mut(*layer) {
                let linear = block.linear_mut(*projection);
                let var = Var::from_tensor(&linear.weight)?;
                linear.weight = var.as_tensor().clone();
                vars.push(var);
            }
        }
        Ok((weights, vars))
    }
}

/// The base's weights, each layer in `folded` changed to `W + B · A`. Fails as [`Places::new`] does.
pub(crate) fn folded(base: &Base, folded: &Folded) -> std::result::Result<Weights, TrainError> {
    let (mut weights, known, rank) = (base.weights().clone(), layers(base), folded.rank() as usize);
    for FoldedPair { module, a, b } in folded.pairs() {
        let (layer, projection) = find(base, &known, module)?;
        let (outputs, inputs) = (module.outputs as usize, module.inputs as usize);
        let a = Tensor::from_slice(a, (rank, inputs), &Device::Cpu)?;
        let b = Tensor::from_slice(b, (outputs, rank), &Device::Cpu)?;
        if let Some(block) = weights.blocks.get_mut(layer) {
            let linear = block.linear_mut(projection);
            linear.weight = (&linear.weight + b.matmul(&a)?)?;
        }
    }
    Ok(weights)
}

/// Every linear layer of the base, by its name.
fn layers(base: &Base) -> BTreeMap<String, (usize, Projection)> {
    let blocks = 0..base.config().num_layers;
    blocks
        .flat_map(|layer| Projection::ALL.map(|projection| (projection.name(layer), (layer, projection))))
        .collect()
}

fn find(
    base: &Base,
    known: &BTreeMap<String, (usize, Projection)>,
    module: &Module,
) -> std::result::Result<(usize, Projection), TrainError> {
    let Some(&(layer, projection)) = known.get(&module.name) else {
        return Err(TrainError::NoSuchModule(module.name.clone()));
    };
    let (outputs, inputs) = projection.shape(base.config());
    if (module.outputs as usize, module.inputs as usize) != (outputs, inputs) {
        return Err(TrainError::ModuleShape {
            name: module.name.clone(),
            expected: (outputs, inputs),
            found: (module.outputs as usize, module.inputs as usize),
        });
    }
    Ok((layer, projection))
}
