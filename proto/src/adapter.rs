//! The adapter as one flat vector: which parameters it has, in which order, and what they mean.
//!
//! For a frozen linear layer `W` (outputs × inputs) the adapter adds `s · B · R · A`, with
//! `A` (rank × inputs), `B` (outputs × rank), `s = alpha / rank`, and `R` (rank × rank) the identity
//! unless the method is [`Method::Core`]. Every matrix is stored row by row; modules follow one another
//! in the order of [`AdapterSpec::modules`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::Digest;

mod class;
mod drawn;
mod folded;
mod low_rank;
mod state;

pub use class::Class;
pub use folded::{Folded, FoldedPair};
pub use state::State;

/// Which of an adapter's matrices are trained and averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Only `B`; `A` has orthonormal rows that every device has alike. The average is exact
    /// (FFA-LoRA, arXiv 2403.12313).
    FrozenA,
    /// Only `A`; `B` has orthonormal columns that every device has alike. As exact.
    FrozenB,
    /// `B` and `A` in turns: from an even version on devices train `B`, from an odd one `A`, so that `B` changes in
    /// odd versions and `A` in even ones. Both are state, and an update is of one half only, so each average is
    /// exact (`RoLoRA`, arXiv 2502.01755).
    Alternate,
    /// Only `R`, between frozen `B` and `A`. The average is exact and very small (Fed-SB, arXiv 2502.15436).
    Core,
    /// Both `A` and `B`. The average of factors is not the average of products (`FedIT`).
    Both,
}

impl Method {
    /// Its word, in plans and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FrozenA => "frozen_a",
            Self::FrozenB => "frozen_b",
            Self::Alternate => "alternate",
            Self::Core => "core",
            Self::Both => "both",
        }
    }
}

impl Method {
    /// What is trained from `version` on: of [`Method::Alternate`] the half whose turn it is, with the other half
    /// frozen; else the method itself.
    #[must_use]
    pub fn at(self, version: u32) -> Self {
        match self {
            Self::Alternate if version.is_multiple_of(2) => Self::FrozenA,
            Self::Alternate => Self::FrozenB,
            method @ (Self::FrozenA | Self::FrozenB | Self::Core | Self::Both) => method,
        }
    }

    /// Whether something is frozen for as long as an epoch lasts, and can be drawn anew.
    pub fn has_frozen_factors(self) -> bool {
        match self {
            Self::FrozenA | Self::FrozenB | Self::Core => true,
            Self::Alternate | Self::Both => false,
        }
    }
}

/// Where the frozen factors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factors {
    /// Drawn by each device from this public seed.
    Seeded(Digest),
    /// Made by the operator (say from the gradient on public text), fetched by this hash: those of one epoch after
    /// another, as many epochs as there are.
    Given(Digest),
}

/// One linear layer of the base that the adapter changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// The layer's name in the base, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Columns of the frozen weight.
    pub inputs: u32,
    /// Rows of the frozen weight.
    pub outputs: u32,
}

/// The adapter's shape, equal on every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSpec {
    /// What is trained.
    pub method: Method,
    /// Columns of `B`, rows of `A`.
    pub rank: u32,
    /// The product `B · A` is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Where the frozen factors come from. Where nothing is frozen, only given ones have a meaning: `A` begins with
    /// them.
    pub factors: Factors,
    /// The adapted layers, in the order of the flat vector.
    pub modules: Vec<Module>,
}

/// An adapter that cannot exist, or a vector that is not one of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The rank is zero or above a module's smaller side.
    #[error("rank {rank} does not fit `{module}` ({outputs} × {inputs}); use 1 to {most}")]
    Rank {
        /// The rank asked for.
        rank: u32,
        /// The module that it does not fit.
        module: String,
        /// Rows of the module.
        outputs: u32,
        /// Columns of the module.
        inputs: u32,
        /// The largest rank that fits.
        most: u32,
    },
    /// There is nothing to adapt.
    #[error("the adapter names no module")]
    NoModules,
    /// The scale is not a positive number.
    #[error("alpha must be a positive number, found {0}")]
    Alpha(String),
    /// The operator's factors are not those of a whole number of epochs.
    #[error("the factors of this adapter are {one} numbers for each epoch, found {found}")]
    Given {
        /// Numbers of one epoch.
        one: usize,
        /// What came.
        found: usize,
    },
    /// The operator's factors are needed and not there.
    #[error("the factors that the operator made are not there")]
    NoFactors,
    /// What earlier epochs left is not of this adapter.
    #[error("what earlier epochs left is {one} numbers for each rank, up to rank {most}, found {found}")]
    Folded {
        /// Numbers of rank one.
        one: usize,
        /// The largest rank.
        most: u32,
        /// What came.
        found: usize,
    },
    /// A device trains what is none of the adapter, or of an adapter whose averages would not be exact.
    #[error(
        "a device of rank {} in the top {} layers trains no part of an adapter with a frozen A of rank {} in {} layers",
        class.rank, class.layers, whole.rank, whole.layers
    )]
    Class {
        /// What it trains.
        class: Class,
        /// All of the adapter.
        whole: Class,
    },
    /// A vector has another length than the spec asks for.
    #[error("the {what} of this adapter are {expected} numbers, found {found}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// What the spec asks for.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A vector holds a number that is not finite.
    #[error("the {what} of this adapter hold a number that is not finite at {index}")]
    NotFinite {
        /// Which vector.
        what: &'static str,
        /// Where.
        index: usize,
    },
}

/// Where one matrix is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// In the frozen factors.
    Frozen(Range<usize>),
    /// In the trained vector.
    Trained(Range<usize>),
}

/// Where one module's matrices are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSlots<'a> {
    /// The module.
    pub module: &'a Module,
    /// `A`: (rank, inputs).
    pub a: Slot,
    /// `B`: (outputs, rank).
    pub b: Slot,
    /// `R`: (rank, rank), in the trained vector; only with [`Method::Core`].
    pub core: Option<Range<usize>>,
}

/// One module's product in the two-factor form that other programs read.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPair<'a> {
    /// The module.
    pub module: &'a Module,
    /// `R · A`: (rank, inputs).
    pub a: Vec<f32>,
    /// `B`: (outputs, rank).
    pub b: Vec<f32>,
}

/// The largest rank of an adapter that is read or trained outside of a plan.
pub const MOST_LOCAL_RANK: u32 = 4096;

impl AdapterSpec {
    /// Whether the adapter can be computed with: as [`Self::check`], but where both factors are trained a rank may be
    /// above a layer's smaller side, up to [`MOST_LOCAL_RANK`]. PEFT makes such adapters, whose product has no more to say.
    pub fn check_local(&self) -> Result<(), AdapterError> {
        match self.method {
            Method::Both => {
                self.check_with(|module| MOST_LOCAL_RANK * module.inputs.min(module.outputs).min(1))
            }
            Method::FrozenA | Method::FrozenB | Method::Core | Method::Alternate => self.check(),
        }
    }

    /// Whether the spec can exist in a plan.
    pub fn check(&self) -> Result<(), AdapterError> {
        self.check_with(|module| module.inputs.min(module.outputs))
    }

    fn check_with(&self, most: impl Fn(&Module) -> u32) -> Result<(), AdapterError> {
        if self.modules.is_empty() {
            return Err(AdapterError::NoModules);
        }
        // Before alpha, which is twice the rank where nobody says it.
        for module in &self.modules {
            let most = most(module);
            if self.rank == 0 || self.rank > most {
                return Err(AdapterError::Rank {
                    rank: self.rank,
                    module: module.name.clone(),
                    outputs: module.outputs,
                    inputs: module.inputs,
                    most,
                });
            }
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(AdapterError::Alpha(self.alpha.to_string()));
        }
        Ok(())
    }

    /// `s = alpha / rank`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Where each module's matrices are.
    pub fn slots(&self) -> Vec<ModuleSlots<'_>> {
        let rank = self.rank as usize;
        let (mut frozen, mut trained) = (0, 0);
        let take = |at: &mut usize, len: usize| {
            let range = *at..*at + len;
            *at += len;
            range
        };
        self.modules
            .iter()
            .map(|module| {
                let (a_len, b_len) = (rank * module.inputs as usize, rank * module.outputs as usize);
                let (a, b, core) = match self.method {
                    Method::FrozenB => (
                        Slot::Trained(take(&mut trained, a_len)),
                        Slot::Frozen(take(&mut frozen, b_len)),
                        None,
                    ),
                    Method::FrozenA => (
                        Slot::Frozen(take(&mut frozen, a_len)),
                        Slot::Trained(take(&mut trained, b_len)),
                        None,
                    ),
                    Method::Core => (
                        Slot::Frozen(take(&mut frozen, a_len)),
                        Slot::Frozen(take(&mut frozen, b_len)),
                        Some(take(&mut trained, rank * rank)),
                    ),
                    Method::Alternate | Method::Both => (
                        Slot::Trained(take(&mut trained, a_len)),
                        Slot::Trained(take(&mut trained, b_len)),
                        None,
                    ),
                };
                ModuleSlots { module, a, b, core }
            })
            .collect()
    }

    /// Numbers of the state that changes from version to version; `usize::MAX` if they cannot be counted.
    pub fn trained_len(&self) -> usize {
        self.sum_of(|module| match self.method {
            Method::FrozenA => module.outputs as usize,
            Method::FrozenB => module.inputs as usize,
            Method::Core => self.rank as usize,
            Method::Alternate | Method::Both => {
                (module.inputs as usize).saturating_add(module.outputs as usize)
            }
        })
    }

    /// Numbers that are trained from `version` on, clipped and averaged: all of the state, or the half whose turn
    /// it is.
    pub fn update_len(&self, version: u32) -> usize {
        self.at(version).trained_len()
    }

    /// The adapter as it is trained from `version` on: with [`Method::at`].
    #[must_use]
    pub fn at(&self, version: u32) -> Self {
        Self { method: self.method.at(version), ..self.clone() }
    }

    /// Where in the state the numbers of an update from `version` on belong, in order.
    pub fn update_places(&self, version: u32) -> Vec<Range<usize>> {
        if self.method != Method::Alternate {
            return std::iter::once(0..self.trained_len()).collect();
        }
        let half = self.method.at(version);
        let place = |slots: ModuleSlots<'_>| match if half == Method::FrozenA { slots.b } else { slots.a } {
            Slot::Frozen(range) | Slot::Trained(range) => range,
        };
        self.slots().into_iter().map(place).collect()
    }

    /// Numbers that every device has alike; `usize::MAX` if they cannot be counted.
    pub fn frozen_len(&self) -> usize {
        self.sum_of(|module| match self.method {
            Method::FrozenA => module.inputs as usize,
            Method::FrozenB => module.outputs as usize,
            Method::Core => (module.inputs as usize).saturating_add(module.outputs as usize),
            Method::Alternate | Method::Both => 0,
        })
    }

    /// Numbers that an operator gives for one epoch: the frozen factors, or the `A` to begin with.
    pub fn given_len(&self) -> usize {
        if self.method.has_frozen_factors() {
            self.frozen_len()
        } else {
            self.sum_of(|module| module.inputs as usize)
        }
    }

    /// The sum over all modules of so many vectors of the rank's length.
    fn sum_of(&self, vectors: impl Fn(&Module) -> usize) -> usize {
        let rank = self.rank as usize;
        let lens = self.modules.iter().map(|module| rank.saturating_mul(vectors(module)));
        lens.fold(0, usize::saturating_add)
    }

    /// Checks that `given` are an operator's factors of this adapter, for one epoch or for several.
    pub fn check_given(&self, given: &[f32]) -> Result<(), AdapterError> {
        let one = self.given_len();
        if given.is_empty() || one == 0 || !given.len().is_multiple_of(one) {
            return Err(AdapterError::Given { one, found: given.len() });
        }
        check_vector("factors", given.len(), given)
    }

    /// Checks that `trained` is a state of this adapter.
    pub fn check_trained(&self, trained: &[f32]) -> Result<(), AdapterError> {
        check_vector("trained parameters", self.trained_len(), trained)
    }

    /// Checks that `frozen` are factors of this adapter.
    pub fn check_frozen(&self, frozen: &[f32]) -> Result<(), AdapterError> {
        check_vector("frozen factors", self.frozen_len(), frozen)
    }

    /// The two factors of every module, `R` folded into `A`.
    pub fn pairs(&self, frozen: &[f32], trained: &[f32]) -> Result<Vec<LoraPair<'_>>, AdapterError> {
        self.check_frozen(frozen)?;
        self.check_trained(trained)?;
        let read = |slot: &Slot| match slot {
            Slot::Frozen(range) => frozen[range.clone()].to_vec(),
            Slot::Trained(range) => trained[range.clone()].to_vec(),
        };
        let rank = self.rank as usize;
        Ok(self
            .slots()
            .into_iter()
            .map(|slots| {
                let mut a = read(&slots.a);
                if let Some(core) = slots.core {
                    a = product(&trained[core], &a, rank, slots.module.inputs as usize);
                }
                LoraPair { module: slots.module, a, b: read(&slots.b) }
            })
            .collect())
    }
}

fn check_vector(what: &'static str, expected: usize, vector: &[f32]) -> Result<(), AdapterError> {
    if vector.len() != expected {
        return Err(AdapterError::Length { what, expected, found: vector.len() });
    }
    match vector.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(AdapterError::NotFinite { what, index }),
        None => Ok(()),
    }
}

/// `left` (rank × rank) times `right` (rank × columns).
fn product(left: &[f32], right: &[f32], rank: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; rank * columns];
    for i in 0..rank {
        for k in 0..rank {
            let factor = left[i * rank + k];
            for j in 0..columns {
                out[i * columns + j] += factor * right[k * columns + j];
            }
        }
    }
    out
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 5] =
        [Method::FrozenA, Method::FrozenB, Method::Alternate, Method::Core, Method::Both];

    fn spec(method: Method) -> AdapterSpec {
        AdapterSpec {
            method,
            rank: 2,
            alpha: 6.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: vec![
                Module { name: "first".into(), inputs: 5, outputs: 3 },
                Module { name: "second".into(), inputs: 4, outputs: 7 },
            ],
        }
    }

    #[test]
    fn lengths_follow_from_the_method() {
        assert_eq!((spec(Method::FrozenA).trained_len(), spec(Method::FrozenA).frozen_len()), (20, 18));
        assert_eq!((spec(Method::FrozenB).trained_len(), spec(Method::FrozenB).frozen_len()), (18, 20));
        assert_eq!((spec(Method::Core).trained_len(), spec(Method::Core).frozen_len()), (8, 38));
        for method in [Method::Both, Method::Alternate] {
            assert_eq!((spec(method).trained_len(), spec(method).frozen_len()), (38, 0));
        }
    }

    #[test]
    fn the_halves_of_an_alternating_adapter_are_trained_in_turns_and_together_are_all_of_it() {
        let spec = spec(Method::Alternate);
        assert_eq!((spec.at(0).method, spec.at(1).method), (Method::FrozenA, Method::FrozenB));
        assert_eq!((spec.update_len(0), spec.update_len(1)), (20, 18));
        // A of `first`, B of `first`, A of `second`, B of `second`.
        assert_eq!(spec.update_places(0), [10..16, 24..38]);
        assert_eq!(spec.update_places(1), [0..10, 16..24]);
        assert_eq!(spec.update_places(2), spec.update_places(0));
    }

    #[test]
    fn an_adapter_begins_with_the_operator_s_factors() {
        let given: Vec<f32> = (0..18).map(|i| i as f32).collect();
        for method in [Method::Both, Method::Alternate] {
            let spec = spec(method);
            spec.check_given(&given).unwrap();
            let trained = spec.initial(&Digest([3; 32]), Some(&given));
            assert_eq!((&trained[..10], &trained[16..24]), (&given[..10], &given[10..]));
            assert_eq!(
                spec.check_given(&given[1..]).unwrap_err(),
                AdapterError::Given { one: 18, found: 17 }
            );
        }
        assert!(spec(Method::FrozenA).check_given(&[given.clone(), given].concat()).is_ok());
    }

    #[test]
    fn seeded_factors_are_orthonormal_and_differ_between_modules() {
        let spec = spec(Method::Core);
        let frozen = spec.seeded_factors(&Digest([9; 32]));
        assert_eq!(frozen.len(), spec.frozen_len());
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&frozen[0..5], &frozen[0..5]) - 1.0).abs() < 1e-6);
        assert!(dot(&frozen[0..5], &frozen[5..10]).abs() < 1e-6);
        let b = &frozen[10..16];
        assert!((b[0] * b[0] + b[2] * b[2] + b[4] * b[4] - 1.0).abs() < 1e-6);
        assert!((frozen[0] - frozen[16]).abs() > 1e-3);
    }

    #[test]
    fn the_first_version_changes_nothing() {
        for method in METHODS {
            let spec = spec(method);
            let frozen = spec.seeded_factors(&Digest([3; 32]));
            let trained = spec.initial(&Digest([3; 32]), None);
            for pair in spec.pairs(&frozen, &trained).unwrap() {
                let silent = pair.a.iter().all(|x| *x == 0.0) || pair.b.iter().all(|x| *x == 0.0);
                assert!(silent, "{method:?} {}", pair.module.name);
            }
        }
    }

    #[test]
    fn the_core_is_folded_into_a() {
        let spec = spec(Method::Core);
        let frozen = spec.seeded_factors(&Digest([3; 32]));
        let mut trained = vec![0.0; 8];
        trained[1] = 2.0; // R = [[0, 2], [0, 0]]: row 0 of R·A is twice row 1 of A.
        let pairs = spec.pairs(&frozen, &trained).unwrap();
        assert!((pairs[0].a[0] - 2.0 * frozen[5]).abs() < 1e-6);
        assert!(pairs[0].a[5..].iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_rank_above_a_layer_s_width_begins_with_rows_that_are_orthonormal_by_as_many_as_can_be() {
        let spec = AdapterSpec { rank: 7, ..spec(Method::Both) };
        let start = spec.initial(&Digest([3; 32]), None);
        // The first module has five inputs: rows 0 to 4 are orthonormal, and so are rows 5 and 6.
        let rows: Vec<&[f32]> = start[..35].chunks_exact(5).collect();
        for (i, left) in rows.iter().enumerate() {
            for (j, right) in rows.iter().enumerate().filter(|(j, _)| i / 5 == j / 5) {
                let product: f32 = left.iter().zip(right.iter()).map(|(x, y)| x * y).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-5, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn a_rank_above_a_side_is_refused_by_module() {
        let spec = AdapterSpec { rank: 4, ..spec(Method::FrozenA) };
        let error = spec.check().unwrap_err().to_string();
        assert_eq!(error, "rank 4 does not fit `first` (3 × 5); use 1 to 3");
        assert!(spec.check_local().is_err());
        let both = AdapterSpec { rank: 4, ..self::spec(Method::Both) };
        assert!(both.check().is_err() && both.check_local().is_ok());
        assert!(AdapterSpec { rank: 0, ..both.clone() }.check_local().is_err());
        assert!(AdapterSpec { rank: MOST_LOCAL_RANK + 1, ..both }.check_local().is_err());
    }
}
