//! A population's run as one self-contained HTML page, in the style of the page of a run of all devices.

use serde_json::Value;

use super::report::{Report, VersionReport};
use crate::report::bars::{Bar, Bars, lying};
use crate::report::markup::{counted, escape, grouped};
use crate::report::plot::{Curve, Mark, Point, cohorts_of};
use crate::report::{document, figure, figure_list, row, warning_list};
use crate::table;

/// Bars of losses by device.
const BINS: usize = 16;

/// Bars of one kind on the page, at most.
const MOST_BARS: u32 = 40;

const KIB: f64 = 1024.0;

/// A weak promise.
const EPSILON_MARK: f64 = 8.0;

/// The page.
pub(super) fn html(report: &Report, title: &str) -> String {
    let title = escape(title);
    let body = [
        format!("<header>\n<h1>{title}</h1>\n{}</header>\n", under(report)),
        figures(report),
        warning_list(&warnings(report)),
        loss_plot(report),
        epsilon_plot(report),
        noise_plot(report),
        funnel(report),
        cohort_plot(report),
        participation(report),
        staleness(report),
        traffic(report),
        hours(report),
        losses(report),
        versions(report),
        settings(report),
    ];
    document(&title, &body.concat())
}

fn under(report: &Report) -> String {
    let task = &report.scenario.task;
    format!(
        "<p class=\"under\">A simulated population of {}: {} of {} of up to {}, of which {} make {}; {}, seed {}.</p>\n",
        counted(wide(report.devices), "device"),
        counted(wide(report.versions.len()), "version"),
        if task.rounds > 1 { format!("up to {} rounds", task.rounds) } else { "rounds".to_owned() },
        counted(task.cohort.into(), "device"),
        grouped(report.report_goal.into()),
        if task.rounds > 1 { "a sum" } else { "a version" },
        trained(report),
        report.scenario.seed,
    )
}

fn trained(report: &Report) -> String {
    let numbers = grouped(wide(report.coordinates));
    match report.measures() {
        None => format!("nothing is trained, and updates have {numbers} numbers"),
        Some(_) if report.base.is_some() => {
            format!("an adapter of {numbers} numbers is trained on their text")
        }
        Some(_) => format!("a closed formula of {numbers} numbers is trained"),
    }
}

fn figures(report: &Report) -> String {
    let versions = report.versions.len();
    let last = report.versions.last();
    let epsilon = report.epsilon.map_or_else(
        || ("∞".to_owned(), "ε: no bound on what one device reveals".to_owned()),
        |epsilon| {
            let delta = table::delta(report.scenario.privacy.delta);
            (
                format!("ε = {epsilon:.2}"),
                format!("spent by the device that took part most often, at δ = {delta}"),
            )
        },
    );
    let in_sums: u64 = report.versions.iter().map(|version| u64::from(version.survivors)).sum();
    let up: u64 = report.versions.iter().map(|version| version.up_bytes).sum();
    let hours = last.map_or(0.0, |last| last.at_secs / 3600.0);
    let mut entries = Vec::new();
    if let (Some(what), Some(start), Some(end)) =
        (report.measures(), report.start, last.and_then(|v| v.measure))
    {
        let fall = if start == 0.0 { 0.0 } else { 100.0 * (start - end) / start };
        let sign = if fall < 0.0 { "+" } else { "−" };
        entries.push((format!("{sign}{:.1} %", fall.abs()), format!("{what}: {start:.4} → {end:.4}")));
    }
    entries.extend([
        epsilon,
        (grouped(in_sums), format!("updates summed, in {}", counted(wide(versions), "version"))),
        (format!("{hours:.1} h"), "simulated, until the last version".to_owned()),
        (
            table::bytes(up.checked_div(wide(versions)).unwrap_or(0)),
            "sent for each update in a sum, check-ins of all others included".to_owned(),
        ),
        (
            format!("{} of {}", grouped(wide(report.fairness.never)), grouped(wide(report.devices))),
            "devices that never took part".to_owned(),
        ),
    ]);
    figure_list(&entries)
}

fn warnings(report: &Report) -> Vec<String> {
    let (done, of) = (report.versions.len(), report.scenario.task.versions);
    let stopped = report.interrupted.then(|| format!("stopped by its user after {done} of {of} versions"));
    let ended =
        report.ended.as_ref().map(|why| format!("it came to no end after {done} of {of} versions: {why}"));
    let open = report.epsilon.is_none() && done > 0;
    let open = open.then(|| "no ε is bounded: the sums carry no noise that protects a device".to_owned());
    [stopped, ended, open].into_iter().flatten().collect()
}

/// A curve over the versions of what not every version has.
fn curve(report: &Report, measures: &str, of: impl Fn(&VersionReport) -> Option<f64>) -> Vec<Point> {
    let point = |version: &VersionReport| {
        let value = of(version)?;
        let title = format!("version {}: {measures} {value:.4}", version.version);
        Some(Point { version: version.version.into(), value, title })
    };
    report.versions.iter().filter_map(point).collect()
}

fn loss_plot(report: &Report) -> String {
    let Some(measures) = report.measures() else { return String::new() };
    let start = report.start.map(|value| Point {
        version: 0,
        value,
        title: format!("before the first version: {value:.4}"),
    });
    let points = start.into_iter().chain(curve(report, measures, |version| version.measure)).collect();
    let curve = Curve { measures, points, shown: Vec::new(), mark: None };
    let of = if report.base.is_some() {
        "The mean over the first devices of the loss on text that each holds out of its training."
    } else {
        "As the formula is known: of a quadratic by how much its value is above the least, of a regression the mean loss on the \
         examples of the first devices."
    };
    let caption =
        format!("{of} The ring at version 0 is before any training. The upright axis need not begin at 0.");
    figure("Loss", &curve.svg(), &caption)
}

fn epsilon_plot(report: &Report) -> String {
    if report.epsilon.is_none() {
        return String::new();
    }
    let start = Point { version: 0, value: 0.0, title: "nothing spent yet".to_owned() };
    let points = std::iter::once(start).chain(curve(report, "ε", |version| version.epsilon)).collect();
    let mark = Some(Mark { value: EPSILON_MARK, name: "ε = 8" });
    let curve = Curve { measures: "ε, the most that a device spent", points, shown: vec![0.0], mark };
    let delta = table::delta(report.scenario.privacy.delta);
    let caption = format!(
        "Of the device that took part most often until then, at δ = {delta}. The others took part less often, and spent less."
    );
    figure("Privacy spent", &curve.svg(), &caption)
}

fn noise_plot(report: &Report) -> String {
    let Some(best) = report.snr else { return String::new() };
    let points = curve(report, "signal to noise", |version| version.snr);
    let mark = Some(Mark { value: best, name: "as planned, at best" });
    let curve = Curve { measures: "signal to noise", points, shown: vec![0.0, best], mark };
    let caption = format!(
        "The norm of each version's mean update above what its noise explains, over the norm of that noise. Planned at best: \
         {best:.2}, were all updates as long as the clip norm and alike, at the report goal. 0 where the noise explains all."
    );
    figure("Signal to noise", &curve.svg(), &caption)
}

fn funnel(report: &Report) -> String {
    if report.versions.is_empty() {
        return String::new();
    }
    let sum = |of: fn(&VersionReport) -> usize| wide(report.versions.iter().map(of).sum());
    let small =
        |of: fn(&VersionReport) -> u32| report.versions.iter().map(|version| u64::from(of(version))).sum();
    let rows = [
        ("available", sum(|version| version.available), "survivors"),
        ("assigned", sum(|version| version.assigned), "survivors"),
        ("trained", sum(|version| version.trained), "survivors"),
        ("joined", sum(|version| version.joined), "survivors"),
        ("submitted", sum(|version| version.submitted), "survivors"),
        ("counted", small(|version| version.survivors), "survivors"),
        ("missing", small(|version| version.missing), "cohort"),
    ];
    figure(
        "From available to counted",
        &lying("devices at each stage", &rows),
        "Devices at each stage, added up over all versions; each counts once a version. Available: was there at some time. \
         Assigned: was given the version to train from. Trained: to the end. Joined: was in a round, one that ended without a \
         version too. Submitted: sent all of its masked update. Counted: is in the sum. Missing: was in the round that made the \
         version and is not in its sum.",
    )
}

fn cohort_plot(report: &Report) -> String {
    if report.versions.is_empty() {
        return String::new();
    }
    let cohorts = report
        .versions
        .iter()
        .map(|version| (version.version.into(), version.cohort, version.survivors))
        .collect::<Vec<_>>();
    figure(
        "Devices in each round",
        &cohorts_of(&cohorts),
        "Dashed: the cohort. Filled: the survivors, whose updates are in the sum.",
    )
}

/// Bars of how many devices have which number, from the least to the largest; where these are many, a bar is of several.
fn counts(all: &[(u32, usize)], what: &str) -> Vec<Bar> {
    let (Some((low, _)), Some((high, _))) = (all.first(), all.last()) else { return Vec::new() };
    let width = (high - low + 1).div_ceil(MOST_BARS);
    let bar = |from: u32| {
        let until = (from + width - 1).min(*high);
        let devices: usize = all
            .iter()
            .filter(|(number, _)| (from..=until).contains(number))
            .map(|(_, devices)| devices)
            .sum();
        let label = if from == until { from.to_string() } else { format!("{from}–{until}") };
        let title = format!("{label} {what}: {}", counted(wide(devices), "device"));
        Bar { label, value: devices as f64, behind: None, title }
    };
    (0..MOST_BARS).map(|place| low + place * width).take_while(|from| from <= high).map(bar).collect()
}

fn participation(report: &Report) -> String {
    let fairness = &report.fairness;
    let bars = counts(&fairness.times, "times");
    let caption = format!(
        "How many devices are in how many sums: {} in none, the median device in {}, one in {}. Each is in devices.csv.",
        grouped(wide(fairness.never)),
        fairness.median,
        fairness.most
    );
    figure(
        "Who took part",
        &Bars { measures: "devices", across: "times in a sum", all: bars }.svg(),
        &caption,
    )
}

fn staleness(report: &Report) -> String {
    let held: Vec<(u32, usize)> =
        report.devices_behind.iter().filter_map(|(behind, devices)| Some(((*behind)?, *devices))).collect();
    let none: usize =
        report.devices_behind.iter().filter(|(behind, _)| behind.is_none()).map(|(_, n)| n).sum();
    let of = |is: fn(u32) -> bool| -> usize {
        report.trainings_behind.iter().filter(|(behind, _)| is(*behind)).map(|(_, count)| count).sum()
    };
    let (late, timely) = (of(|behind| behind > 0), of(|behind| behind == 0));
    let bars = counts(&held, "versions behind");
    let caption = format!(
        "How many versions behind the newest is what devices hold at the end; {} hold none yet. No sum has an update from an older \
         version: of {} that came to their end, {} came too late for theirs.",
        grouped(wide(none)),
        counted(wide(late + timely), "training"),
        grouped(wide(late)),
    );
    figure("Staleness", &Bars { measures: "devices", across: "versions behind", all: bars }.svg(), &caption)
}

fn traffic(report: &Report) -> String {
    if report.versions.is_empty() {
        return String::new();
    }
    let bar = |version: &VersionReport| Bar {
        label: version.version.to_string(),
        value: version.up_bytes as f64 / KIB,
        behind: Some(version.down_bytes as f64 / KIB),
        title: format!(
            "version {}: {} sent, {} received",
            version.version,
            table::bytes(version.up_bytes),
            table::bytes(version.down_bytes)
        ),
    };
    let bars = report.versions.iter().map(bar).collect();
    figure(
        "Bytes",
        &Bars { measures: "KiB for each update in the sum", across: "version", all: bars }.svg(),
        "Filled: sent by devices. Dashed: received by them. What all devices sent and received since the version before, check-ins \
         and updates that are in no sum included, over the number of updates in the sum.",
    )
}

fn hours(report: &Report) -> String {
    if report.versions.is_empty() {
        return String::new();
    }
    let there = report.hours.iter().map(|hour| Bar {
        label: hour.hour.to_string(),
        value: hour.there.unwrap_or(0.0),
        behind: None,
        title: hour.there.map_or_else(
            || format!("{} o'clock did not come", hour.hour),
            |there| format!("{} o'clock: {there:.1} devices in the mean", hour.hour),
        ),
    });
    let made = report.hours.iter().map(|hour| Bar {
        label: hour.hour.to_string(),
        value: hour.versions.into(),
        behind: None,
        title: format!(
            "{} o'clock: {}, {}",
            hour.hour,
            counted(hour.versions.into(), "version"),
            counted(hour.check_ins, "check-in")
        ),
    });
    let across = "hour of the simulated day";
    [
        figure(
            "Time of day",
            &Bars { measures: "devices that are there", across, all: there.collect() }.svg(),
            "In the mean over the days until the last version, which begin at noon; hours that did not come are empty.",
        ),
        format!(
            "<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n",
            Bars { measures: "versions", across, all: made.collect() }.svg(),
            "When versions were made."
        ),
    ]
    .concat()
}

fn losses(report: &Report) -> String {
    let (before, after) = (&report.losses.before, &report.losses.after);
    let finite = || before.iter().chain(after).copied().filter(|loss| loss.is_finite());
    let (low, high) =
        finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        return String::new();
    }
    let width = f64::max((high - low) / BINS as f64, 1e-9);
    let decimals = (0..9).find(|decimals| width * 10_f64.powi(*decimals) >= 1.0).unwrap_or(9);
    let decimals = usize::try_from(decimals).unwrap_or(0);
    let count = |losses: &[f64], bin: usize| {
        let place = |loss: f64| {
            (0..BINS - 1).find(|bin| loss < low + width * (*bin as f64 + 1.0)).unwrap_or(BINS - 1)
        };
        losses.iter().filter(|loss| loss.is_finite() && place(**loss) == bin).count()
    };
    let bar = |bin: usize| {
        let (from, earlier, later) = (low + width * bin as f64, count(before, bin), count(after, bin));
        Bar {
            label: format!("{from:.decimals$}"),
            value: later as f64,
            behind: Some(earlier as f64),
            title: format!("{from:.3} to {:.3}: {earlier} before, {later} after", from + width),
        }
    };
    let better = before.iter().zip(after).filter(|(before, after)| after < before).count();
    let caption = format!(
        "Dashed: before the first version. Filled: of the last. It is measured on {}, of which {} have a lower loss at the end.",
        counted(wide(before.len()), "device"),
        grouped(wide(better))
    );
    let bars = (0..BINS).map(bar).collect();
    figure("Each device's loss", &Bars { measures: "devices", across: "loss", all: bars }.svg(), &caption)
}

fn versions(report: &Report) -> String {
    if report.versions.is_empty() {
        return "<h2>Every version</h2>\n<p>No version was made.</p>\n".to_owned();
    }
    let some = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
    };
    let made = |version: &VersionReport| {
        [
            version.version.to_string(),
            format!("{:.2}", version.at_secs / 3600.0),
            grouped(version.aborted.into()),
            some(version.measure, 4),
            table::epsilon(version.epsilon),
            some(version.snr, 2),
            table::bytes(version.up_bytes),
            table::bytes(version.down_bytes),
        ]
    };
    let devices = |version: &VersionReport| {
        [
            version.version.to_string(),
            grouped(wide(version.available)),
            grouped(wide(version.assigned)),
            grouped(wide(version.trained)),
            grouped(wide(version.joined)),
            grouped(wide(version.submitted)),
            grouped(version.survivors.into()),
            grouped(version.missing.into()),
            grouped(wide(version.late)),
        ]
    };
    let each = || report.versions.iter();
    [
        version_table(
            "Every version",
            &["version", "hours", "aborted", "measure", "ε", "signal", "up", "down"],
            each().map(made),
        ),
        "<p class=\"note\">Hours are simulated. Aborted: rounds that ended without a version. Up and down are bytes for each update in \
         the sum.</p>\n"
            .to_owned(),
        version_table(
            "Devices of every version",
            &["version", "available", "assigned", "trained", "joined", "sent", "counted", "missing", "late"],
            each().map(devices),
        ),
        "<p class=\"note\">Late: trainings that ended when their version was replaced already.</p>\n"
            .to_owned(),
    ]
    .concat()
}

fn version_table<const N: usize>(
    heading: &str,
    columns: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<String> = rows.map(|cells| row("td", &cells)).collect();
    format!(
        "<h2>{heading}</h2>\n<div class=\"wide\">\n<table>\n<thead>\n{}</thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n",
        row("th", &columns.map(str::to_owned)),
        rows.concat()
    )
}

fn settings(report: &Report) -> String {
    let whole = serde_json::to_value(&report.scenario).unwrap_or_default();
    let idle = report.scenario.idle();
    let entries: Vec<String> = table::flat(&whole)
        .into_iter()
        .filter(|(key, value)| *value != Value::Null && !idle.contains(&key.as_str()))
        .map(|(key, value)| {
            let words = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("<dt>{}</dt><dd>{}</dd>\n", escape(&key), escape(&words))
        })
        .collect();
    format!(
        "<h2>Settings</h2>\n<dl class=\"settings\">\n{}</dl>\n<p class=\"note\">nightshift-sim population --keys says what \
         each means. All numbers of this page are in summary.json, versions.csv and devices.csv.</p>\n",
        entries.concat()
    )
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
