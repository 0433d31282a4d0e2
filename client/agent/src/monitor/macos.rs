//! macOS: what its own tools print.
//!
//! A tool is a process, so each is asked no more often than its answer is worth; input is noticed within five seconds.
//! macOS does not say without special rights how hot it is, nor whether a network costs by volume.
#![expect(clippy::disallowed_methods, reason = "IO shell: it reads the clock")]

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use session::conditions::{Power, Reading, Snapshot};
use tokio::sync::Notify;

use super::Sources;
use super::apple_tools::{busy_percent, idle, low_power, power};

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Machine(Mutex<Kept>);

/// What was asked last.
#[derive(Debug, Default)]
struct Kept {
    power: Option<(Instant, Reading<Power>)>,
    idle: Option<(Instant, Reading<Duration>)>,
    busy: Option<(Instant, Reading<f64>)>,
    saver: Option<(Instant, Reading<bool>)>,
}

impl Machine {
    pub(super) fn start(_: Sources) -> Self {
        Self::default()
    }

    pub(super) fn look(&self) -> Snapshot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read_power = || ask("pmset", &["-g", "batt"], power);
        let read_idle = || ask("ioreg", &["-c", "IOHIDSystem", "-d", "4"], idle);
        let read_saver = || ask("pmset", &["-g"], |text| Some(low_power(text)));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = |text: &str| busy_percent(text, std::process::id(), processors);
        let read_busy = || ask("ps", &["-A", "-o", "pid=,ppid=,pcpu="], busy);
        Snapshot {
            power: kept_for(&mut kept.power, Duration::from_secs(10), read_power),
            idle: kept_for(&mut kept.idle, Duration::from_secs(5), read_idle),
            metered: Reading::unknown("macOS does not say whether the network costs by volume"),
            cool_celsius: Reading::unknown("macOS does not say how hot it is"),
            busy_percent: kept_for(&mut kept.busy, Duration::from_secs(10), read_busy),
            pressure_percent: Reading::unknown("macOS does not say what waits for memory"),
            power_saver: kept_for(&mut kept.saver, Duration::from_secs(60), read_saver),
            ..Snapshot::default()
        }
    }

    pub(super) fn changes(&self) -> Option<Arc<Notify>> {
        None
    }
}

/// What was read less than `span` ago, or what is read now.
fn kept_for<T: Clone>(
    kept: &mut Option<(Instant, Reading<T>)>,
    span: Duration,
    read: impl FnOnce() -> Reading<T>,
) -> Reading<T> {
    if let Some((at, reading)) = kept
        && at.elapsed() < span
    {
        return reading.clone();
    }
    let reading = read();
    *kept = Some((Instant::now(), reading.clone()));
    reading
}

fn ask<T>(tool: &'static str, arguments: &[&str], read: impl FnOnce(&str) -> Option<T>) -> Reading<T> {
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let text = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return Reading::unknown(format!("{tool} cannot be run: {error}")),
    };
    read(&text).map_or_else(
        || Reading::unknown(format!("{tool} prints something else than expected")),
        |value| Reading::of(value, tool),
    )
}
