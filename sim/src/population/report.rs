//! What came of a population: numbers by version, by hour and by device. Nothing that is written depends on the clock.

use std::collections::BTreeMap;

use engine::process::peak_bytes;
use proto::counted::counted;
use proto::ids::Digest;
use proto::plan::Plan;
use serde::{Deserialize, Serialize};

use super::clock::Stopwatch;
use super::learner::Text;
use super::people::People;
use super::scenario::Scenario;
use crate::table::bytes;
use crate::world::{Counts, Funnel, Traffic, World};

/// What came of a population. It stands in `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the program.
    pub program: String,
    /// What it was of.
    pub scenario: Scenario,
    /// The digest of the base; none where formulas were trained.
    pub base: Option<Digest>,
    /// The digest of the devices' text as the base's tokens; none where formulas were trained.
    pub data: Option<Digest>,
    /// Enrolled devices.
    pub devices: usize,
    /// Fewest devices of which a version is made.
    pub report_goal: u32,
    /// Numbers of an update.
    pub coordinates: usize,
    /// The norm of the mean of updates that all point the same way over that of its noise, at the report goal; none without noise.
    pub snr: Option<f64>,
    /// Where the parameters are before the first version, as the objective measures it.
    pub start: Option<f64>,
    /// By version.
    pub versions: Vec<VersionReport>,
    /// By hour of the simulated clock's day.
    pub hours: Vec<HourReport>,
    /// How often devices took part.
    pub fairness: Fairness,
    /// Trainings by how many versions had come, when they ended, since the one from which they began.
    pub trainings_behind: Vec<(u32, usize)>,
    /// Devices by how many versions behind the last one that was made the one is which they hold at the end; none holds none.
    pub devices_behind: Vec<(Option<u32>, usize)>,
    /// The losses of the first devices.
    pub losses: Losses,
    /// Trainings for each contribution in a sum.
    pub trainings_a_use: Option<f64>,
    /// ε of the device that took part most often; none where there is no bound.
    pub epsilon: Option<f64>,
    /// Whether it was stopped before its last version.
    pub interrupted: bool,
    /// Why it came to no end, where it did not.
    pub ended: Option<String>,
    /// Wall seconds.
    #[serde(skip)]
    pub secs: f64,
    /// The largest resident size of the process so far, where the system says it.
    #[serde(skip)]
    pub peak_memory_bytes: Option<u64>,
}

/// What came of one version. Devices count once at each of their stages, however often they were there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Its number.
    pub version: u32,
    /// When it was made, in simulated seconds since the beginning.
    pub at_secs: f64,
    /// The most devices that were there at a time since the version before.
    pub there: usize,
    /// Devices that were there at some time since the version before.
    pub available: usize,
    /// Of them: that were given the version before to train from.
    pub assigned: usize,
    /// That trained from it, to the end.
    pub trained: usize,
    /// That were in a round, those that ended without a version too.
    pub joined: usize,
    /// That sent all of their masked update.
    pub submitted: usize,
    /// Trainings that ended when the version from which they began was replaced already.
    pub late: usize,
    /// Devices of its round.
    pub cohort: u32,
    /// Devices in its sum.
    pub survivors: u32,
    /// Devices of its round that are not in its sum.
    pub missing: u32,
    /// Trainings that began since the version before.
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
    /// ε so far of the device that took part most often; none where there is no bound.
    pub epsilon: Option<f64>,
    /// The norm of the mean update above what its noise explains, over the norm of that noise; none without noise.
    pub snr: Option<f64>,
    /// Wall seconds.
    #[serde(skip)]
    pub secs: f64,
}

/// An hour of the simulated clock's day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HourReport {
    /// From 0 to 23.
    pub hour: u8,
    /// Devices that are there in the mean; none where the hour did not come.
    pub there: Option<f64>,
    /// Check-ins.
    pub check_ins: u64,
    /// Versions that were made.
    pub versions: u32,
}

/// How often devices took part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fairness {
    /// Devices that never did.
    pub never: usize,
    /// The median device.
    pub median: u32,
    /// The device that did most often.
    pub most: u32,
    /// How often, and how many devices so often.
    pub times: Vec<(u32, usize)>,
}

/// The losses of the first devices, each on its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Before the first version.
    pub before: Vec<f64>,
    /// Of the last version.
    pub after: Vec<f64>,
}

/// What came of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Its place.
    pub device: usize,
    /// How often the coordinator counted it.
    pub took_part: u32,
    /// Trainings that came to their end.
    pub trained: u32,
    /// Bytes that it sent.
    pub up_bytes: u64,
    /// Bytes that it received.
    pub down_bytes: u64,
    /// The version that it holds at the end.
    pub holds: Option<u32>,
    /// Its loss before the first version, where it is measured.
    pub loss_before: Option<f64>,
    /// Its loss of the last version, where it is measured.
    pub loss_after: Option<f64>,
}

/// Digests of what is read beside the scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    base: Option<Digest>,
    data: Option<Digest>,
}

impl Sources {
    pub(super) fn of(scenario: &Scenario, people: &People, text: Option<&Text>) -> Self {
        Self {
            base: text.map(|text| text.base.digest()),
            data: text.map(|text| text.digest(people.devices(), scenario.model.sequence_len)),
        }
    }
}

/// The losses of the first devices, and what of all a learning curve shows.
type Measured = (Vec<f64>, Option<f64>);

/// Writes a report as its run goes on.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    report: Report,
    people: &'a People,
    plan: &'a Plan,
    /// The parameters of the newest version.
    adapter: Vec<f32>,
    watch: Stopwatch,
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

impl<'a> Reporter<'a> {
    pub(super) fn new(
        scenario: &Scenario,
        people: &'a People,
        plan: &'a Plan,
        sources: Sources,
        (before, start): Measured,
    ) -> Self {
        let mechanism = plan.mechanism().ok();
        let goal = usize::try_from(plan.round.report_goal).unwrap_or(usize::MAX);
        let sums = f64::from(plan.round.min_rounds).sqrt();
        let snr =
            mechanism.as_ref().map(|mechanism| mechanism.snr(goal) * sums).filter(|snr| snr.is_finite());
        let report = Report {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.clone(),
            base: sources.base,
            data: sources.data,
            devices: people.devices(),
            report_goal: plan.round.report_goal,
            coordinates: mechanism.map_or(0, |mechanism| mechanism.params().coordinates),
            snr,
            start,
            versions: Vec::new(),
            hours: Vec::new(),
            fairness: Fairness::default(),
            trainings_behind: Vec::new(),
            devices_behind: Vec::new(),
            losses: Losses { after: before.clone(), before },
            trainings_a_use: None,
            epsilon: None,
            interrupted: false,
            ended: None,
            secs: 0.0,
            peak_memory_bytes: None,
        };
        let adapter = plan.adapter.initial(&plan.initial_seed, None);
        Self { report, people, plan, adapter, watch: Stopwatch::start() }
    }

    /// The newest version.
    pub(super) fn newest(&self) -> Option<&VersionReport> {
        self.report.versions.last()
    }

    /// Adds the newest version of the world.
    pub(super) fn adds(&mut self, world: &World, (losses, measure): Measured) {
        let Some((seen, earlier)) = world.seen().split_last() else { return };
        let before = earlier.last().map_or_else(Counts::default, |seen| seen.counts);
        let sum = |of: fn(&Traffic) -> u64| seen.traffic.iter().map(of).sum::<u64>();
        let survivors = u64::from(seen.status.survivors).max(1);
        let Funnel { available, assigned, trained, joined, submitted, late } = seen.funnel;
        let secs = self.watch.secs();
        let snr = self.snr(world, seen.status.survivors, seen.status.rounds.max(1));
        self.report.losses.after = losses;
        self.report.versions.push(VersionReport {
            version: seen.status.version,
            at_secs: seen.counts.millis as f64 / 1000.0,
            there: seen.counts.most_there,
            available,
            assigned,
            trained,
            joined,
            submitted,
            late,
            cohort: seen.status.cohort,
            survivors: seen.status.survivors,
            missing: seen.status.cohort.saturating_sub(seen.status.survivors),
            trainings: seen.counts.trainings - before.trainings,
            check_ins: seen.counts.check_ins - before.check_ins,
            aborted: seen.counts.aborted - before.aborted,
            up_bytes: sum(|traffic| traffic.up) / survivors,
            down_bytes: sum(|traffic| traffic.down) / survivors,
            measure,
            epsilon: Some(seen.status.epsilon).filter(|epsilon| epsilon.is_finite()),
            snr,
            secs: secs - self.report.secs,
        });
        self.report.secs = secs;
        self.adapter = world.adapter().to_vec();
    }

    /// What of the newest mean update its noise does not explain, over that noise. The planned noise of a mean has a norm of
    /// the clip norm over the mechanism's signal to noise, spread over its padded length.
    fn snr(&self, world: &World, survivors: u32, rounds: u32) -> Option<f64> {
        let mechanism = self.plan.mechanism().ok()?;
        // The sums of a version have noise of their own each, of which the mean has the root of their number less.
        let best =
            mechanism.snr(usize::try_from(survivors.div_ceil(rounds)).ok()?) * f64::from(rounds).sqrt();
        if !best.is_finite() {
            return None;
        }
        let part = self.adapter.len() as f64 / mechanism.padded_len() as f64;
        let noise = self.plan.privacy.clip_norm / best * part.min(1.0).sqrt();
        let squares: f64 =
            world.adapter().iter().zip(&self.adapter).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        Some((squares - noise * noise).max(0.0).sqrt() / noise)
    }

    /// Adds what is known at the end.
    pub(super) fn ends(
        mut self,
        world: &World,
        trained: &[u32],
        (stopped, ended): (bool, Option<String>),
    ) -> (Report, Vec<DeviceReport>) {
        let report = &mut self.report;
        let mut took_part: Vec<u32> =
            (0..report.devices).map(|device| world.participations(device)).collect();
        let losses = (&report.losses.before, &report.losses.after);
        let one = |(device, took_part): (usize, &u32)| DeviceReport {
            device,
            took_part: *took_part,
            trained: trained.get(device).copied().unwrap_or(0),
            up_bytes: world.nodes[device].traffic.up,
            down_bytes: world.nodes[device].traffic.down,
            holds: world.holds(device),
            loss_before: losses.0.get(device).copied(),
            loss_after: losses.1.get(device).copied(),
        };
        let devices: Vec<DeviceReport> = took_part.iter().enumerate().map(one).collect();
        let newest = report.versions.last().map_or(0, |version| version.version);
        let behind = devices.iter().map(|device| device.holds.map(|holds| newest.saturating_sub(holds)));
        report.devices_behind = counts(behind);
        report.trainings_behind = world.behind().iter().map(|(behind, count)| (*behind, *count)).collect();
        report.fairness.times = counts(took_part.iter().copied());
        took_part.sort_unstable();
        report.fairness.never = took_part.iter().filter(|times| **times == 0).count();
        report.fairness.median = took_part.get(report.devices / 2).copied().unwrap_or(0);
        report.fairness.most = took_part.last().copied().unwrap_or(0);
        report.hours = hours(world, self.people, &report.versions);
        let used: u32 = report.versions.iter().map(|version| version.survivors).sum();
        let trainings: usize = report.versions.iter().map(|version| version.trainings).sum();
        report.trainings_a_use = (used > 0).then(|| trainings as f64 / f64::from(used));
        report.epsilon = report.versions.last().and_then(|version| version.epsilon);
        let done = u32::try_from(report.versions.len()).unwrap_or(u32::MAX);
        report.interrupted = stopped && done < report.scenario.task.versions;
        report.ended = ended;
        report.secs = self.watch.secs();
        report.peak_memory_bytes = peak_bytes();
        (self.report, devices)
    }
}

/// How often each is there.
fn counts<T: Ord>(all: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts.into_iter().collect()
}

/// What was in each hour of the day, up to the last version.
fn hours(world: &World, people: &People, versions: &[VersionReport]) -> Vec<HourReport> {
    let until_millis = world.seen().last().map_or(0, |seen| seen.counts.millis);
    let there = people.presence().by_hour(people.devices(), until_millis);
    // The clock begins at noon.
    let hour_of = |minute: u64| (minute / 60 + 12) % 24;
    let mut check_ins = [0_u64; 24];
    let until = world.check_ins().range(..=until_millis / 60_000);
    for (minute, count) in until {
        check_ins[usize::try_from(hour_of(*minute)).unwrap_or(0)] += u64::from(*count);
    }
    let mut made = [0_u32; 24];
    for seen in &world.seen()[..versions.len().min(world.seen().len())] {
        made[usize::try_from(hour_of(seen.counts.millis / 60_000)).unwrap_or(0)] += 1;
    }
    (0..24_u8)
        .zip(there)
        .zip(check_ins.into_iter().zip(made))
        .map(|((hour, there), (check_ins, versions))| HourReport { hour, there, check_ins, versions })
        .collect()
}

impl Report {
    /// The headings of [`VersionReport::row`].
    pub fn headings() -> String {
        row(&HEADINGS.map(str::to_owned))
    }

    /// What [`VersionReport::measure`] is.
    pub fn measures(&self) -> Option<&'static str> {
        self.scenario.task.objective.measures()
    }

    /// What belongs to no version.
    pub fn statement(&self) -> String {
        let Fairness { never, median, most, .. } = self.fairness;
        let used = self.trainings_a_use.map_or_else(String::new, |times| {
            format!("{times:.2} trainings for each contribution in a sum\n")
        });
        let epsilon = self.epsilon.map_or_else(
            || "no ε is bounded".to_owned(),
            |epsilon| format!("ε = {epsilon:.2} of the device that took part most often"),
        );
        let memory = self.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
        let each = self.secs / self.versions.len().max(1) as f64;
        let measure = match (self.measures(), self.start, self.versions.last().and_then(|last| last.measure))
        {
            (Some(what), Some(start), Some(end)) => {
                format!("{what}: {start:.5} before, {end:.5} at the end\n")
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => String::new(),
        };
        format!(
            "{}: {} never took part, the median {}, the most often {}\n{used}{measure}{epsilon}, δ = {:e}\n{each:.2} s a \
             version, peak memory {memory}\n",
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
