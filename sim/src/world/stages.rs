//! How far devices came on their way into a version's sum.

use std::collections::{BTreeMap, BTreeSet};

use proto::message::{Rejection, Reply, Request};

/// How many devices came how far between two versions. Each counts once at each stage, however often it was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Were there at some time.
    pub available: usize,
    /// Were given the version to train from.
    pub assigned: usize,
    /// Trained from it, to the end.
    pub trained: usize,
    /// Were in a round, those that ended without a version too.
    pub joined: usize,
    /// Sent all of their masked update.
    pub submitted: usize,
    /// Trainings that ended when the version from which they began was replaced already.
    pub late: usize,
}

/// What is counted of it as it happens.
#[derive(Debug, Default)]
pub(super) struct Stages {
    available: BTreeSet<usize>,
    assigned: BTreeSet<usize>,
    trained: BTreeSet<usize>,
    joined: BTreeSet<usize>,
    submitted: BTreeSet<usize>,
    late: usize,
    /// Trainings by how many versions had come since the one from which they began.
    pub(super) behind: BTreeMap<u32, usize>,
}

/// What a request asks for, as far as it is a stage.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asks {
    Work,
    Round,
    Counted,
    Other,
}

impl Asks {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::CheckIn(_) => Self::Work,
            Request::Join { .. } => Self::Round,
            Request::MaskedDone { .. } => Self::Counted,
            Request::Fetch { .. }
            | Request::Decline { .. }
            | Request::Advertise { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::Agree { .. }
            | Request::Unmask { .. } => Self::Other,
        }
    }
}

impl Stages {
    pub(super) fn comes(&mut self, index: usize) {
        self.available.insert(index);
    }

    pub(super) fn is_answered(&mut self, index: usize, asks: Asks, answer: &Result<Reply, Rejection>) {
        let stage = match (asks, answer) {
            (Asks::Work, Ok(Reply::Assignment(_))) => &mut self.assigned,
            (Asks::Round, Ok(Reply::Offer { .. })) => &mut self.joined,
            (Asks::Counted, Ok(Reply::Wait { .. } | Reply::Survivors(_))) => &mut self.submitted,
            (Asks::Work | Asks::Round | Asks::Counted | Asks::Other, Ok(_) | Err(_)) => return,
        };
        stage.insert(index);
    }

    /// A training ended, so many versions after the one from which it began.
    pub(super) fn trained(&mut self, index: usize, behind: u32) {
        *self.behind.entry(behind).or_default() += 1;
        if behind == 0 {
            self.trained.insert(index);
        } else {
            self.late += 1;
        }
    }

    /// What there is since the version before. From now on the next is counted, for which these are there.
    pub(super) fn take(&mut self, there: impl Iterator<Item = usize>) -> Funnel {
        let behind = std::mem::take(&mut self.behind);
        let all = std::mem::replace(self, Self { available: there.collect(), behind, ..Self::default() });
        Funnel {
            available: all.available.len(),
            assigned: all.assigned.len(),
            trained: all.trained.len(),
            joined: all.joined.len(),
            submitted: all.submitted.len(),
            late: all.late,
        }
    }
}
