//! Trainings over random days: windows that open and close, kills in the middle, machines that sleep, clocks that jump.
//! Whatever the day, nothing is trained outside a window, a preemption costs at most the micro-batch under way, and the
//! update in the end has the bits of one that was never interrupted.
//!
//! A thousand days: `NIGHTSHIFT_DAYS=1000 cargo test --release -p nightshift-client --test schedules`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightshift_client::engine::{Base, Engine, Projection, Step};
use nightshift_client::session::Work;
use nightshift_client::session::conditions::{
    Conditions, Power, Reading, Snapshot, Uptime, Usage, Verdict, WindowState, decide,
};
use nightshift_client::session::policy::Policy;
use nightshift_client::session::update::Update;
use nightshift_client::store::Checkpoint;
use nightshift_client::text::ReadOptions;
use nightshift_client::{InProcess, Recorder, Trainer, TrainingEnd, TrainingJob};
use proto::adapter::{AdapterSpec, Factors, Folded, Method, State};
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use proto::plan::Plan;
use proto::training::LocalOptimizer;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

const STEPS: u32 = 12;

/// The looks of a day after which it is over, whatever came of it.
const LOOKS: u32 = 20_000;

fn work(base: &Base) -> Work {
    let modules = base.modules(&[Projection::Q]);
    let factors = Factors::Seeded(Digest([4; 32]));
    let spec = AdapterSpec { method: Method::FrozenA, rank: 2, alpha: 4.0, factors, modules };
    let mut plan = Plan { base: base.digest(), adapter: spec.clone(), ..Plan::example() };
    plan.training.local_steps = STEPS;
    (plan.training.batch_size, plan.training.sequence_len) = (6, 8);
    plan.training.optimizer = LocalOptimizer::AdamW { weight_decay: 0.01 };
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let start = vec![0.0; spec.trained_len()];
    let state = State::at(&spec, 0, frozen, Folded::default(), &start).unwrap();
    let published = Published {
        task: TaskId([1; 16]),
        version: 0,
        plan: Digest([2; 32]),
        adapter: Digest([2; 32]),
        folded: None,
        clip_norm: 1.0,
    };
    let mechanism = Plan::example().mechanism().unwrap();
    Work { published, plan, mechanism, state, adapter: start, class: None, before: None, against: None }
}

/// A machine whose user comes and goes, and what the device decides about it.
struct Day {
    rng: ChaCha8Rng,
    limits: Conditions,
    state: WindowState,
    now: u64,
    /// Looks until the weather changes.
    lasts: u32,
    good: bool,
    looks: u32,
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let limits = Conditions {
            dwell_secs: rng.next_u32() % 40,
            rest_minutes: rng.next_u32() % 4,
            check_secs: 10,
            ..Conditions::default()
        };
        let state = WindowState::new(rng.next_u64());
        Self { rng, limits, state, now: 1 << 30, lasts: 0, good: false, looks: 0 }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.rng.next_u32().is_multiple_of(times)
    }

    /// Looks at the machine after a while; sometimes after a sleep, sometimes by a clock that was set back.
    fn look(&mut self) -> Verdict {
        self.looks += 1;
        if self.lasts == 0 {
            self.good = !self.good;
            self.lasts = 1 + self.rng.next_u32() % if self.good { 20 } else { 6 };
        }
        self.lasts -= 1;
        self.now += u64::from(self.rng.next_u32() % 10_000);
        if self.one_in(200) {
            self.now += u64::from(self.rng.next_u32());
        }
        if self.one_in(300) {
            self.now = self.now.saturating_sub(u64::from(self.rng.next_u32() % 1_000_000));
        }
        let snapshot = self.snapshot();
        let decision = decide(&self.limits, &self.state, &snapshot, Uptime(self.now));
        self.state = decision.state;
        assert!(self.good || decision.verdict != Verdict::Train, "it trains in bad weather");
        decision.verdict
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut seen = Snapshot {
            power: Reading::of(Power { external: true, battery_percent: Some(90.0) }, "test"),
            idle: Reading::of(Duration::from_secs(3600), "test"),
            metered: Reading::of(false, "test"),
            cool_celsius: Reading::of(40.0, "test"),
            busy_percent: Reading::of(1.0, "test"),
            power_saver: Reading::of(false, "test"),
            usage: Usage { free_disk_mib: Some(100_000), ..Usage::default() },
            ..Snapshot::default()
        };
        if !self.good {
            match self.rng.next_u32() % 4 {
                0 => seen.idle = Reading::of(Duration::ZERO, "test"),
                1 => seen.power = Reading::unknown("test"),
                2 => seen.cool_celsius = Reading::of(-3.0, "test"),
                _ => seen.power = Reading::of(Power { external: true, battery_percent: Some(300.0) }, "test"),
            }
        }
        seen
    }
}

/// What happens to a training while it goes on.
struct Witness<'a> {
    disk: &'a Checkpoint,
    day: Mutex<&'a mut Day>,
    leave: &'a AtomicBool,
    /// Whether the process is still there, for what would be written after a kill.
    lives: AtomicBool,
    /// Micro-batches since this process began.
    micro_batches: Mutex<u32>,
    /// Micro-batches after the device was told to leave: none is begun.
    late: Mutex<u32>,
}

impl Recorder for Witness<'_> {
    fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        Recorder::open(self.disk, published)
    }

    fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>) {
        if self.lives.load(Ordering::Relaxed) {
            Recorder::keep(self.disk, published, clear);
        }
    }

    fn delete(&self, why: &'static str) {
        Recorder::delete(self.disk, why);
    }

    fn did_micro_batch(&self, step: Step, clear: &dyn Fn() -> Option<Zeroizing<Vec<u8>>>) {
        *self.micro_batches.lock().unwrap() += 1;
        if self.leave.load(Ordering::Relaxed) {
            *self.late.lock().unwrap() += 1;
            return;
        }
        let mut day = self.day.lock().unwrap();
        // A battery that is pulled out.
        if day.one_in(12) {
            self.lives.store(false, Ordering::Relaxed);
            self.leave.store(true, Ordering::Relaxed);
        } else if day.look() != Verdict::Train {
            self.leave.store(true, Ordering::Relaxed);
        }
        drop(day);
        // As the trainer in a process of its own: what it has can be sent at any time.
        assert!(clear().is_some(), "no snapshot at {step:?}");
    }
}

/// One training over a day, as often interrupted as the day wants it; `None` where the day ended before it did.
fn train(trainer: &InProcess, work: &Work, disk: &Checkpoint, day: &mut Day) -> Option<(Update, u32)> {
    let mut interrupted = 0;
    while day.looks < LOOKS {
        if day.look() != Verdict::Train {
            continue;
        }
        let (policy, leave) = (Policy::default(), AtomicBool::new(false));
        let witness = Witness {
            disk,
            day: Mutex::new(day),
            leave: &leave,
            lives: AtomicBool::new(true),
            micro_batches: Mutex::new(0),
            late: Mutex::new(0),
        };
        let elapsed = || Duration::ZERO;
        let job = TrainingJob::new(work, [7; 32], &policy, &elapsed, &witness, &leave);
        let end = trainer.train(&job).unwrap();
        assert!(*witness.late.lock().unwrap() == 0, "it trained on after it was told to leave");
        match end {
            TrainingEnd::Trained(update) => return Some((update, interrupted)),
            TrainingEnd::NotTrained(_) => interrupted += 1,
            other @ (TrainingEnd::Refused(_) | TrainingEnd::Failed(_)) => panic!("{other:?}"),
        }
    }
    None
}

fn notes(folder: &Path) -> PathBuf {
    let path = folder.join("notes.txt");
    let lines: Vec<String> = (3..40).map(|i| format!("w{i} w{} w{}\n\n", i + 7, 60 - i)).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    path
}

#[test]
fn whatever_the_day_the_update_has_the_same_bits() {
    let days: u64 = std::env::var("NIGHTSHIFT_DAYS").map_or(40, |days| days.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let base =
        Base::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/reference/base")).unwrap();
    let work = work(&base);
    let engine = Engine::new(Arc::new(base));
    let trainer = InProcess::new(engine, vec![notes(folder.path())], ReadOptions::default()).unwrap();

    let quiet = folder.path().join("quiet");
    let (policy, leave, disk) = (Policy::default(), AtomicBool::new(false), Checkpoint::below(&quiet));
    let job = TrainingJob::new(&work, [7; 32], &policy, &|| Duration::ZERO, &disk, &leave);
    let TrainingEnd::Trained(expected) = trainer.train(&job).unwrap() else { panic!("it was not trained") };

    let (mut whole, mut interruptions) = (0, 0);
    for seed in 0..days {
        let home = folder.path().join(format!("day-{seed}"));
        std::fs::create_dir(&home).unwrap();
        let disk = Checkpoint::below(&home);
        let Some((update, interrupted)) = train(&trainer, &work, &disk, &mut Day::new(seed)) else {
            continue;
        };
        assert_eq!(update, expected, "day {seed}, after {interrupted} interruptions");
        assert!(Recorder::open(&disk, &work.published).is_none(), "what is done is not kept");
        whole += 1;
        interruptions += interrupted;
    }
    assert!(whole >= days * 9 / 10, "only {whole} of {days} days had a training that ended");
    assert!(interruptions >= u32::try_from(days).unwrap(), "the days were too quiet: {interruptions}");
    println!(
        "{whole} of {days} days trained to the end, with {interruptions} interruptions, all with the same bits"
    );
}
