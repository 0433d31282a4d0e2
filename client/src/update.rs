//! What a device learned: the adapter after local training minus the adapter before.
//!
//! There is no conversion from an [`Update`] to anything that is sent: only [`crate::contribution`] reads it.

use std::fmt;

/// The adapter after local training minus the adapter before.
#[derive(Clone, PartialEq)]
pub struct Update(Vec<f32>);

impl Update {
    /// `after − before`; `None` where the lengths differ.
    pub fn between(before: &[f32], after: &[f32]) -> Option<Self> {
        let same = before.len() == after.len();
        same.then(|| Self(after.iter().zip(before).map(|(after, before)| after - before).collect()))
    }

    /// Parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Update({} parameters)", self.0.len())
    }
}
