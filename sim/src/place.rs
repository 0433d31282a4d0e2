//! A run where it is asked for: on the users' devices, or in one place.

use std::sync::Arc;

use engine::{Base, Blocks};

use crate::central;
use crate::run::{Finished, RunError, User, run};
use crate::scenario::Scenario;
use crate::summary::VersionSummary;

/// Where the training is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On one device for each user.
    Federation,
    /// In one place, on everybody's text: what a federation is compared with.
    Central,
}

/// Runs `scenario` where `place` says, on users' text. `public` is as for [`run`].
pub fn run_at(
    place: Place,
    scenario: &Scenario,
    base: &Arc<Base>,
    users: &[User],
    public: Option<&Blocks>,
    on_version: impl FnMut(&VersionSummary),
) -> Result<Finished, RunError> {
    match place {
        Place::Federation => run(scenario, base, users, public, on_version),
        Place::Central => central::train(scenario, base, users, public, on_version),
    }
}
