//! How much of an adapter one device trains, where a plan lets devices train less than all of it.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{AdapterError, AdapterSpec, Method, Module, Slot, State};

/// How much of an adapter with a frozen `A` one device trains: the first columns of `B`, in the top layers. The rest
/// of its update is zero. A class is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// Columns of `B`.
    pub rank: u32,
    /// Of the adapter's layers, so many of those nearest to the output.
    pub layers: u32,
}

impl Class {
    /// All of the adapter.
    pub fn whole(spec: &AdapterSpec) -> Self {
        Self { rank: spec.rank, layers: u32::try_from(layers(spec).len()).unwrap_or(u32::MAX) }
    }

    /// As much of the adapter as the limits allow.
    pub fn within(spec: &AdapterSpec, largest_rank: Option<u32>, top_layers: Option<u32>) -> Self {
        let whole = Self::whole(spec);
        Self {
            rank: largest_rank.map_or(whole.rank, |most| most.min(whole.rank)),
            layers: top_layers.map_or(whole.layers, |most| most.min(whole.layers)),
        }
    }

    /// Whether it is a class of the adapter: something is trained, and no more than there is.
    pub fn check(self, spec: &AdapterSpec) -> Result<(), AdapterError> {
        let whole = Self::whole(spec);
        let within = (1..=whole.rank).contains(&self.rank) && (1..=whole.layers).contains(&self.layers);
        if within && spec.method == Method::FrozenA {
            Ok(())
        } else {
            Err(AdapterError::Class { class: self, whole })
        }
    }

    /// Where in the state the numbers that it trains are, in order.
    pub fn places(self, spec: &AdapterSpec) -> Vec<Range<usize>> {
        let (width, rank) = (spec.rank as usize, self.rank.min(spec.rank) as usize);
        let top = self.top(spec);
        let mut places = Vec::new();
        for slots in spec.slots().into_iter().filter(|slots| top.contains(&layer(slots.module))) {
            let Slot::Trained(b) = slots.b else { continue };
            if rank == width {
                places.push(b);
            } else {
                places.extend(b.step_by(width).map(|row| row..row + rank));
            }
        }
        places
    }

    /// The layers that it trains.
    fn top(self, spec: &AdapterSpec) -> BTreeSet<Option<u32>> {
        layers(spec).into_iter().rev().take(self.layers as usize).collect()
    }
}

impl State {
    /// The same adapter for a device of this class: what it does not train is part of the frozen change, so that
    /// an engine spends nothing on it. Fails where there is no such class, or a vector is not one of the adapter.
    pub fn of_class(&self, class: Class) -> Result<Self, AdapterError> {
        class.check(&self.spec)?;
        let (width, rank) = (self.spec.rank as usize, class.rank as usize);
        let top = class.top(&self.spec);
        let (mut frozen, mut trained, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for mut pair in self.spec.pairs(&self.frozen, &self.trained)? {
            if top.contains(&layer(pair.module)) {
                frozen.extend_from_slice(&pair.a[..rank * pair.module.inputs as usize]);
                for row in pair.b.chunks_exact_mut(width) {
                    trained.extend_from_slice(&row[..rank]);
                    row[..rank].fill(0.0);
                }
            }
            rest.push(pair);
        }
        let folded = self.folded.plus(&rest, self.spec.rank, self.spec.scale(), u32::MAX);
        let modules =
            self.spec.modules.iter().filter(|module| top.contains(&layer(module))).cloned().collect();
        // The scale stays the task's.
        let alpha = self.spec.scale() * class.rank as f32;
        let spec = AdapterSpec { rank: class.rank, alpha, modules, ..self.spec.clone() };
        Ok(Self { spec, frozen, folded, trained })
    }
}

/// The layers of the adapter, in order; modules whose names have no number are of one before the first.
fn layers(spec: &AdapterSpec) -> BTreeSet<Option<u32>> {
    spec.modules.iter().map(layer).collect()
}

/// The first number in a module's name.
fn layer(module: &Module) -> Option<u32> {
    module.name.split('.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Factors, Folded};
    use crate::ids::Digest;

    fn spec() -> AdapterSpec {
        let module = |layer: u32, name: &str, inputs, outputs| Module {
            name: format!("model.layers.{layer}.{name}"),
            inputs,
            outputs,
        };
        AdapterSpec {
            method: Method::FrozenA,
            rank: 3,
            alpha: 6.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: vec![module(2, "q", 4, 3), module(10, "q", 4, 3), module(10, "up", 4, 5)],
        }
    }

    #[test]
    fn a_class_has_the_first_columns_of_the_layers_nearest_to_the_output() {
        let class = Class { rank: 2, layers: 1 };
        let places = class.places(&spec());
        // `model.layers.10.q` begins at 9, `model.layers.10.up` at 18; each row has three columns.
        assert_eq!(places[..3], [9..11, 12..14, 15..17]);
        assert_eq!((places.len(), places[3].clone()), (8, 18..20));
        assert_eq!(Class::whole(&spec()).places(&spec()), [0..9, 9..18, 18..33]);
    }

    #[test]
    fn limits_make_a_class_and_one_that_is_none_is_refused() {
        let whole = Class { rank: 3, layers: 2 };
        assert_eq!(Class::whole(&spec()), whole);
        assert_eq!(Class::within(&spec(), Some(8), None), whole);
        assert_eq!(Class::within(&spec(), Some(2), Some(1)), Class { rank: 2, layers: 1 });
        for (rank, layers) in [(0, 1), (1, 0), (4, 1), (1, 3)] {
            let class = Class { rank, layers };
            assert_eq!(class.check(&spec()), Err(AdapterError::Class { class, whole }));
        }
        let both = AdapterSpec { method: Method::Both, ..spec() };
        assert!(whole.check(&both).is_err());
    }

    #[test]
    fn what_a_class_does_not_train_is_in_the_frozen_change() {
        let spec = spec();
        let number = |i: usize| (i as f32 * 1.3).sin();
        let frozen = spec.seeded_factors(&Digest([1; 32]));
        let trained: Vec<f32> = (0..spec.trained_len()).map(number).collect();
        let whole = State { spec: spec.clone(), frozen, folded: Folded::default(), trained };
        let part = whole.of_class(Class { rank: 2, layers: 1 }).unwrap();
        assert_eq!((part.spec.rank, part.spec.modules.len()), (2, 2));
        assert!((part.spec.scale() - spec.scale()).abs() < 1e-6);
        let places = Class { rank: 2, layers: 1 }.places(&spec);
        let expected: Vec<f32> = places.into_iter().flatten().map(|i| whole.trained[i]).collect();
        assert_eq!(part.trained, expected);
        // Together they are the same change, module by module.
        let product = |a: &[f32], b: &[f32], scale: f32, i: usize, j: usize| {
            let rank = a.len() / 4;
            (0..rank).map(|k| scale * b[i * rank + k] * a[k * 4 + j]).sum::<f32>()
        };
        let pairs = part.spec.pairs(&part.frozen, &part.trained).unwrap();
        for pair in spec.pairs(&whole.frozen, &whole.trained).unwrap() {
            let folded = part.folded.pairs().iter().find(|known| known.module == *pair.module).unwrap();
            let own = pairs.iter().find(|own| own.module == pair.module);
            for (i, j) in [(0, 0), (2, 3), (1, 2)] {
                let own = own.map_or(0.0, |own| product(&own.a, &own.b, part.spec.scale(), i, j));
                let found = product(&folded.a, &folded.b, 1.0, i, j) + own;
                let expected = product(&pair.a, &pair.b, spec.scale(), i, j);
                assert!((found - expected).abs() < 1e-5, "{}: {found} is not {expected}", pair.module.name);
            }
        }
    }
}
