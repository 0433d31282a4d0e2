//! Trainings that stop and resume from a checkpoint.

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
        let progress = Progress { done, optimizer_step, moments, rng_position: u128::MAX };
        training.resume(&progress.write(&training.subject()).unwrap())?;
        training.run(u32::MAX, &mut go_on).unwrap();
        Ok::<_, CheckpointError>(training.finish())
    };
    let error = resumed(u32::MAX, 9).unwrap_err().to_string();
    assert_eq!(error, "the checkpoint is damaged: its numbers do not fit the plan");
    let trained = resumed(2, u64::MAX).unwrap();
    assert_eq!((trained.losses.len(), trained.tokens, trained.examples), (5, u64::MAX, u32::MAX));
}
