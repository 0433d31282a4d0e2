//! The devices of a population: how many, how fast, how connected, and with how much to train on.

use std::sync::Arc;

use proto::ids::Digest;
use rand_chacha::ChaCha20Rng;

use super::dice::{millis, normal, of, uniform};
use super::presence::Presence;
use super::scenario::{NetworkTable, ObjectiveName, PopulationTable, Scenario, USUAL_DEVICES};
use super::trace::Trace;
use crate::faults::Faults;
use crate::world::{Carriage, Habits, Leg, Network, Stay};

/// The devices of a population. What is random of a device follows from its place, so that none of it is in memory.
#[derive(Clone, Debug)]
pub struct People {
    devices: usize,
    presence: Presence,
    table: PopulationTable,
    network: NetworkTable,
    /// Whether each training has as many steps as any other, whatever a device has to train on.
    is_even: bool,
    seed: Digest,
}

/// What is random of one device: each of mean 0 and deviation 1.
#[derive(Clone, Copy, Debug)]
struct Traits {
    speed: f64,
    examples: f64,
    up: f64,
    down: f64,
}

impl People {
    /// As the scenario says. Where it says of no number of devices, there are those of the trace.
    pub fn new(scenario: &Scenario, trace: Option<Trace>) -> Self {
        let traced = trace.as_ref().map_or(USUAL_DEVICES, Trace::devices);
        Self {
            devices: scenario.population.devices.unwrap_or(traced),
            is_even: scenario.task.objective == ObjectiveName::Engine,
            presence: Presence::new(&scenario.presence, trace, scenario.digest("presence")),
            table: scenario.population.clone(),
            network: scenario.network.clone(),
            seed: scenario.digest("people"),
        }
    }

    /// How many there are.
    pub fn devices(&self) -> usize {
        self.devices
    }

    /// When they are there.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Examples of a device, at least one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    pub fn examples(&self, device: usize) -> u32 {
        let examples =
            self.table.examples * (self.table.examples_spread * self.traits(device).examples).exp();
        examples.round().clamp(1.0, 1e6) as u32
    }

    /// Their network, with what is lost and repeated in it.
    pub fn network(self: &Arc<Self>, faults: Faults) -> Box<dyn Network> {
        Box::new(Links { people: Arc::clone(self), faults })
    }

    fn traits(&self, device: usize) -> Traits {
        let mut rng = of(&self.seed, device);
        let mut draw = || normal(&mut rng);
        Traits { speed: draw(), examples: draw(), up: draw(), down: draw() }
    }
}

impl Habits for Arc<People> {
    fn stays(&self, device: usize, after_millis: u64) -> Option<Stay> {
        self.presence.stays(device, after_millis)
    }

    fn trains_millis(&self, device: usize, rng: &mut ChaCha20Rng) -> u64 {
        let table = &self.table;
        let slower = (table.speed_spread * self.traits(device).speed).exp();
        let more = if self.is_even { 1.0 } else { f64::from(self.examples(device)) / table.examples };
        // No training takes exactly as long as another.
        millis(table.training_secs * slower * more * (0.9 + 0.2 * uniform(rng)))
    }
}

/// A network in which bytes take their time.
#[derive(Clone, Debug)]
struct Links {
    people: Arc<People>,
    faults: Faults,
}

impl Network for Links {
    fn carry(&mut self, device: usize, leg: Leg, bytes: usize, rng: &mut ChaCha20Rng) -> Carriage {
        let carriage = self.faults.carry(device, leg, bytes, rng);
        let Carriage::Arrives { later_millis, twice } = carriage else { return carriage };
        let (table, traits) = (&self.people.network, self.people.traits(device));
        let (kib_a_sec, off) = match leg {
            Leg::Request | Leg::Copy => (table.up_kib_a_sec, traits.up),
            Leg::Reply | Leg::Artifact => (table.down_kib_a_sec, traits.down),
        };
        let secs = bytes as f64 / (1024.0 * kib_a_sec * (table.spread * off).exp());
        Carriage::Arrives { later_millis: later_millis + table.latency_millis + millis(secs), twice }
    }
}
