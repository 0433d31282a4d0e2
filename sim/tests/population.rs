//! Populations of many more devices than a cohort, small enough for a test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use nightshift_sim::population::{
    self, ObjectiveName, PopulationError, PresenceModel, Report, Scenario, Trace,
};
use proto::plan::Mode;

/// Sixty devices, of which a version takes eight.
fn small() -> Scenario {
    let mut scenario = Scenario::default();
    scenario.population.devices = Some(60);
    scenario.task.cohort = 8;
    scenario.task.versions = 3;
    scenario.task.coordinates = 50;
    scenario
}

fn run(scenario: &Scenario, trace: Option<&str>) -> Result<Report, PopulationError> {
    let trace = trace.map(|csv| Trace::read(csv.as_bytes()).unwrap());
    population::run(&AtomicBool::new(false), scenario, trace, |_| {})
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

#[test]
fn the_same_scenario_gives_the_same_bytes_and_another_seed_does_not() {
    let mut scenario = small();
    scenario.faults.drop_out_permille = 100;
    scenario.faults.lost_permille = 20;
    let (first, second) = (run(&scenario, None).unwrap(), run(&scenario, None).unwrap());
    assert_eq!(json(&first), json(&second));
    assert_eq!(first.versions.len(), 3);
    assert!(first.versions.iter().all(|version| version.survivors >= 5 && version.cohort <= 8), "{first:?}");
    let other = run(&Scenario { seed: 2, ..scenario }, None).unwrap();
    assert_ne!(json(&first), json(&other));
}

#[test]
fn a_report_has_the_same_bytes_on_one_thread_and_on_two() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.toml");
    let on = |threads: &str, objective: &str| {
        let text = format!(
            "[population]\ndevices = 60\n[task]\nobjective = \"{objective}\"\ncohort = 16\nversions = 3\n\
             coordinates = 300\n[faults]\ndrop_out_permille = 100\n"
        );
        fs::write(&file, text).unwrap();
        let report = folder.path().join(format!("{threads}.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
        command.args(["population", "--scenario"]).arg(&file).arg("--report").arg(&report);
        let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(report).unwrap()
    };
    for objective in ["quadratic", "logistic"] {
        let (one, two) = (on("1", objective), on("2", objective));
        assert!(!one.is_empty() && one == two, "{objective}: the reports differ");
    }
}

/// Of five rounds beside each other, of which four are enough.
#[test]
fn a_version_of_several_rounds_has_more_devices_than_a_round_and_more_signal() {
    let mut scenario = small();
    let one = run(&scenario, None).unwrap();
    (scenario.task.rounds, scenario.task.min_rounds) = (5, Some(4));
    let many = run(&scenario, None).unwrap();
    assert_eq!(many.versions.len(), 3);
    assert!(many.versions.iter().all(|version| (24..=40).contains(&version.survivors)), "{many:?}");
    assert!((many.snr.unwrap() / one.snr.unwrap() - 2.0).abs() < 1e-9);
    // Trained and summed as one.
    scenario.privacy.mode = Mode::Off;
    scenario.privacy.noise_multiplier = 0.0;
    scenario.task.versions = 12;
    scenario.task.learning_rate = Some(0.5);
    scenario.task.heterogeneity = 0.1;
    scenario.privacy.clip_norm = 10.0;
    let report = run(&scenario, None).unwrap();
    assert!(report.versions[11].measure.unwrap() < 0.01, "{report:?}");
}

#[test]
fn without_noise_a_quadratic_comes_near_its_optimum_and_a_regression_learns() {
    let expected = [
        // Half of about one squared; and half of it a step is all but nothing after twelve versions.
        (ObjectiveName::Quadratic, 0.5, 0.01),
        (ObjectiveName::Logistic, std::f64::consts::LN_2, 0.66),
    ];
    for (objective, start, most) in expected {
        let mut scenario = small();
        scenario.task.objective = objective;
        scenario.task.versions = 12;
        scenario.task.learning_rate = Some(0.5);
        scenario.task.heterogeneity = 0.1;
        scenario.privacy.mode = Mode::Off;
        scenario.privacy.noise_multiplier = 0.0;
        scenario.privacy.clip_norm = 10.0;
        let report = run(&scenario, None).unwrap();
        let measured: Vec<f64> = report.versions.iter().map(|version| version.measure.unwrap()).collect();
        assert!(measured[11] < most && most < start, "{objective:?}: {measured:?}");
        assert_eq!(report.epsilon, None);
    }
}

#[test]
fn devices_that_come_at_night_make_versions_at_night() {
    let mut scenario = small();
    scenario.presence.model = PresenceModel::Diurnal;
    scenario.population.training_secs = 900.0;
    scenario.task.objective = ObjectiveName::None;
    scenario.task.versions = 200;
    scenario.privacy.participations = 10_000;
    let stop = AtomicBool::new(false);
    let mut made = Vec::new();
    population::run(&stop, &scenario, None, |version| {
        made.push(version.at_secs);
        // Into the second night.
        if version.at_secs > 36.0 * 3600.0 {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap();
    // The simulated clock begins at noon: nobody is there in the hours before the next noon and after it.
    let hours: Vec<f64> = made.iter().map(|secs| (secs / 3600.0 + 12.0) % 24.0).collect();
    assert!(made.last().is_some_and(|last| *last > 36.0 * 3600.0) || made.len() == 200, "{made:?}");
    assert!(hours.iter().all(|hour| !(11.0..18.0).contains(hour)), "{hours:?}");
}

#[test]
fn what_can_never_be_is_refused_with_numbers_before_anything_runs() {
    let refused = |scenario: &Scenario, trace: Option<&str>| {
        let error = run(scenario, trace).unwrap_err();
        assert!(matches!(error, PopulationError::Impossible(_)), "{error}");
        error.to_string()
    };
    let mut scenario = small();
    scenario.task.report_goal = Some(9);
    assert!(refused(&scenario, None).starts_with("task.report_goal is 9 and task.cohort is 8"));
    let mut scenario = small();
    scenario.task.cohort = 2000;
    assert!(refused(&scenario, None).starts_with("task.cohort is 2000, a round has at most 1024"));
    let mut scenario = small();
    scenario.population.devices = Some(4);
    assert!(refused(&scenario, None).starts_with("a version needs 6 devices and there are 4"));
    let mut scenario = small();
    (scenario.task.versions, scenario.privacy.participations) = (21, 2);
    assert!(refused(&scenario, None).starts_with(
        "21 versions of at least 6 devices need 126 participations, and 60 devices may take part 2 times each"
    ));
    let mut scenario = small();
    scenario.task.rounds = 11;
    assert!(refused(&scenario, None).starts_with("a version needs 66 devices and there are 60"));
    // Twelve devices, of which no more than four are there together.
    let mut csv = "device,from,to\n".to_owned();
    for device in 0..12 {
        let from = device / 4 * 3600;
        writeln!(csv, "d{device},{from},{}", from + 3600).unwrap();
    }
    let mut scenario = small();
    scenario.presence.model = PresenceModel::Trace;
    scenario.presence.trace = Some("trace.csv".into());
    scenario.population.devices = None;
    let words = "a sum needs 6 devices at a time and at most 4 of 12 are ever there together";
    assert!(refused(&scenario, Some(&csv)).starts_with(words));
    scenario.population.devices = Some(13);
    assert!(
        refused(&scenario, Some(&csv)).starts_with("population.devices is 13 and the trace has 12 devices")
    );
}

#[test]
fn a_version_for_which_too_few_come_ends_the_run_with_who_was_there() {
    // Ten devices for four hours; from then on three.
    let mut csv = "device,from,to\n".to_owned();
    for device in 0..10 {
        let to = if device < 3 { 400_000 } else { 14_400 };
        writeln!(csv, "d{device},{},{to}", 10 * device).unwrap();
    }
    let mut scenario = small();
    scenario.presence.model = PresenceModel::Trace;
    scenario.presence.trace = Some("trace.csv".into());
    scenario.population.devices = None;
    scenario.task.versions = 1000;
    scenario.task.patience_hours = 40;
    scenario.task.join_secs = 600;
    scenario.population.training_secs = 900.0;
    scenario.population.speed_spread = 0.1;
    scenario.population.examples_spread = 0.1;
    scenario.privacy.participations = 10_000;
    let mut newest = 0;
    let trace = Trace::read(csv.as_bytes()).unwrap();
    let error =
        population::run(&AtomicBool::new(false), &scenario, Some(trace), |version| newest = version.version)
            .unwrap_err()
            .to_string();
    let words = format!(
        "version {} waited 40 simulated hours for 6 devices; after the first hour at most 3 were there at a time",
        newest + 1
    );
    assert!(newest > 1 && error.starts_with(&words), "{newest}: {error}");
}

#[test]
fn a_task_whose_devices_have_taken_part_as_often_as_they_may_says_so() {
    let mut scenario = small();
    // Just as many as twenty versions of six need: with eight in a sum they are spent before.
    (scenario.task.versions, scenario.privacy.participations) = (20, 2);
    let error = run(&scenario, None).unwrap_err();
    let PopulationError::Spent { made, versions: 20, goal: 6, participations: 2 } = error else {
        panic!("{error}");
    };
    assert!((10..20).contains(&made), "{error}");
    let words =
        format!("the task ended after {made} of 20 versions: a version needs 6 devices, and fewer may");
    assert!(error.to_string().starts_with(&words), "{error}");
}

#[test]
fn the_command_prints_every_key_and_refuses_one_that_there_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    let keys = program().args(["population", "--keys"]).output().unwrap();
    assert!(keys.status.success());
    assert_eq!(Scenario::parse(&String::from_utf8(keys.stdout).unwrap()).unwrap(), Scenario::default());
    let (file, report) = (folder.path().join("scenario.toml"), folder.path().join("report.json"));
    fs::write(&file, "[population]\npeople = 3\n").unwrap();
    let refused = program().args(["population", "--scenario"]).arg(&file).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        String::from_utf8(refused.stderr).unwrap().contains("unknown key population.people; the nearest")
    );
    fs::write(&file, "[population]\ndevices = 30\n[task]\ncohort = 6\nversions = 1\ncoordinates = 9\n")
        .unwrap();
    let run = program().args(["population", "--scenario"]).arg(&file).arg("--report").arg(&report).output();
    assert!(run.unwrap().status.success());
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&report["devices"], report["versions"].as_array().unwrap().len()), (&30.into(), 1));
}
