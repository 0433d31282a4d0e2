//! Numbers that are kept between the two ways: whole, or as 16-bit integers for half the memory.

use super::ops::vectorised;
use super::sized::sized;
use super::team::Team;

/// Numbers that share one scale.
const TOGETHER: usize = 64;

/// Whether what is kept is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Whole,
    /// As integers of 16 bits with a scale for every few numbers, finer than bf16.
    Half,
}

/// Numbers that were kept.
#[derive(Debug)]
pub(crate) enum Stored {
    Whole(Vec<f32>),
    Half(Halves),
}

/// Numbers as integers.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    integers: Vec<i16>,
    /// What an integer is worth, for each [`TOGETHER`] of them.
    worth: Vec<f32>,
}

impl Default for Stored {
    fn default() -> Self {
        Self::Whole(Vec::new())
    }
}

impl Stored {
    /// Keeps a copy of `x`.
    pub(crate) fn copy(&mut self, team: Team, x: &[f32], keep: Keep) {
        match keep {
            Keep::Whole => {
                let mut whole = self.whole();
                whole.clear();
                whole.extend_from_slice(x);
                *self = Self::Whole(whole);
            }
            Keep::Half => self.round(team, x),
        }
    }

    /// Keeps `x`, in which some numbers of before are left.
    pub(crate) fn take(&mut self, team: Team, x: &mut Vec<f32>, keep: Keep) {
        match keep {
            Keep::Whole => {
                let whole = self.whole();
                *self = Self::Whole(std::mem::replace(x, whole));
            }
            Keep::Half => self.round(team, x),
        }
    }

    /// Gives what is kept back to `x`; after that it is kept no more.
    pub(crate) fn give(&mut self, team: Team, x: &mut Vec<f32>) {
        match self {
            Self::Whole(whole) => std::mem::swap(whole, x),
            Self::Half(half) => widen(team, half, x),
        }
    }

    /// What is kept; in `memory`, where it must be widened.
    pub(crate) fn read<'a>(&'a self, team: Team, memory: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Whole(whole) => whole,
            Self::Half(half) => {
                widen(team, half, memory);
                memory
            }
        }
    }

    /// Memory of whole numbers, the one of before if there is one.
    fn whole(&mut self) -> Vec<f32> {
        match std::mem::take(self) {
            Self::Whole(whole) => whole,
            Self::Half(_) => Vec::new(),
        }
    }

    fn round(&mut self, team: Team, x: &[f32]) {
        let mut halves = match std::mem::take(self) {
            Self::Whole(_) => Halves::default(),
            Self::Half(halves) => halves,
        };
        halves.integers.resize(x.len(), 0);
        halves.worth.resize(x.len().div_ceil(TOGETHER), 0.0);
        let share = team.rows(halves.worth.len(), TOGETHER);
        let integers = halves.integers.chunks_mut(share * TOGETHER);
        let parts = integers.zip(halves.worth.chunks_mut(share)).zip(x.chunks(share * TOGETHER)).collect();
        team.each(parts, |((integers, worth), x)| round_all(integers, worth, x));
        *self = Self::Half(halves);
    }
}

fn widen(team: Team, halves: &Halves, x: &mut Vec<f32>) {
    let x = sized(x, halves.integers.len());
    let share = team.rows(halves.worth.len(), TOGETHER);
    let integers = halves.integers.chunks(share * TOGETHER);
    let parts = x.chunks_mut(share * TOGETHER).zip(integers.zip(halves.worth.chunks(share))).collect();
    team.each(parts, |(x, (integers, worth))| widen_all(integers, worth, x));
}

vectorised! {
    fn widen_all(integers: &[i16], worth: &[f32], x: &mut [f32]) {
        for ((x, integers), worth) in x.chunks_mut(TOGETHER).zip(integers.chunks(TOGETHER)).zip(worth) {
            for (x, integer) in x.iter_mut().zip(integers) {
                *x = f32::from(*integer) * worth;
            }
        }
    }
}

vectorised! {
    /// To the nearest integer; numbers beside one that is none are none either.
    fn round_all(integers: &mut [i16], worth: &mut [f32], x: &[f32]) {
        // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        for ((integers, worth), x) in integers.chunks_mut(TOGETHER).zip(worth).zip(x.chunks(TOGETHER)) {
            // Of numbers without a sign, the bits have their order; those of what is no number are above all.
            let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits() << 1)) >> 1;
            let scale = 32_767.0 / f32::from_bits(most);
            let usable = scale.is_finite() && scale > 0.0;
            let scale = if usable { scale } else { 0.0 };
            for (integer, x) in integers.iter_mut().zip(x) {
                #[expect(clippy::cast_possible_truncation, reason = "the integer is in the low bits")]
                let low = (x * scale + ROUND).to_bits() as u16;
                *integer = low.cast_signed();
            }
            *worth = match most {
                _ if usable => 1.0 / scale,
                0x7f80_0000.. => f32::NAN,
                // All zero, or so small that even their inverse is no number.
                _ => 0.0,
            };
        }
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
        for (keep, allowed) in [(Keep::Whole, 0.0), (Keep::Half, 0.5 / 32_766.0)] {
            let close = |found: &[f32]| {
                found.len() == x.len()
                    && x.chunks(TOGETHER).zip(found.chunks(TOGETHER)).all(|(x, found)| {
                        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                        x.iter().zip(found).all(|(x, y)| (x - y).abs() <= most * allowed)
                    })
            };
            let (mut stored, mut memory) = (Stored::default(), vec![7.0; 3]);
            for _ in 0..2 {
                stored.copy(Team::ALONE, &x, keep);
                assert!(close(stored.read(Team::ALONE, &mut memory)));
                let mut taken = x.clone();
                stored.take(Team::ALONE, &mut taken, keep);
                let mut back = vec![1.0];
                stored.give(Team::ALONE, &mut back);
                assert!(close(&back));
                // From one way to the other.
                let other = if keep == Keep::Half { Keep::Whole } else { Keep::Half };
                stored.copy(Team::ALONE, &[1.0], other);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_hidden_and_the_smallest_are_zero() {
        let (mut stored, mut memory) = (Stored::default(), Vec::new());
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2 * TOGETHER];
            x[5] = bad;
            stored.copy(Team::ALONE, &x, Keep::Half);
            let found = stored.read(Team::ALONE, &mut memory);
            assert!(found[5].is_nan() && found[TOGETHER..].iter().all(|x| (x - 1.0).abs() < 1e-4), "{bad}");
        }
        for small in [0.0, -0.0, f32::from_bits(1), 1e-36] {
            stored.copy(Team::ALONE, &[small; 3], Keep::Half);
            assert!(stored.read(Team::ALONE, &mut memory).iter().all(|x| (x - small).abs() <= 1e-36));
        }
        stored.copy(Team::ALONE, &[3e38, -3e38, 1.0], Keep::Half);
        assert!(
            stored.read(Team::ALONE, &mut memory)[..2].iter().all(|x| (x.abs() / 3e38 - 1.0).abs() < 1e-4)
        );
    }
}
