//! The largest update that a plan may have goes through in one piece.

use nightshift_privacy::{ClipNorm, Mechanism, MechanismParams, MetricParams, NoiseMultiplier, PrivacyMode};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

#[test]
fn sixteen_million_coordinates_come_back() {
    let coordinates = 1 << 24;
    let params = MechanismParams {
        mode: PrivacyMode::Off,
        clip_norm: ClipNorm::new(10.0).unwrap(),
        noise_multiplier: NoiseMultiplier::new(0.0).unwrap(),
        scale: 1.0,
        coordinates,
        cohort: 2,
        report_goal: 2,
        corrupt: 0,
        metrics: MetricParams::new(2, 0.25).unwrap(),
    };
    let scale = Mechanism::recommended_scale(&params).unwrap();
    let mechanism = Mechanism::new(MechanismParams { scale, ..params }).unwrap();
    let mut update = vec![0.0; coordinates];
    (update[0], update[1 << 23], update[coordinates - 1]) = (3.0, -2.0, 1.0);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let contribution = mechanism.encode(&update, &[0.25, 1.0], &[9; 32], &mut rng).unwrap();
    let decoded = mechanism.decode(contribution.as_ring(), 1, &[9; 32]).unwrap();
    // Rounding moves each rotated coordinate by less than a step, and the rotation keeps lengths.
    let distance: f64 =
        decoded.mean.iter().zip(&update).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    assert!(distance < (coordinates as f64).sqrt() / scale, "{distance}");
    for (found, expected) in decoded.metrics.iter().zip([0.25, 1.0]) {
        assert!((found - expected).abs() < 1e-2, "{found}");
    }
}
