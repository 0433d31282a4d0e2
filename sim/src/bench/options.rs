//! What is measured, and which rounds there can be.

use std::path::PathBuf;

use aggregation::{MAX_COHORT, corrupt_devices, quorum};

/// Most coordinates of an input.
const MOST_COORDINATES: usize = 1 << 24;

/// Thousandths of the cohort that may be corrupt, as in the plans that come with the program.
pub(super) const CORRUPT_PERMILLE: u16 = 50;

/// Thousandths of the cohort that may vanish, as in those plans. A large cohort's graph is sized by it.
const MISSING_PERMILLE: u16 = 300;

/// A round to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Devices in the cohort
    #[arg(long)]
    pub devices: usize,
    /// Numbers in each device's input
    #[arg(long)]
    pub coordinates: usize,
    /// Share of the devices that vanish after they shared their seeds, 0 to below 1
    #[arg(long, default_value_t = 0.0)]
    pub missing: f64,
    /// Bits of a coordinate
    #[arg(long, default_value_t = 20)]
    pub bits: u32,
    /// Threads of the devices, and as many of the coordinator; all cores where left out
    #[arg(long)]
    pub threads: Option<usize>,
    /// Folder in which unfinished inputs wait, as in a coordinator; in memory where left out
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
}

/// Options that no round has.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// A cohort has fewer or more devices.
    #[error("--devices is {0}, a cohort has 1 to {MAX_COHORT}")]
    Devices(usize),
    /// An input is shorter or longer.
    #[error("--coordinates is {0}, expected 1 to {MOST_COORDINATES}")]
    Coordinates(usize),
    /// It is no share of the devices.
    #[error("--missing is {0}, expected a share of the devices from 0 to below 1")]
    Missing(f64),
    /// The sum of the devices that are left could not be opened.
    #[error(
        "--missing {missing} leaves {left} of {devices} devices, a sum over them is opened with at least {need}"
    )]
    FewLeft {
        /// The share that was asked for.
        missing: f64,
        /// The cohort.
        devices: usize,
        /// Who does not vanish.
        left: usize,
        /// The quorum, which is the report goal here.
        need: usize,
    },
    /// The ring would not be one that is used here.
    #[error("--bits is {0}, expected 1 to 32")]
    Bits(u32),
    /// Nobody would work.
    #[error("--threads is 0, expected at least 1")]
    Threads,
}

impl Options {
    /// The report goal of the round. Fails if there is no such round.
    pub(super) fn report_goal(&self) -> Result<usize, OptionsError> {
        let devices = self.devices;
        if !(1..=MAX_COHORT).contains(&devices) {
            return Err(OptionsError::Devices(devices));
        }
        if !(1..=MOST_COORDINATES).contains(&self.coordinates) {
            return Err(OptionsError::Coordinates(self.coordinates));
        }
        if !(0.0..1.0).contains(&self.missing) {
            return Err(OptionsError::Missing(self.missing));
        }
        if !(1..=32).contains(&self.bits) {
            return Err(OptionsError::Bits(self.bits));
        }
        if self.threads == Some(0) {
            return Err(OptionsError::Threads);
        }
        // A quorum is never below the threshold.
        let need = quorum(devices, corrupt_devices(devices, CORRUPT_PERMILLE));
        let left = devices - self.vanishing();
        if left < need {
            return Err(OptionsError::FewLeft { missing: self.missing, devices, left, need });
        }
        Ok(need)
    }

    /// For how many thousandths of the cohort that vanish the round is planned: as a plan says, or more where more
    /// vanish.
    pub(super) fn planned_missing_permille(&self) -> u16 {
        let vanishing = (1000 * self.vanishing()).div_ceil(self.devices.max(1));
        u16::try_from(vanishing).map_or(MISSING_PERMILLE, |vanishing| vanishing.max(MISSING_PERMILLE))
    }

    /// How many devices vanish: the share of the cohort, to the nearest device.
    pub(super) fn vanishing(&self) -> usize {
        let share = self.missing * self.devices as f64;
        (0..self.devices).filter(|device| *device as f64 + 0.5 <= share).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { devices: 10, coordinates: 5, missing: 0.3, bits: 20, threads: None, spool: None }
    }

    fn refused(change: fn(&mut Options)) -> String {
        let mut changed = options();
        change(&mut changed);
        changed.report_goal().unwrap_err().to_string()
    }

    #[test]
    fn values_that_no_round_has_are_named() {
        assert!(refused(|o| o.devices = 0).starts_with("--devices is 0"));
        assert!(refused(|o| o.devices = MAX_COHORT + 1).contains(&(MAX_COHORT + 1).to_string()));
        assert!(refused(|o| o.coordinates = 0).starts_with("--coordinates is 0"));
        assert!(refused(|o| o.coordinates = (1 << 24) + 1).contains("16777217"));
        assert!(refused(|o| o.missing = 1.0).starts_with("--missing is 1"));
        assert!(refused(|o| o.missing = -0.1).starts_with("--missing is -0.1"));
        assert!(refused(|o| o.missing = f64::NAN).starts_with("--missing is NaN"));
        assert!(refused(|o| o.bits = 0).starts_with("--bits is 0"));
        assert!(refused(|o| o.bits = 33).starts_with("--bits is 33"));
        assert!(refused(|o| o.threads = Some(0)).starts_with("--threads is 0"));
    }

    #[test]
    fn too_few_left_are_named_with_how_many_it_takes() {
        assert_eq!(options().report_goal(), Ok(6));
        let error = refused(|o| o.missing = 0.5);
        assert!(error.contains("0.5") && error.contains("5 of 10") && error.contains("least 6"), "{error}");
    }

    #[test]
    fn the_share_is_rounded_to_the_nearest_device() {
        let vanishing = |missing| Options { missing, ..options() }.vanishing();
        assert_eq!([0.0, 0.04, 0.05, 0.3, 0.99].map(vanishing), [0, 0, 1, 3, 10]);
    }
}
