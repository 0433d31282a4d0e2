//! A run where it is asked for: on the users' devices, or in one place.

use std::sync::atomic::AtomicBool;

use crate::central;
use crate::inputs::{Inputs, RunError};
use crate::run::{Finished, News, run_until};
use crate::scenario::Scenario;

/// Where the training is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On one device for each user.
    Federation,
    /// In one place, on everybody's text: what a federation is compared with.
    Central,
}

/// Runs `scenario` where `place` says, until `stop` is set; what is trained for comparison only is left to
/// [`run::compare`](crate::run::compare).
pub fn run_at(
    stop: &AtomicBool,
    place: Place,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    on_news: impl FnMut(News<'_>),
) -> Result<Finished, RunError> {
    match place {
        Place::Federation => run_until(stop, scenario, inputs, on_news),
        Place::Central => central::train(stop, scenario, inputs, on_news),
    }
}
