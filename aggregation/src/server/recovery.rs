//! Collects what the survivors reveal until the seeds can be rebuilt.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use super::{
    RunningSum,
    attempt::Attempt,
    rebuild::{Found, Further},
    session::Session,
    unmasking::{UnmaskError, Unmasking},
};
use crate::{
    context::{Context, ContextError},
    device::UnmaskShares,
    index::{DeviceIndex, IndexSet},
    roster::Roster,
};

/// The shares that the survivors of a session revealed so far.
///
/// Taking them is cheap. Rebuilding the seeds is not, and is an [`Attempt`] that
/// any thread can make while further shares are taken.
#[derive(Clone, Debug)]
pub struct Recovery {
    session: Arc<Session>,
    answers: BTreeMap<DeviceIndex, Arc<UnmaskShares>>,
    /// How many shares there are of each wanted seed.
    counts: BTreeMap<DeviceIndex, usize>,
    found: Found,
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
        let counts = survivors.iter().chain(sharers.iter()).map(|owner| (owner, 0)).collect();
        let session = Session {
            context_digest: ctx.digest(),
            ctx,
            ring,
            roster,
            missing: sharers.without(&survivors),
            survivors,
        };
        Ok(Self { session: Arc::new(session), answers: BTreeMap::new(), counts, found: Found::default() })
    }

    /// Takes what one survivor reveals: at most one share of each device whose
    /// shares it holds, of a survivor's own mask and of a missing one's key.
    /// Fails, and changes nothing, on anything else.
    ///
    /// A share that it does not have because it never opened may lack. Whether
    /// the shares are right shows when the seeds are rebuilt.
    pub fn accept(&mut self, shares: UnmaskShares) -> Result<(), BadShares> {
        let session = &self.session;
        let from = DeviceIndex::from(shares.from);
        if !session.survivors.contains(from) {
            return Err(BadShares::NotASurvivor { from });
        }
        if self.answers.contains_key(&from) {
            return Err(BadShares::Repeated { from });
        }
        let mut owners = IndexSet::new(session.roster.len());
        for (kind, wanted) in [(&shares.self_mask, &session.survivors), (&shares.key, &session.missing)] {
            for (owner, _) in kind {
                let owner = DeviceIndex::from(*owner);
                if !wanted.contains(owner) || !session.roster.graph().holds(from, owner) {
                    return Err(BadShares::Unwanted { owner });
                }
                if owners.contains(owner) {
                    return Err(BadShares::RepeatedOwner { owner });
                }
                owners.put(owner);
            }
        }
        for owner in owners.iter() {
            *self.counts.entry(owner).or_default() += 1;
        }
        self.answers.insert(from, Arc::new(shares));
        Ok(())
    }

    /// What this survivor revealed, if it did.
    pub fn answer(&self, index: impl Into<DeviceIndex>) -> Option<&UnmaskShares> {
        self.answers.get(&index.into()).map(Arc::as_ref)
    }

    /// Whether every survivor revealed its shares, so that none will come.
    pub fn is_complete(&self) -> bool {
        self.answers.len() == self.session.survivors.len()
    }

    /// Whether there are so many shares of every seed that they give it if they
    /// are right.
    pub fn is_ready(&self) -> bool {
        let threshold = self.session.roster.threshold();
        self.counts.values().all(|count| *count >= threshold)
    }

    /// How many more shares of this device's seed there are than it takes if
    /// they are right.
    pub fn spare(&self, owner: DeviceIndex) -> usize {
        self.counts.get(&owner).map_or(0, |count| count.saturating_sub(self.session.roster.threshold()))
    }

    /// An attempt at all seeds, with the shares that there are: none of them is
    /// copied. What earlier attempts found goes with it, and comes back by
    /// [`Recovery::keep`] if it fails.
    pub fn attempt(&mut self) -> Attempt {
        Attempt {
            session: Arc::clone(&self.session),
            answers: self.answers.values().cloned().collect(),
            found: std::mem::take(&mut self.found),
        }
    }

    /// Takes back what a failed attempt found.
    pub fn keep(&mut self, found: Found) {
        self.found = found;
    }

    /// What is left of the masks in the sum, ready to be removed by any number
    /// of threads. To be asked when no further share will come. Fails if a seed
    /// cannot be rebuilt, or is not the right one.
    pub fn rebuild(mut self) -> Result<Unmasking, UnmaskError> {
        self.attempt().make(Further::WontCome).map_err(|failed| failed.error)
    }

    /// Removes the masks from the sum of the survivors' masked inputs.
    pub fn finish(self, sum: RunningSum) -> Result<Vec<u32>, UnmaskError> {
        self.rebuild()?.unmask(sum)
    }
}
