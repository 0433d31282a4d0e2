//! Attacks on the mechanism as it runs: what somebody who sees every revealed sum can tell about one device.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nightshift_privacy::{
    ClipNorm, Delta, Mechanism, MechanismParams, MetricParams, NoiseMultiplier, PrivacyMode,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const COORDINATES: usize = 4;
const DEVICES: usize = 4;

/// Rounds with the target's update and as many without it.
const ROUNDS: usize = 20_000;

const DELTA: f64 = 1e-5;

/// The one-sided confidence of every bound here is 1 − this.
const DOUBT: f64 = 1e-3;

fn mechanism(noise_multiplier: f64) -> Mechanism {
    let params = MechanismParams {
        mode: PrivacyMode::Distributed,
        clip_norm: ClipNorm::new(1.0).unwrap(),
        noise_multiplier: NoiseMultiplier::new(noise_multiplier).unwrap(),
        scale: 1.0,
        coordinates: COORDINATES,
        cohort: DEVICES,
        report_goal: DEVICES,
        corrupt: 0,
        metrics: MetricParams::new(1, 0.25).unwrap(),
    };
    let scale = Mechanism::recommended_scale(&params).unwrap();
    Mechanism::new(MechanismParams { scale, ..params }).unwrap()
}

/// The revealed mean of one round, along the direction in which the target's update points, as if the others
/// were known: the most that anybody could know beside the sum.
fn seen(mechanism: &Mechanism, present: bool, round: usize, rng: &mut ChaCha20Rng) -> f64 {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(round as u64).to_le_bytes());
    // At the clip norm, and at the end of the metric's range: the largest influence that a device can have.
    let target = if present { ([1.0, 0.0, 0.0, 0.0], 1.0) } else { ([0.0; COORDINATES], 0.5) };
    let nobody = ([0.0; COORDINATES], 0.5);
    let mut sum = vec![0u32; mechanism.contribution_len()];
    for (update, metric) in [target, nobody, nobody, nobody] {
        let contribution = mechanism.encode(&update, &[metric], &seed, rng).unwrap();
        for (sum, element) in sum.iter_mut().zip(contribution.into_ring()) {
            *sum = (*sum + element) % (1 << mechanism.ring_bits());
        }
    }
    let decoded = mechanism.decode(&sum, DEVICES, &seed).unwrap();
    // The metric is scaled to a norm of 0.25 at its end, so its best weight is a quarter of the update's.
    f64::from(decoded.mean[0]) + 0.25 * 0.5 * (decoded.metrics[0] - 0.5)
}

/// A lower bound of ε that holds but for one time in a thousand: the threshold is chosen on one half of the
/// rounds, and the rates of the other half are bounded by Hoeffding's inequality and, where it is tighter, by
/// the exact bound for no event at all.
fn attack(mechanism: &Mechanism) -> f64 {
    let mut rng = ChaCha20Rng::seed_from_u64(17);
    let mut rounds = |present| -> Vec<f64> {
        (0..ROUNDS).map(|round| seen(mechanism, present, round, &mut rng)).collect()
    };
    let (with, without) = (rounds(true), rounds(false));
    let half = ROUNDS / 2;
    let rate = |values: &[f64], threshold: f64| {
        values.iter().filter(|value| **value > threshold).count() as f64 / values.len() as f64
    };
    let guess = |threshold: f64, range: std::ops::Range<usize>| {
        let hits = lower(rate(&with[range.clone()], threshold), half);
        let false_alarms = upper(rate(&without[range], threshold), half);
        ((hits - DELTA) / false_alarms).max(1e-300).ln()
    };
    let best = (0..=100)
        .map(|step| -0.2 + f64::from(step) * 0.01)
        .max_by(|a, b| guess(*a, 0..half).total_cmp(&guess(*b, 0..half)))
        .unwrap();
    guess(best, half..ROUNDS)
}

/// An upper bound of a probability of which `rate` was seen in `trials`: Chernoff's bound with the exact
/// divergence, solved by bisection.
fn upper(rate: f64, trials: usize) -> f64 {
    let far_enough = |p: f64| trials as f64 * divergence(rate, p) >= -DOUBT.ln();
    let (mut low, mut high) = (rate, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if far_enough(middle) { high = middle } else { low = middle }
    }
    high
}

fn lower(rate: f64, trials: usize) -> f64 {
    1.0 - upper(1.0 - rate, trials)
}

/// The relative entropy of two coins.
fn divergence(a: f64, b: f64) -> f64 {
    let term = |a: f64, b: f64| if a <= 0.0 { 0.0 } else { a * (a / b).ln() };
    term(a, b) + term(1.0 - a, 1.0 - b)
}

#[test]
fn an_attack_on_presence_stays_under_the_accounted_epsilon() {
    for noise_multiplier in [0.8, 1.0, 3.0] {
        let mechanism = mechanism(noise_multiplier);
        let epsilon = mechanism.epsilon(1, Delta::new(DELTA).unwrap()).epsilon;
        let found = attack(&mechanism);
        println!("z = {noise_multiplier}: the attack shows ε ≥ {found:.2}, the accountant says {epsilon:.2}");
        assert!(
            found <= epsilon,
            "z {noise_multiplier}: the attack shows {found}, the accountant says {epsilon}"
        );
        // It is an attack: it sees a good part of what there is to see.
        assert!(found > 0.15 * epsilon, "z {noise_multiplier}: {found} of {epsilon}");
    }
}

#[test]
fn the_attack_sees_noise_that_is_missing() {
    let claimed = mechanism(1.0).epsilon(1, Delta::new(DELTA).unwrap()).epsilon;
    for noise_multiplier in [0.0, 0.2] {
        let found = attack(&mechanism(noise_multiplier));
        println!(
            "z = {noise_multiplier} passed off as 1: the attack shows ε ≥ {found:.2}, claimed {claimed:.2}"
        );
        assert!(found > 1.3 * claimed, "z {noise_multiplier}: {found} against {claimed}");
    }
}
