//! What the run is compared with, and what is written before and after it.

use super::markup::escape;
use super::row;
use crate::summary::RunSummary;
use crate::table;

/// The loss beside others.
pub(super) fn yardsticks(summary: &RunSummary) -> String {
    if summary.yardsticks.is_empty() {
        return String::new();
    }
    let headings = ["nats a token", "held-out loss", "newcomers", "takes", "with"].map(str::to_owned);
    let rows: Vec<_> = summary
        .yardsticks
        .iter()
        .map(|one| {
            let newcomers = one.newcomers_loss.map_or_else(|| "–".to_owned(), table::loss);
            let settings = one.settings.as_deref().map_or_else(|| "–".to_owned(), escape);
            let name = one.name.words().to_owned();
            row("td", &[name, table::loss(one.loss), newcomers, one.name.takes().to_owned(), settings])
        })
        .collect();
    format!(
        "<h2>Beside it</h2>\n<p>{}.</p>\n<div class=\"wide\">\n<table>\n<thead>\n{}</thead>\n<tbody>\n{}</tbody>\n\
         </table>\n</div>\n<p class=\"note\">Held-out loss is the mean over the devices of the loss on messages that \
         each held out; newcomers are people who take no part. What is trained in one place is the same adapter, and \
         the best of several step sizes and lengths is shown.</p>\n",
        table::gained(summary),
        row("th", &headings),
        rows.concat()
    )
}

/// What is written before and after.
pub(super) fn samples(summary: &RunSummary) -> String {
    if summary.samples.is_empty() {
        return String::new();
    }
    let samples: Vec<_> = summary
        .samples
        .iter()
        .map(|sample| {
            let prompt = escape(&sample.prompt);
            let line =
                |name: &str, text: &str| format!("<dt>{name}</dt><dd><b>{prompt}</b>{}</dd>\n", escape(text));
            [line("before", &sample.before), line("after", &sample.after)].concat()
        })
        .collect();
    format!(
        "<h2>What it writes</h2>\n<dl class=\"written\">\n{}</dl>\n<p class=\"note\">Before is the base, after the \
         base with the adapter; both went on from the bold words, by the same chance.</p>\n",
        samples.concat()
    )
}
