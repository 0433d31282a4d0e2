//! Whole runs on the base that comes with the program, small enough for a test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use engine::Base;
use nightshift_sim::demo;
use nightshift_sim::output::Output;
use nightshift_sim::place::{Place, run_at};
use nightshift_sim::run::{Finished, Inputs};
use nightshift_sim::scenario::Scenario;
use nightshift_sim::summary::RunSummary;
use proto::adapter::Method;
use proto::plan::{Mode, RefreshPlan};
use text::Corpus;

fn base() -> (tempfile::TempDir, Arc<Base>) {
    let folder = tempfile::tempdir().unwrap();
    demo::write_base(folder.path()).unwrap();
    let base = Arc::new(Base::open(folder.path()).unwrap());
    (folder, base)
}

fn small(mode: Mode) -> Scenario {
    let mut scenario = demo::scenario(3);
    scenario.devices = 6;
    scenario.versions = 2;
    scenario.training.local_steps = 2;
    scenario.mode = mode;
    scenario.vanishing = 1;
    scenario.newcomers = 2;
    scenario.stop_when_flat = false;
    scenario.yardsticks = false;
    scenario
}

fn finish(scenario: &Scenario) -> Finished {
    finish_at(Place::Federation, scenario, true)
}

fn finish_at(place: Place, scenario: &Scenario, with_public: bool) -> Finished {
    let (_folder, base) = base();
    let users = demo::users(&base, scenario).unwrap();
    let newcomers = demo::newcomers(&base, scenario).unwrap();
    let public = Corpus::new(&base, &demo::public()).unwrap().train(scenario.training.sequence_len);
    let public = with_public.then_some(&public);
    let inputs = Inputs { base: &base, users: &users, newcomers: &newcomers, public };
    run_at(place, scenario, &inputs, |_| {}).unwrap()
}

/// A summary as its bytes on disk.
fn bytes(summary: &RunSummary) -> Vec<u8> {
    serde_json::to_vec_pretty(summary).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_summary_and_another_seed_does_not() {
    let scenario = small(Mode::Distributed);
    let (first, second) = (finish(&scenario), finish(&scenario));
    assert_eq!(first.trained, second.trained);
    assert_eq!(bytes(&first.summary), bytes(&second.summary));
    let other = finish(&Scenario { seed: 4, ..scenario });
    assert_ne!(first.trained, other.trained);
}

#[test]
fn without_noise_a_small_federation_learns_and_everybody_holds_it() {
    let mut scenario = Scenario { method: Method::FrozenA, rank: 2, alpha: 4.0, ..small(Mode::Off) };
    scenario.training.learning_rate = 1e-2;
    scenario.training.local_steps = 4;
    scenario.clip_norm = 100.0;
    let finished = finish(&scenario);
    let summary = &finished.summary;
    assert!(summary.final_loss < 0.97 * summary.base_loss, "{} {}", summary.base_loss, summary.final_loss);
    assert_eq!(finished.up_to_date, 6);
    assert_eq!(summary.versions.iter().map(|v| v.missing).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(summary.epsilon, None);
    assert!(summary.warnings[0].contains("privacy is off"));
}

#[test]
fn every_method_learns_without_noise_and_what_comes_out_is_what_was_measured() {
    for method in [Method::FrozenA, Method::FrozenB, Method::Alternate, Method::Both, Method::Core] {
        let mut scenario = Scenario { method, rank: 2, alpha: 4.0, ..small(Mode::Off) };
        scenario.training.learning_rate = 1e-2;
        scenario.training.local_steps = 3;
        scenario.clip_norm = 100.0;
        if method.has_frozen_factors() {
            // An epoch a version: the second version's adapter is of rank 4, the folded part included.
            scenario.refresh = Some(RefreshPlan { every: 1, accumulated_rank: 4, shipped_rank: 4 });
            scenario.public_epochs = 2;
        }
        let finished = finish(&scenario);
        let summary = &finished.summary;
        let learned = summary.base_loss - summary.final_loss;
        assert!(learned > 0.005 * summary.base_loss, "{method:?}: {learned} of {}", summary.base_loss);
        assert!((summary.shipped_loss - summary.final_loss).abs() < 1e-4, "{method:?}: {summary:?}");
        let expected = if method.has_frozen_factors() { 4 } else { 2 };
        assert_eq!((summary.shipped_rank, finished.shipped.0.rank), (expected, expected));
        assert_eq!(finished.up_to_date, 6);
    }
}

#[test]
fn training_in_one_place_says_that_nothing_was_private() {
    let scenario = Scenario { method: Method::Alternate, ..small(Mode::Distributed) };
    let summary = finish_at(Place::Central, &scenario, false).summary;
    assert!(summary.final_loss < 0.97 * summary.base_loss, "{} {}", summary.base_loss, summary.final_loss);
    assert_eq!(
        (summary.privacy, summary.epsilon, summary.method.as_str()),
        (Mode::Off, None, "central alternate")
    );
    assert!(summary.warnings[0].contains("pooled"));
}

#[test]
fn a_weak_epsilon_names_the_cohort_that_mends_it() {
    let scenario = Scenario { noise_multiplier: 0.7, ..small(Mode::Distributed) };
    let summary = finish(&scenario).summary;
    let epsilon = summary.epsilon.unwrap();
    assert!(epsilon > 8.0, "{epsilon}");
    let line = summary.warnings.iter().find(|line| line.contains("a cohort of")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair == ["cohort", "of"]).unwrap();
    let cohort: f64 = words[at + 2].parse().unwrap();
    // With the noise on the mean kept, the noise multiplier grows with the cohort.
    let mended = Scenario { noise_multiplier: 0.7 * cohort / 6.0, ..scenario };
    let epsilon = finish(&mended).summary.epsilon.unwrap();
    assert!((6.0..=8.0).contains(&epsilon), "{line}: ε = {epsilon}");
}

#[test]
fn a_run_writes_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let finished = finish(&small(Mode::Distributed));
    let mut output = Output::create(folder.path()).unwrap();
    for version in &finished.summary.versions {
        output.version(version).unwrap();
    }
    output.finish(&finished, "base", "a run").unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("metrics.jsonl").lines().count(), 2);
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(bytes(&summary), bytes(&finished.summary));
    assert!(read("report.html").contains("</html>"));
    assert!(folder.path().join("adapter").join("adapter_model.safetensors").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Output::create(&file.join("below")).unwrap_err().to_string();
    assert!(error.contains("below") && error.contains("--out"), "{error}");
}
