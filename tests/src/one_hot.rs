//! A device whose training takes no time and shows in the sum: it moves one number that is its own.
//!
//! What comes out of a round then says who is in it, and how often: the mean of the survivors' updates has `STEP /
//! survivors` in the place of each survivor, twice that for one that counts twice, and nothing in all other places.

use std::path::Path;

use client::{
    Device, DeviceMonitor, Error, Finished, Settings, Trainer, TrainerError, TrainingEnd, TrainingJob,
};
use proto::ids::Digest;
use session::conditions::{Condition, Conditions, Snapshot};
use session::policy::Policy;
use session::update::Update;
use tokio_util::sync::CancellationToken;

/// By how much a device moves its number: less than the clip norm that [`TASK`] asks for.
pub const STEP: f32 = 0.5;

/// What the options of a task are in which the sum shows who is in it: no noise, nothing clipped, and a version's numbers
/// are those of the version before and the mean of its updates.
pub const TASK: [&str; 8] = ["--privacy", "off", "--clip", "1", "--refresh-every", "0", "--local-steps", "1"];

/// Numbers between the places of two devices.
const APART: usize = 3;

/// The trainer of one device.
#[derive(Clone, Debug)]
pub struct OneHot {
    base: Digest,
    layers: Vec<String>,
    number: usize,
}

impl OneHot {
    /// The trainer of the device of this number, for tasks on this base. Fails where the folder holds no base.
    pub fn new(base: &Path, number: usize) -> Result<Self, TrainerError> {
        let base = engine::Base::open(base).map_err(|error| TrainerError::new(error.to_string()))?;
        let modules = base.modules(&engine::Projection::ALL);
        let layers = modules.into_iter().map(|module| module.name).collect();
        Ok(Self { base: base.digest(), layers, number })
    }

    /// The base that it knows.
    pub fn base(&self) -> Digest {
        self.base
    }
}

/// Which of the trained numbers is that device's.
pub fn place(number: usize) -> usize {
    number * APART
}

impl Trainer for OneHot {
    fn bases(&self) -> Vec<Digest> {
        vec![self.base]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        self.layers.clone()
    }

    fn training_bytes(&self, _: Digest, _: usize, _: usize, _: usize) -> u64 {
        0
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        let before = job.work.training().map_err(|error| TrainerError::new(error.to_string()))?;
        let mut after = before.trained.clone();
        let own = after.get_mut(place(self.number));
        *own.ok_or_else(|| TrainerError::new("the adapter has no number for this device".to_owned()))? +=
            STEP;
        let update = Update::between(&before.trained, &after, 1.0, 1);
        update.map(TrainingEnd::Trained).ok_or_else(|| TrainerError::new("no update".to_owned()))
    }
}

/// A machine that nobody uses.
#[derive(Clone, Copy, Debug)]
pub struct Free;

impl DeviceMonitor for Free {
    fn look(&self) -> Snapshot {
        Snapshot::default()
    }
}

/// Takes part whatever the conditions are, without noise and as often as it is asked.
pub fn settings(coordinator: Option<String>) -> Settings {
    let policy = Policy {
        smallest_cohort: 2,
        smallest_report_goal: 2,
        smallest_corrupt_permille: 0,
        smallest_corrupt: 0,
        allow_without_noise: true,
        participations: u32::MAX,
        participations_a_day: u32::MAX,
        ..Policy::default()
    };
    let conditions = Conditions {
        assume: [Condition::Idle, Condition::Unmetered].into(),
        dwell_secs: 0,
        ..Conditions::default()
    };
    Settings { coordinator, policy, conditions, override_conditions: true, once: false }
}

/// Runs the enrolled device of this folder until `stop` is canceled.
pub async fn run(
    folder: &Path,
    trainer: OneHot,
    coordinator: String,
    stop: CancellationToken,
) -> Result<Finished, Error> {
    Device::open(folder)?.run(trainer, Free, settings(Some(coordinator)), stop).await
}

/// Who is in the sum by which a version differs from the one before it, by what the numbers of so many `devices` say, and how
/// often each is. `None` where the numbers say something else than that.
pub fn members(before: &[f32], after: &[f32], survivors: usize, devices: usize) -> Option<Vec<u32>> {
    let share = STEP / count(survivors);
    let mut times = vec![0; devices];
    for (i, (old, new)) in before.iter().zip(after).enumerate() {
        let moved = (new - old) / share;
        let whole = moved.round();
        let is_own = i % APART == 0 && i / APART < devices;
        // What rounding to integers left is far less than a half.
        if (moved - whole).abs() > 0.25 || whole < 0.0 || (whole > 0.0 && !is_own) {
            return None;
        }
        if is_own {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small whole number"
            )]
            let whole = whole as u32;
            times[i / APART] = whole;
        }
    }
    Some(times)
}

fn count(survivors: usize) -> f32 {
    f32::from(u16::try_from(survivors).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_counts_twice_or_not_at_all_shows() {
        let before = [0.25_f32; 9];
        let sum_of = |times: [f32; 3]| {
            let mut after = before;
            for (number, times) in times.into_iter().enumerate() {
                after[place(number)] += times * STEP / 2.0;
            }
            members(&before, &after, 2, 3)
        };
        assert_eq!(sum_of([1.0, 0.0, 1.0]), Some(vec![1, 0, 1]));
        assert_eq!(sum_of([2.0, 0.0, 1.0]), Some(vec![2, 0, 1]));
        // A mask that stayed moves what is nobody's, or moves by no whole number of steps.
        assert_eq!(sum_of([0.5, 0.0, 1.0]), None);
        let mut after = before;
        after[1] += STEP;
        assert_eq!(members(&before, &after, 2, 3), None);
    }
}
