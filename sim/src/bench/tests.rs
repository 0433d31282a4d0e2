//! Small rounds.

use super::*;

fn options(devices: usize, missing: f64) -> Options {
    Options { devices, coordinates: 70_000, missing, bits: 20, threads: Some(2), spool: None }
}

#[test]
fn a_small_round_is_exact_with_and_without_missing_devices() {
    for (devices, missing, survivors) in [(1, 0.0, 1), (2, 0.0, 2), (9, 0.3, 6), (10, 0.4, 6)] {
        let report = secagg(&options(devices, missing), 1).unwrap();
        assert!(report.exact, "{devices} devices, {missing} missing");
        assert_eq!((report.devices, report.survivors), (devices, survivors));
    }
}

#[test]
fn every_width_of_the_ring_is_exact() {
    for bits in [1, 8, 32] {
        let report = secagg(&Options { coordinates: 33_000, bits, ..options(4, 0.25) }, 2).unwrap();
        assert!(report.exact, "{bits} bits");
    }
}

#[test]
fn a_large_cohort_draws_its_graph() {
    let report = secagg(&Options { coordinates: 100, ..options(MAX_COMPLETE + 1, 0.1) }, 6).unwrap();
    assert!(report.exact);
    let steps: Vec<(&str, usize)> = report.steps.iter().map(|step| (step.step, step.devices)).collect();
    let (all, left) = (MAX_COMPLETE + 1, MAX_COMPLETE + 1 - 26);
    assert_eq!(
        steps,
        [
            ("advertise", all),
            ("draw", all),
            ("share", all),
            ("mask", left),
            ("agree", left),
            ("unmask", left)
        ]
    );
}

#[test]
fn bytes_and_seconds_are_those_of_the_devices_that_took_the_step() {
    let report = secagg(&options(10, 0.3), 3).unwrap();
    let devices: Vec<usize> = report.steps.iter().map(|step| step.devices).collect();
    assert_eq!(devices, [10, 10, 7, 7, 7]);
    // 20 bits a coordinate in three chunks, and their frames.
    let mask = &report.steps[2];
    assert!((175_000..176_000).contains(&mask.up.mean), "{}", mask.up.mean);
    assert_eq!(mask.up.total, 7 * mask.up.mean);
    let up: u64 = report.steps.iter().map(|step| step.up.total).sum();
    assert_eq!(report.up.total, up);
    assert!(report.up.mean > mask.up.mean);
    assert!((1.25..1.5).contains(&report.expansion), "{}", report.expansion);
    for step in &report.steps {
        assert!(step.device.max_secs >= step.device.mean_secs && step.device.mean_secs > 0.0);
        assert!(step.coordinator_secs > 0.0 && step.wall_secs > 0.0);
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let bytes = |seed| {
        let report = secagg(&options(5, 0.2), seed).unwrap();
        report.steps.iter().map(|step| (step.up.total, step.down.total)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(4), bytes(4));
}

#[test]
fn the_text_says_what_the_report_says() {
    let mut report = secagg(&options(3, 0.0), 5).unwrap();
    let text = report.to_text();
    for step in ["advertise", "share", "mask", "agree", "unmask", "whole"] {
        assert!(text.lines().any(|line| line.starts_with(step)), "{text}");
    }
    assert!(text.contains("3 of 3 devices in the sum, 70000 coordinates of 20 bits, 2 threads"), "{text}");
    assert!(text.contains("the sum is exact"));
    report.exact = false;
    assert!(report.to_text().contains("the sum is WRONG"));
}
