//! Numbers that are kept between the two ways: whole, or rounded to bf16 for half the memory.

use half::bf16;

use super::ops::vectorised;
use super::team::Team;
use super::workspace::sized;

/// Whether what is kept is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Whole,
    /// As bf16.
    Half,
}

/// Numbers that were kept.
#[derive(Debug)]
pub(crate) enum Stored {
    Whole(Vec<f32>),
    Half(Vec<bf16>),
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
        let mut half = match std::mem::take(self) {
            Self::Whole(_) => Vec::new(),
            Self::Half(half) => half,
        };
        half.resize(x.len(), bf16::ZERO);
        let share = team.rows(x.len(), 1);
        let parts = half.chunks_mut(share).zip(x.chunks(share)).collect();
        team.each(parts, |(half, x)| round_all(half, x));
        *self = Self::Half(half);
    }
}

/// To the nearest bf16, the even one of two.
#[expect(clippy::inline_always, reason = "else it is not compiled for the vector instructions of its caller")]
#[inline(always)]
fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Rounding up could make a number of what is none.
    let bits = if x.is_nan() { bits | 0x40_0000 } else { rounded };
    bf16::from_bits((bits >> 16) as u16)
}

fn widen(team: Team, half: &[bf16], x: &mut Vec<f32>) {
    let x = sized(x, half.len());
    let share = team.rows(x.len(), 1);
    let parts = x.chunks_mut(share).zip(half.chunks(share)).collect();
    team.each(parts, |(x, half)| widen_all(half, x));
}

vectorised! {
/// Every number as f32, without a test for signalling NaNs, which costs more than all else.
pub(crate) fn widen_all(half: &[bf16], x: &mut [f32]) {
    for (x, half) in x.iter_mut().zip(half) {
        *x = f32::from_bits(u32::from(half.to_bits()) << 16);
    }
}
}

vectorised! {
fn round_all(half: &mut [bf16], x: &[f32]) {
    for (half, x) in half.iter_mut().zip(x) {
        *half = round(*x);
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whole_or_rounded_to_the_nearest() {
        let x: Vec<f32> =
            (0..1000u16).map(|i| (f32::from(i) * 0.37).sin() * 1e3_f32.powi(i32::from(i % 7) - 3)).collect();
        let edges = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
            1.003_906_3,
            1.011_718_8,
            f32::MIN_POSITIVE,
        ];
        let x: Vec<f32> = x.into_iter().chain(edges).collect();
        for keep in [Keep::Whole, Keep::Half] {
            let expected: Vec<f32> = match keep {
                Keep::Whole => x.clone(),
                Keep::Half => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
            };
            let same = |found: &[f32]| {
                found.len() == expected.len()
                    && found
                        .iter()
                        .zip(&expected)
                        .all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
            };
            let (mut stored, mut memory) = (Stored::default(), vec![7.0; 3]);
            for _ in 0..2 {
                stored.copy(Team::ALONE, &x, keep);
                assert!(same(stored.read(Team::ALONE, &mut memory)));
                let mut taken = x.clone();
                stored.take(Team::ALONE, &mut taken, keep);
                let mut back = vec![1.0];
                stored.give(Team::ALONE, &mut back);
                assert!(same(&back));
                // From one way to the other.
                stored.copy(Team::ALONE, &[1.0], if keep == Keep::Half { Keep::Whole } else { Keep::Half });
            }
        }
    }
}
