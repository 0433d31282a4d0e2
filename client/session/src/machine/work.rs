//! What a device trains.

use std::borrow::Cow;

use privacy::Mechanism;
use proto::adapter::{AdapterError, Class, State};
use proto::message::{Before, Published};
use proto::metrics::MetricName;
use proto::plan::Plan;

use crate::update::Update;

/// Sequences of held-out text on which a device measures a version: about the work of one step of training, so that a
/// window in which nothing else is possible is no window at all.
const MEASURED_SEQUENCES: usize = 4;

/// What is trained: a version of a task, with everything that the trainer needs but the text.
#[derive(Debug)]
pub struct Work {
    /// Which version.
    pub published: Published,
    /// The plan, parsed.
    pub plan: Plan,
    /// The mechanism for updates from the version, at its clip norm.
    pub mechanism: Mechanism,
    /// The adapter at the version, as it is trained from there on.
    pub state: State,
    /// The version's trained parameters as they were published; of these `state` trains all, or the half whose turn
    /// it is.
    pub adapter: Vec<f32>,
    /// How much of it this device trains, where that is not all.
    pub class: Option<Class>,
    /// The adapter at the version before, where the plan asks what the version gained.
    pub before: Option<State>,
    /// By what that one is known: every device of a round was told of the same.
    pub against: Option<Before>,
}

impl Work {
    /// The adapter as this device trains it. Fails where there is no such class, which the plan's check and the
    /// device's own limits rule out.
    pub fn training(&self) -> Result<Cow<'_, State>, AdapterError> {
        match self.class {
            None => Ok(Cow::Borrowed(&self.state)),
            Some(class) => Ok(Cow::Owned(self.state.of_class(class)?)),
        }
    }

    /// Whether the plan asks what the version gained over the base, on text that the device holds out.
    pub fn is_measured_against_base(&self) -> bool {
        self.plan.privacy.metrics.iter().any(|metric| metric.name == MetricName::BaseGain)
    }

    /// On which of the sequences of held-out text this version is measured: the first of them, others with each version, and
    /// how many. They are no more than the plan trains on.
    pub fn measured(&self) -> (usize, usize) {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let training = &self.plan.training;
        let most =
            size(training.local_steps).saturating_mul(size(training.batch_size)).min(MEASURED_SEQUENCES);
        (size(self.published.version).saturating_mul(MEASURED_SEQUENCES), most)
    }

    /// Parameters that this device trains.
    pub(super) fn trained_len(&self) -> usize {
        match self.class {
            None => self.state.trained.len(),
            Some(class) => class.places(&self.state.spec).iter().map(ExactSizeIterator::len).sum(),
        }
    }

    /// The update of all of the adapter that an update of this device's part is.
    pub(super) fn whole(&self, update: Update) -> Update {
        match self.class {
            None => update,
            Some(class) => update.placed(&class.places(&self.state.spec), self.state.trained.len()),
        }
    }
}
