//! Saved activations: kept by the forward pass for the backward pass, as f32 or, in half the memory, as int16.

use crate::kernels::buffer::resized;
use crate::kernels::pool::Team;
use crate::kernels::simd::vectorized;

/// Neighboring values of a row that share one scale.
const SCALE_GROUP: usize = 64;

/// Precision of saved activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationPrecision {
    F32,
    /// 16-bit integers with one scale for each [`SCALE_GROUP`] values of a row, finer than bf16.
    I16,
}

/// A saved activation: a matrix.
#[derive(Debug)]
pub(crate) enum Saved {
    F32(Vec<f32>),
    I16(SavedI16),
}

/// A matrix as 16-bit integers with scales.
#[derive(Debug, Default)]
pub(crate) struct SavedI16 {
    /// Values of a row; every row begins a new group.
    columns: usize,
    integers: Vec<i16>,
    /// A value is its integer times its scale: one for each [`SCALE_GROUP`] values of a row.
    scales: Vec<f32>,
}

/// Some rows of a saved activation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SavedRows<'a> {
    F32(&'a [f32]),
    I16 { columns: usize, integers: &'a [i16], scales: &'a [f32] },
}

/// Where some rows are to be saved as int16.
#[derive(Debug)]
pub(crate) struct RowsToSave<'a> {
    columns: usize,
    integers: &'a mut [i16],
    scales: &'a mut [f32],
}

impl Default for Saved {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

impl Saved {
    /// Saves a copy of `x`, rows of `columns` values.
    pub(crate) fn copy(&mut self, team: Team, x: &[f32], columns: usize, keep: ActivationPrecision) {
        match keep {
            ActivationPrecision::F32 => {
                let mut whole = self.whole();
                whole.clear();
                whole.extend_from_slice(x);
                *self = Self::F32(whole);
            }
            ActivationPrecision::I16 => self.round(team, x, columns),
        }
    }

    /// Saves `x`, rows of `columns` values, without a copy where it is f32; leaves the contents of `x`
    /// unspecified.
    pub(crate) fn take(&mut self, team: Team, x: &mut Vec<f32>, columns: usize, keep: ActivationPrecision) {
        match keep {
            ActivationPrecision::F32 => {
                let whole = self.whole();
                *self = Self::F32(std::mem::replace(x, whole));
            }
            ActivationPrecision::I16 => self.round(team, x, columns),
        }
    }

    /// Moves the saved values to `x`, as f32; leaves `self` unspecified.
    pub(crate) fn give(&mut self, team: Team, x: &mut Vec<f32>) {
        match self {
            Self::F32(whole) => std::mem::swap(whole, x),
            Self::I16(half) => half.widen(team, x),
        }
    }

    /// The saved values as f32; int16 is widened into `memory`.
    pub(crate) fn read<'a>(&'a self, team: Team, memory: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::F32(whole) => whole,
            Self::I16(half) => {
                half.widen(team, memory);
                memory
            }
        }
    }

    /// The saved values in parts of `height` rows of `columns` values.
    pub(crate) fn parts(&self, height: usize, columns: usize) -> Vec<SavedRows<'_>> {
        match self {
            Self::F32(numbers) => {
                let parts = numbers.chunks((height * columns).max(1));
                parts.map(SavedRows::F32).collect()
            }
            Self::I16(half) => {
                debug_assert_eq!(half.columns, columns, "rows of another length were kept");
                half.parts(height)
            }
        }
    }

    /// Where to save `rows` rows of `columns` values as int16, in parts of `height` rows.
    pub(crate) fn parts_to_save(
        &mut self,
        (rows, columns): (usize, usize),
        height: usize,
    ) -> Vec<RowsToSave<'_>> {
        loop {
            match self {
                Self::F32(_) => *self = Self::I16(SavedI16::default()),
                Self::I16(half) => return half.parts_to_save((rows, columns), height),
            }
        }
    }

    /// Takes out the f32 buffer for reuse; empty if there was none.
    fn whole(&mut self) -> Vec<f32> {
        match std::mem::take(self) {
            Self::F32(whole) => whole,
            Self::I16(_) => Vec::new(),
        }
    }

    fn round(&mut self, team: Team, x: &[f32], columns: usize) {
        let rows = x.len() / columns.max(1);
        let share = team.rows(rows, columns);
        let parts = self.parts_to_save((rows, columns), share);
        let parts = parts.into_iter().zip(x.chunks((share * columns).max(1))).collect();
        team.each(parts, |(mut part, x): (RowsToSave<'_>, &[f32])| part.store(x));
    }
}

impl SavedI16 {
    /// Number of scales of a row.
    fn scales(columns: usize) -> usize {
        columns.div_ceil(SCALE_GROUP)
    }

    fn parts(&self, height: usize) -> Vec<SavedRows<'_>> {
        let columns = self.columns;
        let integers = self.integers.chunks((height * columns).max(1));
        let parts = integers.zip(self.scales.chunks((height * Self::scales(columns)).max(1)));
        parts.map(|(integers, scales)| SavedRows::I16 { columns, integers, scales }).collect()
    }

    fn parts_to_save(&mut self, (rows, columns): (usize, usize), height: usize) -> Vec<RowsToSave<'_>> {
        self.columns = columns;
        self.integers.resize(rows * columns, 0);
        self.scales.resize(rows * Self::scales(columns), 0.0);
        let integers = self.integers.chunks_mut((height * columns).max(1));
        let parts = integers.zip(self.scales.chunks_mut((height * Self::scales(columns)).max(1)));
        parts.map(|(integers, scales)| RowsToSave { columns, integers, scales }).collect()
    }

    fn widen(&self, team: Team, x: &mut Vec<f32>) {
        let x = resized(x, self.integers.len());
        let share = team.rows(x.len() / self.columns.max(1), self.columns);
        let parts = x.chunks_mut((share * self.columns).max(1)).zip(self.parts(share)).collect();
        team.each(parts, |(x, rows): (&mut [f32], SavedRows<'_>)| rows.widen(x));
    }
}

impl RowsToSave<'_> {
    /// Rounds `x` and saves it as these rows.
    pub(crate) fn store(&mut self, x: &[f32]) {
        round_all(self.columns, self.integers, self.scales, x);
    }
}

impl<'a> SavedRows<'a> {
    /// The rows as f32; int16 is widened into `memory`.
    pub(crate) fn read(self, memory: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::F32(numbers) => numbers,
            Self::I16 { integers, .. } => {
                let memory = resized(memory, integers.len());
                self.widen(memory);
                memory
            }
        }
    }

    fn widen(self, x: &mut [f32]) {
        match self {
            Self::F32(numbers) => x.copy_from_slice(numbers),
            Self::I16 { columns, integers, scales } => widen_all(columns, integers, scales, x),
        }
    }
}

vectorized! {
    fn widen_all(columns: usize, integers: &[i16], scales: &[f32], x: &mut [f32]) {
        let rows = x.chunks_mut(columns.max(1)).zip(integers.chunks(columns.max(1)));
        for ((x, integers), scales) in rows.zip(scales.chunks(SavedI16::scales(columns).max(1))) {
            for ((x, integers), scales) in x.chunks_mut(SCALE_GROUP).zip(integers.chunks(SCALE_GROUP)).zip(scales) {
                for (x, integer) in x.iter_mut().zip(integers) {
                    *x = f32::from(*integer) * scales;
                }
            }
        }
    }
}

vectorized! {
    /// Rounds to the nearest integer. A value that is not finite makes its whole group NaN.
    fn round_all(columns: usize, integers: &mut [i16], scales: &mut [f32], x: &[f32]) {
        let rows = integers.chunks_mut(columns.max(1)).zip(x.chunks(columns.max(1)));
        for ((integers, x), scales) in rows.zip(scales.chunks_mut(SavedI16::scales(columns).max(1))) {
            for ((integers, scales), x) in integers.chunks_mut(SCALE_GROUP).zip(scales).zip(x.chunks(SCALE_GROUP)) {
                *scales = round_some(integers, x);
            }
        }
    }
}

/// Rounds the values of one group and returns their scale.
#[inline(always)]
fn round_some(integers: &mut [i16], x: &[f32]) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Bits of absolute values are ordered like the values; those of NaN are above all.
    let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits() << 1)) >> 1;
    let scale = 32_767.0 / f32::from_bits(most);
    let usable = scale.is_finite() && scale > 0.0;
    let scale = if usable { scale } else { 0.0 };
    for (integer, x) in integers.iter_mut().zip(x) {
        #[expect(clippy::cast_possible_truncation, reason = "the integer is in the low bits")]
        let low = (x * scale + ROUND).to_bits() as u16;
        *integer = low.cast_signed();
    }
    match most {
        _ if usable => 1.0 / scale,
        0x7f80_0000.. => f32::NAN,
        // All zero, or so small that the inverse of the largest overflows.
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whole_or_rounded() {
        let x: Vec<f32> = (0..1000u16)
            .map(|i| (f32::from(i) * 0.37).sin() * 1e3_f32.powi(i32::from(i / 64 % 7) - 3))
            .collect();
        for (keep, allowed) in [(ActivationPrecision::F32, 0.0), (ActivationPrecision::I16, 0.5 / 32_766.0)] {
            let close = |found: &[f32]| {
                found.len() == x.len()
                    && x.chunks(100).zip(found.chunks(100)).all(|(x, found)| {
                        x.chunks(SCALE_GROUP).zip(found.chunks(SCALE_GROUP)).all(|(x, found)| {
                            let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                            x.iter().zip(found).all(|(x, y)| (x - y).abs() <= most * allowed)
                        })
                    })
            };
            let (mut stored, mut memory) = (Saved::default(), vec![7.0; 3]);
            for _ in 0..2 {
                stored.copy(Team::ALONE, &x, 100, keep);
                assert!(close(stored.read(Team::ALONE, &mut memory)));
                let mut taken = x.clone();
                stored.take(Team::ALONE, &mut taken, 100, keep);
                let mut backward = vec![1.0];
                stored.give(Team::ALONE, &mut backward);
                assert!(close(&backward));
                // Switch between f32 and int16.
                let other = if keep == ActivationPrecision::I16 {
                    ActivationPrecision::F32
                } else {
                    ActivationPrecision::I16
                };
                stored.copy(Team::ALONE, &[1.0], 1, other);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_hidden_and_the_smallest_are_zero() {
        let (mut stored, mut memory) = (Saved::default(), Vec::new());
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2 * SCALE_GROUP];
            x[5] = bad;
            stored.copy(Team::ALONE, &x, 2 * SCALE_GROUP, ActivationPrecision::I16);
            let found = stored.read(Team::ALONE, &mut memory);
            assert!(
                found[5].is_nan() && found[SCALE_GROUP..].iter().all(|x| (x - 1.0).abs() < 1e-4),
                "{bad}"
            );
        }
        for small in [0.0, -0.0, f32::from_bits(1), 1e-36] {
            stored.copy(Team::ALONE, &[small; 3], 3, ActivationPrecision::I16);
            assert!(stored.read(Team::ALONE, &mut memory).iter().all(|x| (x - small).abs() <= 1e-36));
        }
        stored.copy(Team::ALONE, &[3e38, -3e38, 1.0], 3, ActivationPrecision::I16);
        assert!(
            stored.read(Team::ALONE, &mut memory)[..2].iter().all(|x| (x.abs() / 3e38 - 1.0).abs() < 1e-4)
        );
    }
}
