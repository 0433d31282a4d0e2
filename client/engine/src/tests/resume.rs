//! Trainings that stop and resume from a checkpoint.

use proptest::prelude::*;

use super::*;
use crate::training::checkpoint::Progress;

#[test]
fn a_resumed_training_has_the_bits_of_one_that_never_stopped() {
    let engine = engine();
    let blocks = blocks(6, 12);
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let start = spec.initial(&Digest([4; 32]), None);
    let plan = plan();
    let schedule = Schedule::Cosine { floor: 0.1 };
    let job = Job {
        spec: &spec,
        frozen: &[],
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule,
        seed: [1; 32],
    };
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
fn a_damaged_or_foreign_checkpoint_is_refused_by_name() {
    let engine = engine();
    let (blocks, other_blocks) = (blocks(6, 12), blocks(5, 12));
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let (start, plan) = (spec.initial(&Digest([4; 32]), None), plan());
    let job = Job {
        spec: &spec,
        frozen: &[],
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule: Schedule::Constant,
        seed: [1; 32],
    };
    let mut training = engine.begin(job).unwrap();
    training.run(2, &mut go_on).unwrap();
    let file = training.checkpoint().unwrap();
    let said = |job: Job<'_>, file: &[u8]| {
        let mut training = engine.begin(job).unwrap();
        let error = training.resume(file).unwrap_err();
        assert_eq!(training.steps(), 0, "training starts over");
        error.to_string()
    };
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert!(said(job, &bad).starts_with("the checkpoint is "), "{at}");
    }
    assert!(said(job, &file[..file.len() - 1]).starts_with("the checkpoint is damaged: "));
    let mut moved = start.clone();
    moved[3] += 1.0;
    let longer = TrainingPlan { local_steps: 9, ..plan.clone() };
    let wider = AdapterSpec { alpha: 7.0, ..spec.clone() };
    assert_eq!(said(Job { start: &moved, ..job }, &file), "the checkpoint is of another version");
    assert_eq!(said(Job { plan: &longer, ..job }, &file), "the checkpoint is of another plan");
    assert_eq!(said(Job { spec: &wider, ..job }, &file), "the checkpoint is of another adapter");
    assert_eq!(said(Job { seed: [2; 32], ..job }, &file), "the checkpoint is of another seed");
    assert_eq!(said(Job { blocks: &other_blocks, ..job }, &file), "the checkpoint is of another text");
    let short = Compute { precision: Some(Precision::Int16), ..Compute::default() };
    let on_candle = Compute { backend: Backend::Candle(CandleDevice::Cpu), ..Compute::default() };
    for compute in [short, on_candle] {
        if compute == short && Precision::fine() == Precision::F32 {
            println!("there are no instructions for short integers: they are f32, and no other arithmetic");
            continue;
        }
        let other = tests::engine().with_compute(compute);
        let error = other.begin(job).unwrap().resume(&file).unwrap_err();
        assert_eq!(error.to_string(), "the checkpoint is of another arithmetic");
    }
}

#[test]
fn numbers_that_do_not_fit_each_other_are_refused_and_those_at_their_limit_are_gone_on_from() {
    let (engine, blocks, plan) = (engine(), blocks(6, 12), plan());
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let start = spec.initial(&Digest([4; 32]), None);
    let job = Job {
        spec: &spec,
        frozen: &[],
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule: Schedule::Constant,
        seed: [1; 32],
    };
    let resumed = |optimizer_step, tokens| {
        let mut training = engine.begin(job).unwrap();
        let (parameters, moments) = (start.clone(), [vec![0.0; start.len()], vec![0.0; start.len()]]);
        let done = Trained { parameters, losses: vec![1.0, 1.0], tokens, examples: u32::MAX };
        let partial = PartialStep::default();
        let progress = Progress { done, optimizer_step, moments, rng_position: u128::MAX, partial };
        training.resume(&progress.write(training.subject()).unwrap())?;
        training.run(u32::MAX, &mut go_on).unwrap();
        Ok::<_, CheckpointError>(training.finish())
    };
    let error = resumed(u32::MAX, 9).unwrap_err().to_string();
    assert_eq!(error, "the checkpoint is damaged: its numbers do not fit the plan");
    let trained = resumed(2, u64::MAX).unwrap();
    assert_eq!((trained.losses.len(), trained.tokens, trained.examples), (5, u64::MAX, u32::MAX));
}

/// Of every step of [`Parts::of_micro_batches`].
const MICRO_BATCHES: u32 = 3;

/// An engine whose steps have micro-batches: with our own kernels that takes a base so large that threads share each
/// product.
fn engine_with_micro_batches(backend: Backend) -> Engine {
    let (hidden_size, intermediate_size) = match backend {
        Backend::Cpu => (512, 520),
        Backend::Candle(_) => (16, 24),
    };
    let config = DecoderConfig {
        vocab_size: 64,
        hidden_size,
        intermediate_size,
        num_layers: 1,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 8,
        max_positions: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        gemma: None,
        bos: None,
        eos: Vec::new(),
    };
    let base = Arc::new(Base::random(config, Filled::Bf16, 5).unwrap());
    Engine::new(base).with_compute(Compute { backend, ..Compute::default() })
}

/// What a training is of: [`Parts::job`] borrows it.
struct Parts {
    spec: AdapterSpec,
    frozen: Vec<f32>,
    start: Vec<f32>,
    blocks: Blocks,
    plan: TrainingPlan,
}

impl Parts {
    fn new(engine: &Engine, blocks: Blocks, plan: TrainingPlan) -> Self {
        let modules = engine.base().modules(&[Projection::Q]);
        let factors = Factors::Seeded(Digest([4; 32]));
        let spec = AdapterSpec { method: Method::FrozenA, rank: 1, alpha: 2.0, factors, modules };
        let (frozen, start) = (spec.seeded_factors(&Digest([4; 32])), spec.initial(&Digest([4; 32]), None));
        Self { spec, frozen, start, blocks, plan }
    }

    /// Steps of micro-batches of 4, 4 and 1 sequences of 128 tokens.
    fn of_micro_batches(engine: &Engine) -> Self {
        let plan = TrainingPlan { local_steps: 2, batch_size: 9, sequence_len: 128, ..plan() };
        Self::new(engine, blocks(6, 128), plan)
    }

    fn job(&self) -> Job<'_> {
        let Self { spec, frozen, start, blocks, plan } = self;
        Job { spec, frozen, start, blocks, plan, schedule: Schedule::Constant, seed: [1; 32] }
    }
}

/// The result of a training that goes on in a new one wherever `stops` says so, a micro-batch an entry.
fn stopped_at(engine: &Engine, job: Job<'_>, stops: &[bool]) -> Trained {
    let mut stops = stops.iter();
    let mut training = engine.begin(job).unwrap();
    let mut stop = |_: Step| {
        if stops.next() == Some(&true) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while let Err(error) = training.run(u32::MAX, &mut stop) {
        assert!(matches!(error, TrainError::Stopped { .. }), "{error}");
        let (file, done) = (training.checkpoint().unwrap(), (training.steps(), training.micro_batches()));
        training = engine.begin(job).unwrap();
        training.resume(&file).unwrap();
        assert_eq!((training.steps(), training.micro_batches()), done);
    }
    training.finish()
}

#[test]
fn a_training_that_stops_after_any_micro_batch_has_the_bits_of_one_that_never_stopped() {
    for backend in [Backend::Cpu, Backend::Candle(CandleDevice::Cpu)] {
        let engine = engine_with_micro_batches(backend);
        let parts = Parts::of_micro_batches(&engine);
        let job = parts.job();
        let whole = stopped_at(&engine, job, &[]);
        assert!(whole.parameters != parts.start && whole.losses.len() == 2);
        for at in 0..2 * MICRO_BATCHES as usize - 1 {
            let stops: Vec<bool> = (0..=at).map(|i| i == at).collect();
            assert_eq!(stopped_at(&engine, job, &stops), whole, "{backend:?}: stopped after {at}");
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4));
        let patterns = proptest::collection::vec(any::<bool>(), 2 * MICRO_BATCHES as usize);
        let same = |stops: Vec<bool>| {
            prop_assert_eq!(&stopped_at(&engine, job, &stops), &whole);
            Ok(())
        };
        runner.run(&patterns, same).unwrap();
    }
}

#[test]
fn a_training_advances_by_one_micro_batch_and_says_where_it_is() {
    let engine = engine_with_micro_batches(Backend::Cpu);
    let parts = Parts::of_micro_batches(&engine);
    let mut training = engine.begin(parts.job()).unwrap();
    let mut seen = Vec::new();
    while let Some(step) = training.advance().unwrap() {
        let whole = (step.step - u32::from(!step.is_whole()), step.micro_batch % MICRO_BATCHES);
        assert_eq!((training.steps(), training.micro_batches()), whole);
        seen.push((step.step, step.micro_batch, step.micro_batches));
    }
    assert_eq!(seen, [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]);
    assert_eq!(training.finish(), stopped_at(&engine, parts.job(), &[]));
}

#[test]
fn a_damaged_partial_step_is_refused() {
    let engine = engine_with_micro_batches(Backend::Cpu);
    let parts = Parts::of_micro_batches(&engine);
    let mut training = engine.begin(parts.job()).unwrap();
    for _ in 0..=MICRO_BATCHES {
        training.advance().unwrap();
    }
    assert_eq!((training.steps(), training.micro_batches()), (1, 1));
    let file = training.checkpoint().unwrap();
    let mut fresh = engine.begin(parts.job()).unwrap();
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let error = fresh.resume(&bad).unwrap_err().to_string();
        assert!(error.starts_with("the checkpoint is "), "{at}: {error}");
    }
    let progress = Progress::read(&file, fresh.subject()).unwrap();
    let wrong = |change: &dyn Fn(&mut PartialStep)| {
        let mut progress = progress.clone();
        change(&mut progress.partial);
        progress
    };
    let finished = Progress {
        done: Trained { losses: vec![1.0; 2], ..progress.done.clone() },
        optimizer_step: 2,
        ..progress.clone()
    };
    let unfit = [
        wrong(&|partial| partial.gradient.truncate(1)),
        wrong(&|partial| partial.sequences = 9),
        wrong(&|partial| partial.micro_batches = 5),
        finished,
    ];
    for progress in unfit {
        let error = fresh.resume(&progress.write(fresh.subject()).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the checkpoint is damaged: its numbers do not fit the plan");
    }
    assert_eq!((fresh.steps(), fresh.micro_batches()), (0, 0), "training starts over");
    fresh.resume(&file).unwrap();
    fresh.run(u32::MAX, &mut go_on).unwrap();
    assert_eq!(fresh.finish(), stopped_at(&engine, parts.job(), &[]));
}

/// `checkpoint.safetensors` is of the first two of these steps, and was written before there were partial ones.
#[test]
fn a_checkpoint_without_the_entries_of_a_partial_step_is_read() {
    let engine = engine();
    let parts = Parts::new(&engine, blocks(6, 12), plan());
    let file = std::fs::read(reference().join("checkpoint.safetensors")).unwrap();
    let mut training = engine.begin(parts.job()).unwrap();
    training.resume(&file).unwrap();
    assert_eq!((training.steps(), training.micro_batches()), (2, 0));
    let again = training.checkpoint().unwrap();
    assert_eq!(again.len(), file.len(), "the entries are absent at the end of a step");
    training.run(u32::MAX, &mut go_on).unwrap();
    assert_eq!(training.finish().losses.len(), 5);
}
