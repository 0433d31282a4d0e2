//! What ε means in this run, for a reader who has not met it.

use privacy::accountant::ADJACENCY;
use proto::plan::Mode;

use crate::summary::RunSummary;
use crate::table;

/// The heading and the paragraphs, as HTML.
pub(super) fn epsilon(summary: &RunSummary) -> String {
    let (heading, paragraphs) = match (summary.privacy, summary.bounded_epsilon()) {
        (Mode::Central | Mode::Distributed, Some(epsilon)) => {
            (format!("What ε = {epsilon:.2} means"), bounded(epsilon, summary.delta, summary.privacy))
        }
        (Mode::Central | Mode::Distributed, None) => (
            "Why there is no ε".to_owned(),
            vec![
                "Noise was added, but too little for any bound: ε is infinite.".to_owned(),
                UNPROTECTED.to_owned(),
            ],
        ),
        (Mode::Off, _) => (
            "Why there is no ε".to_owned(),
            vec![
                "Privacy was off in this run: no noise was added, so ε is infinite.".to_owned(),
                UNPROTECTED.to_owned(),
            ],
        ),
    };
    let paragraphs: Vec<_> = paragraphs.iter().map(|paragraph| format!("<p>{paragraph}</p>\n")).collect();
    format!("<h2>{heading}</h2>\n{}", paragraphs.concat())
}

const UNPROTECTED: &str = "The coordinator still saw sums only, never the update of one device. But a \
    sum, the difference of two versions, or the adapter itself may tell what one device wrote. These \
    figures show what could be learned without protection; an adapter made this way from private text \
    should not be published.";

fn bounded(epsilon: f64, delta: f64, privacy: Mode) -> Vec<String> {
    let (adversary, basis) = match privacy {
        Mode::Central => (
            "anyone who sees the published adapters, but not the coordinator: it sees every sum without noise",
            "the coordinator added the noise as planned, and kept the sums to itself",
        ),
        Mode::Off | Mode::Distributed => (
            "anyone who sees the published adapters, and the coordinator, who sees every sum",
            "each device that is counted added its part of the noise. Devices that collude with the coordinator \
             can take their own part away again, and the bound weakens as if they had not been there",
        ),
    };
    let factor = epsilon.exp();
    let factor = if factor < 10.0 {
        format!("{factor:.1}")
    } else if factor < 1e6 {
        format!("{factor:.0}")
    } else {
        format!("{factor:.0e}")
    };
    vec![
        format!(
            "The unit is one device: all of its text, in every version that it took part in. The adversary is \
             {adversary}."
        ),
        format!(
            "Suppose such an observer asks whether one certain device took part at all. Whatever odds \
             it gave beforehand, this run can multiply them by at most e<sup>ε</sup> ≈ {factor}, but \
             for cases of probability δ = {}. It is a bound for the worst device and the cleverest \
             observer, not an estimate of what leaks; attacks that are known today usually get far less. \
             An ε of 1 or below is a strong promise, 8 a weak one. {ADJACENCY}.",
            table::delta(delta)
        ),
        format!(
            "It rests on this: {basis}. It does not cover text that many devices have alike, nor anything that \
             the base model knew before."
        ),
    ]
}
