//! Whole trainings on a candle device.

use proto::training::{LocalOptimizer, TrainingPlan};

use super::*;
use crate::backend::device::DeviceError;
use crate::backend::error::ComputeError;
use crate::error::TrainError;
use crate::model::blocks::Blocks;
use crate::training::job::{Job, Step};
use crate::training::optimizer::Schedule;

fn blocks(count: u32, length: u32) -> Blocks {
    let document = (0..=count * length).map(|i| (i * i * 7 + i / 3) % 61 + 3).collect();
    Blocks::new(&[document], 1, length)
}

fn plan() -> TrainingPlan {
    TrainingPlan {
        local_steps: 12,
        batch_size: 3,
        sequence_len: 12,
        learning_rate: 0.005,
        warmup_steps: 2,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: 0.01 },
    }
}

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_training_follows_that_of_our_own_kernels_step_by_step() {
    let base = Arc::new(Base::open(&reference("families/qwen3")).unwrap());
    let blocks = blocks(6, 12);
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(&base, method, 2, &Projection::ALL);
        let frozen = spec.seeded_factors(&Digest([4; 32]));
        let start = spec.initial(&Digest([4; 32]), None);
        let [own, candle] = both_ways(&base, Recompute::Never).map(|engine| {
            let before = engine.loss(&spec, &frozen, &start, &blocks).unwrap();
            let base_loss = engine.base_loss(&blocks).unwrap();
            assert!(
                (before.nats_per_token - base_loss.nats_per_token).abs() < 1e-5,
                "{before:?} {base_loss:?}"
            );
            let trained =
                engine.train(&spec, &frozen, &start, &blocks, &plan(), [1; 32], &mut go_on).unwrap();
            let after = engine.loss(&spec, &frozen, &trained.parameters, &blocks).unwrap();
            assert!(after.nats_per_token < before.nats_per_token, "{method:?}: {before:?} {after:?}");
            (trained, after)
        });
        for (step, (found, expected)) in candle.0.losses.iter().zip(&own.0.losses).enumerate() {
            assert!((found - expected).abs() < 1e-3 * expected, "{method:?} {step}: {found} {expected}");
        }
        assert_eq!((candle.0.tokens, candle.0.losses.len()), (own.0.tokens, 12));
        let delta = |parameters: &[f32]| -> Vec<f32> {
            parameters.iter().zip(&start).map(|(x, before)| x - before).collect()
        };
        let off = off(&delta(&candle.0.parameters), &delta(&own.0.parameters));
        assert!(off < 1e-2, "{method:?}: what was learned is off by {off:.1e}");
    }
}

#[test]
fn a_resumed_training_has_the_bits_of_one_that_never_stopped() {
    let base = Arc::new(Base::open(&reference("families/qwen2")).unwrap());
    let [_, engine] = both_ways(&base, Recompute::Blocks);
    let blocks = blocks(6, 12);
    let spec = spec(&base, Method::Both, 2, &Projection::ALL);
    let start = spec.initial(&Digest([4; 32]), None);
    let plan = TrainingPlan { local_steps: 4, ..plan() };
    let schedule = Schedule::Cosine { floor: 0.1 };
    let (spec, blocks, plan, start) = (&spec, &blocks, &plan, start.as_slice());
    let job = Job { spec, frozen: &[], start, blocks, plan, schedule, seed: [1; 32] };
    let mut whole = engine.begin(job).unwrap();
    whole.run(u32::MAX, &mut go_on).unwrap();
    let whole = whole.finish();
    for stop in 0..=plan.local_steps {
        let mut first = engine.begin(job).unwrap();
        first.run(stop, &mut go_on).unwrap();
        let file = first.checkpoint().unwrap();
        let mut second = engine.begin(job).unwrap();
        second.resume(&file).unwrap();
        assert_eq!(second.steps(), stop);
        second.run(u32::MAX, &mut go_on).unwrap();
        assert_eq!(second.finish(), whole, "stopped after {stop}");
    }
}

#[test]
fn a_training_stops_between_two_micro_batches_and_goes_on_with_the_next() {
    let base = Arc::new(Base::random(shape(), Filled::F32, 5).unwrap());
    let [_, engine] = both_ways(&base, Recompute::Never);
    let blocks = blocks(8, 60);
    let spec = spec(&base, Method::FrozenA, 2, &[Projection::Q, Projection::V]);
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let start = spec.initial(&Digest([4; 32]), None);
    let plan = TrainingPlan { local_steps: 2, batch_size: 20, sequence_len: 60, ..plan() };
    let (spec, frozen, start, blocks, plan) = (&spec, frozen.as_slice(), start.as_slice(), &blocks, &plan);
    let job = Job { spec, frozen, start, blocks, plan, schedule: Schedule::Constant, seed: [1; 32] };
    let mut whole = engine.begin(job).unwrap();
    whole.run(u32::MAX, &mut go_on).unwrap();
    let mut training = engine.begin(job).unwrap();
    let mut heard = Vec::new();
    let error = training.run(u32::MAX, &mut |step: Step| {
        heard.push((step.step, step.micro_batch, step.micro_batches));
        if heard.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error, Err(TrainError::Stopped { steps: 1 })), "{error:?}");
    // 20 sequences of 60 tokens are micro-batches of 8, 8 and 4.
    assert_eq!(heard, [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3)]);
    let mut further = |step: Step| {
        heard.push((step.step, step.micro_batch, step.micro_batches));
        ControlFlow::Continue(())
    };
    training.run(u32::MAX, &mut further).unwrap();
    assert_eq!(heard[4..], [(2, 2, 3), (2, 3, 3)]);
    assert_eq!(training.finish(), whole.finish());
}

#[test]
fn a_device_that_is_not_there_is_refused_before_anything_is_computed() {
    let base = Arc::new(Base::open(&reference("base")).unwrap());
    let blocks = blocks(3, 12);
    let spec = spec(&base, Method::Both, 2, &Projection::ALL);
    let start = spec.initial(&Digest([4; 32]), None);
    for device in [CandleDevice::Cuda(77), CandleDevice::Metal(77)] {
        let compute = Compute { backend: Backend::Candle(device), ..Compute::default() };
        let engine = Engine::new(Arc::clone(&base)).with_compute(compute);
        let refused = |result: std::result::Result<(), TrainError>| match result {
            Err(TrainError::Compute(ComputeError::Device(
                error @ (DeviceError::NotBuilt { .. } | DeviceError::NotOpened { .. }),
            ))) => {
                assert!(error.to_string().contains(&format!("the device `{device}`")), "{error}");
            }
            other => panic!("{device}: {other:?}"),
        };
        let mut steps = 0;
        let mut count = |_: Step| {
            steps += 1;
            ControlFlow::Continue(())
        };
        refused(engine.train(&spec, &[], &start, &blocks, &plan(), [1; 32], &mut count).map(drop));
        refused(engine.loss(&spec, &[], &start, &blocks).map(drop));
        refused(engine.base_loss(&blocks).map(drop));
        refused(engine.logits(&[1, 2]).map(drop));
        refused(engine.generate(None, &[1, 2], 3, |_| None).map(drop));
        refused(engine.prepare());
        assert_eq!(steps, 0);
    }
}

#[test]
fn engines_made_of_one_engine_share_the_weights_at_their_place() {
    let base = Arc::new(Base::open(&reference("base")).unwrap());
    let [_, engine] = both_ways(&base, Recompute::Never);
    engine.prepare().unwrap();
    let other = engine.clone().with_folded(&Folded::default()).unwrap();
    let at = |engine: &Engine| {
        let setup = engine.setup();
        std::ptr::from_ref(setup.resident.get(setup.base, setup.compute).unwrap().unwrap())
    };
    assert_eq!(at(&engine), at(&other));
    let compute = Compute { threads: 2, ..engine.compute() };
    assert_ne!(at(&engine), at(&other.with_compute(compute)));
}
