//! A device's encoded update.

use std::fmt;

use crate::entropy::wipe;

/// A clipped, rotated, rounded and (in mode `Distributed`) noised update with its
/// metrics, in ring elements. It is not yet masked, so it must not leave the device: it
/// cannot be cloned or serialised, does not show its content, and is wiped when
/// dropped, as far as safe code can.
pub struct Contribution {
    elements: Vec<u32>,
}

impl Contribution {
    pub(super) fn new(elements: Vec<u32>) -> Self {
        Self { elements }
    }

    /// The ring elements, each in the low b bits.
    pub fn as_ring(&self) -> &[u32] {
        &self.elements
    }

    /// Gives up the ring elements; wiping them is now the caller's task.
    pub fn into_ring(mut self) -> Vec<u32> {
        std::mem::take(&mut self.elements)
    }
}

impl fmt::Debug for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contribution").field("len", &self.elements.len()).finish_non_exhaustive()
    }
}

impl Drop for Contribution {
    fn drop(&mut self) {
        wipe(&mut self.elements);
    }
}
