//! Plots by version, drawn as inline SVG.

use super::axis::Axis;
use super::markup::escape;
use crate::summary::VersionSummary;

pub(crate) const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 310.0;
pub(crate) const LEFT: f64 = 56.0;
pub(crate) const RIGHT: f64 = 622.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 252.0;
/// Labels of versions that fit side by side.
pub(crate) const MOST_LABELS: usize = 12;

/// One value of a curve.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// The version that the value belongs to.
    pub(crate) version: u64,
    /// The value.
    pub(crate) value: f64,
    /// Shown when a reader points at it.
    pub(crate) title: String,
}

/// A value that a reader compares the curve with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    /// The value.
    pub(crate) value: f64,
    /// What stands beside the line.
    pub(crate) name: &'a str,
}

/// A curve over the versions.
#[derive(Debug)]
pub(crate) struct Curve<'a> {
    /// What is measured, and in which unit.
    pub(crate) measures: &'a str,
    /// The values, in order; one that is not finite is left out.
    pub(crate) points: Vec<Point>,
    /// Values that the axis must show, such as 0.
    pub(crate) shown: Vec<f64>,
    /// Drawn where the axis shows it.
    pub(crate) mark: Option<Mark<'a>>,
}

impl Curve<'_> {
    /// The curve as an `svg` element.
    pub(crate) fn svg(&self) -> String {
        let points: Vec<_> = self.points.iter().filter(|point| point.value.is_finite()).collect();
        let y = Axis::over(points.iter().map(|point| point.value).chain(self.shown.iter().copied()), 5.0);
        let last = self.points.iter().map(|point| point.version).max();
        let x = Axis::over_whole([0.0, last.unwrap_or(0).max(1) as f64], 8.0);
        let across = |version: u64| LEFT + x.place(version as f64) * (RIGHT - LEFT);

        let mut svg = vec![opening(self.measures, &y, "version")];
        for (tick, (value, label)) in x.ticks().into_iter().enumerate() {
            let at = LEFT + x.place(value) * (RIGHT - LEFT);
            svg.push(version_label(at, &label, tick, x.ticks().len()));
        }
        if let Some(mark) = self.mark.filter(|mark| y.shows(mark.value)) {
            let at = down(&y, mark.value);
            svg.push(format!(
                "<line class=\"mark\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\"/>\
                 <text class=\"mark-name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                LEFT + 8.0,
                at - 6.0,
                escape(mark.name)
            ));
        }
        let path: Vec<_> = points
            .iter()
            .map(|point| format!("{:.1},{:.1}", across(point.version), down(&y, point.value)))
            .collect();
        svg.push(format!("<polyline class=\"curve\" points=\"{}\"/>\n", path.join(" ")));
        for point in points {
            let class = if point.version == 0 { "base" } else { "dot" };
            let (at, height) = (across(point.version), down(&y, point.value));
            // The second circle is for the finger.
            svg.push(format!(
                "<g><title>{}</title><circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"4\"/>\
                 <circle cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"12\" fill=\"transparent\"/></g>\n",
                escape(&point.title)
            ));
        }
        svg.push("</svg>\n".to_owned());
        svg.concat()
    }
}

/// The cohort of every version as an outline, filled as far as it survived.
pub(crate) fn cohorts(versions: &[VersionSummary]) -> String {
    let each = versions.iter().map(|version| (version.version, version.cohort, version.survivors));
    cohorts_of(&each.collect::<Vec<_>>())
}

/// The same of versions with their cohorts and survivors.
pub(crate) fn cohorts_of(versions: &[(u64, u32, u32)]) -> String {
    let largest = versions.iter().map(|(_, cohort, _)| *cohort).max();
    let y = Axis::over_whole([0.0, f64::from(largest.unwrap_or(0).max(1))], 5.0);
    let mut svg = vec![opening("devices", &y, "version")];
    let slot = (RIGHT - LEFT) / versions.len().max(1) as f64;
    let (every, width) = (versions.len().div_ceil(MOST_LABELS).max(1), f64::min(slot * 0.72, 44.0));
    let mut middle = LEFT + slot / 2.0;
    for (place, (version, cohort, survivors)) in versions.iter().enumerate() {
        if place % every == 0 {
            let labels = versions.len().div_ceil(every);
            svg.push(version_label(middle, &version.to_string(), place / every, labels));
        }
        svg.push(format!(
            "<g><title>version {version}: {survivors} of {cohort} devices in the sum, {} missing</title>{}{}</g>\n",
            cohort.saturating_sub(*survivors),
            bar("cohort", middle, width, down(&y, f64::from(*cohort))),
            bar("survivors", middle, width, down(&y, f64::from(*survivors))),
        ));
        middle += slot;
    }
    svg.push("</svg>\n".to_owned());
    svg.concat()
}

pub(crate) fn bar(class: &str, middle: f64, width: f64, top: f64) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
        middle - width / 2.0,
        f64::max(BOTTOM - top, 0.0),
    )
}

/// The element's start tag, the upright axis with its name above it, the grid
/// and the name of the axis along the foot.
pub(crate) fn opening(measures: &str, y: &Axis, across: &str) -> String {
    let mut svg = vec![format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0} by {1}\">\n\
         <text class=\"strong\" x=\"0\" y=\"18\">{0}</text>\n",
        escape(measures),
        escape(across)
    )];
    for (value, label) in y.ticks() {
        let at = down(y, value);
        svg.push(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{at:.1}\" dy=\".35em\" text-anchor=\"end\">{label}</text>\n",
            LEFT - 10.0,
        ));
    }
    let foot = down(y, y.low());
    svg.push(format!(
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{foot:.1}\" x2=\"{RIGHT}\" y2=\"{foot:.1}\"/>\n\
         <text class=\"strong\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 50.0,
        escape(across)
    ));
    svg.concat()
}

/// The name of a version below its place; on a narrow page every other one
/// of many is hidden.
pub(crate) fn version_label(at: f64, label: &str, number: usize, of: usize) -> String {
    let class = if of > 6 && number % 2 == 1 { " class=\"thin\"" } else { "" };
    format!("<text{class} x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n", BOTTOM + 22.0)
}

pub(crate) fn down(y: &Axis, value: f64) -> f64 {
    BOTTOM - y.place(value) * (BOTTOM - TOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: &[f64], mark: f64) -> String {
        let points =
            (0..).zip(values).map(|(version, &value)| Point { version, value, title: format!("<{value}>") });
        Curve {
            measures: "ε",
            points: points.collect(),
            shown: vec![0.0],
            mark: Some(Mark { value: mark, name: "limit" }),
        }
        .svg()
    }

    #[test]
    fn a_mark_is_drawn_only_where_the_axis_shows_it() {
        assert!(curve(&[0.0, 7.9], 8.0).contains("limit"));
        assert!(!curve(&[0.0, 2.0], 8.0).contains("limit"));
    }

    #[test]
    fn a_value_that_is_not_finite_is_left_out() {
        let svg = curve(&[1.0, f64::NAN, f64::INFINITY, 2.0], 8.0);
        assert_eq!(svg.matches("<title>").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn titles_are_escaped() {
        assert!(curve(&[1.0], 8.0).contains("<title>&lt;1&gt;</title>"));
    }

    #[test]
    fn the_first_and_last_points_stand_at_the_ends() {
        let svg = curve(&[0.0, 8.0], 8.0);
        assert!(svg.contains("points=\"56.0,252.0 622.0,46.0\""), "{svg}");
    }
}
