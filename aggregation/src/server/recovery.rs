//! Collects what the survivors reveal, and rebuilds each seed as soon as it
//! can be.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    RunningSum,
    rebuild::{Held, SeedRebuilder},
    unmasking::{UnmaskError, Unmasking},
};
use crate::{
    agreement::{SeedKind, commitment},
    context::{Context, ContextError},
    device::UnmaskShares,
    index::{DeviceIndex, IndexSet},
    modular::Ring,
    roster::Roster,
    seed::Seed,
    shamir::Share,
};

/// The shares that the survivors of a session revealed so far.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub(super) ctx: Context,
    context_digest: [u8; 32],
    pub(super) ring: Ring,
    pub(super) roster: Roster,
    pub(super) survivors: IndexSet,
    pub(super) missing: IndexSet,
    answered: IndexSet,
    rebuilder: SeedRebuilder,
    /// By the device whose seed they are of, while it is not rebuilt.
    shares: BTreeMap<DeviceIndex, Vec<Held>>,
    /// Of the survivors the own mask's seed, of the missing the key's.
    pub(super) seeds: BTreeMap<DeviceIndex, Seed>,
}

/// Why a session cannot be unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// The context has a value outside its range.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A set of places is over another roster.
    #[error("a set over {got} places, the roster has {expected}")]
    Places {
        /// The places of the set.
        got: usize,
        /// The places of the roster.
        expected: usize,
    },
    /// A survivor never shared its seeds.
    #[error("survivor {index} is not among the sharers")]
    UnknownSurvivor {
        /// The place of the survivor.
        index: DeviceIndex,
    },
    /// Too few devices survived.
    #[error("{got} survivors, expected at least {need}")]
    FewSurvivors {
        /// The survivors.
        got: usize,
        /// The larger of threshold and report goal.
        need: usize,
    },
}

/// Why what a device revealed is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadShares {
    /// It is not a survivor.
    #[error("shares from device {from}, which is not a survivor")]
    NotASurvivor {
        /// The place of the device.
        from: DeviceIndex,
    },
    /// It revealed its shares already.
    #[error("device {from} revealed its shares already")]
    Repeated {
        /// The place of the device.
        from: DeviceIndex,
    },
    /// A share is of the wrong kind, or of a device of which none is wanted.
    #[error("a share of device {owner} that is not wanted")]
    Unwanted {
        /// The place of the device whose seed is shared.
        owner: DeviceIndex,
    },
    /// Two shares are of one device.
    #[error("two shares of device {owner}")]
    RepeatedOwner {
        /// The place of the device whose seed is shared.
        owner: DeviceIndex,
    },
}

impl Recovery {
    /// For a session with these sharers and survivors. Fails if they are over
    /// another roster, if a survivor never shared, or if fewer survived than
    /// the threshold or the report goal.
    pub fn new(
        ctx: Context,
        roster: Roster,
        sharers: IndexSet,
        survivors: IndexSet,
    ) -> Result<Self, RecoveryError> {
        let ring = ctx.ring()?;
        let expected = roster.len();
        for set in [&sharers, &survivors] {
            let got = set.places();
            if got != expected {
                return Err(RecoveryError::Places { got, expected });
            }
        }
        if let Some(index) = survivors.clone().without(&sharers).iter().next() {
            return Err(RecoveryError::UnknownSurvivor { index });
        }
        let (got, need) = (survivors.len(), ctx.report_goal.max(roster.threshold()));
        if got < need {
            return Err(RecoveryError::FewSurvivors { got, need });
        }
        let wanted = survivors.iter().chain(sharers.iter()).map(|owner| (owner, Vec::new())).collect();
        Ok(Self {
            context_digest: ctx.digest(),
            ctx,
            ring,
            rebuilder: SeedRebuilder::new(roster.threshold()),
            answered: IndexSet::new(expected),
            roster,
            missing: sharers.without(&survivors),
            survivors,
            shares: wanted,
            seeds: BTreeMap::new(),
        })
    }

    /// Takes what one survivor reveals: at most one share of each device whose
    /// shares it holds, of a survivor's own mask and of a missing one's key.
    /// Fails, and changes nothing, on anything else.
    ///
    /// A share that it does not have because it never opened may lack. Whether
    /// the shares are right shows when the seeds are rebuilt.
    pub fn accept(&mut self, shares: UnmaskShares) -> Result<(), BadShares> {
        let from = DeviceIndex::from(shares.from);
        if !self.survivors.contains(from) {
            return Err(BadShares::NotASurvivor { from });
        }
        if self.answered.contains(from) {
            return Err(BadShares::Repeated { from });
        }
        let mut revealed = BTreeMap::new();
        for (kind, wanted) in [(shares.self_mask, &self.survivors), (shares.key, &self.missing)] {
            for (owner, share) in kind {
                let owner = DeviceIndex::from(owner);
                if !wanted.contains(owner) || !self.roster.graph().holds(from, owner) {
                    return Err(BadShares::Unwanted { owner });
                }
                if revealed.insert(owner, share).is_some() {
                    return Err(BadShares::RepeatedOwner { owner });
                }
            }
        }
        self.answered.put(from);
        for (owner, share) in revealed {
            self.take(from, owner, share);
        }
        Ok(())
    }

    /// Whether every seed is rebuilt.
    pub fn is_ready(&self) -> bool {
        self.shares.is_empty()
    }

    /// Whether this survivor revealed its shares.
    pub fn has_answered(&self, index: impl Into<DeviceIndex>) -> bool {
        self.answered.contains(index)
    }

    /// What is left of the masks in the sum, ready to be removed by any number
    /// of threads. To be asked when every seed is rebuilt or no further share
    /// will come: then as many subsets of the shares are tried as is feasible.
    /// Fails if a seed cannot be rebuilt all the same, or is not the right one.
    pub fn rebuild(mut self) -> Result<Unmasking, UnmaskError> {
        for (owner, shares) in std::mem::take(&mut self.shares) {
            let accept =
                |seed: &Seed| is_committed(&self.roster, &self.survivors, &self.context_digest, owner, seed);
            let seed = self.rebuilder.search(&shares, accept);
            let seed = seed.ok_or_else(|| self.lost(owner, shares.len()))?;
            self.seeds.insert(owner, seed);
        }
        Unmasking::new(&self)
    }

    /// Removes the masks from the sum of the survivors' masked inputs.
    pub fn finish(self, sum: RunningSum) -> Result<Vec<u32>, UnmaskError> {
        self.rebuild()?.unmask(sum)
    }

    fn take(&mut self, holder: DeviceIndex, owner: DeviceIndex, share: Share) {
        let Some(shares) = self.shares.get_mut(&owner) else { return };
        shares.push((holder, share));
        let accept =
            |seed: &Seed| is_committed(&self.roster, &self.survivors, &self.context_digest, owner, seed);
        if let Some(seed) = self.rebuilder.rebuild(shares, accept) {
            self.shares.remove(&owner);
            self.seeds.insert(owner, seed);
        }
    }

    /// Why the seed of `owner` is not there. Only if so many answered that the
    /// corrupt among them cannot have made it so is its owner to blame.
    fn lost(&self, owner: DeviceIndex, got: usize) -> UnmaskError {
        let need = self.roster.threshold();
        let asked = self.roster.graph().holders(owner);
        let answered = asked.iter().filter(|holder| self.answered.contains(**holder)).count();
        let corrupt = if self.roster.is_drawn() { need - 1 } else { self.ctx.corrupt.max(1) };
        if answered < need + 2 * corrupt {
            UnmaskError::TooFewAnswers { owner, got: answered, need: need + 2 * corrupt }
        } else {
            UnmaskError::TooManyBadShares { owner, got, need }
        }
    }
}

/// Whether a seed is the one that its owner committed to: for its own mask if
/// it survived, else for its key.
fn is_committed(
    roster: &Roster,
    survivors: &IndexSet,
    context_digest: &[u8; 32],
    owner: DeviceIndex,
    seed: &Seed,
) -> bool {
    roster.entry(owner).is_some_and(|entry| {
        let (kind, committed) = if survivors.contains(owner) {
            (SeedKind::SelfMask, entry.self_commitment)
        } else {
            (SeedKind::Key, entry.key_commitment)
        };
        commitment(kind, context_digest, &entry.credential.device, seed) == committed
    })
}
