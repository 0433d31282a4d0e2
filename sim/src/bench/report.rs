//! What was measured, as JSON and as a table.

use std::time::Duration;

use proto::counted::counted;
use serde::Serialize;

use super::input::Inputs;
use super::line::{Cost, Costs, Step};
use crate::table::bytes;
use engine::process::peak_bytes;

/// One measured round.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Devices in the cohort.
    pub devices: usize,
    /// Devices in the sum.
    pub survivors: usize,
    /// Numbers in an input.
    pub coordinates: usize,
    /// Bits of a coordinate.
    pub bits: u32,
    /// Threads of the devices, and as many of the coordinator.
    pub threads: usize,
    /// Whether the published sum is the plain sum of the survivors' inputs.
    pub exact: bool,
    /// The steps that were taken, in order: only a large cohort draws a graph.
    pub steps: Vec<StepReport>,
    /// Wall time of all steps. The keys of identities and the check of the sum are not in it.
    pub wall_secs: f64,
    /// Processor time of all steps and both sides, drawing inputs included, where the system says it.
    pub processor_secs: Option<f64>,
    /// Work of all devices, by the clock.
    pub device_total_secs: f64,
    /// Work of the coordinator, by the clock.
    pub coordinator_secs: f64,
    /// Bytes that devices sent; the mean is of devices that submitted.
    pub up: Bytes,
    /// Bytes that devices received; the mean is of devices that submitted.
    pub down: Bytes,
    /// Bytes up of a device that submitted, over 2 bytes a coordinate.
    pub expansion: f64,
    /// The largest resident size of the process, where the system says it.
    pub peak_memory_bytes: Option<u64>,
}

/// One step of a round. Work counts to the step in which it is done; bytes count to the step whose request they
/// belong to, the repetition included that fetches its answer.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: &'static str,
    /// Devices that took it.
    pub devices: usize,
    /// Wall time.
    pub wall_secs: f64,
    /// Work of the devices.
    pub device: DeviceSecs,
    /// Work of the coordinator.
    pub coordinator_secs: f64,
    /// Bytes that devices sent.
    pub up: Bytes,
    /// Bytes that devices received.
    pub down: Bytes,
}

/// Work of the devices, without drawing inputs and without waiting.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DeviceSecs {
    /// Of all devices together.
    pub total_secs: f64,
    /// Of one device.
    pub mean_secs: f64,
    /// Of the slowest device.
    pub max_secs: f64,
}

/// Bytes of messages, without TLS and HTTP.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bytes {
    /// Of one device, rounded down.
    pub mean: u64,
    /// Of all devices together.
    pub total: u64,
}

/// What a report is made from.
pub(super) struct Measured<'a> {
    /// Of every device, those that submitted first.
    pub(super) costs: &'a [Costs],
    pub(super) survivors: usize,
    pub(super) walls: &'a [Duration; Step::ALL.len()],
    pub(super) coordinator: &'a [Duration; Step::ALL.len()],
    pub(super) processor: Option<Duration>,
    pub(super) inputs: Inputs,
    pub(super) threads: usize,
    pub(super) exact: bool,
}

impl Report {
    pub(super) fn new(measured: &Measured) -> Self {
        let Measured { costs, survivors, walls, coordinator, processor, inputs, threads, exact } = *measured;
        let up = overall(costs, survivors, |cost| cost.up);
        Self {
            devices: costs.len(),
            survivors,
            coordinates: inputs.coordinates,
            bits: inputs.bits,
            threads,
            exact,
            steps: Step::ALL
                .map(|step| StepReport::new(step, measured))
                .into_iter()
                .filter(|step| step.devices > 0)
                .collect(),
            wall_secs: walls.iter().sum::<Duration>().as_secs_f64(),
            processor_secs: processor.as_ref().map(Duration::as_secs_f64),
            device_total_secs: costs.iter().flatten().map(|cost| cost.worked).sum::<Duration>().as_secs_f64(),
            coordinator_secs: coordinator.iter().sum::<Duration>().as_secs_f64(),
            up,
            down: overall(costs, survivors, |cost| cost.down),
            expansion: up.mean as f64 / (2 * inputs.coordinates) as f64,
            peak_memory_bytes: peak_bytes(),
        }
    }

    /// The report as an aligned table, with what belongs to no step below it.
    pub fn to_text(&self) -> String {
        let mut text = row(&HEADINGS.map(str::to_owned));
        for step in &self.steps {
            text.push_str(&row(&[
                step.step.to_owned(),
                step.devices.to_string(),
                secs(step.wall_secs),
                secs(step.device.total_secs),
                millis(step.device.mean_secs),
                millis(step.device.max_secs),
                secs(step.coordinator_secs),
                bytes(step.up.mean),
                bytes(step.down.mean),
            ]));
        }
        text.push_str(&row(&[
            "whole".to_owned(),
            self.devices.to_string(),
            secs(self.wall_secs),
            secs(self.device_total_secs),
            String::new(),
            String::new(),
            secs(self.coordinator_secs),
            bytes(self.up.mean),
            bytes(self.down.mean),
        ]));
        text.push_str(&self.statement());
        text
    }

    fn statement(&self) -> String {
        let found = if self.exact { "exact" } else { "WRONG" };
        let unknown = || "unknown".to_owned();
        let processor = self.processor_secs.map_or_else(unknown, |secs| format!("{secs:.2} s"));
        let peak = self.peak_memory_bytes.map_or_else(unknown, bytes);
        format!(
            "{} of {} devices in the sum, {} coordinates of {} bits, {}: the sum is {found}\n\
             a device that submits sends {:.3} times the bytes of 16-bit numbers\n\
             processor time {processor}, peak memory {peak}\n",
            self.survivors,
            self.devices,
            self.coordinates,
            self.bits,
            counted(self.threads, "thread", "threads"),
            self.expansion,
        )
    }
}

impl StepReport {
    fn new(step: Step, measured: &Measured) -> Self {
        let at = step as usize;
        let took: Vec<Cost> =
            measured.costs.iter().map(|costs| costs[at]).filter(|cost| cost.up > 0).collect();
        let total: Duration = took.iter().map(|cost| cost.worked).sum();
        let slowest = took.iter().map(|cost| cost.worked).max().unwrap_or_default();
        let bytes = |of: fn(&Cost) -> u64| {
            let total = took.iter().map(of).sum();
            Bytes { mean: mean(total, took.len()), total }
        };
        Self {
            step: step.name(),
            devices: took.len(),
            wall_secs: measured.walls[at].as_secs_f64(),
            device: DeviceSecs {
                total_secs: total.as_secs_f64(),
                mean_secs: total.as_secs_f64() / took.len().max(1) as f64,
                max_secs: slowest.as_secs_f64(),
            },
            coordinator_secs: measured.coordinator[at].as_secs_f64(),
            up: bytes(|cost| cost.up),
            down: bytes(|cost| cost.down),
        }
    }
}

/// Bytes of all devices, and the mean of those that submitted.
fn overall(costs: &[Costs], survivors: usize, of: fn(&Cost) -> u64) -> Bytes {
    let sum = |costs: &[Costs]| costs.iter().flatten().map(of).sum();
    Bytes { mean: mean(sum(&costs[..survivors]), survivors), total: sum(costs) }
}

fn mean(total: u64, devices: usize) -> u64 {
    total / devices.max(1) as u64
}

const HEADINGS: [&str; 9] = [
    "step",
    "devices",
    "wall s",
    "devices' s",
    "mean ms",
    "max ms",
    "coordinator s",
    "up/device",
    "down/device",
];

/// Wide enough for the heading and for what stands below it.
const WIDTHS: [usize; 9] = [9, 7, 9, 10, 9, 9, 13, 11, 11];

fn row(cells: &[String; 9]) -> String {
    let cells: Vec<_> = cells
        .iter()
        .zip(WIDTHS)
        .enumerate()
        .map(
            |(column, (cell, width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            },
        )
        .collect();
    format!("{}\n", cells.join("  "))
}

fn secs(secs: f64) -> String {
    format!("{secs:.3}")
}

fn millis(secs: f64) -> String {
    format!("{:.2}", 1000.0 * secs)
}
