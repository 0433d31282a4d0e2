//! Plots of bars: upright ones along an axis of names, and lying ones for what becomes less from one to the next.

use super::axis::Axis;
use super::markup::{escape, grouped};
use super::plot::{LEFT, MOST_LABELS, RIGHT, WIDTH, bar, down, opening, version_label};

/// Height of a lying bar with the room around it.
const ROW: f64 = 34.0;

/// Where lying bars begin and the longest ends: beside them stand their names and numbers.
const FROM: f64 = 130.0;
const TO: f64 = 520.0;

/// One upright bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// Below it.
    pub(crate) label: String,
    /// How high it is.
    pub(crate) value: f64,
    /// How high the dashed one behind it is, where there is one.
    pub(crate) behind: Option<f64>,
    /// Shown when a reader points at it.
    pub(crate) title: String,
}

/// Upright bars.
#[derive(Debug)]
pub(crate) struct Bars<'a> {
    /// What is measured, and in which unit.
    pub(crate) measures: &'a str,
    /// Along what.
    pub(crate) across: &'a str,
    /// In order.
    pub(crate) all: Vec<Bar>,
}

impl Bars<'_> {
    /// The bars as an `svg` element.
    pub(crate) fn svg(&self) -> String {
        let heights = self.all.iter().flat_map(|bar| [Some(bar.value), bar.behind]).flatten();
        let highest = heights.filter(|height| height.is_finite()).fold(0.0, f64::max);
        let is_whole = highest >= 1.0;
        let ends = [0.0, if highest > 0.0 { highest } else { 1.0 }];
        let y = if is_whole { Axis::over_whole(ends, 5.0) } else { Axis::over(ends, 5.0) };
        let mut svg = vec![opening(self.measures, &y, self.across)];
        let slot = (RIGHT - LEFT) / self.all.len().max(1) as f64;
        let (every, width) = (self.all.len().div_ceil(MOST_LABELS).max(1), f64::min(slot * 0.72, 44.0));
        let labels = self.all.len().div_ceil(every);
        let mut middle = LEFT + slot / 2.0;
        for (place, one) in self.all.iter().enumerate() {
            if place % every == 0 {
                svg.push(version_label(middle, &escape(&one.label), place / every, labels));
            }
            let behind =
                one.behind.map_or_else(String::new, |value| bar("cohort", middle, width, down(&y, value)));
            svg.push(format!(
                "<g><title>{}</title>{}{behind}</g>\n",
                escape(&one.title),
                bar("survivors", middle, width, down(&y, one.value)),
            ));
            middle += slot;
        }
        svg.push("</svg>\n".to_owned());
        svg.concat()
    }
}

/// Lying bars of numbers, each as long as its part of the largest, with its number behind it.
pub(crate) fn lying(what: &str, rows: &[(&str, u64, &str)]) -> String {
    let largest = rows.iter().map(|(_, number, _)| *number).max().unwrap_or(0).max(1) as f64;
    let height = 12.0 + ROW * rows.len() as f64;
    let mut svg = vec![format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(what)
    )];
    let mut top = 6.0;
    for (name, number, class) in rows {
        let (middle, length) = (top + ROW / 2.0, (TO - FROM) * *number as f64 / largest);
        svg.push(format!(
            "<text class=\"strong\" x=\"{:.1}\" y=\"{middle:.1}\" dy=\".35em\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{FROM}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{middle:.1}\" dy=\".35em\">{}</text>\n",
            FROM - 10.0,
            escape(name),
            top + 5.0,
            ROW - 10.0,
            FROM + length + 8.0,
            grouped(*number),
        ));
        top += ROW;
    }
    svg.push("</svg>\n".to_owned());
    svg.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_bar_is_the_axis_and_names_are_escaped() {
        let bar = |value, behind| Bar { label: "<a>".to_owned(), value, behind, title: "<t>".to_owned() };
        let svg =
            Bars { measures: "devices", across: "times", all: vec![bar(1.0, Some(4.0)), bar(4.0, None)] }
                .svg();
        assert_eq!(svg.matches("height=\"206.0\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("height=\"51.5\"").count(), 1, "{svg}");
        assert!(svg.contains("&lt;a&gt;") && svg.contains("<title>&lt;t&gt;</title>"));
        let none = Bars { measures: "devices", across: "times", all: Vec::new() }.svg();
        assert!(!none.contains("NaN") && !none.contains("inf"), "{none}");
    }

    #[test]
    fn lying_bars_are_as_long_as_their_part_of_the_largest() {
        let svg = lying("funnel", &[("there", 4000, "survivors"), ("counted", 1000, "survivors")]);
        assert!(svg.contains("width=\"390.0\"") && svg.contains("width=\"97.5\""), "{svg}");
        assert!(svg.contains("4,000"));
    }
}
