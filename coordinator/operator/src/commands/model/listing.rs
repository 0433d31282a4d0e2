//! `nightshift model ls`: the versions of tasks, what devices measured of them, and how large they are.

use std::collections::BTreeMap;

use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, TaskStatus, VersionStatus};
use proto::ids::{Digest, TaskId};
use proto::plan::Plan;
use serde::Serialize;
use task::gain::{Measured, content};

use crate::client::{AdminClient, CallError};
use crate::output::{at, epsilon, table};

/// A version of a task.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    task: TaskId,
    name: String,
    version: u32,
    committed_unix_millis: u64,
    cohort: u32,
    survivors: u32,
    #[serde(with = "proto::admin::finite")]
    epsilon: f64,
    /// By how much its devices found it better than the version before, in nats a token; none while nobody measured it.
    gain: Option<f64>,
    /// Standard deviation of the gain, by noise and chance.
    gain_deviation: Option<f64>,
    /// Whether it is worse than the one before, beyond noise and chance.
    worse: bool,
    /// The version of which it has the parameters again.
    restores: Option<u32>,
    rolled_back: bool,
    /// What a device fetches of it, in bytes.
    bytes: u64,
    adapter: Digest,
    folded: Option<Digest>,
}

/// The versions of these tasks.
pub(super) async fn rows(client: &mut AdminClient, tasks: &[TaskStatus]) -> Result<Vec<Row>, CliError> {
    let (mut rows, mut sizes) = (Vec::new(), BTreeMap::new());
    for task in tasks.iter().filter(|task| !task.versions.is_empty()) {
        let plan = Plan::parse(&client.fetch(task.plan).await?).map_err(CliError::input)?;
        let trained = plan.adapter.trained_len() as u64 * 4;
        for version in &task.versions {
            let folded = match version.folded {
                None => 0,
                Some(digest) => size(client, digest, &mut sizes).await?,
            };
            rows.push(row(task, version, trained + folded));
        }
    }
    Ok(rows)
}

/// How large an artifact is; versions of one epoch name the same one.
async fn size(
    client: &mut AdminClient,
    digest: Digest,
    known: &mut BTreeMap<Digest, u64>,
) -> Result<u64, CliError> {
    if let Some(bytes) = known.get(&digest) {
        return Ok(*bytes);
    }
    let AdminReply::Chunk(chunk) = client.call(AdminRequest::Fetch { digest, offset: 0 }).await? else {
        return Err(CallError::Unexpected.into());
    };
    known.insert(digest, chunk.total_bytes);
    Ok(chunk.total_bytes)
}

fn row(task: &TaskStatus, version: &VersionStatus, bytes: u64) -> Row {
    let measured = measured(&task.versions, version.version);
    Row {
        task: task.task,
        name: task.name.clone(),
        version: version.version,
        committed_unix_millis: version.committed_unix_millis,
        cohort: version.cohort,
        survivors: version.survivors,
        epsilon: version.epsilon,
        gain: measured.map(|measured| measured.gain),
        gain_deviation: measured.map(|measured| measured.deviation()),
        worse: measured.is_some_and(|measured| measured.is_worse()),
        restores: version.restores,
        rolled_back: version.rolled_back,
        bytes,
        adapter: version.adapter,
        folded: version.folded,
    }
}

/// What devices measured of a version against the one before, in the round that made the next; none where it has the
/// parameters of an earlier one, or is the first, which is measured against the base.
fn measured(versions: &[VersionStatus], version: u32) -> Option<Measured> {
    if content(versions, version) != version {
        return None;
    }
    let next = versions.iter().find(|made| made.version == version + 1)?;
    Measured::of(&next.metrics, next.survivors)
}

pub(super) fn text(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let gain = match (row.gain, row.gain_deviation) {
            (Some(gain), Some(deviation)) => {
                format!("{gain:+.3} ± {deviation:.3}{}", if row.worse { ", worse" } else { "" })
            }
            (Some(_) | None, _) => String::new(),
        };
        let from = match (row.restores, row.rolled_back) {
            (None, _) => format!("{} of {} devices", row.survivors, row.cohort),
            (Some(version), false) => format!("version {version} again, the one before was worse"),
            (Some(version), true) => format!("version {version} again, rolled back"),
        };
        vec![
            row.task.to_string(),
            row.name.clone(),
            row.version.to_string(),
            at(row.committed_unix_millis / 1000),
            from,
            gain,
            epsilon(row.epsilon),
            row.bytes.to_string(),
        ]
    };
    let head = ["TASK", "NAME", "VERSION", "MADE", "FROM", "GAIN", "EPSILON", "BYTES"];
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use proto::admin::MeanMetric;
    use proto::metrics::MetricName;

    use super::*;

    fn version(version: u32, gain: Option<f64>, restores: Option<u32>) -> VersionStatus {
        let metric = |mean| MeanMetric { name: MetricName::Gain, mean, standard_deviation: 0.01, range: 2.0 };
        VersionStatus {
            version,
            cohort: 400,
            survivors: 390,
            round: u64::from(version),
            rounds: 1,
            epsilon: 1.0,
            adapter: Digest([1; 32]),
            folded: None,
            committed_unix_millis: 1000,
            clip_norm: 1.0,
            metrics: gain.map(metric).into_iter().collect(),
            restores,
            rolled_back: false,
        }
    }

    #[test]
    fn a_version_s_gain_is_what_the_next_round_measured_and_nothing_where_it_is_an_earlier_one() {
        let versions = [
            version(1, None, None),
            version(2, Some(0.25), None),
            version(3, Some(-0.5), Some(1)),
            version(4, Some(0.1), None),
        ];
        let gain = |version| measured(&versions, version).map(|measured| measured.gain);
        assert_eq!([gain(1), gain(2), gain(3), gain(4)], [Some(0.25), Some(-0.5), None, None]);
        assert!(measured(&versions, 2).unwrap().is_worse());
    }
}
