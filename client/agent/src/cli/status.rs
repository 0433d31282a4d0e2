//! What a device does and why, for its user: `status`, `conditions`, `log`.
#![expect(clippy::disallowed_methods, reason = "IO shell: what time it is, and a pause between two looks")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::store::TurnedAway;
use client::{Certificate, DeviceMonitor, Now, Status};
use proto::counted::counted;
use proto::ids::{TaskId, Timestamp};
use proto::shown::shown;
use serde::Serialize;
use session::conditions::{Conditions, Judgment, Purpose, in_words, judge};
use shell::cli::Format;

use super::asked::Asked;
use super::time::{at, relative, span};
use super::{Failure, print, spent};
use crate::bases;
use crate::config::Config;
use crate::monitor::{Sources, ThisMachine, advice};

/// Between two tables of `conditions --watch`.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What `conditions` prints as JSON.
#[derive(Serialize)]
struct Table {
    running: bool,
    window: Option<String>,
    last_preemption: Option<client::Preemption>,
    training: Vec<Judgment>,
    transfer: Vec<Judgment>,
}

/// Says what the conditions are, once or every second until it is stopped.
pub(super) fn conditions(config: &Config, watch: bool, format: Format) -> Result<(), Failure> {
    let machine = ThisMachine::start(Sources::of_this_machine());
    loop {
        let table = match Asked::now_of(config)? {
            Some(now) => Table {
                running: true,
                window: Some(now.window),
                last_preemption: now.last_preemption,
                training: now.conditions,
                transfer: now.transfer,
            },
            None => seen(&machine, &config.conditions),
        };
        print(format, &table, || text(&table))?;
        if !watch {
            return Ok(());
        }
        std::thread::sleep(WATCHED_EVERY);
    }
}

/// What this process sees, where no daemon looks.
fn seen(machine: &impl DeviceMonitor, limits: &Conditions) -> Table {
    let mut snapshot = machine.look();
    // What the device counts is not known here; its conditions are left out.
    snapshot.usage.free_disk_mib = None;
    let without_usage = |judged: Vec<Judgment>| {
        use session::conditions::Condition::{Budget, Disk, Resumed};
        let of_machine = |row: &Judgment| !matches!(row.condition, Disk | Budget | Resumed);
        judged.into_iter().filter(of_machine).collect()
    };
    Table {
        running: false,
        window: None,
        last_preemption: None,
        training: without_usage(judge(&snapshot, limits, Purpose::Start)),
        transfer: without_usage(judge(&snapshot, limits, Purpose::Transfer)),
    }
}

fn text(table: &Table) -> String {
    let row = |row: &Judgment| {
        let state = if row.blocking { "blocks" } else { "holds" };
        format!(
            "  {:10} {state:7} {:34} wanted: {:40} from {}",
            row.condition.as_str(),
            row.value,
            row.threshold,
            row.source
        )
    };
    let mut lines = vec!["to train:".to_owned()];
    lines.extend(table.training.iter().map(row));
    lines.push("to use the network:".to_owned());
    lines.extend(table.transfer.iter().map(row));
    if let Some(window) = &table.window {
        lines.push(format!("the window is {window}"));
    }
    if let Some(preemption) = &table.last_preemption {
        lines.push(format!("last preemption: {}, {}", at(preemption.unix_millis), preemption.why));
    }
    if let Some(advice) = advice(&[&table.training[..], &table.transfer[..]].concat()) {
        lines.push(advice);
    }
    lines.join("\n")
}

/// What `status` prints as JSON.
#[derive(Serialize)]
struct Whole {
    running: bool,
    #[serde(flatten)]
    status: Status,
    now: Option<Now>,
    state_dir: PathBuf,
    /// What it trains on, by the configuration.
    bases: Vec<PathBuf>,
    data: Vec<PathBuf>,
    /// What it spent in each task, by its own accountant; none where that has no bound.
    epsilon: BTreeMap<TaskId, Option<f64>>,
    /// Why it would not take part, or not train now, if it were started as it is configured; a daemon says it in `now`.
    waits_for: Vec<String>,
}

/// Says what the device does now, what next, and what it would take.
pub(super) fn status(config: &Config, format: Format) -> Result<(), Failure> {
    let doing = Asked::now_of(config)?;
    let asked = Asked::open(config)?;
    let (mut status, now) = (asked.status()?, now());
    // One that is over pauses nothing.
    status.paused_until = status.paused_until.filter(|until| *until > now.0);
    let waits_for = if doing.is_some() { Vec::new() } else { without_daemon(config, &status) };
    let whole = Whole {
        running: doing.is_some(),
        status,
        now: doing,
        state_dir: config.state_dir.clone(),
        bases: std::iter::once(&config.base).chain(&config.further_bases).cloned().collect(),
        data: config.data.clone(),
        epsilon: spent::epsilons(&asked.entries()?),
        waits_for,
    };
    print(format, &whole, || {
        let mut lines = held(&whole, now);
        match &whole.now {
            None => {
                lines.push(
                    "no agent runs; `nightshift-agent run` or `nightshift-agent service install` starts one"
                        .to_owned(),
                );
                lines.extend(whole.waits_for.iter().cloned());
            }
            Some(doing) => lines.extend(does(doing, &whole.status.names, now)),
        }
        lines.join("\n")
    })
}

fn held(whole: &Whole, now: Timestamp) -> Vec<String> {
    let Whole { status, state_dir, bases, data, epsilon, .. } = whole;
    let mut lines = if let Some(device) = status.device {
        let label = if status.label.is_empty() { String::new() } else { format!("{}, ", status.label) };
        let coordinator = status.coordinator.as_deref().unwrap_or_default();
        vec![format!("enrolled as {label}{device}, with the coordinator {coordinator}")]
    } else {
        let folder = state_dir.display();
        vec![format!("not enrolled: there is no device in {folder}; `nightshift-agent enroll` makes one")]
    };
    lines.extend(status.turned_away.as_ref().map(|turned_away| not_taken(turned_away, now)));
    if status.turned_away.is_none() {
        lines.extend(status.certificate.map(|certificate| certified(certificate, now)));
    }
    if !whole.running {
        lines.extend(status.paused_until.map(|until| paused(until, now)));
    }
    let listed = |paths: &[PathBuf]| {
        let paths: Vec<String> =
            paths.iter().map(|path| shown(&path.to_string_lossy()).to_string()).collect();
        if paths.is_empty() { "none".to_owned() } else { paths.join(", ") }
    };
    // A daemon has a configuration of its own, and says itself what it trains on.
    if !whole.running {
        lines.push(format!("base: {}", listed(bases)));
        lines.push(format!("text: {}", listed(data)));
    }
    if status.installed.is_empty() {
        lines.push("holds no version yet".to_owned());
    }
    let named =
        |task: &TaskId| status.names.get(task).map_or(task.to_string(), |name| format!("{name} ({task})"));
    lines.extend(
        status.installed.iter().map(|published| {
            format!("holds version {} of task {}", published.version, named(&published.task))
        }),
    );
    lines.extend(epsilon.iter().map(|(task, epsilon)| match epsilon {
        Some(epsilon) => format!("spent epsilon {epsilon:.3} in task {}", named(task)),
        None => format!(
            "spent epsilon without a bound in task {}: a round had no noise of the devices' own",
            named(task)
        ),
    }));
    // What went wrong last is said by who runs, with its time.
    let is_last = |why: &String| {
        let last = whole.now.as_ref().and_then(|now| now.last_problem.as_ref());
        last.is_some_and(|last| last.what == *why)
    };
    let declined = status.declined.as_ref().map(|declined| declined.why.clone());
    lines.extend(declined.filter(|why| !is_last(why)));
    if status.charges_found_at_coordinator > 0 {
        lines.push(format!(
            "{} charged that this folder did not know of: it was restored from a backup, or the coordinator errs",
            counted(status.charges_found_at_coordinator, "round was", "rounds were")
        ));
    }
    lines
}

/// What a device is told of which its coordinator says that it is none.
pub(super) fn not_taken(TurnedAway { unix_millis, why }: &TurnedAway, now: Timestamp) -> String {
    format!(
        "its coordinator does not take this device: {why}; known since {}, {}. It neither trains nor contributes; what it \
         holds stays here. Ask the coordinator's operator: a device that was revoked enrolls as another one, with a new \
         token and an empty folder (`nightshift-agent --state-dir DIR enroll --token-file FILE`), one that the coordinator \
         lost by `nightshift-agent enroll --again --token-file FILE`",
        at(*unix_millis),
        relative(*unix_millis, now)
    )
}

pub(super) fn paused(until: u64, now: Timestamp) -> String {
    match until {
        u64::MAX => "paused until `nightshift-agent resume`".to_owned(),
        until => format!("paused until {}, {}", at(until), relative(until, now)),
    }
}

/// What keeps a device from taking part, or from training now, that no daemon holds: by its configuration, and by what the
/// machine says now.
fn without_daemon(config: &Config, status: &Status) -> Vec<String> {
    let mut waits = bases::wanting(config);
    waits.extend(bases::text_wanting(config));
    if status.device.is_none() {
        return waits;
    }
    let table = seen(&ThisMachine::start(Sources::of_this_machine()), &config.conditions);
    for (what, judged) in [("may train", &table.training), ("may use the network", &table.transfer)] {
        let blocking = in_words(judged);
        if !blocking.is_empty() {
            waits.push(format!("{what}: no; it would take: {blocking}"));
        }
    }
    waits
}

pub(super) fn certified(Certificate { ends, renewal_due }: Certificate, now: Timestamp) -> String {
    if ends < now.0 {
        return format!(
            "its certificate ended {}; it asks for the next one when it runs",
            relative(ends, now)
        );
    }
    let renewed = if renewal_due > now.0 { relative(renewal_due, now) } else { "when it runs".to_owned() };
    format!("its certificate ends {}, and is renewed {renewed}", at(ends))
}

fn does(doing: &Now, names: &BTreeMap<TaskId, String>, now: Timestamp) -> Vec<String> {
    let mut lines: Vec<String> = doing.bases.iter().map(|base| format!("holds the base {base}")).collect();
    lines.extend(doing.fetching_bases.iter().map(|(base, (there, total))| {
        format!("fetches the base {base}: {} of {} MiB are here", there >> 20, total.div_ceil(1 << 20))
    }));
    let work = doing.work.as_ref();
    let of = work.map_or(String::new(), |work| {
        let task = names.get(&work.task).cloned().unwrap_or_else(|| work.task.to_string());
        format!(", version {} of task {task}", work.version)
    });
    let steps = doing.training.map_or(String::new(), |(steps, all)| format!(", step {steps} of {all}"));
    lines.push(format!("now: {}{of}{steps}, since {}", doing.state, relative(doing.since, now)));
    if let Some(next) = doing.next_check_in {
        lines.push(format!("next: asks the coordinator {}", relative(next, now)));
    }
    lines.extend(doing.paused_until.map(|until| paused(until, now)));
    // It does not look yet.
    if doing.window.is_empty() {
        lines.extend(doing.last_problem.as_ref().map(|problem| {
            format!("last problem: {}, {}", relative(problem.unix_millis, now), problem.what)
        }));
        return lines;
    }
    let blocking = in_words(&doing.conditions);
    lines.push(match (doing.window.as_str(), doing.opens, blocking.is_empty()) {
        ("open", ..) => "may train: yes".to_owned(),
        ("overridden", ..) if doing.may_train => "may train: yes, the conditions are overridden".to_owned(),
        ("overridden", ..) => "may train: no, it is paused; the conditions are overridden".to_owned(),
        (_, Some(opens), true) => format!("may train: after a rest, {}", relative(opens, now)),
        (_, _, true) => "may train: soon, all conditions hold and have to hold for a while".to_owned(),
        (_, Some(opens), false) => format!("may train: no, it rests until {}; and {blocking}", at(opens)),
        (_, None, false) => format!("may train: no; it would take: {blocking}"),
    });
    if !doing.may_transfer && doing.window != "overridden" {
        lines.push(format!("may use the network: no; it would take: {}", in_words(&doing.transfer)));
    }
    let mib = doing.transferred_today.div_ceil(1 << 20);
    let trained = span(Duration::from_secs(doing.trained_secs_today));
    lines.push(format!("today: trained for {trained}, {mib} MiB sent and fetched"));
    if let Some(preemption) = &doing.last_preemption {
        lines.push(format!(
            "last preemption: {}, because {}",
            relative(preemption.unix_millis, now),
            preemption.why
        ));
    }
    if let Some(problem) = &doing.last_problem {
        lines.push(format!("last problem: {}, {}", relative(problem.unix_millis, now), problem.what));
    }
    lines
}

/// Says what the device did.
pub(super) fn log(config: &Config, format: Format) -> Result<(), Failure> {
    let notes = Asked::open_to_tell(config)?.journal()?;
    print(format, &notes, || {
        if notes.is_empty() {
            return "nothing has happened yet".to_owned();
        }
        let line =
            |note: &client::store::Note| format!("{}  {:12} {}", at(note.unix_millis), note.event, note.what);
        notes.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
