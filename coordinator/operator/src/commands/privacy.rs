//! `nightshift privacy`: what noise buys before a task begins, and what a task has spent.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use coordinator::cli::CliError;
use privacy::accountant::{ADJACENCY, calibrate_noise_multiplier};
use privacy::{ClipNorm, Delta, Mechanism, MechanismParams, MetricParams, NoiseMultiplier, PrivacyMode};
use proto::admin::{AdminReply, AdminRequest, PrivacySpent};
use proto::plan::Mode;
use proto::shown::shown;
use serde::Serialize;

use task::worth::GOOD_SNR;

use crate::client::CallError;
use crate::connection::{connect, find_task};
use crate::output::{Output, adversary, epsilon, print, state, table};

/// Above this, ε says little.
const LARGEST_EPSILON: f64 = 8.0;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compute what noise costs and buys, or how much noise a target takes. Needs no coordinator.
    #[command(allow_negative_numbers = true)]
    Plan {
        #[command(flatten)]
        plan: PlanArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a task's devices have spent, by the coordinator's charges.
    Spent {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        #[command(flatten)]
        output: Output,
    },
}

/// A mechanism, by its numbers.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct PlanArguments {
    /// Standard deviation of the sum's noise, divided by the clip norm.
    #[arg(long, value_name = "Z", required_unless_present = "target_epsilon")]
    noise_multiplier: Option<f64>,
    /// Find the least noise multiplier that keeps ε at or below this, whatever --noise-multiplier says.
    #[arg(long, value_name = "E")]
    target_epsilon: Option<f64>,
    /// L2 bound of an update.
    #[arg(long, value_name = "C", default_value_t = 1.0)]
    clip: f64,
    /// Trained parameters.
    #[arg(long, value_name = "D")]
    coordinates: usize,
    /// Fewest devices in a sum.
    #[arg(long, value_name = "N")]
    report_goal: usize,
    /// Most devices in a sum; the report goal by default.
    #[arg(long, value_name = "N")]
    cohort: Option<usize>,
    /// Devices of the cohort that may collude and add no noise, in thousandths.
    #[arg(long, value_name = "M", default_value_t = 0)]
    corrupt_permille: u16,
    /// Rounds that one device takes part in.
    #[arg(long, value_name = "K", default_value_t = 1)]
    participations: u32,
    /// The δ at which ε is stated.
    #[arg(long, value_name = "DELTA", default_value_t = 1e-5)]
    delta: f64,
    /// Integer steps of one unit of a coordinate; a good one by default.
    #[arg(long, value_name = "S")]
    scale: Option<f64>,
    /// Metrics that are summed beside the update.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    metrics: usize,
    /// The norm of a device's metrics, divided by the clip norm.
    #[arg(long, value_name = "W", default_value_t = 0.25)]
    metrics_weight: f64,
    /// Who adds the noise.
    #[arg(long, value_enum, default_value_t = Noise::Distributed)]
    privacy: Noise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Noise {
    Central,
    Distributed,
}

/// What a mechanism costs and what it is worth.
#[derive(Clone, Debug, Serialize)]
struct Planned {
    /// ε of a device after all participations; infinite where the noise is too little for any bound.
    #[serde(with = "proto::admin::finite")]
    epsilon: f64,
    delta: f64,
    /// K·Δ₂²/(2μ), the zero-concentrated cost in the Gaussian limit.
    #[serde(with = "proto::admin::finite")]
    rho: f64,
    /// The order of the Rényi divergence that gives ε.
    #[serde(with = "proto::admin::finite")]
    order: f64,
    delta2: f64,
    delta1: f64,
    ring_bits: u32,
    scale: f64,
    /// Norm of the mean update over that of its noise, at the report goal.
    #[serde(with = "proto::admin::finite")]
    snr: f64,
    noise_multiplier: f64,
    /// Noise in the mean of a metric, in units of the metric's range; absent without metrics.
    metric_deviation: Option<f64>,
    mode: Mode,
    warnings: Vec<String>,
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Plan { plan, output } => {
            print(output.format, "nightshift.privacy-plan/1", &plan.compute()?, Planned::describe)
        }
        Command::Spent { task, output } => {
            let mut client = connect(dir).await?;
            let task = find_task(&mut client, &task).await?;
            let AdminReply::Privacy(spent) = client.call(AdminRequest::ShowPrivacy(task.task)).await? else {
                return Err(CallError::Unexpected.into());
            };
            print(output.format, "nightshift.privacy-spent/1", &spent, describe)
        }
    }
}

impl PlanArguments {
    fn compute(&self) -> Result<Planned, CliError> {
        let delta = Delta::new(self.delta).map_err(CliError::input)?;
        if self.participations == 0 {
            return Err(CliError::Input("participations must be at least 1, got 0".to_owned()));
        }
        let (mode, private_mode) = match self.privacy {
            Noise::Central => (Mode::Central, PrivacyMode::Central),
            Noise::Distributed => (Mode::Distributed, PrivacyMode::Distributed),
        };
        let mut params = MechanismParams {
            mode: private_mode,
            clip_norm: ClipNorm::new(self.clip).map_err(CliError::input)?,
            noise_multiplier: NoiseMultiplier::new(self.noise_multiplier.unwrap_or(1.0))
                .map_err(CliError::input)?,
            scale: self.scale.unwrap_or(1.0),
            coordinates: self.coordinates,
            cohort: self.cohort.unwrap_or(self.report_goal),
            report_goal: self.report_goal,
            corrupt: aggregation::corrupt_devices(
                self.cohort.unwrap_or(self.report_goal),
                self.corrupt_permille,
            ),
            metrics: MetricParams::new(self.metrics, self.metrics_weight).map_err(CliError::input)?,
        };
        let rescale = |params: &mut MechanismParams| -> Result<(), CliError> {
            if self.scale.is_none() {
                params.scale = Mechanism::recommended_scale(params).map_err(CliError::input)?;
            }
            Ok(())
        };
        if self.target_epsilon.is_none() && params.noise_multiplier.get() <= 0.0 {
            return Err(CliError::Input(
                "a noise multiplier of 0 adds no noise, and without noise no ε bounds what a sum tells of a device; give \
                 --noise-multiplier a number above 0, or --target-epsilon"
                    .to_owned(),
            ));
        }
        rescale(&mut params)?;
        let mut warnings = Vec::new();
        if let Some(target) = self.target_epsilon {
            if let Some(given) = self.noise_multiplier {
                let mechanism = Mechanism::new(params.clone()).map_err(CliError::input)?;
                let spent = epsilon(mechanism.epsilon(self.participations, delta).epsilon);
                warnings.push(format!(
                    "with a noise multiplier of {given} ε is {spent}; the numbers here are those of the target"
                ));
            }
            let calibrate = |params: &MechanismParams| {
                calibrate_noise_multiplier(target, delta, self.participations, params)
                    .map_err(CliError::input)
            };
            params.noise_multiplier = calibrate(&params)?;
            // The scale that suits this noise; the noise that suits this scale.
            rescale(&mut params)?;
            params.noise_multiplier = calibrate(&params)?;
        }
        let mechanism = Mechanism::new(params).map_err(CliError::input)?;
        let spent = mechanism.epsilon(self.participations, delta);
        let variance = mechanism.guaranteed_variance();
        let rho = f64::from(self.participations) * mechanism.delta2().powi(2) / (2.0 * variance);
        let snr = mechanism.snr(self.report_goal);
        if spent.epsilon > LARGEST_EPSILON {
            warnings.push(format!(
                "ε = {:.2} promises a device little; raise the noise multiplier or let a device take part less often",
                spent.epsilon
            ));
        }
        warnings.extend(snr_warning(&mechanism, self.report_goal));
        Ok(Planned {
            epsilon: spent.epsilon,
            delta: self.delta,
            rho,
            order: spent.order,
            delta2: mechanism.delta2(),
            delta1: mechanism.delta1(),
            ring_bits: mechanism.ring_bits(),
            scale: mechanism.params().scale,
            snr,
            noise_multiplier: mechanism.params().noise_multiplier.get(),
            metric_deviation: (self.metrics > 0).then(|| mechanism.metric_deviation(self.report_goal)),
            mode,
            warnings,
        })
    }
}

/// What to change where noise drowns the mean update.
pub(super) fn snr_warning(mechanism: &Mechanism, report_goal: usize) -> Option<String> {
    let snr = mechanism.snr(report_goal);
    (snr < GOOD_SNR).then(|| {
        let short = GOOD_SNR / snr;
        format!(
            "a signal-to-noise ratio of {snr:.2}, under {GOOD_SNR}, learns little: multiply the report goal by \
             {short:.1}, or divide the trained parameters by {:.0} (a lower rank, fewer targets, --method core), or \
             divide the noise multiplier by {short:.1}",
            (short * short).ceil()
        )
    })
}

impl Planned {
    fn describe(&self) -> String {
        let mut lines = vec![
            format!("epsilon           {} at δ = {:e}", epsilon(self.epsilon), self.delta),
            format!("noise multiplier  {:.6}", self.noise_multiplier),
            format!("zCDP rho          {:.6} in the Gaussian limit", self.rho),
            format!("Rényi order       {:.3}", self.order),
            format!("signal to noise   {:.3}", self.snr),
            format!("scale             {}", self.scale),
            format!("ring              {} bits a coordinate", self.ring_bits),
            format!("sensitivity       L2 {:.3}, L1 {:.0} in steps of 1 / scale", self.delta2, self.delta1),
        ];
        lines.extend([adversary(self.mode).to_owned(), ADJACENCY.to_owned()]);
        if let Some(deviation) = self.metric_deviation {
            lines.push(format!("a mean metric     ± {:.1} % of its range", 100.0 * deviation));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.join("\n")
    }
}

fn describe(spent: &PrivacySpent) -> String {
    let mut lines = vec![
        format!("task      {} ({}), {}", spent.task, shown(&spent.name), state(spent.state)),
        adversary(spent.mode).to_owned(),
        ADJACENCY.to_owned(),
        format!(
            "epsilon   {} at δ = {:e}, of the device that took part most",
            epsilon(spent.epsilon),
            spent.delta
        ),
        match spent.epsilon_budget {
            Some(budget) => format!("budget    ε = {budget}"),
            None => "budget    none".to_owned(),
        },
        format!("rounds    {} charged, aborted ones too", spent.rounds_charged),
        format!("allowed   {} participations a device", spent.participations_allowed),
    ];
    if !spent.participations.is_empty() {
        let row = |count: &proto::admin::ParticipationCount| {
            vec![count.participations.to_string(), count.devices.to_string(), epsilon(count.epsilon)]
        };
        let rows: Vec<Vec<String>> = spent.participations.iter().map(row).collect();
        lines.push(table(&["PARTICIPATIONS", "DEVICES", "EPSILON"], &rows));
    }
    lines.push("each device's own ledger is what it acts on: `nightshift-agent ledger --verify`".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> PlanArguments {
        PlanArguments {
            noise_multiplier: Some(4.0),
            target_epsilon: None,
            clip: 1.0,
            coordinates: 1 << 20,
            report_goal: 100,
            cohort: None,
            corrupt_permille: 0,
            participations: 100,
            delta: 1e-6,
            scale: Some(4096.0),
            metrics: 0,
            metrics_weight: 0.25,
            privacy: Noise::Distributed,
        }
    }

    fn refused(change: impl FnOnce(&mut PlanArguments)) -> String {
        let mut arguments = arguments();
        change(&mut arguments);
        arguments.compute().unwrap_err().to_string()
    }

    #[test]
    fn a_plan_s_numbers_are_the_references() {
        let planned = arguments().compute().unwrap();
        assert!((planned.epsilon / 15.477_043_360_561 - 1.0).abs() < 1e-9, "{planned:?}");
        assert!((planned.delta2 / 4_128.434_085_703_682 - 1.0).abs() < 1e-12);
        assert_eq!(planned.ring_bits, 18);
        let rho = 100.0 * 4_128.434_085_703_682f64.powi(2) / (2.0 * (4.0 * 4096.0f64).powi(2));
        assert!((planned.rho / rho - 1.0).abs() < 1e-12);
        assert!((planned.snr - 100.0 / (4.0 * 1024.0)).abs() < 1e-12);
        assert!(
            planned.warnings.iter().any(|warning| warning.contains("report goal by 20.5")),
            "{planned:?}"
        );
        assert!(planned.warnings.iter().any(|warning| warning.contains("promises a device little")));
    }

    #[test]
    fn a_target_finds_the_noise_that_meets_it() {
        let planned = PlanArguments { noise_multiplier: None, target_epsilon: Some(3.0), ..arguments() };
        let planned = planned.compute().unwrap();
        assert!(planned.epsilon <= 3.0 && planned.epsilon > 2.9999, "{planned:?}");
        let both = PlanArguments { target_epsilon: Some(3.0), ..arguments() }.compute().unwrap();
        assert!((both.noise_multiplier - planned.noise_multiplier).abs() < 1e-12);
        assert!(both.warnings[0].contains("with a noise multiplier of 4 ε is 15.477;"), "{both:?}");
        let again = PlanArguments { noise_multiplier: Some(planned.noise_multiplier), ..arguments() }
            .compute()
            .unwrap();
        assert!((again.epsilon - planned.epsilon).abs() < 1e-9);
    }

    #[test]
    fn a_plan_without_noise_is_refused_and_a_target_does_not_need_any() {
        for privacy in [Noise::Distributed, Noise::Central] {
            let why = refused(|a| (a.noise_multiplier, a.privacy) = (Some(0.0), privacy));
            assert!(why.starts_with("a noise multiplier of 0 adds no noise"), "{why}");
            assert!(why.contains("a number above 0, or --target-epsilon"), "{why}");
        }
        let with_target =
            PlanArguments { noise_multiplier: Some(0.0), target_epsilon: Some(3.0), ..arguments() };
        let planned = with_target.compute().unwrap();
        assert!(planned.epsilon <= 3.0 && planned.noise_multiplier > 0.0, "{planned:?}");
        assert!(planned.warnings[0].contains("with a noise multiplier of 0 ε is unbounded"), "{planned:?}");
    }

    #[test]
    fn a_plan_that_is_fine_warns_of_nothing() {
        let arguments = PlanArguments {
            coordinates: 4096,
            report_goal: 1000,
            participations: 4,
            scale: None,
            metrics: 3,
            ..arguments()
        };
        let planned = arguments.compute().unwrap();
        assert_eq!(planned.warnings, Vec::<String>::new(), "{planned:?}");
        assert!(planned.metric_deviation.is_some_and(|deviation| deviation < 0.05), "{planned:?}");
    }

    #[test]
    fn bad_numbers_are_named() {
        assert!(refused(|a| a.clip = 0.0).contains("got 0"));
        assert!(refused(|a| a.noise_multiplier = Some(-1.0)).contains("got -1"));
        assert!(refused(|a| a.delta = 1.0).contains("got 1"));
        assert!(
            refused(|a| a.cohort = Some(99)).contains("report goal must be between 1 and the cohort of 99")
        );
        assert!(refused(|a| a.scale = Some(1e12)).contains("31 bits"));
        assert!(refused(|a| a.scale = Some(f64::NAN)).contains("NaN"));
        assert!(refused(|a| a.participations = 0).contains("at least 1"));
        let words = refused(|a| {
            a.noise_multiplier = None;
            a.target_epsilon = Some(-2.0);
        });
        assert!(words.contains("-2"), "{words}");
    }
}
