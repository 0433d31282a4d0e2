//! Collects what the survivors reveal.

use std::collections::{BTreeMap, btree_map::Entry};

use thiserror::Error;

use super::{
    RunningSum,
    rebuild::Revealed,
    unmasking::{UnmaskError, Unmasking},
};
use crate::{
    context::{Context, ContextError},
    device::UnmaskShares,
    index::{DeviceIndex, IndexSet},
    modular::Ring,
    roster::Roster,
};

/// The shares that the survivors of a session revealed so far.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub(super) ctx: Context,
    pub(super) ring: Ring,
    pub(super) roster: Roster,
    pub(super) survivors: IndexSet,
    pub(super) missing: IndexSet,
    pub(super) responses: BTreeMap<DeviceIndex, Revealed>,
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
    /// A share that is wanted did not come.
    #[error("no share of device {owner}")]
    Lacking {
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
        Ok(Self {
            ctx,
            ring,
            roster,
            missing: sharers.without(&survivors),
            survivors,
            responses: BTreeMap::new(),
        })
    }

    /// Takes what one survivor reveals: exactly one share of every survivor's
    /// own mask and of every missing sharer's key. Fails, and changes nothing,
    /// on anything else.
    ///
    /// Whether the shares are right shows only when the seeds are rebuilt.
    pub fn accept(&mut self, shares: UnmaskShares) -> Result<(), BadShares> {
        let from = DeviceIndex::from(shares.from);
        if !self.survivors.contains(from) {
            return Err(BadShares::NotASurvivor { from });
        }
        let Entry::Vacant(place) = self.responses.entry(from) else {
            return Err(BadShares::Repeated { from });
        };
        let mut revealed = Revealed::new();
        for (kind, wanted) in [(shares.self_mask, &self.survivors), (shares.key, &self.missing)] {
            let mut left = wanted.clone();
            for (owner, share) in kind {
                let owner = DeviceIndex::from(owner);
                if !wanted.contains(owner) {
                    return Err(BadShares::Unwanted { owner });
                }
                if !left.remove(owner) {
                    return Err(BadShares::RepeatedOwner { owner });
                }
                revealed.insert(owner, share);
            }
            if let Some(owner) = left.iter().next() {
                return Err(BadShares::Lacking { owner });
            }
        }
        place.insert(revealed);
        Ok(())
    }

    /// How many more survivors must reveal their shares.
    pub fn missing(&self) -> usize {
        self.roster.threshold().saturating_sub(self.responses.len())
    }

    /// Whether enough survivors revealed their shares. More help against wrong
    /// ones.
    pub fn is_ready(&self) -> bool {
        self.missing() == 0
    }

    /// Whether this survivor revealed its shares.
    pub fn has_answered(&self, index: impl Into<DeviceIndex>) -> bool {
        self.responses.contains_key(&index.into())
    }

    /// Rebuilds every seed, so that the masks can be removed by any number of
    /// threads. Fails if too few survivors answered or too many shares of a
    /// seed are wrong.
    pub fn rebuild(self) -> Result<Unmasking, UnmaskError> {
        Unmasking::new(self)
    }

    /// Removes the masks from the sum of the survivors' masked inputs.
    pub fn finish(self, sum: RunningSum) -> Result<Vec<u32>, UnmaskError> {
        self.rebuild()?.unmask(sum)
    }
}
