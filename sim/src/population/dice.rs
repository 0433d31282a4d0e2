//! Draws that follow from a device and a purpose alone, so that nothing of them has to be kept.

use proto::ids::Digest;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// The generator of one device for one purpose.
pub(super) fn of(seed: &Digest, device: usize) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed(seed.0);
    rng.set_stream(device as u64);
    rng
}

/// From 0 to below 1.
pub(super) fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Of mean 0 and deviation 1, by Box and Muller.
pub(super) fn normal(rng: &mut impl Rng) -> f64 {
    // Above 0, so that the logarithm is finite.
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// A number below `bound`, close enough to uniform for what is drawn here.
pub(super) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound.max(1) as u64).unwrap_or(0)
}

/// Milliseconds of so many seconds, none below 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub(super) fn millis(secs: f64) -> u64 {
    (secs * 1000.0).round().clamp(0.0, 1e15) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_mean_and_deviation_and_follow_from_the_device() {
        let seed = Digest([3; 32]);
        let mut rng = of(&seed, 7);
        let draws: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!(of(&seed, 7).next_u64(), of(&seed, 7).next_u64());
        assert_ne!(of(&seed, 7).next_u64(), of(&seed, 8).next_u64());
    }
}
