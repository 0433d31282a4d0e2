//! What came of a population: numbers by version, as text and as JSON. Nothing that is written depends on the clock.

use engine::process::peak_bytes;
use proto::counted::counted;
use serde::Serialize;

use super::clock::Stopwatch;
use super::objective::Objective;
use super::scenario::Scenario;
use crate::table::bytes;
use crate::world::{Counts, World};

/// What came of a population.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it was of.
    pub scenario: Scenario,
    /// Enrolled devices.
    pub devices: usize,
    /// By version.
    pub versions: Vec<VersionReport>,
    /// How often devices took part.
    pub fairness: Fairness,
    /// Trainings for each contribution in a sum.
    pub trainings_a_use: Option<f64>,
    /// ε of the device that took part most often; none where there is no bound.
    pub epsilon: Option<f64>,
    /// Whether it was stopped before its last version.
    pub interrupted: bool,
    /// Wall seconds.
    #[serde(skip)]
    pub secs: f64,
    /// The largest resident size of the process so far, where the system says it.
    #[serde(skip)]
    pub peak_memory_bytes: Option<u64>,
    #[serde(skip)]
    watch: Stopwatch,
}

/// What came of one version.
#[derive(Clone, Debug, Serialize)]
pub struct VersionReport {
    /// Its number.
    pub version: u32,
    /// When it was made, in simulated seconds since the beginning.
    pub at_secs: f64,
    /// The most devices that were there at a time since the version before.
    pub there: usize,
    /// Devices of its round.
    pub cohort: u32,
    /// Devices in its sum.
    pub survivors: u32,
    /// Trainings since the version before.
    pub trainings: usize,
    /// Check-ins since the version before.
    pub check_ins: u64,
    /// Rounds since the version before that ended without one.
    pub aborted: u32,
    /// Bytes that devices sent since the version before, for each in the sum.
    pub up_bytes: u64,
    /// Bytes that devices received since the version before, for each in the sum.
    pub down_bytes: u64,
    /// Where the parameters are, as the objective measures it.
    pub measure: Option<f64>,
    /// Wall seconds.
    #[serde(skip)]
    pub secs: f64,
}

/// How often devices took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fairness {
    /// Devices that never did.
    pub never: usize,
    /// The median device.
    pub median: u32,
    /// The device that did most often.
    pub most: u32,
}

const HEADINGS: [&str; 11] = [
    "version",
    "hours",
    "there",
    "cohort",
    "in sum",
    "trained",
    "check-ins",
    "aborted",
    "up each",
    "measure",
    "seconds",
];
const WIDTH: usize = 9;

impl Report {
    pub(super) fn new(scenario: &Scenario, devices: usize) -> Self {
        Self {
            scenario: scenario.clone(),
            devices,
            versions: Vec::new(),
            fairness: Fairness::default(),
            trainings_a_use: None,
            epsilon: None,
            interrupted: false,
            secs: 0.0,
            peak_memory_bytes: None,
            watch: Stopwatch::start(),
        }
    }

    /// Adds the newest version of the world.
    pub(super) fn adds(&mut self, world: &World, objective: &Objective) {
        let Some((seen, earlier)) = world.seen().split_last() else { return };
        let before = earlier.last().map_or_else(Counts::default, |seen| seen.counts);
        let sum = |of: fn(&crate::world::Traffic) -> u64| seen.traffic.iter().map(of).sum::<u64>();
        let survivors = u64::from(seen.status.survivors).max(1);
        let secs = self.watch.secs();
        self.versions.push(VersionReport {
            version: seen.status.version,
            at_secs: seen.counts.millis as f64 / 1000.0,
            there: seen.counts.most_there,
            cohort: seen.status.cohort,
            survivors: seen.status.survivors,
            trainings: seen.counts.trainings - before.trainings,
            check_ins: seen.counts.check_ins - before.check_ins,
            aborted: seen.counts.aborted - before.aborted,
            up_bytes: sum(|traffic| traffic.up) / survivors,
            down_bytes: sum(|traffic| traffic.down) / survivors,
            measure: objective.measure(world.adapter()),
            secs: secs - self.secs,
        });
        self.secs = secs;
    }

    /// Adds what is known at the end.
    pub(super) fn ends(&mut self, world: &World, interrupted: bool) {
        let mut took_part: Vec<u32> = (0..self.devices).map(|device| world.participations(device)).collect();
        took_part.sort_unstable();
        self.fairness = Fairness {
            never: took_part.iter().filter(|times| **times == 0).count(),
            median: took_part.get(self.devices / 2).copied().unwrap_or(0),
            most: took_part.last().copied().unwrap_or(0),
        };
        let used: u32 = self.versions.iter().map(|version| version.survivors).sum();
        let trained: usize = self.versions.iter().map(|version| version.trainings).sum();
        self.trainings_a_use = (used > 0).then(|| trained as f64 / f64::from(used));
        let epsilon = world.seen().last().map(|seen| seen.status.epsilon);
        self.epsilon = epsilon.filter(|epsilon| epsilon.is_finite());
        let done = u32::try_from(self.versions.len()).unwrap_or(u32::MAX);
        self.interrupted = interrupted && done < self.scenario.task.versions;
        self.secs = self.watch.secs();
        self.peak_memory_bytes = peak_bytes();
    }

    /// The headings of [`VersionReport::row`].
    pub fn headings() -> String {
        row(&HEADINGS.map(str::to_owned))
    }

    /// What belongs to no version.
    pub fn statement(&self) -> String {
        let Fairness { never, median, most } = self.fairness;
        let used = self.trainings_a_use.map_or_else(String::new, |times| {
            format!("{times:.2} trainings for each contribution in a sum\n")
        });
        let epsilon = self.epsilon.map_or_else(
            || "no ε is bounded".to_owned(),
            |epsilon| format!("ε = {epsilon:.2} of the device that took part most often"),
        );
        let memory = self.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
        let each = self.secs / self.versions.len().max(1) as f64;
        format!(
            "{}: {} never took part, the median {}, the most often {}\n{used}{epsilon}, δ = {:e}\n{each:.2} s a version, \
             peak memory {memory}\n",
            counted(self.devices, "device", "devices"),
            never,
            counted(median, "time", "times"),
            counted(most, "time", "times"),
            self.scenario.privacy.delta,
        )
    }
}

impl VersionReport {
    /// One line of a table.
    pub fn row(&self) -> String {
        row(&[
            self.version.to_string(),
            format!("{:.2}", self.at_secs / 3600.0),
            self.there.to_string(),
            self.cohort.to_string(),
            self.survivors.to_string(),
            self.trainings.to_string(),
            self.check_ins.to_string(),
            self.aborted.to_string(),
            bytes(self.up_bytes),
            self.measure.map_or_else(|| "-".to_owned(), |measure| format!("{measure:.5}")),
            format!("{:.2}", self.secs),
        ])
    }
}

fn row(cells: &[String; HEADINGS.len()]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>WIDTH$}")).collect();
    cells.join(" ")
}
