//! A run where it is asked for: on the users' devices, or in one place.

use crate::central;
use crate::inputs::{Inputs, RunError};
use crate::run::{Finished, run};
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

/// Runs `scenario` where `place` says.
pub fn run_at(
    place: Place,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    on_version: impl FnMut(&VersionSummary),
) -> Result<Finished, RunError> {
    match place {
        Place::Federation => run(scenario, inputs, on_version),
        Place::Central => central::train(scenario, inputs, on_version),
    }
}
