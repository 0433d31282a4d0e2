//! What a plan's noise leaves of what its devices learn, and what would leave more of it.
//!
//! The measure is the *signal to noise* of a version: the norm of the mean of clipped updates that all point the same way,
//! which is the most that a round can learn, over the norm of the noise in that mean
//! ([`privacy::Mechanism::snr`]). The noise of V versions adds up to √V times that of one, what is learned to V times at
//! most: at [`LEAST_SNR`] and ten versions they are alike. Real updates do not all point the same way, and later versions
//! teach less than the first, so that below it a model may well get worse whatever its devices wrote.

use privacy::MechanismParams;
use privacy::accountant::{CalibrateError, calibrate_noise_multiplier};
use proto::adapter::{AdapterSpec, Method};
use proto::metrics::{Metric, MetricName};
use proto::plan::{Mode, Plan, PlanError, RefreshPlan, RoundPlan};

/// Below this, the noise of ten versions is more than all that they can learn at best.
pub const LEAST_SNR: f64 = 0.3;

/// From this on, noise is no worry.
pub const GOOD_SNR: f64 = 0.5;

/// Fraction of devices that may collude with the coordinator, in thousandths.
const CORRUPT_PERMILLE: u16 = 50;

/// The smallest cohort that devices join by their own default.
const SMALLEST_USUAL_COHORT: u32 = 10;

/// A gain that a task's metrics should leave to be told, in nats a token.
const TELLING_GAIN: f64 = 0.05;

/// Metrics beside the gain, the most telling first.
const FURTHER_METRICS: [MetricName; 4] =
    [MetricName::BaseGain, MetricName::Loss, MetricName::Clipped, MetricName::Examples];

/// The projections that are left where fewer are to be trained: those of the first paper on LoRA.
const FEW_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// What a plan is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Trained parameters.
    pub coordinates: usize,
    /// Norm of the mean update over that of its noise, at the report goal of the fewest rounds; infinite without noise.
    pub snr: f64,
    /// ε of a device that takes part in every version it may; infinite without noise.
    pub epsilon: f64,
}

/// A change of a plan, in the words of the command line, and what the plan is worth with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The options.
    pub options: String,
    /// With them.
    pub worth: Worth,
}

/// Thousandths of a cohort that may be corrupt where nobody says otherwise: in one that devices join by their own default at
/// least one device.
pub fn usual_corrupt_permille(cohort: u32) -> u16 {
    let one = u16::try_from(1000_u32.div_ceil(cohort.max(1))).unwrap_or(CORRUPT_PERMILLE);
    if cohort < SMALLEST_USUAL_COHORT { CORRUPT_PERMILLE } else { one.max(CORRUPT_PERMILLE) }
}

/// What a plan is worth. Fails where its mechanism cannot be.
pub fn worth(plan: &Plan) -> Result<Worth, PlanError> {
    let mechanism = plan.mechanism()?;
    let participations = plan.round.versions.min(plan.privacy.participations);
    Ok(Worth {
        coordinates: mechanism.params().coordinates,
        // The noise of K sums is √K times that of one, and what they teach K times.
        snr: mechanism.snr(plan.round.report_goal as usize) * f64::from(plan.round.min_rounds).sqrt(),
        epsilon: mechanism.epsilon(participations, plan.delta()?).epsilon,
    })
}

/// The same plan with the least noise that keeps ε of a device that takes part in every version it may at or below this.
pub fn with_epsilon(plan: Plan, epsilon: f64) -> Result<Plan, WorthError> {
    let participations = plan.round.versions.min(plan.privacy.participations);
    let delta = plan.delta()?;
    let mut plan = plan;
    // The scale that suits this noise; the noise that suits this scale.
    for _ in 0..2 {
        plan = plan.with_recommended_scale()?;
        let params: MechanismParams = plan.mechanism_params()?;
        let noise = calibrate_noise_multiplier(epsilon, delta, participations, &params)?;
        plan.privacy.noise_multiplier = noise.get();
    }
    Ok(plan)
}

/// The same plan with the metrics that its noise leaves something of: the gain, which says whether a version is one to build
/// upon, and after it each further one with which the gain can still be told to a twentieth of a nat. One that the clip norm
/// adapts by is always among them.
pub fn with_usual_metrics(plan: &Plan) -> Result<Plan, PlanError> {
    let metrics = |names: &[MetricName]| names.iter().map(|name| Metric::of(*name, &plan.training)).collect();
    let mut names = vec![MetricName::Gain];
    if plan.privacy.adaptive_clip.is_some() {
        names.push(MetricName::Clipped);
    }
    let mut usual = plan.clone();
    usual.privacy.metrics = metrics(&names);
    for name in FURTHER_METRICS {
        if names.contains(&name) {
            continue;
        }
        let mut more = usual.clone();
        more.privacy.metrics = metrics(&[names.as_slice(), &[name]].concat());
        if gain_deviation(&more)?.is_some_and(|deviation| deviation <= TELLING_GAIN) {
            names.push(name);
            usual = more;
        }
    }
    Ok(usual)
}

/// The standard deviation of the noise in the mean gain of a version whose fewest rounds just reach their report goal, in
/// nats a token; 0 without noise. `None` where the plan measures none.
pub fn gain_deviation(plan: &Plan) -> Result<Option<f64>, PlanError> {
    let Some(gain) = plan.privacy.metrics.iter().find(|metric| metric.name == MetricName::Gain) else {
        return Ok(None);
    };
    let of_one = plan.mechanism()?.metric_deviation(plan.round.report_goal as usize);
    Ok(Some(of_one / f64::from(plan.round.min_rounds).sqrt() * gain.range()))
}

/// The same plan with an adapter of another kind and rank, scaled by twice the rank over the rank as before.
pub fn with_adapter(plan: &Plan, method: Method, rank: u32) -> Plan {
    let adapter = AdapterSpec {
        method,
        rank,
        alpha: plan.adapter.alpha / plan.adapter.rank.max(1) as f32 * rank as f32,
        ..plan.adapter.clone()
    };
    let every = plan.refresh.filter(|_| method == Method::FrozenA).map(|refresh| refresh.every);
    Plan { refresh: every.map(|every| RefreshPlan::every(every, &adapter)), adapter, ..plan.clone() }
}

/// What would raise a plan's signal to noise to at least this, one change at a time; what does not reach it is left out.
pub fn changes(plan: &Plan, least: f64) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut try_out = |options: String, changed: Option<Plan>| {
        let changed = changed.and_then(|plan| plan.with_recommended_scale().ok());
        if let Some(worth) = changed.filter(|plan| plan.check().is_ok()).and_then(|plan| worth(&plan).ok())
            && worth.snr >= least
        {
            changes.push(Change { options, worth });
        }
    };
    let Ok(now) = worth(plan) else { return changes };
    if !now.snr.is_finite() || now.snr <= 0.0 {
        return changes;
    }
    let (method, rank) = (plan.adapter.method, plan.adapter.rank);
    if rank > 1 {
        try_out("--rank 1".to_owned(), Some(with_adapter(plan, method, 1)));
    }
    if method != Method::Core {
        try_out(format!("--method core --rank {rank}"), Some(with_adapter(plan, Method::Core, rank)));
        if rank > 1 {
            try_out("--method core --rank 1".to_owned(), Some(with_adapter(plan, Method::Core, 1)));
        }
    }
    try_out(format!("--targets {}", FEW_TARGETS.join(",")), with_few_targets(plan));
    let times = least / now.snr;
    let larger = with_more_devices(plan, times, least);
    if let Some(larger) = larger.filter(|larger| larger.round.cohort as usize <= aggregation::MAX_COHORT) {
        let RoundPlan { cohort, report_goal, .. } = larger.round;
        try_out(format!("--cohort {cohort} --report-goal {report_goal}"), Some(larger));
    } else {
        // More than one sum takes.
        let mut wider = plan.clone();
        wider.round.rounds = grown(plan.round.min_rounds, times * times);
        wider.round.min_rounds = wider.round.rounds;
        try_out(format!("--rounds {}", wider.round.rounds), Some(wider));
    }
    let mut quieter = plan.clone();
    // Rounded down, so that what is printed reaches it.
    quieter.privacy.noise_multiplier = (plan.privacy.noise_multiplier / times * 100.0).floor() / 100.0;
    try_out(format!("--noise-multiplier {:.2}", quieter.privacy.noise_multiplier), Some(quieter));
    if plan.privacy.mode != Mode::Off {
        let mut open = plan.clone();
        (open.privacy.mode, open.privacy.noise_multiplier) = (Mode::Off, 0.0);
        try_out("--privacy off".to_owned(), Some(open));
    }
    changes
}

/// The same plan with so many times as many devices, and a tenth more as often as that is not enough yet: the noise that is
/// relied on does not grow quite as the devices do.
fn with_more_devices(plan: &Plan, times: f64, least: f64) -> Option<Plan> {
    let RoundPlan { cohort, report_goal, .. } = plan.round;
    let is_usual = plan.privacy.corrupt_permille == usual_corrupt_permille(cohort);
    let with = |times: f64| {
        let mut larger = plan.clone();
        larger.round.cohort = grown(cohort, times);
        larger.round.report_goal = grown(report_goal, times).min(larger.round.cohort);
        if is_usual {
            larger.privacy.corrupt_permille = usual_corrupt_permille(larger.round.cohort);
        }
        larger
    };
    let reaches = |plan: &Plan| {
        let scaled = plan.clone().with_recommended_scale();
        scaled.and_then(|plan| worth(&plan)).is_ok_and(|worth| worth.snr >= least)
    };
    (0..6).map(|more| with(times * 1.1_f64.powi(more))).find(reaches)
}

/// So many times a count, rounded up.
fn grown(count: u32, times: f64) -> u32 {
    let more = (f64::from(count) * times).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0, and saturating")]
    let more = more as u32;
    more
}

fn with_few_targets(plan: &Plan) -> Option<Plan> {
    let mut few = plan.clone();
    few.adapter.modules.retain(|module| FEW_TARGETS.iter().any(|target| module.name.ends_with(target)));
    (!few.adapter.modules.is_empty() && few.adapter.modules.len() < plan.adapter.modules.len()).then_some(few)
}

/// Why a plan has no noise of that worth.
#[derive(Debug, thiserror::Error)]
pub enum WorthError {
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The ε that is asked for.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
}

#[cfg(test)]
mod tests {
    use proto::adapter::Module;

    use super::*;

    /// Two projections of 64 × 64 in each of four blocks, and two of which none is a query or a value.
    fn plan() -> Plan {
        let mut plan = Plan::example();
        let names = ["q_proj", "v_proj", "up_proj", "down_proj"];
        plan.adapter.modules = (0..4)
            .flat_map(|block| names.map(|name| format!("model.layers.{block}.{name}")))
            .map(|name| Module { name, inputs: 64, outputs: 64 })
            .collect();
        plan.adapter.rank = 2;
        plan.with_recommended_scale().unwrap()
    }

    #[test]
    fn signal_to_noise_is_that_of_the_mechanism_and_epsilon_that_of_all_participations() {
        let (plan, worth) = (plan(), worth(&plan()).unwrap());
        let mechanism = plan.mechanism().unwrap();
        assert_eq!(worth.coordinates, 16 * 64 * 2);
        assert!((worth.snr - mechanism.snr(plan.round.report_goal as usize)).abs() < 1e-12);
        assert!(worth.snr < LEAST_SNR, "{worth:?}");
    }

    #[test]
    fn every_change_that_is_named_reaches_what_is_asked_for() {
        let changes = changes(&plan(), LEAST_SNR);
        let names: Vec<&str> = changes.iter().map(|change| change.options.as_str()).collect();
        assert!(names.iter().any(|name| name.starts_with("--method core")), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("--cohort ")), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("--noise-multiplier ")), "{names:?}");
        assert_eq!(names.last(), Some(&"--privacy off"));
        for change in &changes {
            assert!(change.worth.snr >= LEAST_SNR, "{change:?}");
        }
        let core = changes.iter().find(|change| change.options == "--method core --rank 2").unwrap();
        // A matrix of 2 × 2 in each layer.
        assert_eq!(core.worth.coordinates, 16 * 4);
    }

    #[test]
    fn more_devices_are_enough_with_the_corrupt_that_such_a_cohort_has() {
        for (cohort, report_goal) in [(5, 4), (9, 6), (12, 8), (40, 27)] {
            let mut plan = plan();
            (plan.round.cohort, plan.round.report_goal) = (cohort, report_goal);
            plan.privacy.corrupt_permille = usual_corrupt_permille(cohort);
            let plan = plan.with_recommended_scale().unwrap();
            let larger =
                changes(&plan, LEAST_SNR).into_iter().find(|change| change.options.starts_with("--cohort"));
            let options = larger.unwrap().options;
            let words: Vec<u32> = options.split(' ').filter_map(|word| word.parse().ok()).collect();
            let mut followed = plan;
            (followed.round.cohort, followed.round.report_goal) = (words[0], words[1]);
            followed.privacy.corrupt_permille = usual_corrupt_permille(words[0]);
            let followed = followed.with_recommended_scale().unwrap();
            assert!(worth(&followed).unwrap().snr >= LEAST_SNR, "{cohort}: {options}");
        }
    }

    #[test]
    fn where_more_devices_do_not_fit_one_sum_a_version_is_of_more_rounds() {
        let mut plan = plan();
        (plan.round.cohort, plan.round.report_goal) = (1_000, 800);
        plan.privacy.noise_multiplier = 100.0;
        let plan = plan.with_recommended_scale().unwrap();
        let found =
            changes(&plan, LEAST_SNR).into_iter().find(|change| change.options.starts_with("--rounds"));
        let found = found.unwrap();
        let rounds: u32 = found.options.rsplit(' ').next().unwrap().parse().unwrap();
        let snr = |rounds: u32| {
            let round = RoundPlan { rounds, min_rounds: rounds, ..plan.round.clone() };
            worth(&Plan { round, ..plan.clone() }).unwrap().snr
        };
        assert!(snr(rounds) >= LEAST_SNR && snr(rounds - 1) < LEAST_SNR, "{found:?}");
    }

    #[test]
    fn a_plan_without_noise_needs_no_change() {
        let mut open = plan();
        (open.privacy.mode, open.privacy.noise_multiplier) = (Mode::Off, 0.0);
        assert!(worth(&open).unwrap().snr.is_infinite());
        assert!(changes(&open, LEAST_SNR).is_empty());
    }

    #[test]
    fn metrics_are_as_many_as_leave_the_gain_to_be_told() {
        let usual = |cohort: u32, noise: f64| {
            let mut plan = plan();
            (plan.round.cohort, plan.round.report_goal) = (cohort, cohort);
            plan.privacy.noise_multiplier = noise;
            plan.privacy.corrupt_permille = 0;
            let plan = with_usual_metrics(&plan.with_recommended_scale().unwrap()).unwrap();
            let names: Vec<MetricName> = plan.privacy.metrics.iter().map(|metric| metric.name).collect();
            (names, gain_deviation(&plan).unwrap().unwrap())
        };
        // Half-range · √metrics · z · √(1 + w²) / (w · n), by hand, a little more by the noise of integers.
        let (names, deviation) = usual(62, 4.0);
        assert_eq!(names, [MetricName::Gain]);
        let by_hand = 4.0 * 1.0625_f64.sqrt() / (0.25 * 62.0);
        assert!((deviation / by_hand - 1.0).abs() < 0.02, "{deviation} {by_hand}");
        let (names, deviation) = usual(500, 2.0);
        assert_eq!(names.len(), 5, "{names:?}");
        let by_hand = 5.0_f64.sqrt() * 2.0 * 1.0625_f64.sqrt() / (0.25 * 500.0);
        assert!((deviation / by_hand - 1.0).abs() < 0.02, "{deviation} {by_hand}");
        let (names, deviation) = usual(300, 2.0);
        assert_eq!((names.len(), deviation < 0.05), (3, true), "{names:?} {deviation}");
    }

    #[test]
    fn a_target_is_met_and_not_by_more_than_a_thousandth() {
        for target in [1.0, 3.0, 8.0] {
            let epsilon = worth(&with_epsilon(plan(), target).unwrap()).unwrap().epsilon;
            assert!(epsilon <= target && epsilon > 0.999 * target, "{epsilon} for {target}");
        }
    }
}
