use std::sync::atomic::AtomicBool;

use super::*;
use crate::population::{ObjectiveName, Scenario, run};
use crate::report::tests::assert_balanced;

fn report(objective: ObjectiveName, versions: u32) -> Report {
    let mut scenario = Scenario::default();
    scenario.population.devices = Some(50);
    scenario.task.objective = objective;
    scenario.task.cohort = 8;
    scenario.task.versions = versions;
    scenario.task.coordinates = 30;
    scenario.faults.drop_out_permille = 200;
    run(&AtomicBool::new(false), &scenario, None, |_| {}).unwrap()
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    let mut none = report(ObjectiveName::None, 1);
    let trained = report(ObjectiveName::Logistic, 3);
    let mut stopped = Report { interrupted: true, versions: Vec::new(), ..trained.clone() };
    stopped.ended = Some("version 1 waited <long>".to_owned());
    none.fairness.times = (0..100).map(|times| (times, 3)).collect();
    for report in [none, trained, stopped] {
        let page = html(&report, "</style><script>alert('x')</script>");
        assert_balanced(&page);
        for outside in ["http", "src=", "href", "url(", "@import", "//", "<script", "NaN", "inf"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.contains("&lt;long&gt;"), report.ended.is_some());
    }
}

#[test]
fn the_numbers_of_the_run_are_on_the_page() {
    let report = report(ObjectiveName::Quadratic, 3);
    let page = html(&report, "Night");
    let in_sums: u64 = report.versions.iter().map(|version| u64::from(version.survivors)).sum();
    let epsilon = report.epsilon.unwrap();
    for expected in [
        "<h1>Night</h1>",
        "A simulated population of 50 devices: 3 versions of rounds of up to 8 devices",
        &format!("<dd>{in_sums}</dd>"),
        &format!("ε = {epsilon:.2}"),
        "as planned, at best</text>",
        "<dt>task.cohort</dt><dd>8</dd>",
        "<dt>population.examples</dt><dd>20.0</dd>",
        "available</text>",
        "times in a sum</text>",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("<dt>model."), "no model has an effect");
    // Who is further on its way was where the others are.
    for version in &report.versions {
        let stages = [
            version.available,
            version.assigned,
            version.trained,
            version.joined,
            version.submitted,
            version.survivors as usize,
        ];
        assert!(stages.is_sorted_by(|more, less| more >= less), "{version:?}");
        assert!(version.survivors >= report.report_goal && version.available <= 50, "{version:?}");
    }
    assert_eq!(report.fairness.times.iter().map(|(_, devices)| devices).sum::<usize>(), 50);
    assert_eq!(report.devices_behind.iter().map(|(_, devices)| devices).sum::<usize>(), 50);
    let counted: u64 = report.fairness.times.iter().map(|(times, n)| u64::from(*times) * *n as u64).sum();
    assert!(counted >= in_sums, "{counted} {in_sums}");
    let made: u32 = report.hours.iter().map(|hour| hour.versions).sum();
    assert_eq!((made, report.hours.len()), (3, 24));
    assert!(report.versions.iter().all(|version| version.snr.is_some()));
    assert_eq!((report.losses.before.len(), report.losses.after.len()), (50, 50));
}

#[test]
fn bars_are_of_every_number_between_the_least_and_the_largest_or_of_several() {
    let bars = |all: &[(u32, usize)]| {
        counts(all, "times").into_iter().map(|bar| (bar.label, bar.value)).collect::<Vec<_>>()
    };
    let one = |label: &str, devices: f64| (label.to_owned(), devices);
    assert_eq!(bars(&[(2, 5), (4, 1)]), [one("2", 5.0), one("3", 0.0), one("4", 1.0)]);
    let many = bars(&[(10, 7), (11, 1), (60, 2), (110, 3)]);
    assert_eq!((many.len(), &many[0], &many[33]), (34, &one("10–12", 8.0), &one("109–110", 3.0)));
    assert!(bars(&[]).is_empty());
}
