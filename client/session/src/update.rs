//! What a device learned: the adapter after local training minus the adapter before, and how the training went.
//!
//! There is no conversion from an [`Update`] to anything that is sent: only [`crate::contribution`] reads it.

use std::fmt;
use std::ops::Range;

use privacy::{ClipNorm, l2_norm};
use proto::metrics::{Gains, LocalMetrics};

/// The adapter after local training minus the adapter before, and how the training went.
#[derive(Clone, PartialEq)]
pub struct Update {
    parameters: Vec<f32>,
    loss: f64,
    examples: u32,
    gains: Gains,
}

impl Update {
    /// `after − before`, of a training on `examples` sequences with a mean `loss` in nats a token; `None` where
    /// the lengths differ, or a difference is not a finite number.
    pub fn between(before: &[f32], after: &[f32], loss: f64, examples: u32) -> Option<Self> {
        let parameters: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let usable = before.len() == after.len() && parameters.iter().all(|x| x.is_finite());
        usable.then_some(Self { parameters, loss, examples, gains: Gains::default() })
    }

    /// The same update, of a device that measured what the version gained on text that it holds out.
    #[must_use]
    pub fn with_gains(self, gains: Gains) -> Self {
        Self { gains, ..self }
    }

    /// The same update among `len` parameters, of which it trained those at `places`; the others are zero.
    pub(crate) fn placed(self, places: &[Range<usize>], len: usize) -> Self {
        let mut parameters = vec![0.0; len];
        for (place, x) in places.iter().cloned().flatten().zip(&self.parameters) {
            if let Some(parameter) = parameters.get_mut(place) {
                *parameter = *x;
            }
        }
        Self { parameters, ..self }
    }

    /// Parameters.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Sequences that it was trained on; the device's own ledger says so too.
    pub(crate) fn examples(&self) -> u32 {
        self.examples
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.parameters
    }

    /// What goes into the secure sum beside the update, which is clipped at `clip_norm`.
    pub(crate) fn metrics(&self, clip_norm: ClipNorm) -> LocalMetrics {
        let norm = l2_norm(&self.parameters) / clip_norm.get();
        LocalMetrics { loss: self.loss, examples: self.examples, norm, gains: self.gains }
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Update({} parameters)", self.parameters.len())
    }
}
