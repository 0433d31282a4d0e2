//! What a run must say of its privacy, in words.

use privacy::accountant::calibrate_noise_multiplier;
use privacy::{Delta, PrivacyMode};
use proto::plan::{Mode, Plan};

use crate::scenario::EPSILON_GOAL;
use crate::summary::VersionSummary;

/// Signal-to-noise below which averaging learns little.
const POOR_SNR: f64 = 0.5;

/// The ratio of a clipped update to the noise of the mean; `None` without noise.
pub(crate) fn snr(plan: &Plan) -> Option<f64> {
    let mechanism = plan.mechanism().ok()?;
    let snr = mechanism.snr(plan.round.cohort as usize);
    (mechanism.params().mode != PrivacyMode::Off && snr.is_finite()).then_some(snr)
}

/// What a reader should know before trusting the numbers.
pub(crate) fn remarks(plan: &Plan, versions: &[VersionSummary]) -> Vec<String> {
    let mut remarks = Vec::new();
    match plan.privacy.mode {
        Mode::Off => remarks.push(
            "privacy is off: a single update cannot be read, but the sum of each round is exact, and there is \
             no bound on what the adapter says of one device"
                .to_owned(),
        ),
        Mode::Central => {
            remarks.push(
                "the coordinator adds the noise: ε holds against whoever sees the versions, not against the \
                 coordinator, which learns the exact sum of each round"
                    .to_owned(),
            );
            remarks.extend(larger_cohort(plan, versions));
        }
        Mode::Distributed => remarks.extend(larger_cohort(plan, versions)),
    }
    if let Some(snr) = snr(plan)
        && snr < POOR_SNR
    {
        remarks.push(format!(
            "the noise is {:.1} times the signal: lower the rank, adapt fewer layers, or gather more devices",
            1.0 / snr
        ));
    }
    remarks
}

/// The cohort at which the same noise on the mean would cost no more than the goal.
fn larger_cohort(plan: &Plan, versions: &[VersionSummary]) -> Option<String> {
    let epsilon = versions.last()?.epsilon?;
    if epsilon <= EPSILON_GOAL {
        return None;
    }
    let participations = u32::try_from(versions.len()).ok()?;
    let delta = Delta::new(plan.privacy.delta).ok()?;
    let mechanism = plan.mechanism().ok()?;
    let needed =
        calibrate_noise_multiplier(EPSILON_GOAL, delta, participations, mechanism.params()).ok()?.get();
    let ratio = needed / plan.privacy.noise_multiplier;
    let cohort = (f64::from(plan.round.cohort) * ratio).ceil();
    Some(format!(
        "ε = {epsilon:.1} is weak: {} devices are too few to hide well in. With the same noise on the average, \
         a cohort of {cohort:.0} brings it under {EPSILON_GOAL}",
        plan.round.cohort
    ))
}
