//! The gradient of the trained vector, accumulated on the device.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};

/// Gradients of parts of the trained vector, by the index at which each part begins.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    /// The whole vector that they go on from, (trained,): a part of it counts until the part is in `parts`.
    before: Option<Tensor>,
    /// Each part as one row.
    parts: BTreeMap<usize, (Range<usize>, Tensor)>,
}

impl Gradients {
    /// Gradients that go on from `before`, a vector of [`Self::into_vec`]; from nothing if it is empty.
    pub(super) fn after(before: &[f32], device: &Device) -> Result<Self> {
        let tensor = || Tensor::from_slice(before, before.len(), device);
        let before = if before.is_empty() { None } else { Some(tensor()?) };
        Ok(Self { before, parts: BTreeMap::new() })
    }

    /// Adds to the gradient of `range`.
    pub(super) fn add(&mut self, range: &Range<usize>, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.flatten_all()?;
        let before = match (self.parts.remove(&range.start), &self.before) {
            (Some((_, part)), _) => Some(part),
            (None, Some(all)) => Some(all.narrow(0, range.start, range.len())?),
            (None, None) => None,
        };
        let gradient = match before {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.parts.insert(range.start, (range.clone(), gradient));
        Ok(())
    }

    /// The whole gradient of `len` values, copied from the device in one transfer. Parts without a gradient are 0;
    /// the vector is empty if there is none at all.
    pub(crate) fn into_vec(self, len: usize) -> Result<Vec<f32>> {
        let mut all = match self.before {
            Some(before) => before.to_vec1()?,
            None => Vec::new(),
        };
        if self.parts.is_empty() {
            return Ok(all);
        }
        all.resize(len, 0.0);
        let parts: Vec<&Tensor> = self.parts.values().map(|(_, gradient)| gradient).collect();
        let numbers: Vec<f32> = Tensor::cat(&parts, 0)?.to_vec1()?;
        let mut rest = numbers.as_slice();
        for (range, _) in self.parts.into_values() {
            let (here, later) = rest.split_at(range.len().min(rest.len()));
            all[range].copy_from_slice(here);
            rest = later;
        }
        Ok(all)
    }
}
