//! Federations whose devices train different parts of the adapter, each with the real engine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use engine::Blocks;
use engine::Engine;
use engine::{Base, Projection};
use nightshift_sim::demo;
use nightshift_sim::faults::Faults;
use nightshift_sim::inputs::Inputs;
use nightshift_sim::make_data;
use nightshift_sim::run::run;
use nightshift_sim::scenario::Scenario;
use nightshift_sim::world::{Trainer, World};
use proto::adapter::{Class, Method, State};
use proto::ids::Digest;
use proto::plan::Mode;
use proto::training::ServerOptimizer;
use session::Work;
use session::update::Update;

const DEVICES: usize = 8;

fn base() -> (tempfile::TempDir, Arc<Base>) {
    let folder = tempfile::tempdir().unwrap();
    demo::write_base(folder.path()).unwrap();
    let base = Arc::new(Base::open(folder.path()).unwrap());
    (folder, base)
}

/// Three classes of an adapter of rank 4 in four layers; the noise is next to none.
fn scenario() -> Scenario {
    let mut scenario = Scenario {
        devices: DEVICES,
        versions: 2,
        method: Method::FrozenA,
        rank: 4,
        alpha: 8.0,
        projections: vec![Projection::Q, Projection::Down],
        classes: ["0.5:2:3", "0.25:3"].map(|text| text.parse().unwrap()).to_vec(),
        mode: Mode::Distributed,
        noise_multiplier: 1e-4,
        clip_norm: 8.0,
        server: ServerOptimizer::FedAvg { rate: 1.0 },
        vanishing: 0,
        stop_when_flat: false,
        yardsticks: false,
        ..demo::scenario(5)
    };
    scenario.training.learning_rate = 2e-2;
    scenario.training.local_steps = 2;
    scenario
}

/// What one device trained for one version.
struct Part {
    class: Option<Class>,
    moved: Vec<f32>,
}

/// Trains as a device does, and keeps what every device moved.
struct Watched {
    engine: Engine,
    text: Vec<Blocks>,
    parts: BTreeMap<usize, Part>,
}

impl Trainer for Watched {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let train = |(device, work): &(usize, Arc<Work>)| {
            let state = work.training().unwrap();
            let State { spec, frozen, folded, trained: start } = state.as_ref();
            let engine = self.engine.with_folded(folded).unwrap();
            let (text, plan) = (&self.text[*device], &work.plan.training);
            let seed = Digest::of(&[u8::try_from(*device).unwrap()]).0;
            let mut go_on = |_| ControlFlow::Continue(());
            let trained = engine.train(spec, frozen, start, text, plan, seed, &mut go_on).unwrap();
            let moved = trained.parameters.iter().zip(start).map(|(after, before)| after - before).collect();
            self.parts.insert(*device, Part { class: work.class, moved });
            Ok(Update::between(start, &trained.parameters, trained.mean_loss(), trained.examples).unwrap())
        };
        batch.iter().map(train).collect()
    }
}

#[test]
fn each_number_is_the_sum_of_those_that_train_it_divided_by_how_many_they_are() {
    let (scenario, (_folder, base)) = (scenario(), base());
    let plan = scenario.plan(&base, scenario.adapter(&base)).unwrap();
    let dealt = scenario.dealt(&plan.adapter).unwrap();
    let sizes = [(4, 4), (3, 4), (2, 3)]
        .map(|(rank, layers)| (Class { rank, layers }, if rank == 2 { 4 } else { 2 }));
    for (class, size) in sizes {
        assert_eq!(dealt.iter().filter(|dealt| **dealt == class).count(), size, "{class:?}");
    }
    let users = demo::users(&base, &scenario).unwrap();
    let len = plan.training.sequence_len;
    let text = users.iter().map(|user| user.corpus.train(len)).collect();
    let mut trainer = Watched { engine: Engine::new(Arc::clone(&base)), text, parts: BTreeMap::new() };
    let policies = scenario.policies(&dealt);
    let mut world = World::with_policies(&plan, None, &policies, Faults::default(), [7; 32]).unwrap();
    for _ in 0..2 {
        let before = world.adapter().to_vec();
        trainer.parts.clear();
        assert!(world.run_to_next_version(&mut trainer).unwrap());
        let mut sums = vec![(0.0_f32, 0_u32); before.len()];
        for (device, part) in &trainer.parts {
            assert_eq!(part.class.unwrap_or(Class::whole(&plan.adapter)), dealt[*device]);
            let places: Vec<usize> = dealt[*device].places(&plan.adapter).into_iter().flatten().collect();
            assert_eq!(places.len(), part.moved.len());
            for (place, x) in places.into_iter().zip(&part.moved) {
                sums[place] = (sums[place].0 + x, sums[place].1 + 1);
            }
        }
        assert_eq!(trainer.parts.len(), DEVICES);
        // The sum's noise is z·c, and no number is farther from its mean than eight deviations of its own.
        let noise = plan.privacy.noise_multiplier * plan.privacy.clip_norm;
        let (mut found_of, mut as_if_all) = (BTreeMap::<u32, f64>::new(), 0.0_f64);
        for (i, ((after, before), (sum, trainers))) in
            world.adapter().iter().zip(&before).zip(&sums).enumerate()
        {
            let (moved, expected) = (f64::from(after - before), f64::from(*sum) / f64::from(*trainers));
            let off = (moved - expected).abs();
            assert!(off < 8.0 * 1.05 * noise / f64::from(*trainers), "number {i}: {moved} is not {expected}");
            *found_of.entry(*trainers).or_default() += moved * moved;
            as_if_all = as_if_all.max((moved - f64::from(sum / DEVICES as f32)).abs());
        }
        // Numbers of two devices, of four and of all are there and move, and it matters what they are divided by.
        assert_eq!(found_of.keys().copied().collect::<Vec<_>>(), [2, 4, 8]);
        assert!(found_of.values().all(|squares| *squares > 0.0), "{found_of:?}");
        assert!(as_if_all > 20.0 * noise, "{as_if_all}");
    }
    assert!(!world.run_to_next_version(&mut trainer).unwrap());
    assert_eq!(world.up_to_date(), DEVICES);
}

#[test]
fn a_federation_of_three_classes_learns_and_says_who_took_part() {
    let mut scenario = Scenario { versions: 3, vanishing: 1, ..scenario() };
    scenario.training.local_steps = 3;
    let (_folder, base) = base();
    let users = demo::users(&base, &scenario).unwrap();
    let finished =
        run(&scenario, &Inputs { base: &base, users: &users, newcomers: &[], public: None }, |_| {}).unwrap();
    let summary = finished.summary;
    assert!(summary.final_loss < 0.98 * summary.base_loss, "{} {}", summary.base_loss, summary.final_loss);
    let found = |classes: &[nightshift_sim::classes::ClassSummary]| -> Vec<_> {
        classes.iter().map(|class| (class.rank, class.layers, class.devices, class.took_part)).collect()
    };
    assert_eq!(found(&summary.classes), [(4, 4, 2, 2), (3, 4, 2, 2), (2, 3, 4, 4)]);
    for version in &summary.versions {
        let classes = found(&version.classes);
        assert_eq!(classes.iter().map(|class| class.2).sum::<u32>(), 8);
        assert_eq!(classes.iter().map(|class| class.3).sum::<u32>(), version.survivors);
    }
    assert_eq!(summary.versions[1].missing, 1);
    // The masked input of a weaker device is as long as any; only what it says of its class comes to it.
    let up: Vec<u64> = summary.classes.iter().map(|class| class.bytes_up_per_device).collect();
    assert!(up.iter().all(|bytes| *bytes > 4 * 1000), "{up:?}");
    assert!(up.iter().max().unwrap() - up.iter().min().unwrap() < up[0] / 5, "{up:?}");
}

fn program(base: &Path, data: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    command.arg("run").arg("--base").arg(base).arg("--data").arg(data).arg("--out").arg(out);
    command.args(["--rank", "4", "--targets", "q_proj", "--local-steps", "1", "--versions", "1"]);
    command.args(["--sequence-len", "32", "--accept-noise"]).args(more).output().unwrap()
}

#[test]
fn the_program_takes_classes_and_refuses_those_that_cannot_be_before_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    make_data::run(&make_data::Options { devices: 4 }, folder.path(), 1).unwrap();
    let [base, data, out] = ["base", "users", "out"].map(|name| folder.path().join(name));
    for (more, code, words) in [
        (&["--class", "0.5"][..], 2, "`0.5` is no SHARE:RANK"),
        (&["--class", "0:2"], 2, "a share of 0 is none"),
        (&["--least-trainers", "2"], 2, "--class"),
        (&["--class", "0.5:2", "--central"], 2, "--central"),
        (&["--class", "0.75:2", "--class", "0.5:1"], 3, "add up to 1.25"),
        (&["--class", "0.5:0"], 3, "--class 0.5:0 trains rank 0"),
        (&["--class", "0.5:5"], 3, "the adapter has rank 1 to 4"),
        (&["--class", "0.5:2:5"], 3, "1 to 4 layers"),
        (&["--class", "0.5:2:0"], 3, "in 0 layers"),
        (&["--class", "0.5:2", "--privacy", "off"], 3, "found frozen_a and off"),
        (&["--class", "0.5:2", "--method", "both"], 3, "found both and distributed"),
        (&["--class", "0.5:2", "--least-trainers", "1"], 3, "classes.least_trainers must be 2 up to"),
    ] {
        let refused = program(&base, &data, &out, more);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.contains(words)), (Some(code), true), "{more:?}: {said}");
        assert!(!out.exists(), "{more:?}");
    }
    let classes = ["--class", "0.5:2:3", "--class", "0.25:3"];
    let done = program(&base, &data, &out, &[&classes[..], &["--format", "json"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: nightshift_sim::summary::RunSummary = serde_json::from_slice(&done.stdout).unwrap();
    let found: Vec<_> =
        summary.classes.iter().map(|class| (class.rank, class.layers, class.devices)).collect();
    assert_eq!(found, [(4, 4, 1), (3, 4, 1), (2, 3, 2)]);
    let done = program(&base, &data, &out, &classes);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("rank 2 in 3 layers        2          2"), "{said}");
    let help = Command::new(env!("CARGO_BIN_EXE_nightshift-sim")).args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("--class <SHARE:RANK[:LAYERS]>"));
}
