//! A report for people.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use proto::counted::counted;
use proto::shown::shown;

use crate::latency::Latency;
use crate::report::{Ended, Load, Process, Report};
use crate::tally::{Failures, MOST_ROUNDS, Tally};

/// Questions that a coordinator holds while they can only wait for others, the last for the sum to be opened: what they take
/// is the others' time too.
const HELD: [&str; 8] =
    ["check-in", "join", "advertise", "draw", "share keys", "masked done", "agree", "unmask"];

/// By what was asked, and by what came of it.
type ByTwo<T> = BTreeMap<String, BTreeMap<String, T>>;

impl Report {
    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let (counted_all, rates) = (&self.counted, &self.rates);
        let Load { coordinator, devices, shape, .. } = &self.load;
        let processes = counted(self.processes.len() as u64, "process", "processes");
        let mut line = |words: String| {
            text.push_str(&words);
            text.push('\n');
        };
        line(format!("{devices} devices against {}, {shape}, by {processes}", shown(coordinator)));
        for process in &self.processes {
            line(of_process(process));
        }
        if !rates.missing_shards.is_empty() {
            line(format!("missing: shards {:?}; what follows is without them", rates.missing_shards));
        }
        line(String::new());
        line(format!(
            "check-ins   {:.2}/s over {:.1} s, {} in all, {} in the busiest second",
            rates.check_ins_per_sec,
            rates.secs,
            counted_all.count_of(crate::tally::CHECK_IN),
            rates.most_check_ins_in_a_sec
        ));
        line(format!(
            "rounds      {:.1}/h, {} ended; versions {:.1}/h, {} made",
            rates.rounds_per_hour,
            counted_all.ended_rounds(),
            rates.versions_per_hour,
            counted_all.versions()
        ));
        line(format!(
            "requests    {:.1}/s, {} answered, {} without an answer, {} out at the end",
            rates.requests_per_sec,
            counted_all.answered_in_all(),
            counted_all.failed_in_all(),
            counted_all.unanswered_at_end
        ));
        line(format!(
            "bytes       {}/s sent by devices, {}/s received, within TLS",
            bytes(rates.sent_bytes_per_sec),
            bytes(rates.received_bytes_per_sec)
        ));
        line(String::new());
        line(requests(counted_all));
        for (title, rows) in [
            ("without an answer", failures(&counted_all.failures)),
            ("before the load, and in no number above", answers(&counted_all.before)),
            ("without an answer before the load", failures(&counted_all.failures_before)),
            ("devices that could not be played", broken(&counted_all.broken)),
            ("rounds, by how they ended", rows(counted_all.outcomes().into_iter())),
            (
                "came to nothing for a device",
                rows(counted_all.ended.iter().map(|(why, n)| (why.as_str(), *n))),
            ),
            ("declined by a device", rows(counted_all.declines.iter().map(|(why, n)| (why.as_str(), *n)))),
        ] {
            if !rows.is_empty() {
                line(format!("\n{title}"));
                rows.into_iter().for_each(&mut line);
            }
        }
        if counted_all.offers_not_told > 0 {
            line(format!(
                "\n{} of a place in rounds beyond the first {MOST_ROUNDS}, of which nothing else is counted",
                counted(counted_all.offers_not_told, "offer", "offers")
            ));
        }
        if counted_all.began_anew > 0 {
            line(format!(
                "\n{} began again with a base that was new to them: that many check-ins more",
                counted(counted_all.began_anew, "device", "devices")
            ));
        }
        line(String::new());
        line(verdict(self));
        text.trim_end().to_owned()
    }
}

fn verdict(report: &Report) -> String {
    let limits = &report.rates.generator_was_the_limit;
    let late = &report.counted.late;
    let times = "times are from when a question was to be sent, so that a question that waited for this program counts as long as \
                 it waited (no coordinated omission)";
    let mut text = format!(
        "{times}; questions left {} late at the 99th percentile, {} at most",
        millis(late.quantile_micros(0.99)),
        millis(late.max_micros())
    );
    if limits.is_empty() {
        text.push_str("\nthe generator was not the limit");
    } else {
        text.push_str("\nTHE GENERATOR WAS THE LIMIT, the coordinator may be faster than this says:");
        for limit in limits {
            text.push_str("\n  ");
            text.push_str(limit);
        }
    }
    text
}

fn of_process(process: &Process) -> String {
    let Process { shard, devices, enrolled, lasted_millis, ended, generator, .. } = process;
    let why = match ended {
        Ended::Time => "until its time was over",
        Ended::Versions => "until there were enough versions",
        Ended::NoMoreWork => "until there was no more work",
        Ended::NoDevice => "until none of its devices could be played",
        Ended::Interrupted => "until it was interrupted",
    };
    let secs = *lasted_millis as f64 / 1000.0;
    let used = generator.cpu_secs.map_or("an unknown part".to_owned(), |cpu| {
        format!("{:.0} %", 100.0 * cpu / (secs * f64::from(generator.cores)).max(f64::MIN_POSITIVE))
    });
    let memory =
        generator.peak_memory_bytes.map_or(String::new(), |most| format!(", {}", bytes(most as f64)));
    let load = generator.machine_load.map_or(String::new(), |[before, after]| {
        format!(", machine's load {before:.1} before and {after:.1} after")
    });
    format!(
        "  shard {shard}: {} ({enrolled} newly enrolled), {secs:.1} s {why}; {used} of {} processors{memory}{load}; {} of {} \
         descriptors",
        counted(u64::from(*devices), "device", "devices"),
        generator.cores,
        generator.descriptors_needed,
        generator.descriptors_granted
    )
}

fn requests(tally: &Tally) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["REQUEST", "ANSWER", "COUNT", "P50", "P90", "P99", "MAX"]);
    let mut is_any_held = false;
    for (request, answers) in &tally.requests {
        let is_held = HELD.contains(&request.as_str());
        is_any_held |= is_held;
        for (answer, latency) in answers {
            let at = |quantile| millis(Latency::quantile_micros(latency, quantile));
            table.add_row([
                format!("{}{}", shown(request), if is_held { " *" } else { "" }),
                shown(answer).to_string(),
                latency.count().to_string(),
                at(0.5),
                at(0.9),
                at(0.99),
                millis(latency.max_micros()),
            ]);
        }
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number >= 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    if is_any_held {
        text.push_str("\n* the coordinator holds it while it can only wait for others: their time is in it");
    }
    text
}

fn answers(all: &ByTwo<Latency>) -> Vec<String> {
    let all = all.iter().flat_map(|(request, answers)| answers.iter().map(move |answer| (request, answer)));
    all.map(|(request, (answer, latency))| {
        format!(
            "  {:>7}  {}: {}, {} at most",
            latency.count(),
            shown(request),
            shown(answer),
            millis(latency.max_micros())
        )
    })
    .collect()
}

fn broken(broken: &Failures) -> Vec<String> {
    let all = (broken.count > 0).then_some(broken).into_iter();
    all.map(|broken| format!("  {:>7}  (such as: {})", broken.count, shown(&broken.example))).collect()
}

fn failures(failures: &ByTwo<Failures>) -> Vec<String> {
    let all = failures.iter().flat_map(|(request, whys)| whys.iter().map(move |why| (request, why)));
    all.map(|(request, (why, failures))| {
        format!(
            "  {:>7}  {}: {} (such as: {})",
            failures.count,
            shown(request),
            shown(why),
            shown(&failures.example)
        )
    })
    .collect()
}

fn rows<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Vec<String> {
    counts.map(|(word, count)| format!("  {count:>7}  {}", shown(word))).collect()
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

fn bytes(count: f64) -> String {
    const KIB: f64 = 1024.0;
    if count < KIB * KIB {
        format!("{:.1} KiB", count / KIB)
    } else {
        format!("{:.1} MiB", count / (KIB * KIB))
    }
}
