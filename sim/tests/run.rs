//! Whole runs on the base that comes with the program, small enough for a test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "how long a stop takes is measured")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::Base;
use nightshift_sim::demo;
use nightshift_sim::inputs::Inputs;
use nightshift_sim::output::Output;
use nightshift_sim::place::{Place, run_at};
use nightshift_sim::run::{Finished, News, compare, run_until};
use nightshift_sim::scenario::Scenario;
use nightshift_sim::summary::RunSummary;
use nightshift_sim::yardsticks::Against;
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
    let stop = AtomicBool::new(false);
    let mut finished = run_at(&stop, place, scenario, &inputs, |_| {}).unwrap();
    assert!(compare(&stop, scenario, &inputs, &mut finished).unwrap());
    finished
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
    // The base knows the language already; two versions of twelve steps teach some of the season.
    assert!(summary.final_loss < 0.985 * summary.base_loss, "{} {}", summary.base_loss, summary.final_loss);
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
fn a_run_that_is_stopped_keeps_the_versions_so_far_and_says_that_it_was() {
    let (_folder, base) = base();
    let scenario = Scenario { versions: 50, ..small(Mode::Off) };
    let users = demo::users(&base, &scenario).unwrap();
    let inputs = Inputs { base: &base, users: &users, newcomers: &[], public: None };
    for place in [Place::Federation, Place::Central] {
        let stop = AtomicBool::new(false);
        let finished = run_at(&stop, place, &scenario, &inputs, |news| {
            if let News::Version(version) = news {
                stop.store(version.version == 2, Ordering::Relaxed);
            }
        });
        let Finished { summary, shipped, .. } = finished.unwrap();
        assert_eq!(summary.versions.len(), 2, "{place:?}");
        assert!(summary.interrupted, "{place:?}");
        assert_eq!(summary.final_loss.to_bits(), summary.versions[1].loss.to_bits(), "{place:?}");
        assert_eq!(
            summary.warnings[0],
            "stopped by its user after 2 of 50 versions: the adapter is that of version 2"
        );
        assert!(shipped.1.iter().any(|x| *x != 0.0), "{place:?}");
    }
    // Before the first version there is nothing, and nothing is trained for it.
    let stopped = run_until(&AtomicBool::new(true), &scenario, &inputs, |_| {}).unwrap();
    assert!(stopped.summary.interrupted && stopped.summary.versions.is_empty());
}

#[test]
fn a_run_writes_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let finished = finish(&small(Mode::Distributed));
    let mut output = Output::create(folder.path()).unwrap();
    for version in &finished.summary.versions {
        output.version(version).unwrap();
    }
    output.adapter(&finished.shipped.0, &finished.shipped.1, "base").unwrap();
    output.finish(&finished, "a run").unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("metrics.jsonl").lines().count(), 2);
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(bytes(&summary), bytes(&finished.summary));
    assert!(read("report.html").contains("</html>"));
    assert!(folder.path().join("adapter").join("adapter_model.safetensors").exists());
}

#[test]
fn the_adapter_is_told_before_anything_is_compared_and_a_stop_leaves_the_comparison_out() {
    let (_folder, base) = base();
    let scenario = Scenario { yardsticks: true, prompts: vec!["see you".to_owned()], ..small(Mode::Off) };
    let users = demo::users(&base, &scenario).unwrap();
    let inputs = Inputs { base: &base, users: &users, newcomers: &[], public: None };
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    let finished = run_at(&stop, Place::Federation, &scenario, &inputs, |news| match news {
        News::Version(version) => told.push(format!("version {}", version.version)),
        News::Adapter(_, parameters) => {
            told.push(format!("an adapter of {} numbers", parameters.len()));
            stop.store(true, Ordering::Relaxed);
        }
    });
    let mut finished = finished.unwrap();
    let numbers = finished.shipped.1.len();
    assert_eq!(told, ["version 1", "version 2", &format!("an adapter of {numbers} numbers")]);
    let begun = Instant::now();
    assert!(!compare(&stop, &scenario, &inputs, &mut finished).unwrap());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let summary = &finished.summary;
    assert!(!summary.interrupted && summary.samples.is_empty());
    assert!(summary.yardsticks.iter().all(|one| one.name != Against::Central));
    let said = summary.warnings.join("\n");
    assert!(said.contains("not compared with what is trained") && said.contains("after 1 prompt:"), "{said}");
    // In the middle of it, it ends with the step under way.
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let is_compared = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        compare(&stop, &scenario, &inputs, &mut finished).unwrap()
    });
    assert!(!is_compared && begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_run_that_comes_to_nothing_leaves_its_folder_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("a/b");
    let files = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let refused = Output::create(&out).unwrap();
    demo::write_base(&refused.folder().join("base")).unwrap();
    drop(refused);
    assert_eq!(files(root.path()), [""; 0]);
    // Of an earlier run nothing is lost either.
    std::fs::create_dir_all(out.join("base")).unwrap();
    std::fs::write(out.join("base/config.json"), "{}").unwrap();
    std::fs::write(out.join("metrics.jsonl"), "a line\n").unwrap();
    drop(Output::create(&out).unwrap());
    assert_eq!(files(&out), ["base", "metrics.jsonl"]);
    assert_eq!(files(&out.join("base")), ["config.json"]);
    assert_eq!(std::fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "a line\n");
    // What has begun is kept, and begins at its own first line.
    let finished = finish(&small(Mode::Off));
    let mut output = Output::create(&out).unwrap();
    output.version(&finished.summary.versions[0]).unwrap();
    drop(output);
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(lines.lines().count() == 1 && lines.starts_with('{'), "{lines}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Output::create(&file.join("below")).unwrap_err().to_string();
    assert!(error.contains("below") && error.contains("--out"), "{error}");
}

#[test]
fn every_yardstick_is_measured_and_without_noise_is_what_the_protocol_gives_without_noise() {
    let mut scenario = Scenario { vanishing: 0, yardsticks: true, clip_norm: 1.0, ..small(Mode::Off) };
    scenario.training.sequence_len = 16;
    let summary = finish(&scenario).summary;
    let loss = |name: Against| {
        let found: Vec<_> = summary.yardsticks.iter().filter(|one| one.name == name).collect();
        assert_eq!(found.len(), 1, "{name:?}");
        assert!(found[0].newcomers_loss.is_some_and(f64::is_finite), "{:?}", found[0]);
        found[0].loss
    };
    assert!((loss(Against::Uniform) - 768_f64.ln()).abs() < 1e-9);
    assert!(loss(Against::TokenCounts) < loss(Against::Uniform));
    assert!(loss(Against::Base) < loss(Against::TokenCounts));
    assert!((loss(Against::Base) - summary.base_loss).abs() < 1e-12);
    assert!((loss(Against::Federation) - summary.final_loss).abs() < 1e-12);
    // Two ways to the same mean: masked integers, and single precision in the open.
    let (masked, open) = (summary.final_loss, loss(Against::WithoutNoise));
    assert!((masked - open).abs() < 1e-3 * masked, "{masked} {open}");
    assert!(loss(Against::Central) < loss(Against::Base));
    assert!(loss(Against::PublicAlone).is_finite());
    assert!(summary.yardsticks.is_sorted_by(|one, next| one.loss >= next.loss));
    assert!(!summary.warnings.join("\n").contains("not compared"), "{:?}", summary.warnings);
}

#[test]
fn a_version_that_gains_nothing_stops_the_run_and_leaves_the_rest_of_epsilon_unspent() {
    let mut scenario =
        Scenario { versions: 4, newcomers: 4, stop_when_flat: true, ..small(Mode::Distributed) };
    let whole = finish(&Scenario { stop_when_flat: false, ..scenario.clone() }).summary;
    assert_eq!((whole.versions.len(), whole.stopped_when_flat), (4, false));
    // Steps of which nothing is left, under noise that moves nothing either.
    scenario.training.learning_rate = 1e-12;
    scenario.clip_norm = 1e-6;
    let finished = finish(&scenario);
    let summary = &finished.summary;
    assert_eq!((summary.versions.len(), summary.stopped_when_flat), (1, true));
    assert!(summary.epsilon.unwrap() < 0.6 * whole.epsilon.unwrap(), "{summary:?}");
    assert_eq!(finished.up_to_date, 6);
}

#[test]
fn samples_are_the_same_for_the_same_run_and_begin_after_the_prompt() {
    let scenario = Scenario { prompts: vec!["see you at".to_owned()], ..small(Mode::Off) };
    let (one, two) = (finish(&scenario).summary.samples, finish(&scenario).summary.samples);
    assert_eq!(one, two);
    assert_eq!((one.len(), one[0].prompt.as_str()), (1, "see you at"));
    assert!(one[0].before.starts_with(' ') && !one[0].before.contains("see you at"), "{one:?}");
}
