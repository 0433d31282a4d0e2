//! The gradient of the trained vector, accumulated on the device.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Result, Tensor};

/// Gradients of parts of the trained vector, by the index at which each part begins.
#[derive(Debug, Default)]
pub(super) struct Gradients {
    parts: BTreeMap<usize, (Range<usize>, Tensor)>,
}

impl Gradients {
    /// Adds to the gradient of `range`.
    pub(super) fn add(&mut self, range: &Range<usize>, gradient: Tensor) -> Result<()> {
        let gradient = match self.parts.remove(&range.start) {
            Some((_, before)) => (before + gradient)?,
            None => gradient,
        };
        self.parts.insert(range.start, (range.clone(), gradient));
        Ok(())
    }

    /// The whole gradient of `len` values, copied from the device in one transfer; parts without a gradient are
    /// 0.
    pub(super) fn into_vec(self, len: usize) -> Result<Vec<f32>> {
        let mut all = vec![0.0; len];
        let flat: Vec<Tensor> =
            self.parts.values().map(|(_, gradient)| gradient.flatten_all()).collect::<Result<_>>()?;
        if flat.is_empty() {
            return Ok(all);
        }
        let numbers: Vec<f32> = Tensor::cat(&flat, 0)?.to_vec1()?;
        let mut rest = numbers.as_slice();
        for (range, _) in self.parts.into_values() {
            let (here, later) = rest.split_at(range.len().min(rest.len()));
            all[range].copy_from_slice(here);
            rest = later;
        }
        Ok(all)
    }
}
