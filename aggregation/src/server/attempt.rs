//! Makes of the shares that there are what is left of the masks.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    rebuild::{Found, Further, Held, Rebuilding},
    session::Session,
    unmasking::{UnmaskError, Unmasking},
};
use crate::{device::UnmaskShares, index::DeviceIndex, seed::Seed};

/// An attempt to rebuild every seed of a session, apart from what still comes.
#[derive(Debug)]
pub struct Attempt {
    pub(super) session: Arc<Session>,
    pub(super) answers: Vec<Arc<UnmaskShares>>,
    pub(super) found: Found,
}

/// An attempt that did not succeed.
#[derive(Debug)]
pub struct FailedAttempt {
    /// Why not.
    pub error: UnmaskError,
    /// Which seed was not found; nothing where no further share can help.
    pub lacking: Option<Box<Lacking>>,
}

/// A seed that its shares did not give.
#[derive(Debug)]
pub struct Lacking {
    /// Whose seed it is.
    pub owner: DeviceIndex,
    /// How many more shares of it there were than it takes if they are right.
    pub spare: usize,
    /// What was found all the same.
    pub found: Found,
}

impl Attempt {
    /// Rebuilds the seeds, on the threads of the rayon pool that it is called
    /// in, and prepares the masks. Fails if a seed cannot be rebuilt, or is not
    /// the right one.
    pub fn make(self, further: Further) -> Result<Unmasking, FailedAttempt> {
        let Self { session, answers, mut found } = self;
        let shares = session.by_owner(&answers);
        let accept = |owner: DeviceIndex, seed: &Seed| session.is_committed(owner, seed);
        let rebuilding = Rebuilding { threshold: session.roster.threshold(), shares, accept };
        if let Err(owner) = rebuilding.run(&mut found, further) {
            let got = rebuilding.shares.get(&owner).map_or(0, Vec::len);
            let error = session.lost(owner, got, &answers);
            let spare = got.saturating_sub(rebuilding.threshold);
            let lacking = Box::new(Lacking { owner, spare, found });
            return Err(FailedAttempt { error, lacking: Some(lacking) });
        }
        Unmasking::new(&session, &found.seeds).map_err(|error| FailedAttempt { error, lacking: None })
    }
}

impl Session {
    /// The shares by the device whose seed they are of.
    fn by_owner<'a>(&self, answers: &'a [Arc<UnmaskShares>]) -> BTreeMap<DeviceIndex, Vec<Held<'a>>> {
        let wanted = self.survivors.iter().chain(self.missing.iter());
        let mut shares: BTreeMap<DeviceIndex, Vec<Held<'a>>> =
            wanted.map(|owner| (owner, Vec::new())).collect();
        for answer in answers {
            for (owner, share) in answer.self_mask.iter().chain(&answer.key) {
                shares.entry((*owner).into()).or_default().push((answer.from.into(), share));
            }
        }
        shares
    }

    /// Why the seed of `owner` is not there. Only if so many answered that the
    /// corrupt among them cannot have made it so is its owner to blame.
    fn lost(&self, owner: DeviceIndex, got: usize, answers: &[Arc<UnmaskShares>]) -> UnmaskError {
        let need = self.roster.threshold();
        let graph = self.roster.graph();
        let answered = answers.iter().filter(|answer| graph.holds(answer.from.into(), owner)).count();
        let corrupt = if self.roster.is_drawn() { need - 1 } else { self.ctx.corrupt.max(1) };
        if answered < need + 2 * corrupt {
            UnmaskError::TooFewAnswers { owner, got: answered, need: need + 2 * corrupt }
        } else {
            UnmaskError::TooManyBadShares { owner, got, need }
        }
    }
}
