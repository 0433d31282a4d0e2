//! Windows: its times of input and of the processor, and its batteries.
//!
//! Input is that of the session that the agent runs in: as a service it sees none, and whoever runs it so must not assume
//! that nobody is there. A machine without a battery does not say that it is on external power. Windows does not say
//! here how hot it is, whether a network costs by volume, nor whether it saves power.
#![expect(clippy::disallowed_methods, reason = "IO shell: it reads the clock")]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use session::conditions::{Power, Reading, Snapshot};
use starship_battery::units::ratio::percent;
use starship_battery::{Manager, State};
use tokio::sync::Notify;
use winsafe::{GetLastInputInfo, GetSystemTimes, GetTickCount64, HPROCESS};

use super::Sources;

/// Batteries are asked again after that long.
const POWER_HOLDS: Duration = Duration::from_secs(5);
/// The processor's times are compared after that long.
const FRESH: Duration = Duration::from_secs(1);
/// Between the first two looks at the processor.
const PAUSE: Duration = Duration::from_millis(500);

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Machine(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    power: Option<(Instant, Reading<Power>)>,
    busy: Option<(Instant, Times, Reading<f64>)>,
}

/// Times of the processor, in units of 100 ns.
#[derive(Clone, Copy, Debug)]
struct Times {
    total: u64,
    idle: u64,
    own: u64,
}

impl Machine {
    pub(super) fn start(_: Sources) -> Self {
        Self::default()
    }

    pub(super) fn look(&self) -> Snapshot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let power = match &kept.power {
            Some((at, power)) if at.elapsed() < POWER_HOLDS => power.clone(),
            Some(_) | None => batteries().unwrap_or_else(|error| failed("the batteries", &error)),
        };
        kept.power = Some((Instant::now(), power.clone()));
        if kept.busy.is_none() {
            compare(&mut kept);
            std::thread::sleep(PAUSE);
            compare(&mut kept);
        }
        let busy_percent = match &kept.busy {
            Some((at, _, busy)) if at.elapsed() < FRESH => busy.clone(),
            Some(_) | None => compare(&mut kept),
        };
        Snapshot {
            power,
            idle: idle(),
            metered: Reading::unknown("Windows is not asked whether the network costs by volume"),
            cool_celsius: Reading::unknown("Windows does not say how hot it is"),
            busy_percent,
            pressure_percent: Reading::unknown("Windows does not say what waits for memory"),
            power_saver: Reading::unknown("Windows is not asked whether it saves power"),
            ..Snapshot::default()
        }
    }

    pub(super) fn changes(&self) -> Option<Arc<Notify>> {
        None
    }
}

fn failed<T>(what: &str, error: &dyn fmt::Display) -> Reading<T> {
    Reading::unknown(format!("{what} cannot be read: {error}"))
}

fn batteries() -> Result<Reading<Power>, starship_battery::Error> {
    let (mut least, mut discharging) = (None::<f64>, false);
    for battery in Manager::new()?.batteries()? {
        let battery = battery?;
        let charge = f64::from(battery.state_of_charge().get::<percent>());
        least = Some(least.map_or(charge, |least| least.min(charge)));
        discharging |= matches!(battery.state(), State::Discharging | State::Empty | State::Unknown);
    }
    Ok(match least {
        Some(_) => Reading::of(Power { external: !discharging, battery_percent: least }, "the batteries"),
        None => Reading::unknown("no battery says whether the machine is on external power"),
    })
}

/// The counter of input has 32 bits and starts over every 49 days, together with the clock that it is of.
fn idle() -> Reading<Duration> {
    match GetLastInputInfo() {
        Ok(last) => {
            let now = u32::try_from(GetTickCount64() & u64::from(u32::MAX)).unwrap_or(0);
            let idle = now.wrapping_sub(last.dwTime);
            Reading::of(Duration::from_millis(u64::from(idle)), "GetLastInputInfo")
        }
        Err(error) => failed("the time of the last input", &error),
    }
}

/// How busy others were since this was asked last.
fn compare(kept: &mut Kept) -> Reading<f64> {
    let now = match times() {
        Ok(now) => now,
        Err(error) => return failed("the processor's times", &error),
    };
    let reading = match &kept.busy {
        None => Reading::unknown("the processor's times were read once only"),
        Some((_, before, _)) => {
            let total = now.total.saturating_sub(before.total).max(1);
            let idle = now.idle.saturating_sub(before.idle);
            let own = now.own.saturating_sub(before.own);
            let others = total.saturating_sub(idle).saturating_sub(own);
            Reading::of(100.0 * others as f64 / total as f64, "GetSystemTimes")
        }
    };
    kept.busy = Some((Instant::now(), now, reading.clone()));
    reading
}

fn times() -> winsafe::SysResult<Times> {
    let (idle, kernel, user) = GetSystemTimes()?;
    let (_, _, own_kernel, own_user) = HPROCESS::GetCurrentProcess().GetProcessTimes()?;
    // The kernel's time has the idle one in it.
    Ok(Times {
        total: u64::from(kernel).saturating_add(u64::from(user)),
        idle: u64::from(idle),
        own: u64::from(own_kernel).saturating_add(u64::from(own_user)),
    })
}
