//! What a plan will reveal and be worth, for the person who starts it; and why one is refused for its noise.

use coordinator::cli::CliError;
use privacy::accountant::ADJACENCY;
use proto::adapter::Method;
use proto::metrics::MetricName;
use proto::plan::{Mode, Plan};
use serde::Serialize;
use task::gain::CERTAINTY;
use task::worth::{Change, LEAST_SNR, changes, worth};

use crate::commands::privacy::snr_warning;
use crate::output::{adversary, epsilon, table};

/// What a plan will be worth, and what it will reveal.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct Prediction {
    coordinates: usize,
    method: Method,
    rank: u32,
    noise_multiplier: f64,
    report_goal: u32,
    mode: Mode,
    /// Norm of the mean update over that of its noise, at the report goal; without noise there is none.
    #[serde(with = "proto::admin::finite")]
    pub(super) snr: f64,
    /// ε of a device that takes part in every version it may; infinite without noise.
    #[serde(with = "proto::admin::finite")]
    epsilon_at_end: f64,
    delta: f64,
    /// Standard deviation of the noise in each mean metric, in the metric's own unit.
    metrics: Vec<MetricNoise>,
    warning: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct MetricNoise {
    name: MetricName,
    standard_deviation: f64,
}

impl Prediction {
    /// What a person should know before devices spend their nights.
    pub(in crate::commands) fn lines(&self) -> Vec<String> {
        let Self { coordinates, report_goal, mode, snr, epsilon_at_end, delta, metrics, warning, .. } = self;
        let (method, rank) = (self.method.as_str(), self.rank);
        if !snr.is_finite() {
            return vec![
                format!(
                    "{coordinates} trained parameters ({method}, rank {rank}), a sum of at least {report_goal} devices"
                ),
                adversary(*mode).to_owned(),
            ];
        }
        let mut lines = vec![
            format!(
                "{coordinates} trained parameters ({method}, rank {rank}), signal to noise {snr:.2} with {report_goal} \
                 devices in the sum, noise multiplier {:.3}",
                self.noise_multiplier
            ),
            format!(
                "a device that takes part in every version spends ε = {epsilon_at_end:.3} at δ = {delta:e}"
            ),
        ];
        lines.extend([adversary(*mode).to_owned(), ADJACENCY.to_owned()]);
        if !metrics.is_empty() {
            let noise = |m: &MetricNoise| format!("{} ± {:.2}", m.name, m.standard_deviation);
            let noises: Vec<String> = metrics.iter().map(noise).collect();
            lines.push(format!("the mean of a round's devices will be known to {}", noises.join(", ")));
            let gain = metrics.iter().find(|metric| metric.name == MetricName::Gain);
            lines.extend(gain.map(|gain| {
                format!(
                    "a version that is worse than the one before by more than {:.2} nats, and by what chance explains, is \
                     not built upon",
                    CERTAINTY * gain.standard_deviation
                )
            }));
        }
        lines.extend(warning.iter().map(|warning| format!("warning: {warning}")));
        lines
    }
}

/// Why a plan is refused.
pub(super) fn too_noisy(plan: &Plan, snr: f64, is_own: bool) -> String {
    let advice = if is_own {
        "take a change of the table above, or say --accept-noise to start it all the same"
    } else {
        "change the plan (its privacy.noise_multiplier, adapter or round), or say --accept-noise to start it all the same"
    };
    format!(
        "a signal to noise of {snr:.2} with {} devices in the sum is under {LEAST_SNR}: versions gather noise as fast as what \
         devices teach them, or faster, and the model may get worse; {advice}",
        plan.round.report_goal
    )
}

/// What would mend a plan that is refused for its noise.
pub(super) fn mends(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = changes(plan, LEAST_SNR)
        .into_iter()
        .map(|Change { options, worth }| {
            let snr = if worth.snr.is_finite() { format!("{:.2}", worth.snr) } else { "no noise".to_owned() };
            vec![options, worth.coordinates.to_string(), snr, epsilon(worth.epsilon)]
        })
        .collect();
    if rows.is_empty() {
        return "no one change leaves enough under this noise; take more devices and a smaller adapter"
            .to_owned();
    }
    let head = ["ANY ONE OF THESE", "PARAMETERS", "SIGNAL TO NOISE", "EPSILON"];
    let usual =
        "a device declines what costs it more than ε = 8, or has no noise, unless its user says otherwise";
    format!("{}\n{usual}", table(&head, &rows))
}

pub(super) fn predict(plan: &Plan) -> Result<Prediction, CliError> {
    let mechanism = plan.mechanism().map_err(CliError::input)?;
    let worth = worth(plan).map_err(CliError::input)?;
    let goal = plan.round.report_goal as usize;
    Ok(Prediction {
        coordinates: worth.coordinates,
        method: plan.adapter.method,
        rank: plan.adapter.rank,
        noise_multiplier: plan.privacy.noise_multiplier,
        report_goal: plan.round.report_goal,
        mode: plan.privacy.mode,
        snr: worth.snr,
        epsilon_at_end: worth.epsilon,
        delta: plan.privacy.delta,
        metrics: plan
            .privacy
            .metrics
            .iter()
            .map(|metric| MetricNoise {
                name: metric.name,
                standard_deviation: metric.range() * mechanism.metric_deviation(goal),
            })
            .collect(),
        warning: snr_warning(&mechanism, goal),
    })
}
