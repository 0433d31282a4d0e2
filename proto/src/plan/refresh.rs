//! When frozen factors are drawn anew, and what is frozen and trained at a version.

use serde::{Deserialize, Serialize};

use super::{MAX_FROZEN, Plan, PlanError};
use crate::adapter::{AdapterError, AdapterSpec, Factors, Folded, State};
use crate::ids::Digest;
use crate::training::PlanValueError;

/// When frozen factors are drawn anew. The versions from one draw to the next are an *epoch*: at its end the product
/// is folded into a frozen change of the base, and what is trained begins at zero again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshPlan {
    /// Versions of an epoch.
    pub every: u32,
    /// The largest rank of what is folded; beyond it, the nearest of that rank takes its place.
    pub accumulated_rank: u32,
    /// The rank of what comes out: exact where the folded rank and that of the adapter fit it.
    pub shipped_rank: u32,
}

impl RefreshPlan {
    /// An epoch of `every` versions: four times the adapter's rank is kept of all epochs, and comes out.
    pub fn every(every: u32, adapter: &AdapterSpec) -> Self {
        let rank = adapter.rank.saturating_mul(4).min(smallest_side(adapter)).max(adapter.rank);
        Self { every, accumulated_rank: rank, shipped_rank: rank }
    }
}

/// The largest rank that every layer can have.
fn smallest_side(adapter: &AdapterSpec) -> u32 {
    adapter.modules.iter().map(|module| module.inputs.min(module.outputs)).min().unwrap_or(0)
}

impl Plan {
    pub(super) fn check_refresh(&self) -> Result<(), PlanError> {
        let Some(RefreshPlan { every, accumulated_rank, shipped_rank }) = self.refresh else { return Ok(()) };
        if !self.adapter.method.has_frozen_factors() {
            return Err(PlanError::NothingToRefresh);
        }
        let most = smallest_side(&self.adapter);
        let refuse =
            |name, wanted, found| Err(PlanValueError { name, wanted, found: f64::from(found) }.into());
        if every == 0 {
            return refuse("refresh.every", "at least 1; leave `refresh` out to draw no factors anew", every);
        }
        if accumulated_rank < self.adapter.rank {
            return refuse("refresh.accumulated_rank", "at least the adapter's rank", accumulated_rank);
        }
        if shipped_rank == 0 || shipped_rank > most {
            return refuse(
                "refresh.shipped_rank",
                "1 up to the smallest side of the adapted layers",
                shipped_rank,
            );
        }
        let sides = |side: fn(&crate::adapter::Module) -> u32| {
            self.adapter.modules.iter().map(|module| side(module) as usize).fold(0, usize::saturating_add)
        };
        let one = sides(|module| module.inputs).saturating_add(sides(|module| module.outputs));
        let folded = one.saturating_mul(accumulated_rank as usize);
        if folded > MAX_FROZEN {
            return Err(PlanError::TooManyFrozen(folded));
        }
        Ok(())
    }

    /// The epoch of a version; the first is 0. The last version ends no epoch: nothing is trained from it.
    pub fn epoch(&self, version: u32) -> u32 {
        self.refresh.map_or(0, |refresh| {
            version.min(self.round.versions.saturating_sub(1)).checked_div(refresh.every).unwrap_or(0)
        })
    }

    /// Whether an epoch ends, and its product is folded, with the making of this version.
    pub fn folds_at(&self, version: u32) -> bool {
        version > 0 && self.epoch(version) != self.epoch(version - 1)
    }

    /// The factors that an operator made and that a device has to fetch, if there are any.
    pub fn given_factors(&self) -> Option<Digest> {
        match self.adapter.factors {
            Factors::Given(digest) if self.adapter.method.has_frozen_factors() => Some(digest),
            Factors::Given(_) | Factors::Seeded(_) => None,
        }
    }

    /// The frozen factors at `version`: those that the operator gave for its epoch, else drawn from a seed. Fails
    /// where the operator's factors are needed and not `given`, or are none.
    pub fn factors_at(&self, version: u32, given: Option<&[f32]>) -> Result<Vec<f32>, AdapterError> {
        let (spec, epoch) = (&self.adapter, self.epoch(version));
        if !spec.method.has_frozen_factors() {
            return Ok(Vec::new());
        }
        match spec.factors {
            Factors::Seeded(seed) => Ok(spec.seeded_factors(&epoch_seed(&seed, epoch))),
            Factors::Given(_) => {
                let given = given.ok_or(AdapterError::NoFactors)?;
                spec.check_given(given)?;
                let of_epoch = given.chunks_exact(spec.given_len()).nth(epoch as usize);
                Ok(of_epoch.map_or_else(
                    || spec.seeded_factors(&epoch_seed(&self.initial_seed, epoch)),
                    <[f32]>::to_vec,
                ))
            }
        }
    }

    /// The adapter at `version`, as it is trained from there on. `folded` is the vector of the version's folded
    /// change, where it has one. Fails where a vector is not one of the plan's adapter, or one is missing.
    pub fn state_at(
        &self,
        version: u32,
        given: Option<&[f32]>,
        folded: Option<&[f32]>,
        trained: &[f32],
    ) -> Result<State, AdapterError> {
        let folded = self.folded_at(version, folded)?;
        State::at(&self.adapter, version, self.factors_at(version, given)?, folded, trained)
    }

    /// What the epochs before that of `version` left. Fails where there is something and should not be, or the other
    /// way round.
    pub fn folded_at(&self, version: u32, folded: Option<&[f32]>) -> Result<Folded, AdapterError> {
        match (self.refresh, folded) {
            (Some(refresh), folded) if self.epoch(version) > 0 => {
                let (modules, most) = (&self.adapter.modules, refresh.accumulated_rank);
                Folded::from_vector(modules, folded.unwrap_or(&[]), most)
            }
            (Some(_) | None, None) => Ok(Folded::default()),
            (Some(_) | None, Some(found)) => {
                Err(AdapterError::Folded { one: 0, most: 0, found: found.len() })
            }
        }
    }

    /// The rank of what comes out.
    pub fn shipped_rank(&self) -> u32 {
        self.refresh.map_or(self.adapter.rank, |refresh| refresh.shipped_rank)
    }
}

/// The seed of an epoch; that of the first is `seed` itself.
fn epoch_seed(seed: &Digest, epoch: u32) -> Digest {
    if epoch == 0 {
        return *seed;
    }
    let mut bytes = b"nightshift epoch v1".to_vec();
    bytes.extend_from_slice(&seed.0);
    bytes.extend_from_slice(&epoch.to_be_bytes());
    Digest::of(&bytes)
}
