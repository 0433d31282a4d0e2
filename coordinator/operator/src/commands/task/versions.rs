//! What devices measured of versions, for people and for programs.

use coordinator::cli::CliError;
use proto::admin::{MeanMetric, TaskStatus, VersionStatus};
use proto::metrics::MetricName;
use serde_json::{Value, json};
use task::gain::{Best, Measured, Standing, content};

use crate::evals;
use crate::output::epsilon;

/// A task for programs; with each mean metric whether it is at its bound, so that what was measured may be farther out.
pub(super) fn document(task: &TaskStatus) -> Result<Value, CliError> {
    let mut document = serde_json::to_value(task).map_err(CliError::internal)?;
    let versions = document.get_mut("versions").and_then(Value::as_array_mut);
    for (said, version) in versions.into_iter().flatten().zip(&task.versions) {
        let metrics = said.get_mut("metrics").and_then(Value::as_array_mut);
        for (said, metric) in metrics.into_iter().flatten().zip(&version.metrics) {
            if let Some(fields) = said.as_object_mut() {
                fields.insert("at_bound".to_owned(), json!(metric.is_at_bound()));
            }
        }
    }
    Ok(document)
}

/// What the operator's own text says, beside what devices said.
pub(super) fn own(own: &evals::Measured) -> String {
    let mut lines = vec![format!(
        "your text  {} tokens, measured by `nightshift eval` on this machine and no part of what devices say: the base has \
         {:.3} nats a token",
        own.tokens, own.base
    )];
    lines.extend(own.versions.iter().map(|(version, loss)| {
        let gain = own.base - loss;
        format!(
            "your text  version {version} has {loss:.3}, {gain:+.3} over the base, perplexity {:.2}",
            loss.exp()
        )
    }));
    lines.join("\n")
}

/// The same for programs.
pub(super) fn own_document(own: &evals::Measured) -> Value {
    let versions = own.versions.iter().map(|(version, loss)| {
        let gain = own.gain(*version);
        json!({ "version": version, "nats_per_token": loss, "perplexity": loss.exp(), "gain": gain })
    });
    json!({ "tokens": own.tokens, "base_nats_per_token": own.base, "versions": versions.collect::<Vec<_>>() })
}

/// What is known of the version to use.
pub(super) fn standing(versions: &[VersionStatus], best: &Best) -> Option<String> {
    let Standing { version: measured, gain, variance } = best.standing?;
    let clipped =
        if has_clipped_gain(versions, measured) { ", with a gain that was clipped at its bound" } else { "" };
    let by = format!("{gain:+.3} ± {:.3} nats a token over the base{clipped}", variance.sqrt());
    Some(match (best.version, best.is_measured) {
        (0, _) => "no version is better than the base, by what devices measured".to_owned(),
        (version, true) => format!("version {version}, {by}"),
        (version, false) if measured == 0 => format!("version {version}, which nobody has measured yet"),
        (version, false) => {
            format!(
                "version {version}, which nobody has measured yet; it was made from version {measured}, {by}"
            )
        }
    })
}

/// Whether a step on the way from the base to a version was measured at the bound of what devices say.
fn has_clipped_gain(versions: &[VersionStatus], measured: u32) -> bool {
    let is_gain = |metric: &&MeanMetric| metric.name == MetricName::Gain && metric.is_at_bound();
    // A version is measured in the round that makes the next.
    let mut made = versions.iter().filter(|made| made.version <= measured.saturating_add(1));
    made.any(|made| made.metrics.iter().any(|metric| is_gain(&metric)))
}

/// A version, and what the devices of its round said: of the version that they trained from, where it is a gain.
pub(super) fn version_line(versions: &[VersionStatus], made: &VersionStatus) -> String {
    let VersionStatus { version, cohort, survivors, epsilon: spent, metrics, restores, .. } = made;
    let round = match made.rounds {
        1 => format!("round {}", made.round),
        rounds => format!("{rounds} rounds, the last round {}", made.round),
    };
    let spent = epsilon(*spent);
    if let Some(restores) = restores.filter(|_| made.rolled_back) {
        return format!("version {version}: version {restores} again, to which an operator rolled back");
    }
    let from = version.saturating_sub(1);
    let is_new = from > 0 && content(versions, from) == from;
    let metric = |metric: &MeanMetric| {
        let MeanMetric { name, mean, standard_deviation, range: _ } = metric;
        match name {
            MetricName::Gain if !is_new => return String::new(),
            MetricName::BaseGain if from == 0 => return String::new(),
            MetricName::Loss
            | MetricName::Examples
            | MetricName::Norm
            | MetricName::Clipped
            | MetricName::Gain
            | MetricName::BaseGain => {}
        }
        // Of a count, tenths are enough to see that it is a mean.
        let is_count = *name == MetricName::Examples;
        let number = |value: f64| match is_count {
            true if value.round().to_bits() == value.to_bits() => format!("{value:.0}"),
            true => format!("{value:.1}"),
            false => format!("{value:.3}"),
        };
        let name = match name {
            MetricName::Gain => format!("gain of version {from} over version {}", from - 1),
            MetricName::BaseGain => format!("of version {from} over the base"),
            other @ (MetricName::Loss | MetricName::Examples | MetricName::Norm | MetricName::Clipped) => {
                other.to_string()
            }
        };
        // What rounds to nothing has no sign.
        let mean = if mean.abs() < 5e-4 { 0.0 } else { *mean };
        let at_bound = metric.is_at_bound();
        match *standard_deviation {
            0.0 if at_bound => {
                let side = if mean < 0.0 { "at most" } else { "at least" };
                format!(", {name} {side} {}: clipped", number(mean))
            }
            0.0 => format!(", {name} {}", number(mean)),
            deviation if !metric.is_known() => format!(", {name} not known (± {})", number(deviation)),
            deviation if at_bound => {
                format!(", {name} {} ± {}, at its bound: clipped", number(mean), number(deviation))
            }
            deviation => format!(", {name} {} ± {}", number(mean), number(deviation)),
        }
    };
    let metrics: String = metrics.iter().map(metric).collect();
    // What the noise is, the line says; what other devices would have measured, this.
    let spread = Measured::of(&made.metrics, *survivors).filter(|_| is_new);
    let spread = spread.map_or(String::new(), |measured| {
        format!(" (± noise; other devices at most ± {:.3})", measured.spread)
    });
    let verdict = restores.map_or(String::new(), |restores| {
        format!("; version {from} was worse than the one before, so this is version {restores} again")
    });
    format!(
        "version {version}: {survivors} of {cohort} devices, {round}, epsilon {spent}{metrics}{spread}{verdict}"
    )
}

#[cfg(test)]
mod tests {
    use proto::ids::Digest;

    use super::*;

    fn version(version: u32, gain: f64, standard_deviation: f64) -> VersionStatus {
        let metric = MeanMetric { name: MetricName::Gain, mean: gain, standard_deviation, range: 2.0 };
        VersionStatus {
            version,
            cohort: 10,
            survivors: 10,
            round: u64::from(version),
            rounds: 1,
            epsilon: 1.0,
            adapter: Digest([1; 32]),
            folded: None,
            committed_unix_millis: 0,
            metrics: vec![metric],
            clip_norm: 1.0,
            restores: None,
            rolled_back: false,
        }
    }

    #[test]
    fn a_gain_at_its_bound_says_that_it_was_clipped() {
        let line = |gain, deviation| {
            let versions = [version(1, 0.0, 0.0), version(2, gain, deviation)];
            version_line(&versions, &versions[1])
        };
        assert!(line(1.0, 0.0).contains("over version 0 at least 1.000: clipped"), "{}", line(1.0, 0.0));
        assert!(line(-1.0, 0.0).contains("over version 0 at most -1.000: clipped"), "{}", line(-1.0, 0.0));
        assert!(line(1.02, 0.05).contains("1.020 ± 0.050, at its bound: clipped"), "{}", line(1.02, 0.05));
        // The last one is where noise carried it.
        for (gain, deviation) in [(0.998, 0.0), (0.95, 0.1), (-0.9, 0.0), (1.3, 0.4)] {
            assert!(!line(gain, deviation).contains("clipped"), "{}", line(gain, deviation));
        }
    }
}
