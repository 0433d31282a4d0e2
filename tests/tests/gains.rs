//! What devices measure of versions, and what the task makes of it, over whole federations.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Base, Engine};
use proto::adapter::{Method, State};
use proto::admin::TaskState;
use proto::ids::Digest;
use proto::metrics::{Gains, Metric, MetricName};
use proto::plan::{Plan, RefreshPlan, vector_from_bytes, vector_to_bytes};
use session::Work;
use session::update::Update;
use sim::faults::Faults;
use sim::world::Trainer;
use task::gain::{best, standings};
use text::{Corpus, ReadOptions, UserText};

#[path = "common/dense.rs"]
mod common;
#[path = "common/stage.rs"]
mod stage;

use stage::{Running, Stage, short_lines};

use common::{DEVICES, RANK, dense, plan, world};

/// Devices that move every number by the version's own amount, and find of each version what is written here.
struct Measuring {
    /// By the version; one that is not here was not measured.
    gains: BTreeMap<u32, f64>,
    /// The state of each version that was trained from, as the first device had it.
    states: BTreeMap<u32, State>,
    /// Against which version each was measured.
    against: BTreeMap<u32, Option<Digest>>,
}

impl Measuring {
    fn finding(gains: &[(u32, f64)]) -> Self {
        Self { gains: gains.iter().copied().collect(), states: BTreeMap::new(), against: BTreeMap::new() }
    }
}

impl Trainer for Measuring {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let train = |(device, work): &(usize, Arc<Work>)| {
            let version = work.published.version;
            let before = &work.state.trained;
            let step = 0.1 * (version + 1) as f32 + 0.01 * *device as f32;
            let after: Vec<f32> = before.iter().map(|x| x + step).collect();
            self.states.insert(version, work.state.clone());
            let digest = |state: &State| Digest::of(&vector_to_bytes(&state.trained));
            self.against.insert(version, work.before.as_ref().map(digest));
            let over_before = self.gains.get(&version).copied().filter(|_| work.before.is_some());
            let gains = Gains { over_before, over_base: None };
            Ok(Update::between(before, &after, 1.0, 1).unwrap().with_gains(gains))
        };
        batch.iter().map(train).collect()
    }
}

fn measured_plan(method: Method, versions: u32, refresh: Option<RefreshPlan>) -> Plan {
    let mut plan = plan(method, versions, refresh);
    plan.privacy.metrics = vec![Metric::of(MetricName::Gain, &plan.training)];
    plan.with_recommended_scale().unwrap()
}

fn close(x: &[f64], y: &[f64]) -> bool {
    x.len() == y.len() && x.iter().zip(y).all(|(x, y)| (x - y).abs() < 2e-3)
}

#[test]
fn the_mean_gain_comes_out_of_the_sum_and_is_measured_against_the_version_before() {
    let plan = measured_plan(Method::FrozenA, 4, None);
    let mut devices = Measuring::finding(&[(1, 0.25), (2, -0.125), (3, 0.5)]);
    let mut world = world(&plan, None, Faults::default(), 1);
    while world.run_to_next_version(&mut devices).unwrap() {}
    let status = world.status();
    assert_eq!((status.state, status.version), (TaskState::Complete, 4));
    let found: Vec<f64> = status.versions.iter().map(|version| version.metrics[0].mean).collect();
    // The round from version 0 measures nothing: it is the base. A part of the range is rounded to 16 bits or so.
    for (found, expected) in found.iter().zip([0.0, 0.25, -0.125, 0.5]) {
        assert!((found - expected).abs() < 1e-2, "{found} is not {expected}");
    }
    assert!(status.versions.iter().all(|version| version.restores.is_none()), "a small loss is no proof");
    assert_eq!(devices.against[&0], None);
    for version in 1..4 {
        let before = Digest::of(&vector_to_bytes(&devices.states[&(version - 1)].trained));
        assert_eq!(devices.against[&version], Some(before), "version {version}");
    }
    assert_eq!(standings(&status.versions).len(), 4);
    assert_eq!(best(&status.versions).version, 4);
}

#[test]
fn nothing_is_built_upon_a_version_that_all_devices_found_ruined() {
    // With factors drawn anew every two versions, so that what is restored may be of another epoch.
    let refresh = RefreshPlan { every: 2, accumulated_rank: 2 * RANK, shipped_rank: 3 };
    for (method, refresh) in [
        (Method::FrozenA, None),
        (Method::FrozenA, Some(refresh)),
        (Method::Core, Some(refresh)),
        (Method::Alternate, None),
    ] {
        for worse in 1..5 {
            let plan = measured_plan(method, 7, refresh);
            let mut devices = Measuring::finding(&[(worse, -1.0)]);
            let faults = Faults { crash_per_100k: 2_000, ..Faults::default() };
            let mut world = world(&plan, None, faults, u64::from(worse));
            while world.run_to_next_version(&mut devices).unwrap() {}
            let status = world.status();
            assert_eq!(status.state, TaskState::Complete);
            assert_eq!(world.up_to_date(), DEVICES);
            let restored: Vec<(u32, u32)> = status
                .versions
                .iter()
                .filter_map(|version| Some((version.version, version.restores?)))
                .collect();
            assert_eq!(restored, [(worse + 1, worse - 1)], "{method:?} {refresh:?}");
            let change = |version: u32| dense(&devices.states[&version]);
            assert!(close(&change(worse + 1), &change(worse - 1)), "{method:?} {refresh:?} {worse}");
            assert!(!close(&change(worse), &change(worse - 1)));
            // What is restored is measured no second time, and what is built upon it is.
            assert_eq!(devices.against[&(worse + 1)], None);
            assert!(devices.against[&(worse + 2)].is_some());
        }
    }
}

#[test]
fn two_versions_in_a_row_that_are_worse_pause_the_task_and_its_operator_lets_it_go_on() {
    let plan = measured_plan(Method::FrozenA, 8, None);
    let mut devices = Measuring::finding(&[(1, 1.0), (2, -1.0), (4, -1.0), (6, 0.5), (7, 0.5)]);
    let mut world = world(&plan, None, Faults::default(), 3);
    while world.run_to_next_version(&mut devices).unwrap() {}
    let status = world.status();
    // 3 is 1 again because 2 was worse, and 5 is 3 again because 4 was.
    assert_eq!((status.state, status.version), (TaskState::Paused, 5));
    let restored: Vec<Option<u32>> = status.versions.iter().map(|version| version.restores).collect();
    assert_eq!(restored, [None, None, Some(1), None, Some(1)]);
    assert_eq!(best(&status.versions).version, 1);
    assert_eq!(world.verdicts().len(), 3);

    assert!(world.resume());
    assert!(!world.resume(), "it is not paused any more");
    while world.run_to_next_version(&mut devices).unwrap() {}
    let status = world.status();
    assert_eq!((status.state, status.version), (TaskState::Complete, 8));
    assert!(close(&dense(&devices.states[&5]), &dense(&devices.states[&1])));
    let known: Vec<u32> = standings(&status.versions).iter().map(|standing| standing.version).collect();
    assert_eq!(known, [0, 1, 2, 4, 6, 7]);
    assert_eq!(best(&status.versions).version, 8);
}

#[test]
fn an_operator_s_way_back_is_no_verdict_and_crosses_epochs() {
    let refresh = RefreshPlan { every: 2, accumulated_rank: 2 * RANK, shipped_rank: 3 };
    for refresh in [None, Some(refresh)] {
        let plan = measured_plan(Method::FrozenA, 8, refresh);
        let mut devices = Measuring::finding(&[(1, 1.0), (2, 1.0), (4, -1.0), (6, 0.5), (7, 0.5)]);
        let mut world = world(&plan, None, Faults::default(), 3);
        for _ in 0..3 {
            assert!(world.run_to_next_version(&mut devices).unwrap());
        }
        // 3 is not measured: 4 is 1 again.
        world.roll_back(1).unwrap();
        while world.run_to_next_version(&mut devices).unwrap() {}
        let status = world.status();
        let restored: Vec<Option<u32>> = status.versions.iter().map(|version| version.restores).collect();
        // Nobody measures 4, whatever devices would find.
        assert_eq!(restored, [None, None, None, Some(1), None, None, None, None], "{refresh:?}");
        assert_eq!((status.state, status.version), (TaskState::Complete, 8));
        assert_eq!(devices.against[&4], None);
        assert!(close(&dense(&devices.states[&4]), &dense(&devices.states[&1])), "{refresh:?}");
        assert!(world.roll_back(1).unwrap_err().to_string().contains("the task is over"));
    }
    // One that is worse right behind it pauses nothing: 6 is 4 again, which is 1.
    let plan = measured_plan(Method::FrozenA, 8, None);
    let mut devices = Measuring::finding(&[(1, 1.0), (2, 1.0), (5, -1.0), (7, 0.5)]);
    let mut world = world(&plan, None, Faults::default(), 3);
    for _ in 0..3 {
        assert!(world.run_to_next_version(&mut devices).unwrap());
    }
    world.roll_back(1).unwrap();
    while world.run_to_next_version(&mut devices).unwrap() {}
    let status = world.status();
    assert_eq!((status.state, status.version), (TaskState::Complete, 8));
    let restored: Vec<Option<u32>> = status.versions.iter().map(|version| version.restores).collect();
    assert_eq!(restored, [None, None, None, Some(1), None, Some(1), None, None]);
}

#[test]
fn a_plan_that_does_not_ask_for_the_gain_has_nothing_fetched_or_judged() {
    let plan = plan(Method::FrozenA, 3, None);
    let mut devices = Measuring::finding(&[(1, -1.0), (2, -1.0)]);
    let mut world = world(&plan, None, Faults::default(), 4);
    while world.run_to_next_version(&mut devices).unwrap() {}
    assert_eq!(world.status().state, TaskState::Complete);
    assert!(devices.against.values().all(Option::is_none));
    assert!(world.status().versions.iter().all(|version| version.restores.is_none()));
}

/// By agents as they are installed, whose trainers are processes of their own.
#[test]
fn agents_measure_what_their_users_text_says_of_a_version() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "3", "--privacy", "off", "--clip", "4", "--metrics", "gain,base-gain"]);
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let _agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();
    stage.operator(&["task", "watch", "owl"]);
    let task = stage.task();
    assert_eq!((task["state"].as_str(), task["version"].as_u64()), (Some("complete"), Some(3)));

    // The same measurements, here.
    let artifact = |digest: &serde_json::Value| {
        let path = stage.path("home").join("artefacts").join(digest.as_str().unwrap());
        std::fs::read(path).unwrap()
    };
    let plan = Plan::parse(&artifact(&task["plan"])).unwrap();
    let state = |version: u32| {
        let adapter = match version {
            0 => plan.adapter.initial(&plan.initial_seed, None),
            version => {
                vector_from_bytes(&artifact(&task["versions"][version as usize - 1]["adapter"])).unwrap()
            }
        };
        plan.state_at(version, None, None, &adapter).unwrap()
    };
    let base = Arc::new(Base::open(&stage.path("base")).unwrap());
    let engine = Engine::new(Arc::clone(&base));
    let expected = |version: u32| {
        let (now, before) = (state(version), state(version - 1));
        let of = |device: &&str| {
            let path = stage.path(&format!("{device}.jsonl"));
            let text = UserText::read(&[path], &ReadOptions::default()).unwrap();
            let held_out = Corpus::new(&base, &text).unwrap().held_out(plan.training.sequence_len);
            assert_eq!(held_out.len(), 1);
            let gains = engine.gains(&now, Some(&before), true, &held_out, &|| true).unwrap().unwrap();
            [gains.over_before.unwrap(), gains.over_base.unwrap()]
        };
        let all: Vec<[f64; 2]> = devices.iter().map(of).collect();
        [0, 1].map(|which| all.iter().map(|gains| gains[which].clamp(-1.0, 1.0)).sum::<f64>() / 4.0)
    };
    for version in 1..3 {
        let metrics = task["versions"][version as usize]["metrics"].as_array().unwrap();
        let names: Vec<&str> = metrics.iter().map(|metric| metric["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["gain", "base_gain"]);
        for (metric, expected) in metrics.iter().zip(expected(version)) {
            let told = metric["mean"].as_f64().unwrap();
            assert!((told - expected).abs() < 5e-3, "version {version}: {told} is not {expected}");
            assert!(expected.abs() > 1e-2, "too little to see a mistake: {expected}");
        }
    }
    let shown = stage.operator(&["task", "show", "owl"]);
    for said in ["gain of version 1 over version 0", "of version 2 over the base", "best       version 3"] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
}
