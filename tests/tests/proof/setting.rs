//! A world by its seed, and what its devices train.

use std::sync::{Arc, Mutex};

use nightshift_tests::one_hot::{STEP, place};
use proto::adapter::Module;
use proto::message::Window;
use proto::plan::{Mode, Plan, RoundPlan};
use session::Work;
use session::policy::Policy;
use session::update::Update;
use sim::faults::Faults;
use sim::world::{Clock, Disk, Network, Observer, Trainer, World, WorldError};

use super::watch::{Seen, Tally, Watch};
use super::weather::{Air, Clocks, Disks, Weather, mix};

/// Virtual milliseconds after which a version that does not come is not waited for.
const PATIENCE_MILLIS: u64 = 6 * 3_600_000;

/// Each device moves its own number.
pub(crate) struct OneHot {
    /// By how many steps.
    pub(crate) times: f32,
}

impl Trainer for OneHot {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let one = |(device, work): &(usize, Arc<Work>)| {
            let mut after = work.adapter.clone();
            after[place(*device)] += self.times * STEP;
            Ok(Update::between(&work.adapter, &after, 1.0, 1).unwrap())
        };
        batch.iter().map(one).collect()
    }
}

/// What a world is made of.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) devices: usize,
    pub(crate) weather: Weather,
    pub(crate) trainer: OneHot,
    pub(crate) network: Box<dyn Network>,
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) observer: Box<dyn Observer>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Setting {
    /// The world of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self::with(seed, Weather::of(seed))
    }

    /// The world of this seed in this weather.
    pub(crate) fn with(seed: u64, weather: Weather) -> Self {
        let mut draws = (0..).map(|number| mix(&[seed, 0x5e, number]));
        let mut below = move |bound: u64| usize::try_from(draws.next().unwrap() % bound).unwrap();
        // The work of a round grows with the square of its devices, so most worlds are small.
        let devices = match below(12) {
            0 => 2,
            1 => 8 + below(5),
            _ => 3 + below(4),
        };
        let cohort = if below(3) == 0 { devices.max(3) - 1 } else { devices };
        let spare = below(cohort as u64 / 3 + 1);
        let versions = 3 + u32::try_from(below(6)).unwrap();
        // A version of a quarter of the worlds is of two or three rounds, or of fewer where some come to nothing.
        let rounds = if cohort > 6 { 1 } else { [1, 1, 1, 2, 1, 1, 1, 3][below(8)] };
        let devices = if rounds == 1 { devices } else { cohort * rounds + below(2) };
        let min_rounds = 1 + below(rounds as u64);
        let plan = plan(devices, (cohort, spare), (rounds, min_rounds), versions);
        let watch = Watch::new(&plan, devices, weather.faults());
        let seen = watch.seen();
        Self {
            seed,
            devices,
            trainer: OneHot { times: 1.0 },
            network: Box::new(Air::of(seed, &weather)),
            disk: Box::new(Disks::of(seed, &weather)),
            clock: Box::new(Clocks::of(seed, &weather)),
            observer: Box::new(watch),
            seen,
            plan,
            weather,
        }
    }

    /// Plays it to its end, or for as long as anything comes.
    pub(crate) fn play(self) -> Tally {
        self.play_and(|_| ())
    }

    /// The same, and does something to it after each version.
    pub(crate) fn play_and(mut self, mut does: impl FnMut(&mut World)) -> Tally {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        let faults = Faults { broken_permille: self.weather.broken_permille, ..Faults::default() };
        let mut world = World::new(&self.plan, None, &policy(), self.devices, faults, seed)
            .unwrap()
            .with_training_times(Window { least_millis: 0, most_millis: 9_000 })
            .with_network(self.network)
            .with_disk(self.disk)
            .with_clock(self.clock)
            .with_observer(self.observer)
            .with_patience(PATIENCE_MILLIS);
        let ended = loop {
            match world.run_to_next_version(&mut self.trainer) {
                Ok(true) => does(&mut world),
                Ok(false) => break true,
                // With who is excluded, and where everybody was told something else, no version may come.
                Err(WorldError::Waited { .. } | WorldError::Stuck { .. }) => break false,
                Err(error) => panic!("{error}"),
            }
        };
        // What is there then is what is durable.
        world.restart_coordinator(0).unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.ends(&world, ended);
        seen.tally.clone()
    }
}

/// So little noise that who is in the sums of a version shows in spite of it, also by the millionth number, and so much that
/// what is missing of it shows too.
const NOISE: f64 = 0.012;

fn plan(
    devices: usize,
    (cohort, spare): (usize, usize),
    (rounds, min_rounds): (usize, usize),
    versions: u32,
) -> Plan {
    let mut plan = Plan::example();
    let outputs = u32::try_from(place(devices)).unwrap() + 60;
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs }];
    plan.privacy.mode = Mode::Distributed;
    plan.privacy.clip_norm = 1.0;
    plan.privacy.noise_multiplier = NOISE / (rounds as f64).sqrt();
    plan.privacy.participations = 1000;
    plan.round.cohort = u32::try_from(cohort).unwrap();
    let quorum = aggregation::quorum(cohort, plan.corrupt_devices());
    let report_goal = (cohort - spare).max(quorum).max(2);
    plan.round = RoundPlan {
        versions,
        cohort: plan.round.cohort,
        rounds: u32::try_from(rounds).unwrap(),
        min_rounds: u32::try_from(min_rounds).unwrap(),
        report_goal: u32::try_from(report_goal).unwrap(),
        join_millis: 60_000,
        step_millis: 30_000,
        grace_millis: 2_000,
        missing_permille: 300,
    };
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

fn policy() -> Policy {
    Policy {
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_report_goal: 2,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations: u32::MAX,
        participations_a_day: u32::MAX,
        ..Policy::default()
    }
}
