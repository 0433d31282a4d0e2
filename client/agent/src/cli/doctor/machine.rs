//! What the device trains on, when it may, and what starts it.

use std::path::Path;

use client::{DeviceMonitor, Now};
use engine::{Base, BaseOptions};
use proto::counted::counted;
use proto::shown::shown;
use session::conditions::{Condition, Judgment, Purpose, Usage, in_words, judge};
use shell::doctor::{Examined, Finding};
use text::UserText;

use super::super::{Common, Failure, service};
use crate::bases::{self, Bases};
use crate::config::Config;
use crate::monitor::{Sources, ThisMachine, advice};

/// Free space below which a device's own state may not be written any more, in MiB.
const LEAST_MIB: u64 = 64;

/// Each base: whether it is there, and whole as far as its headers and its tokenizer tell.
pub(super) fn bases(config: &Config, examined: &mut Examined) {
    let sources = config.sources();
    let fetches = config.policy.coordinator_bases_mib > 0;
    for (place, source) in sources.iter().enumerate() {
        let here = Bases::find(std::slice::from_ref(source), &bases::hub(&config.state_dir)).here;
        let Some(path) = here.first() else {
            let what = format!("{source} is not here yet");
            let to_do = "let the agent run: it fetches it when it may use the network";
            examined.add(Finding::warning("base", what).advising(to_do));
            continue;
        };
        let name = shown(&path.to_string_lossy()).to_string();
        let is_absent = !bases::absent(std::slice::from_ref(path)).is_empty();
        match whole(path) {
            Ok(mib) => {
                let whole = format!("{name} is whole, and takes {mib} MiB of memory");
                examined.add(Finding::ok("base", whole));
            }
            Err(_) if is_absent && place == 0 && !fetches && sources.len() == 1 => {
                let to_do = "put it there, or name another by `base`";
                examined.add(Finding::fault("base", format!("{name} is not there")).advising(to_do).code(3));
            }
            Err(_) if is_absent => {
                let to_do = "put it there; the device takes part with the others meanwhile";
                examined.add(Finding::warning("base", format!("{name} is not there")).advising(to_do));
            }
            Err(error) => examined.add(Finding::fault("base", format!("{name}: {error}")).code(3)),
        }
    }
    let fetched = client::store::FetchedBases::below(&config.state_dir);
    for base in fetched.whole() {
        examined.add(Finding::ok("base", format!("{base} came from the coordinator")));
    }
}

fn whole(path: &Path) -> Result<u64, engine::BaseError> {
    let bytes = Base::needed_bytes(path, BaseOptions::default())?;
    Ok(bytes.div_ceil(1 << 20))
}

/// How much text there is; of what it says, nothing.
pub(super) fn text(config: &Config, examined: &mut Examined) {
    if config.data.is_empty() {
        let to_do = "name files or folders by `data` in agent.toml, or by --data";
        examined.add(Finding::fault("text", "no text is named").advising(to_do).code(3));
        return;
    }
    let to_do = "`nightshift-agent data check` says what each file is taken for, and what is left out";
    let finding = match UserText::read(&config.data, &config.reading()) {
        Err(error) => Finding::fault("text", error.to_string()).code(3),
        Ok(text) => {
            let reading = text.reading();
            let found = format!(
                "{} in {}",
                counted(reading.documents, "document", "documents"),
                counted(reading.files, "file", "files")
            );
            let (lines, files) = (reading.skipped_lines(), reading.unread_files());
            if reading.documents == 0 {
                Finding::fault("text", found).advising(to_do).code(3)
            } else if lines + files > 0 {
                let left = format!(
                    "{found}; left out: {} and {}",
                    counted(lines, "line", "lines"),
                    counted(files, "file", "files")
                );
                Finding::warning("text", left).advising(to_do)
            } else {
                Finding::ok("text", found)
            }
        }
    };
    examined.add(finding);
}

/// The conditions, by what a daemon sees or by a look: which have no source, and which do not hold now; and the disk.
pub(super) fn conditions(config: &Config, now: Option<&Now>, usage: Option<Usage>, examined: &mut Examined) {
    let free_mib = usage.as_ref().and_then(|usage| usage.free_disk_mib);
    let (training, transfer) = if let Some(now) = now {
        (now.conditions.clone(), now.transfer.clone())
    } else {
        let mut snapshot = ThisMachine::start(Sources::of_this_machine()).look();
        snapshot.usage = usage.unwrap_or_default();
        let judged = |purpose| judge(&snapshot, &config.conditions, purpose);
        (judged(Purpose::Start), judged(Purpose::Transfer))
    };
    // Where there is no folder yet, nobody looks at its disk.
    let is_known = |row: &&Judgment| row.condition == Condition::Disk && !row.unknown;
    if let Some(disk) = training.iter().find(is_known) {
        examined.add(disk_space(disk, free_mib, config.conditions.least_free_disk_mib));
    }
    if now.is_some_and(|now| now.window == "overridden") {
        let what = "the agent that runs overrides them: it trains whatever they are";
        examined.add(Finding::ok("conditions", what));
        return;
    }
    if let Some(advice) = advice(&[&training[..], &transfer[..]].concat()) {
        let (what, to_do) = advice.split_once("\nUntil it can").unwrap_or((&advice, ""));
        let to_do = format!("until it can{to_do}");
        examined.add(Finding::fault("conditions", what).advising(to_do).code(7));
    }
    for (what, judged) in [("it may not train now", training), ("it may not use the network now", transfer)] {
        // What nobody tells is said above, and what the user wants, and the disk, each by itself.
        let holds_not = |row: &Judgment| {
            row.blocking && !row.unknown && !matches!(row.condition, Condition::Resumed | Condition::Disk)
        };
        let rows: Vec<Judgment> = judged.into_iter().filter(holds_not).collect();
        if rows.is_empty() {
            continue;
        }
        let waits = format!("{what}; it would take: {}", in_words(&rows));
        examined
            .add(Finding::warning("conditions", waits).advising("wait: the device looks again by itself"));
    }
}

fn disk_space(row: &Judgment, free_mib: Option<u64>, floor_mib: u64) -> Finding {
    let is_full = free_mib.is_some_and(|free| free < LEAST_MIB);
    let what = format!("{}, wanted: {}", row.value, row.threshold);
    let to_do = format!("make room; `least_free_disk_mib` is {floor_mib} MiB");
    if is_full {
        Finding::fault("disk", what).advising(to_do)
    } else if row.blocking {
        Finding::warning("disk", what).advising(to_do)
    } else {
        Finding::ok("disk", what)
    }
}

/// Whether the system starts the agent.
pub(super) fn service(common: &Common, examined: &mut Examined) {
    let to_do = "`nightshift-agent service install` lets the system start it";
    let finding = match service::looked_at(common) {
        Ok(looked) if !looked.installed => Finding::warning("service", looked.says).advising(to_do),
        Ok(looked) if looked.runs && looked.current => Finding::ok("service", looked.says),
        Ok(looked) if looked.current => {
            Finding::warning("service", looked.says).advising("`nightshift-agent service status` says more")
        }
        Ok(looked) => Finding::warning("service", looked.says)
            .advising("`nightshift-agent service install` writes it anew"),
        Err(Failure { error, .. }) => Finding::warning("service", error.to_string()),
    };
    examined.add(finding);
}
