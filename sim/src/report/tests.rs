use proto::plan::Mode;

use super::*;
use crate::classes::ClassSummary;
use crate::samples::Sample;
use crate::summary::tests::sample;

/// Fails where a tag is not closed in order, or an angle bracket is loose.
pub(crate) fn assert_balanced(html: &str) {
    let mut open = vec![];
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "loose bracket in {text:?}");
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') && name != "meta" {
            open.push(name);
        }
        if name == "style" {
            let (_, after) = rest.split_once("</style>").unwrap();
            rest = after;
            open.pop();
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

fn odd_runs() -> Vec<RunSummary> {
    let mut unbounded = sample(5);
    unbounded.epsilon = Some(f64::INFINITY);
    let mut off = sample(5);
    off.privacy = Mode::Off;
    off.epsilon = None;
    let mut diverged = sample(4);
    diverged.final_loss = f64::NAN;
    diverged.versions[3].loss = f64::INFINITY;
    vec![sample(0), sample(1), sample(60), unbounded, off, diverged]
}

#[test]
fn the_page_is_well_formed_whatever_the_run() {
    for summary in odd_runs() {
        let page = html(&summary, "A run");
        assert_balanced(&page);
        assert!(!page.contains("NaN"));
    }
}

#[test]
fn whatever_comes_from_outside_is_escaped() {
    let mut summary = sample(2);
    let hostile = "</style><script>alert('x')</script>\"&";
    summary.method = hostile.to_owned();
    summary.warnings = vec![hostile.to_owned()];
    let text = || hostile.to_owned();
    summary.samples = vec![Sample { prompt: text(), before: text(), after: text() }];
    summary.yardsticks[0].settings = Some(text());
    let page = html(&summary, hostile);
    assert_balanced(&page);
    assert!(!page.contains("<script"));
    // The prompt stands before both samples.
    assert_eq!(page.matches("&lt;script&gt;").count(), 5 + 4 + 1);
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    for summary in odd_runs() {
        let page = html(&summary, "A run");
        for outside in ["http", "src=", "href", "url(", "@import", "//", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn the_numbers_of_the_run_are_on_the_page() {
    let mut summary = sample(10);
    summary.base_loss = 5.0;
    summary.final_loss = 4.0;
    summary.epsilon = Some(7.75);
    summary.warnings = vec!["cohorts were small".to_owned()];
    summary.classes =
        vec![ClassSummary { rank: 2, layers: 3, devices: 9, took_part: 8, bytes_up_per_device: 4096 }];
    let page = html(&summary, "Night run");
    assert_balanced(&page);
    for expected in [
        "<h1>Night run</h1>",
        "−20.0 %",
        "5.0000 → 4.0000 nats a token",
        "ε = 7.75",
        "1e-5",
        "6,144",
        "cohorts were small",
        "version 10: 60 of 60 devices in the sum, 0 missing",
        "25.0 KiB",
        "e<sup>ε</sup> ≈ 2322",
        "ε = 8</text>",
        "<td>public text alone</td><td>5.2000</td>",
        "<dd><b>see you at</b> the lantern gate</dd>",
        "the best that needs no people</text>",
        "of them rank 2 in 3 layers</dt><dd>9 devices, 8 took part, 4.0 KiB sent for a version</dd>",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    for version in &summary.versions {
        assert!(page.contains(&format!("<td>{:.4}</td>", version.loss)));
    }
}

#[test]
fn without_a_bound_the_page_says_so_and_draws_no_epsilon() {
    let mut summary = sample(3);
    summary.privacy = Mode::Off;
    let page = html(&summary, "Open run");
    assert!(page.contains("Privacy was off in this run"));
    assert!(!page.contains("Privacy spent"));
    assert!(!page.contains("ε = 8</text>"));
}

#[test]
fn noise_of_the_coordinator_promises_nothing_against_the_coordinator() {
    let mut summary = sample(2);
    assert!(html(&summary, "run").contains("and the coordinator, who sees every sum"));
    summary.privacy = Mode::Central;
    let page = html(&summary, "run");
    assert!(page.contains("but not the coordinator") && !page.contains("each device that is counted"));
}
