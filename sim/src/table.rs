//! The versions of a run as an aligned plain-text table.

use proto::counted::counted;
use proto::metrics::MetricName;
use proto::shown::shown;
use serde_json::Value;

use crate::classes::ClassSummary;
use crate::samples::Sample;
use crate::summary::{RunSummary, VersionSummary};

const HEADINGS: [&str; 9] = [
    "version",
    "cohort",
    "survivors",
    "loss before",
    "loss after",
    "ε",
    "up/device",
    "down/device",
    "seconds",
];

const CLASS_HEADINGS: [&str; 4] = ["trains", "devices", "took part", "up/device"];

/// One line for each version, right-aligned under its headings; where devices
/// train less than all, the same for each class; then a line with the total
/// fall of the loss and a line with what ε is.
pub fn by_version(summary: &RunSummary) -> String {
    let mut text = aligned(HEADINGS, &summary.versions.iter().map(cells).collect::<Vec<_>>());
    if !summary.classes.is_empty() {
        text.push_str(&aligned(CLASS_HEADINGS, &summary.classes.iter().map(class_cells).collect::<Vec<_>>()));
    }
    text.push_str(&fall(summary));
    text.push('\n');
    text.push_str(&measured_on(summary));
    text.push('\n');
    text.push_str(&statement(summary));
    text.push('\n');
    text
}

/// All that a reader of the terminal is told: in one line what was gained and at which ε, then each version, what the
/// loss is to be compared with, and what is written before and after.
pub fn whole(summary: &RunSummary) -> String {
    let parts = [
        format!("{}\n", gained(summary)),
        by_version(summary),
        measured(summary),
        compared(summary),
        written(summary),
    ];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("\n")
}

/// What the run gained beyond what needs no people, and at which ε.
pub(crate) fn gained(summary: &RunSummary) -> String {
    let free = summary.without_people();
    let gain = free.loss - summary.final_loss;
    if !gain.is_finite() {
        return "the run diverged: nothing was gained".to_owned();
    }
    let epsilon = summary.bounded_epsilon().map_or_else(
        || "without any bound on ε".to_owned(),
        |epsilon| format!("at ε = {epsilon:.2} (δ = {})", delta(summary.delta)),
    );
    let moved = if gain < 0.0 { "worse" } else { "better" };
    format!(
        "{:.2} nats a token {moved} than {}, {epsilon}, {}",
        gain.abs(),
        free.name.words(),
        counted(summary.devices, "device", "devices"),
    )
}

/// The loss beside others, the largest first.
pub fn compared(summary: &RunSummary) -> String {
    let headings = ["held-out loss", "newcomers", "takes"];
    let rows: Vec<[String; 3]> = summary
        .yardsticks
        .iter()
        .map(|one| {
            let newcomers = one.newcomers_loss.map_or_else(|| "–".to_owned(), loss);
            [loss(one.loss), newcomers, one.name.takes().to_owned()]
        })
        .collect();
    let names: Vec<&str> = summary.yardsticks.iter().map(|one| one.name.words()).collect();
    let width = names.iter().map(|name| name.chars().count()).fold("nats a token".len(), usize::max);
    let head =
        format!("{:width$}  {:>13}  {:>9}  {}\n", "nats a token", headings[0], headings[1], headings[2]);
    let lines = names.iter().zip(rows).map(|(words, [held_out, newcomers, takes])| {
        format!("{words:width$}  {held_out:>13}  {newcomers:>9}  {takes}\n")
    });
    std::iter::once(head).chain(lines).collect()
}

/// What the devices of each round measured of the version that they trained from, beside what the simulation knows.
pub fn measured(summary: &RunSummary) -> String {
    let rows = summary.versions.iter().zip(summary.versions.iter().skip(1)).filter_map(|(version, next)| {
        let gain = next.metrics.iter().find(|metric| metric.name == MetricName::Gain)?;
        let truth = version.loss_before - version.loss;
        let clipped = if gain.is_at_bound() { ", at its bound: clipped" } else { "" };
        Some(format!(
            "version {}  {:+.3} ± {:.3} by its devices{clipped}, {truth:+.3} in truth\n",
            version.version, gain.mean, gain.standard_deviation
        ))
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "gain over the version before, on text that devices hold out, from the same secure sums (± their noise)\n{rows}"
    )
}

/// What is written before and after.
pub fn written(summary: &RunSummary) -> String {
    let sample = |sample: &Sample| {
        let Sample { prompt, before, after } = sample;
        format!("{prompt} …\n  before: {prompt}{before}\n  after:  {prompt}{after}\n")
    };
    summary.samples.iter().map(sample).collect()
}

fn aligned<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let widths: Vec<_> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            rows.iter().map(|row| row[column].chars().count()).fold(heading.chars().count(), usize::max)
        })
        .collect();
    let mut text = line(&headings.map(str::to_owned), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn cells(version: &VersionSummary) -> [String; 9] {
    [
        version.version.to_string(),
        version.cohort.to_string(),
        version.survivors.to_string(),
        loss(version.loss_before),
        loss(version.loss),
        epsilon(version.epsilon),
        bytes(version.bytes_up_per_device),
        bytes(version.bytes_down_per_device),
        format!("{:.1}", version.secs),
    ]
}

fn class_cells(class: &ClassSummary) -> [String; 4] {
    [part(class), class.devices.to_string(), class.took_part.to_string(), bytes(class.bytes_up_per_device)]
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
    format!("{}\n", cells.join("  "))
}

fn fall(summary: &RunSummary) -> String {
    let percent = summary.fall_percent();
    if !percent.is_finite() {
        return "held-out loss is no longer a number: the run diverged".to_owned();
    }
    let moved = if percent < 0.0 { "rose" } else { "fell" };
    format!(
        "held-out loss {moved} by {:.1} %, from {} to {} nats a token",
        percent.abs(),
        loss(summary.base_loss),
        loss(summary.final_loss),
    )
}

/// Whose text losses are of, and that nothing was trained on it.
pub(crate) fn measured_on(summary: &RunSummary) -> String {
    let Some(record) = &summary.record else {
        return "measured on what each user's text holds out of training".to_owned();
    };
    let whose = match &record.files {
        None => "made-up people".to_owned(),
        Some(files) => format!("users of {}", shown(&files.data.to_string_lossy())),
    };
    let newcomers = match record.scenario.newcomers {
        0 => String::new(),
        some => format!(", and on all text of {some} more who take no part"),
    };
    format!("measured on what each of {} {whose} held out of training{newcomers}", summary.devices)
}

fn statement(summary: &RunSummary) -> String {
    summary.bounded_epsilon().map_or_else(
        || "ε is unbounded: the sums carry no noise that protects a device".to_owned(),
        |epsilon| {
            format!(
                "ε = {epsilon:.2} at δ = {} for one device over the whole run, with it or without it",
                delta(summary.delta)
            )
        },
    )
}

/// What the devices of a class train.
pub(crate) fn part(class: &ClassSummary) -> String {
    let layers = if class.layers == 1 { "layer" } else { "layers" };
    format!("rank {} in {} {layers}", class.rank, class.layers)
}

/// A loss in nats a token, with four decimals.
pub fn loss(loss: f64) -> String {
    if loss.is_finite() { format!("{loss:.4}") } else { "–".to_owned() }
}

/// An ε with two decimals, or ∞ where there is no bound.
pub fn epsilon(epsilon: Option<f64>) -> String {
    epsilon
        .filter(|epsilon| epsilon.is_finite())
        .map_or_else(|| "∞".to_owned(), |epsilon| format!("{epsilon:.2}"))
}

/// A δ in scientific notation, such as `1e-5`.
pub(crate) fn delta(delta: f64) -> String {
    format!("{delta:e}")
}

/// The values of nested tables by their whole names.
pub(crate) fn flat(value: &Value) -> Vec<(String, Value)> {
    let Some(table) = value.as_object() else { return Vec::new() };
    let of_one = |(name, value): (&String, &Value)| {
        let inner = flat(value);
        if inner.is_empty() {
            vec![(name.clone(), value.clone())]
        } else {
            inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
        }
    };
    table.iter().flat_map(of_one).collect()
}

/// A number of bytes, in the largest unit that leaves at least one.
pub(crate) fn bytes(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if size < KIB {
            break;
        }
        size /= KIB;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use proto::ids::Digest;
    use proto::plan::Mode;

    use super::*;
    use crate::record::{Files, Record};
    use crate::scenario::Scenario;
    use crate::summary::tests::sample;

    #[test]
    fn every_line_of_the_table_ends_in_the_same_column() {
        let mut summary = sample(12);
        summary.versions[3].epsilon = None;
        summary.versions[4].bytes_up_per_device = u64::MAX;
        summary.versions[5].loss = f64::NAN;
        let text = by_version(&summary);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 12 + 3);
        let width = lines[0].chars().count();
        for line in &lines[..13] {
            assert_eq!(line.chars().count(), width, "{line}");
        }
    }

    #[test]
    fn the_first_line_says_what_was_gained_beyond_what_needs_no_people() {
        let mut summary = sample(4);
        (summary.final_loss, summary.epsilon) = (4.9, Some(2.96));
        let first = |summary: &RunSummary| whole(summary).lines().next().unwrap().to_owned();
        let said = first(&summary);
        assert_eq!(
            said,
            "0.30 nats a token better than public text alone, at ε = 2.96 (δ = 1e-5), 60 devices"
        );
        summary.final_loss = 5.3;
        assert!(first(&summary).starts_with("0.10 nats a token worse than public text alone"));
        summary.privacy = Mode::Off;
        assert!(first(&summary).contains("without any bound on ε"));
        summary.final_loss = f64::NAN;
        assert!(first(&summary).contains("diverged"));
    }

    #[test]
    fn yardsticks_and_samples_stand_below_the_versions() {
        let text = whole(&sample(2));
        assert!(text.contains("public text alone         5.2000     5.7000  nothing of anybody\n"), "{text}");
        assert!(
            text.contains("  before: see you at the bridge\n  after:  see you at the lantern gate\n"),
            "{text}"
        );
    }

    #[test]
    fn cells_stand_under_the_end_of_their_heading() {
        let text = by_version(&sample(2));
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        for (heading, cell) in [("version", '1'), ("survivors", '8'), ("ε", '5')] {
            let start = text.lines().next().unwrap().find(heading).unwrap();
            let before = text[..start].chars().count();
            let end = before + heading.chars().count() - 1;
            assert_eq!(lines[1][end], cell, "{heading}");
        }
    }

    #[test]
    fn whose_text_was_measured_is_said() {
        let mut summary = sample(2);
        assert_eq!(measured_on(&summary), "measured on what each user's text holds out of training");
        let record = |files| Record {
            program: "1".to_owned(),
            files,
            base: Digest([1; 32]),
            data: Digest([2; 32]),
            public: None,
            scenario: Scenario { newcomers: 3, ..crate::demo::scenario(1) },
        };
        summary.record = Some(record(None));
        let said = "measured on what each of 60 made-up people held out of training, and on all text of 3 more who take no part";
        assert_eq!(measured_on(&summary), said);
        let files = Files { base: "base".into(), data: "their/notes".into(), public: None };
        summary.record = Some(record(Some(files)));
        assert!(measured_on(&summary).contains("60 users of their/notes held out"));
        assert!(by_version(&summary).contains(&measured_on(&summary)));
    }

    #[test]
    fn the_last_two_lines_say_the_fall_and_the_epsilon() {
        let mut summary = sample(4);
        summary.final_loss = 4.2;
        summary.epsilon = Some(7.9);
        let text = by_version(&summary);
        let last: Vec<_> = text.lines().rev().take(3).collect();
        assert_eq!(last[2], "held-out loss fell by 20.0 %, from 5.2500 to 4.2000 nats a token");
        assert_eq!(last[0], "ε = 7.90 at δ = 1e-5 for one device over the whole run, with it or without it");
    }

    #[test]
    fn each_class_has_a_line_and_a_run_without_classes_none() {
        let class = |rank, layers, devices, took_part, bytes_up_per_device| ClassSummary {
            rank,
            layers,
            devices,
            took_part,
            bytes_up_per_device,
        };
        let mut summary = sample(2);
        assert!(!by_version(&summary).contains("trains"));
        summary.classes = vec![class(8, 12, 9, 9, 25_600), class(2, 1, 100, 98, 25_610)];
        let text = by_version(&summary);
        let lines: Vec<_> = text.lines().skip(3).take(3).collect();
        assert_eq!(
            lines,
            [
                "             trains  devices  took part  up/device",
                "rank 8 in 12 layers        9          9   25.0 KiB",
                "  rank 2 in 1 layer      100         98   25.0 KiB"
            ]
        );
    }

    #[test]
    fn without_noise_epsilon_is_said_to_be_unbounded() {
        let mut summary = sample(1);
        summary.privacy = Mode::Off;
        assert!(by_version(&summary).contains("ε is unbounded"));
    }

    #[test]
    fn a_run_that_diverged_is_called_so() {
        let mut summary = sample(1);
        summary.final_loss = f64::NAN;
        assert!(by_version(&summary).contains("diverged"));
    }

    #[test]
    fn a_run_without_versions_still_has_headings() {
        let text = by_version(&sample(0));
        assert!(text.starts_with("version  cohort"));
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn bytes_take_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(25_600), "25.0 KiB");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
    }
}
