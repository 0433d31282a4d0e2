//! A run as one self-contained HTML page: no script, no font and no picture
//! from elsewhere, so that it can be mailed and opened in ten years.

pub(crate) mod axis;
pub(crate) mod bars;
mod beside;
pub(crate) mod markup;
pub(crate) mod plot;
mod words;

use markup::{counted, escape, grouped};
use plot::{Curve, Mark, Point};

use proto::plan::Mode;

use crate::summary::{RunSummary, VersionSummary};
use crate::table;
use crate::yardsticks::Against;

const STYLE: &str = include_str!("report/page.css");

/// The ε that is drawn as a line, where it is in view: the largest that is
/// commonly called private.
const EPSILON_MARK: f64 = 8.0;

/// The page. It follows the reader's light or dark scheme and is as readable
/// on a phone as on paper.
pub fn html(summary: &RunSummary, title: &str) -> String {
    let title = escape(title);
    let body = [
        format!("<header>\n<h1>{title}</h1>\n{}</header>\n", under(summary)),
        figures(summary),
        warnings(summary),
        loss_plot(summary),
        beside::yardsticks(summary),
        beside::samples(summary),
        epsilon_plot(summary),
        cohort_plot(summary),
        version_table(summary),
        words::epsilon(summary),
        settings(summary),
    ];
    document(&title, &body.concat())
}

/// A page with this title and body, which are HTML already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn under(summary: &RunSummary) -> String {
    let stopped = if summary.stopped_when_flat {
        " It stopped because its last version gained nothing beyond its noise."
    } else {
        ""
    };
    format!(
        "<p class=\"under\">A simulated federation of {}: {} after the base model, adapter <i>{}</i> of \
         rank {}, seed {}.{stopped}</p>\n",
        counted(summary.devices.into(), "device"),
        counted(count(&summary.versions), "version"),
        escape(&summary.method),
        summary.rank,
        summary.seed,
    )
}

fn figures(summary: &RunSummary) -> String {
    let fall = summary.fall_percent();
    let fall = match fall {
        fall if !fall.is_finite() => "diverged".to_owned(),
        fall if fall < 0.0 => format!("+{:.1} %", -fall),
        fall => format!("−{fall:.1} %"),
    };
    let in_sums: u64 = summary.versions.iter().map(|version| u64::from(version.survivors)).sum();
    let sent: u64 =
        summary.versions.iter().map(|version| version.bytes_up_per_device).fold(0, u64::saturating_add);
    let epsilon = summary.bounded_epsilon().map_or_else(
        || ("∞".to_owned(), "ε: no bound on what one device reveals".to_owned()),
        |epsilon| {
            (
                format!("ε = {epsilon:.2}"),
                format!("spent by one device, at δ = {}", table::delta(summary.delta)),
            )
        },
    );
    let entries = [
        (
            fall,
            format!(
                "held-out loss, {} → {} nats a token",
                table::loss(summary.base_loss),
                table::loss(summary.final_loss)
            ),
        ),
        epsilon,
        (grouped(in_sums), format!("updates summed, in {}", counted(count(&summary.versions), "version"))),
        (
            table::bytes(sent.checked_div(count(&summary.versions)).unwrap_or(0)),
            "sent by a device for one version".to_owned(),
        ),
    ];
    figure_list(&entries)
}

/// The figures at the head of a page, each with what it is.
pub(crate) fn figure_list(entries: &[(String, String)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(figure, name)| format!("<div><dt>{name}</dt><dd>{figure}</dd></div>\n"))
        .collect();
    // Six are two rows of three, where three fit beside each other.
    let class = if entries.len() > 4 { "figures three" } else { "figures" };
    format!("<dl class=\"{class}\">\n{}</dl>\n", entries.concat())
}

fn warnings(summary: &RunSummary) -> String {
    warning_list(&summary.warnings)
}

/// What is to be read first, where there is anything.
pub(crate) fn warning_list(warnings: &[String]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let items: Vec<_> = warnings.iter().map(|warning| format!("<li>{}</li>\n", escape(warning))).collect();
    format!(
        "<section class=\"warnings\">\n<h2>Read this first</h2>\n<ul>\n{}</ul>\n</section>\n",
        items.concat()
    )
}

fn loss_plot(summary: &RunSummary) -> String {
    let base = Point {
        version: 0,
        value: summary.base_loss,
        title: format!("base model: {} nats a token", table::loss(summary.base_loss)),
    };
    let points = summary.versions.iter().map(|version| Point {
        version: version.version,
        value: version.loss,
        title: format!("version {}: {} nats a token", version.version, table::loss(version.loss)),
    });
    let free = summary.without_people();
    let trained = summary.yardsticks.iter().any(|one| one.name == Against::PublicAlone);
    let curve = Curve {
        measures: "held-out loss, nats a token",
        points: std::iter::once(base).chain(points).collect(),
        shown: trained.then_some(free.loss).into_iter().collect(),
        mark: trained.then_some(Mark { value: free.loss, name: "the best that needs no people" }),
    };
    figure(
        "Held-out loss",
        &curve.svg(),
        "Mean loss on messages that each device held out of its training. The ring at version 0 is the base model. The \
         upright axis does not begin at 0.",
    )
}

fn epsilon_plot(summary: &RunSummary) -> String {
    if summary.bounded_epsilon().is_none() {
        return String::new();
    }
    let start = Point { version: 0, value: 0.0, title: "nothing spent yet".to_owned() };
    let points = summary.versions.iter().map(|version| Point {
        version: version.version,
        value: version.epsilon.unwrap_or(f64::NAN),
        title: format!("version {}: ε = {}", version.version, table::epsilon(version.epsilon)),
    });
    let curve = Curve {
        measures: "ε spent by one device",
        points: std::iter::once(start).chain(points).collect(),
        shown: vec![0.0],
        mark: Some(Mark { value: EPSILON_MARK, name: "ε = 8" }),
    };
    let caption = format!(
        "Privacy spent by one device up to each version, at δ = {}. It only ever rises.",
        table::delta(summary.delta)
    );
    figure("Privacy spent", &curve.svg(), &caption)
}

fn cohort_plot(summary: &RunSummary) -> String {
    if summary.versions.is_empty() {
        return String::new();
    }
    figure(
        "Devices in each round",
        &plot::cohorts(&summary.versions),
        "Dashed: the cohort. Filled: the survivors, whose updates are in the sum.",
    )
}

pub(crate) fn figure(heading: &str, svg: &str, caption: &str) -> String {
    format!("<h2>{heading}</h2>\n<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn version_table(summary: &RunSummary) -> String {
    if summary.versions.is_empty() {
        return "<h2>Every version</h2>\n<p>No version was made.</p>\n".to_owned();
    }
    let headings =
        ["version", "cohort", "in sum", "missing", "loss before", "loss", "ε", "up", "down", "seconds"];
    let rows: Vec<_> = summary.versions.iter().map(|version| row("td", &cells(version))).collect();
    format!(
        "<h2>Every version</h2>\n<div class=\"wide\">\n<table>\n<thead>\n{}</thead>\n<tbody>\n{}</tbody>\n\
         </table>\n</div>\n<p class=\"note\">Loss in nats a token; up and down are bytes of one device.</p>\n",
        row("th", &headings.map(str::to_owned)),
        rows.concat()
    )
}

fn cells(version: &VersionSummary) -> [String; 10] {
    [
        version.version.to_string(),
        grouped(version.cohort.into()),
        grouped(version.survivors.into()),
        grouped(version.missing.into()),
        table::loss(version.loss_before),
        table::loss(version.loss),
        table::epsilon(version.epsilon),
        table::bytes(version.bytes_up_per_device),
        table::bytes(version.bytes_down_per_device),
        format!("{:.1}", version.secs),
    ]
}

pub(crate) fn row(tag: &str, cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
    format!("<tr>{}</tr>\n", cells.concat())
}

fn settings(summary: &RunSummary) -> String {
    let privacy = match summary.privacy {
        Mode::Off => "off",
        Mode::Central => "central: the coordinator adds the noise to the sum",
        Mode::Distributed => "distributed: every device adds its part of the noise",
    };
    let snr = summary.snr.map_or_else(|| "–".to_owned(), |snr| format!("{snr:.2}"));
    let entries = [
        ("method", escape(&summary.method)),
        ("rank", summary.rank.to_string()),
        ("numbers in an update", grouped(summary.coordinates)),
        ("clip norm (L2)", summary.clip_norm.to_string()),
        ("privacy", privacy.to_owned()),
        ("noise multiplier", summary.noise_multiplier.to_string()),
        ("signal to noise", snr),
        ("δ", table::delta(summary.delta)),
        ("seed", summary.seed.to_string()),
        ("devices", grouped(summary.devices.into())),
    ];
    let classes = summary.classes.iter().map(|class| {
        let (name, sent) = (table::part(class), table::bytes(class.bytes_up_per_device));
        let devices = counted(class.devices.into(), "device");
        let value =
            format!("{devices}, {} took part, {sent} sent for a version", grouped(class.took_part.into()));
        format!("<dt>of them {name}</dt><dd>{value}</dd>\n")
    });
    let entries = entries.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    let entries: Vec<String> = entries.into_iter().chain(classes).collect();
    format!(
        "<h2>Settings</h2>\n<dl class=\"settings\">\n{}</dl>\n\
         <p class=\"note\">All settings, and the digests of what was read, are in summary.json, from which \
         nightshift-sim run --from repeats the run.</p>\n",
        entries.concat()
    )
}

fn count(versions: &[VersionSummary]) -> u64 {
    u64::try_from(versions.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
