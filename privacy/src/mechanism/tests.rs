use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{metrics::MetricParams, params::NoiseMultiplier};

use super::*;

const SEED: [u8; 32] = [5; 32];

#[test]
fn rings_match_the_reference() {
    let bits = |n, z| mechanism(wide(n, z)).ring_bits();
    assert_eq!(bits(100, 4.0), 18);
    assert_eq!(bits(1000, 10.0), 20);
}

#[test]
fn an_end_to_end_epsilon_matches_the_reference() {
    let delta = Delta::new(1e-6).unwrap();
    // The least over integer orders from distributed_dp's formulas.
    for (n, z, participations, expected) in
        [(100, 4.0, 100, 15.477_043_360_561), (1000, 10.0, 500, 13.572_231_467_974)]
    {
        let found = mechanism(wide(n, z)).epsilon(participations, delta);
        assert!((found.epsilon / expected - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.order - 3.0).abs() < 1e-6, "{found:?}");
    }
}

#[test]
fn the_sampler_error_is_charged_and_tiny() {
    let mechanism = mechanism(wide(1000, 10.0));
    let ideal = crate::accountant::skellam_rdp(
        4.0,
        mechanism.delta1(),
        mechanism.delta2(),
        mechanism.guaranteed_variance(),
    );
    assert!(mechanism.rdp(4.0) >= ideal && mechanism.rdp(4.0) < ideal * (1.0 + 1e-12));
    assert!(mechanism.curve().distance() > 0.0);
    let least = Delta::new(mechanism.curve().distance()).unwrap();
    assert!(mechanism.epsilon(1, least).epsilon.is_infinite());
}

#[test]
fn the_noise_of_a_device_is_sized_for_the_report_goal_less_the_corrupt() {
    let params = MechanismParams { corrupt: 10, report_goal: 80, ..wide(100, 4.0) };
    let mechanism = mechanism(params);
    let expected = (4.0f64 * 4096.0).powi(2) / 70.0;
    assert!((mechanism.device_variance() / expected - 1.0).abs() < 1e-12);
    let total = mechanism.device_variance() * 70.0;
    assert!((mechanism.guaranteed_variance() / total - 1.0).abs() < 1e-12);
}

#[test]
fn without_noise_there_is_no_privacy() {
    let delta = Delta::new(1e-6).unwrap();
    for mode in [PrivacyMode::Off, PrivacyMode::Central, PrivacyMode::Distributed] {
        let z = if mode == PrivacyMode::Off { 3.0 } else { 0.0 };
        let mechanism = mechanism(small(mode, 100, 5, z));
        assert!(mechanism.epsilon(1, delta).epsilon.is_infinite());
        assert!(mechanism.rdp(2.0).is_infinite());
        assert!(mechanism.snr(5).is_infinite());
        assert!(mechanism.epsilon(0, delta).epsilon.abs() < f64::EPSILON);
    }
}

#[test]
fn the_signal_to_noise_ratio_is_that_of_the_design() {
    let snr = |coordinates, z, n| {
        let scale = 8192.0;
        let params = MechanismParams { scale, coordinates, ..wide(n, z) };
        mechanism(params).snr(n)
    };
    assert!((snr(1 << 17, 2.0, 1000) - 1.38).abs() < 0.01);
    assert!((snr(1 << 20, 10.0, 1000) - 0.098).abs() < 0.001);
}

#[test]
fn one_hot_updates_add_up() {
    let mechanism = mechanism(small(PrivacyMode::Off, 40, 3, 0.0));
    let updates: Vec<_> = (0..3).map(|device| one_hot(40, 11 * device, 0.5)).collect();
    let decoded = mean_through(&mechanism, &updates, 7);
    for (index, value) in decoded.iter().enumerate() {
        let expected = if [0, 11, 22].contains(&index) { 0.5 / 3.0 } else { 0.0 };
        assert!((value - expected).abs() < 1e-3, "{index}: {value}");
    }
}

#[test]
fn an_update_at_the_clip_norm_in_one_coordinate_does_not_wrap_the_sum() {
    let cohort = 50;
    let mechanism = mechanism(small(PrivacyMode::Off, 1, cohort, 0.0));
    let updates = vec![vec![100.0]; cohort];
    let decoded = mean_through(&mechanism, &updates, 8);
    assert!((decoded[0] - 1.0).abs() < 1e-3, "{}", decoded[0]);
}

#[test]
fn a_long_update_is_clipped() {
    let mechanism = mechanism(small(PrivacyMode::Off, 64, 1, 0.0));
    let decoded = mean_through(&mechanism, &[one_hot(64, 3, 3.0)], 1);
    assert!((decoded[3] - 1.0).abs() < 1e-3);
}

#[test]
fn a_huge_update_is_clipped_without_overflow() {
    let mechanism = mechanism(small(PrivacyMode::Off, 64, 1, 0.0));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let contribution = mechanism.encode(&[f32::MAX; 64], &[], &SEED, &mut rng).unwrap();
    let decoded = mechanism.decode(contribution.as_ring(), 1, &SEED).unwrap().mean;
    assert!(decoded.iter().all(|v| (v - 0.125).abs() < 1e-3));
}

#[test]
fn the_noise_of_a_sum_has_the_planned_variance() {
    let cohort = 20;
    for mode in [PrivacyMode::Central, PrivacyMode::Distributed] {
        let params = MechanismParams { report_goal: 16, ..small(mode, 4096, cohort, 4.0) };
        let mechanism = mechanism(params);
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let updates = vec![vec![0.0; 4096]; cohort];
        let mut sum = sum_of(&mechanism, &updates, &mut rng);
        mechanism.add_central_noise(&mut sum, &mut rng);
        let decoded = mechanism.decode(&sum, cohort, &SEED).unwrap().mean;
        let sigma = match mode {
            PrivacyMode::Distributed => 4.0 * (20.0f64 / 16.0).sqrt(),
            PrivacyMode::Off | PrivacyMode::Central => 4.0,
        } / 20.0;
        let squares: f64 = decoded.iter().map(|v| f64::from(*v).powi(2)).sum();
        let ratio = squares / (4096.0 * sigma * sigma);
        assert!((ratio - 1.0).abs() < 4.5 * (2.0f64 / 4096.0).sqrt(), "{mode:?}: {ratio}");
        let mean = decoded.iter().map(|v| f64::from(*v)).sum::<f64>() / 4096.0;
        assert!(mean.abs() < 4.5 * sigma / 64.0, "{mode:?}: {mean}");
    }
}

#[test]
fn central_noise_leaves_the_other_modes_alone() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for mode in [PrivacyMode::Off, PrivacyMode::Distributed] {
        let mut sum = vec![7; 64];
        mechanism(small(mode, 64, 2, 1.0)).add_central_noise(&mut sum, &mut rng);
        assert_eq!(sum, vec![7; 64]);
    }
}

#[test]
fn a_contribution_shows_only_its_length() {
    let mechanism = mechanism(small(PrivacyMode::Distributed, 64, 2, 1.0));
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let contribution = mechanism.encode(&[0.1; 64], &[], &SEED, &mut rng).unwrap();
    assert_eq!(format!("{contribution:?}"), "Contribution { len: 64, .. }");
    assert_eq!(contribution.into_ring().len(), 64);
}

fn with_metrics(mode: PrivacyMode, coordinates: usize, cohort: usize, z: f64) -> MechanismParams {
    let metrics = MetricParams::new(3, 0.25).unwrap();
    let params = MechanismParams { metrics, ..small(mode, coordinates, cohort, z) };
    MechanismParams { scale: Mechanism::recommended_scale(&params).unwrap(), ..params }
}

#[test]
fn metrics_come_back_as_their_means_beside_the_mean_update() {
    let mechanism = mechanism(with_metrics(PrivacyMode::Off, 40, 4, 0.0));
    let given = [[0.0, 1.0, 0.5], [1.0, 1.0, 0.25], [0.5, 1.0, 0.75], [0.25, 1.0, 0.5]];
    let update = one_hot(40, 7, 0.8);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut sum = vec![0u32; mechanism.contribution_len()];
    assert_eq!(sum.len(), 64 + 3);
    for metrics in &given {
        let contribution = mechanism.encode(&update, metrics, &SEED, &mut rng).unwrap();
        for (sum, element) in sum.iter_mut().zip(contribution.as_ring()) {
            *sum = (*sum + element) % (1 << mechanism.ring_bits());
        }
    }
    let decoded = mechanism.decode(&sum, 4, &SEED).unwrap();
    assert!((decoded.mean[7] - 0.8).abs() < 1e-3);
    for (found, expected) in decoded.metrics.iter().zip([0.4375, 1.0, 0.5]) {
        assert!((found - expected).abs() < 1e-3, "{found}");
    }
}

#[test]
fn metrics_at_their_ends_on_every_device_do_not_wrap() {
    for (mode, z) in [(PrivacyMode::Off, 0.0), (PrivacyMode::Distributed, 0.1)] {
        let mechanism = mechanism(with_metrics(mode, 1 << 15, 200, z));
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let update = vec![0.0; 1 << 15];
        let contribution = mechanism.encode(&update, &[1.0, 0.0, 1.0], &SEED, &mut rng).unwrap();
        let modulus = 1u64 << mechanism.ring_bits();
        let multiply = |&element: &u32| u32::try_from(u64::from(element) * 200 % modulus).unwrap();
        let sum: Vec<u32> = contribution.as_ring().iter().map(multiply).collect();
        let decoded = mechanism.decode(&sum, 200, &SEED).unwrap();
        // One device's noise, 200 times over, is smaller than the range.
        let most = 6.0 * mechanism.device_variance().sqrt() / mechanism.metric_span() + 1e-3;
        for (found, expected) in decoded.metrics.iter().zip([1.0, 0.0, 1.0]) {
            assert!((found - expected).abs() < most && most < 0.2, "{mode:?}: {found}");
        }
    }
}

#[test]
fn the_noise_of_a_metric_has_the_stated_deviation() {
    for mode in [PrivacyMode::Central, PrivacyMode::Distributed] {
        let params = MechanismParams { report_goal: 8, ..with_metrics(mode, 2, 10, 2.0) };
        let mechanism = mechanism(params);
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut squares = 0.0;
        for _ in 0..2000 {
            let mut sum = vec![0u32; mechanism.contribution_len()];
            for _ in 0..10 {
                let contribution = mechanism.encode(&[0.0; 2], &[0.5; 3], &SEED, &mut rng).unwrap();
                for (sum, element) in sum.iter_mut().zip(contribution.as_ring()) {
                    *sum = (*sum + element) % (1 << mechanism.ring_bits());
                }
            }
            mechanism.add_central_noise(&mut sum, &mut rng);
            let decoded = mechanism.decode(&sum, 10, &SEED).unwrap();
            squares += decoded.metrics.iter().map(|v| (v - 0.5).powi(2)).sum::<f64>();
        }
        let ratio = (squares / 6000.0).sqrt() / mechanism.metric_deviation(10);
        assert!((ratio - 1.0).abs() < 4.5 / (2.0f64 * 6000.0).sqrt(), "{mode:?}: {ratio}");
    }
}

#[test]
fn metrics_cost_noise_and_no_epsilon() {
    let delta = Delta::new(1e-6).unwrap();
    let params = with_metrics(PrivacyMode::Distributed, 1 << 12, 100, 4.0);
    let with = mechanism(params.clone());
    let without = mechanism(MechanismParams { metrics: MetricParams::NONE, ..params });
    let (more, less) = (with.epsilon(10, delta).epsilon, without.epsilon(10, delta).epsilon);
    assert!((more / less - 1.0).abs() < 1e-3, "{more} {less}");
    let growth = with.guaranteed_variance() / without.guaranteed_variance();
    assert!((growth - 1.0625).abs() < 1e-12, "{growth}");
    assert!((without.snr(100) / with.snr(100) - 1.0625f64.sqrt()).abs() < 1e-12);
}

#[test]
fn another_clip_norm_changes_nothing_in_integer_units() {
    let before = mechanism(with_metrics(PrivacyMode::Distributed, 64, 10, 1.0));
    let after = before.with_clip_norm(ClipNorm::new(0.01).unwrap()).unwrap();
    assert_eq!(before.curve(), after.curve());
    assert_eq!(before.ring_bits(), after.ring_bits());
    assert!((before.device_variance() - after.device_variance()).abs() < f64::EPSILON);
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let quiet = mechanism(with_metrics(PrivacyMode::Off, 64, 1, 0.0));
    let quiet = quiet.with_clip_norm(ClipNorm::new(0.01).unwrap()).unwrap();
    let contribution = quiet.encode(&one_hot(64, 3, 5.0), &[0.5; 3], &SEED, &mut rng).unwrap();
    let decoded = quiet.decode(contribution.as_ring(), 1, &SEED).unwrap();
    assert!((decoded.mean[3] - 0.01).abs() < 1e-5, "{}", decoded.mean[3]);
    let error = before.with_clip_norm(ClipNorm::new(f64::MIN_POSITIVE).unwrap()).unwrap_err();
    assert!(matches!(error, ParamsError::Scale { .. }), "{error}");
}

#[test]
fn bad_metrics_are_errors_with_the_values() {
    let mechanism = mechanism(with_metrics(PrivacyMode::Off, 3, 2, 0.0));
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut error =
        |metrics: &[f64]| mechanism.encode(&[0.0; 3], metrics, &SEED, &mut rng).unwrap_err().to_string();
    assert_eq!(error(&[0.0; 2]), "expected 3 metrics, got 2");
    assert_eq!(error(&[0.0, 1.5, 0.0]), "metric 1 is 1.5, expected a number from 0 to 1");
    assert_eq!(error(&[0.0, 0.0, f64::NAN]), "metric 2 is NaN, expected a number from 0 to 1");
    for (count, weight, expected) in [
        (65, 0.5, "a contribution carries at most 64 metrics, got 65"),
        (1, 0.0, "the weight of the metrics must be from 0.001 to 1, got 0"),
        (1, f64::NAN, "the weight of the metrics must be from 0.001 to 1, got NaN"),
    ] {
        assert_eq!(MetricParams::new(count, weight).unwrap_err().to_string(), expected);
    }
}

#[test]
fn bad_updates_are_errors_with_the_values() {
    let mechanism = mechanism(small(PrivacyMode::Off, 3, 2, 0.0));
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut error = |update: &[f32]| mechanism.encode(update, &[], &SEED, &mut rng).unwrap_err().to_string();
    assert_eq!(error(&[0.0; 2]), "expected an update of 3 coordinates, got 2");
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let expected = format!("coordinate 1 of the update is {text}, expected a finite number");
        assert_eq!(error(&[0.0, value, 0.0]), expected);
    }
}

#[test]
fn bad_sums_are_errors_with_the_values() {
    let mechanism = mechanism(small(PrivacyMode::Off, 3, 2, 0.0));
    let bits = mechanism.ring_bits();
    let error = |sum: &[u32], n| mechanism.decode(sum, n, &SEED).unwrap_err().to_string();
    assert_eq!(error(&[0; 3], 1), "expected a sum of 4 elements, got 3");
    assert_eq!(error(&[0; 4], 0), "expected between 1 and 2 survivors, got 0");
    assert_eq!(error(&[0; 4], 3), "expected between 1 and 2 survivors, got 3");
    let outside = 1 << bits;
    assert_eq!(
        error(&[0, 0, outside, 0], 1),
        format!("element 2 of the sum is {outside}, expected at most {}", outside - 1)
    );
}

#[test]
fn bad_params_are_errors_with_the_values() {
    let good = || wide(100, 4.0);
    let error = |params| Mechanism::new(params).unwrap_err().to_string();
    let cases = [
        (MechanismParams { scale: 0.0, ..good() }, "scale must be finite and above 0, got 0"),
        (MechanismParams { scale: f64::NAN, ..good() }, "scale must be finite and above 0, got NaN"),
        (MechanismParams { coordinates: 0, ..good() }, "coordinates must be between 1 and 1073741824, got 0"),
        (MechanismParams { cohort: 0, ..good() }, "cohort must have at least 1 device, got 0"),
        (
            MechanismParams { report_goal: 101, ..good() },
            "report goal must be between 1 and the cohort of 100, got 101",
        ),
        (
            MechanismParams { report_goal: 0, ..good() },
            "report goal must be between 1 and the cohort of 100, got 0",
        ),
        (
            MechanismParams { corrupt: 50, report_goal: 50, ..good() },
            "report goal of 50 leaves no honest device when 50 may be corrupt",
        ),
        (
            MechanismParams { scale: 2f64.powi(28), ..good() },
            "the sum needs a ring of more than 31 bits with scale 268435456",
        ),
    ];
    for (params, expected) in cases {
        assert_eq!(error(params), expected);
    }
}

#[test]
fn a_scale_that_is_too_small_names_the_least() {
    let error = Mechanism::new(MechanismParams { scale: 2048.0, ..wide(100, 4.0) });
    let ParamsError::ScaleTooSmall { least_scale, padded_len, .. } = error.unwrap_err() else {
        panic!("expected the scale to be too small");
    };
    assert_eq!(padded_len, 1 << 20);
    assert!((least_scale / 3.6 / 1024.0 - 1.0).abs() < 0.02, "{least_scale}");
    assert!(Mechanism::new(MechanismParams { scale: least_scale, ..wide(100, 4.0) }).is_ok());
}

#[test]
fn no_scale_is_recommended_for_an_absurd_clip_norm() {
    for clip in [f64::MIN_POSITIVE, 5e-324, 1e300] {
        let clip_norm = ClipNorm::new(clip).unwrap();
        let params = small(PrivacyMode::Off, 1 << 20, 1 << 20, 1.0);
        let scale = Mechanism::recommended_scale(&MechanismParams { clip_norm, report_goal: 1, ..params });
        assert!(matches!(scale, Err(ParamsError::RingTooWide { .. })), "{scale:?}");
    }
}

#[test]
fn noise_that_is_surely_a_mistake_is_refused() {
    let params = small(PrivacyMode::Distributed, 64, 2, 1e-12);
    assert!(matches!(Mechanism::new(params), Err(ParamsError::NoiseTooSmall { .. })));
}

#[test]
fn bad_numbers_are_refused() {
    for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(ClipNorm::new(value).unwrap_err().to_string().contains(&value.to_string()));
    }
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let error = NoiseMultiplier::new(value).unwrap_err().to_string();
        assert!(error.contains(&value.to_string()));
    }
    for value in [0.0, 1.0, -1.0, 2.0, f64::NAN] {
        assert!(Delta::new(value).unwrap_err().to_string().contains(&value.to_string()));
    }
}

#[test]
fn recommended_scales_are_usable_powers_of_two() {
    for mode in [PrivacyMode::Off, PrivacyMode::Central, PrivacyMode::Distributed] {
        for coordinates in [1, 100, 5000, 131_072, 1 << 20] {
            for (cohort, z, clip) in [(1, 0.5, 0.1), (50, 1.0, 1.0), (1000, 8.0, 30.0)] {
                let clip_norm = ClipNorm::new(clip).unwrap();
                let params = MechanismParams { clip_norm, ..small(mode, coordinates, cohort, z) };
                let scale = Mechanism::recommended_scale(&params).unwrap();
                let mechanism = mechanism(MechanismParams { scale, ..params });
                assert!(scale * clip >= 3.6 * (mechanism.padded_len() as f64).sqrt());
                assert!((scale.log2().fract()).abs() < f64::EPSILON, "{scale}");
                assert!((14..=24).contains(&mechanism.ring_bits()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn clipping_never_exceeds_the_sensitivity(
        update in prop::collection::vec(-1e4f32..1e4, 1..300),
        shrink in 1e-8f32..1.0,
        seed: u64,
    ) {
        let mechanism = mechanism(small(PrivacyMode::Off, update.len(), 1, 0.0));
        let update: Vec<_> = update.iter().map(|v| v * shrink).collect();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let contribution = mechanism.encode(&update, &[], &SEED, &mut rng).unwrap();
        let squares: f64 = contribution
            .as_ring()
            .iter()
            .map(|&q| f64::from(mechanism.ring.center(q)).powi(2))
            .sum();
        prop_assert!(squares.sqrt() <= mechanism.delta2());
    }

    #[test]
    fn the_sum_of_encodings_decodes_to_the_mean(
        (coordinates, updates) in (1usize..200, 1usize..8).prop_flat_map(|(len, count)| {
            let update = prop::collection::vec(-1f32..1.0, len);
            (Just(len), prop::collection::vec(update, count))
        }),
        seed: u64,
    ) {
        for mode in [PrivacyMode::Off, PrivacyMode::Distributed] {
            let clip_norm = ClipNorm::new(20.0).unwrap();
            let params = small(mode, coordinates, 8, 0.0);
            let mechanism = mechanism(MechanismParams { clip_norm, ..params });
            let decoded = mean_through(&mechanism, &updates, seed);
            for (index, value) in decoded.iter().enumerate() {
                let mean = updates.iter().map(|u| u[index]).sum::<f32>()
                    / updates.len() as f32;
                // Each rounding moves the rotated sum by at most √d in norm.
                let most = (mechanism.padded_len() as f64).sqrt() / mechanism.params.scale;
                prop_assert!(f64::from((value - mean).abs()) <= most + 1e-6);
            }
        }
    }
}

/// The mean update through encoding, summing and decoding.
fn mean_through(mechanism: &Mechanism, updates: &[Vec<f32>], seed: u64) -> Vec<f32> {
    let sum = sum_of(mechanism, updates, &mut ChaCha20Rng::seed_from_u64(seed));
    mechanism.decode(&sum, updates.len(), &SEED).unwrap().mean
}

fn sum_of(mechanism: &Mechanism, updates: &[Vec<f32>], rng: &mut ChaCha20Rng) -> Vec<u32> {
    let mut sum = vec![0u32; mechanism.padded_len()];
    for update in updates {
        let contribution = mechanism.encode(update, &[], &SEED, rng).unwrap();
        for (sum, element) in sum.iter_mut().zip(contribution.into_ring()) {
            *sum = (*sum + element) % (1 << mechanism.ring_bits());
        }
    }
    sum
}

fn one_hot(len: usize, index: usize, value: f32) -> Vec<f32> {
    let mut update = vec![0.0; len];
    update[index] = value;
    update
}

fn mechanism(params: MechanismParams) -> Mechanism {
    Mechanism::new(params).unwrap()
}

/// The parameters of the reference rows: d = 2^20, s = 4096, c = 1.
fn wide(cohort: usize, z: f64) -> MechanismParams {
    MechanismParams {
        mode: PrivacyMode::Distributed,
        clip_norm: ClipNorm::new(1.0).unwrap(),
        noise_multiplier: NoiseMultiplier::new(z).unwrap(),
        scale: 4096.0,
        coordinates: 1 << 20,
        cohort,
        report_goal: cohort,
        corrupt: 0,
        metrics: MetricParams::NONE,
    }
}

fn small(mode: PrivacyMode, coordinates: usize, cohort: usize, z: f64) -> MechanismParams {
    MechanismParams { mode, scale: 65_536.0, coordinates, ..wide(cohort, z) }
}
