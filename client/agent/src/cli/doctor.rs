//! `nightshift-agent doctor`: everything that a person would be asked for, looked at in one go.
//!
//! It works with and without a daemon, and makes nothing: what is not there is said.

mod device;
mod machine;

use client::store::Entry;
use client::{Now, Status};
use proto::counted::counted;
use proto::shown::shown;
use session::conditions::Usage;
use shell::doctor::{Examined, Finding};

use super::asked::Asked;
use super::configuration::{configuration, in_use};
use super::status::{now, paused};
use super::{Common, Failure, print};
use crate::config::Config;

/// What is known of the device, from a daemon or from its folder.
struct Known {
    status: Status,
    now: Option<Now>,
    usage: Option<Usage>,
}

/// Looks at everything and prints it; fails where something is at fault.
pub(super) fn doctor(common: &Common) -> Result<(), Failure> {
    let mut examined = Examined::default();
    match configuration(common) {
        Ok(config) => {
            let what = match in_use(common) {
                Some(path) => {
                    format!("{} is read, and all of its keys are known", shown(&path.to_string_lossy()))
                }
                None => "there is no file: every key is at its default".to_owned(),
            };
            examined.add(Finding::ok("configuration", what));
            examine(&config, common, &mut examined);
        }
        Err(error) => {
            let todo =
                "mend it; what else there is was not looked at, because the configuration says where it is";
            examined.add(Finding::fault("configuration", error.to_string()).advising(todo).code(3));
        }
    }
    print(common.format, &examined, || examined.text())?;
    match examined.fault() {
        None => Ok(()),
        Some((code, words)) => Err(Failure { code, error: anyhow::Error::msg(words) }),
    }
}

fn examine(config: &Config, common: &Common, examined: &mut Examined) {
    device::folder(config, examined);
    if let Some(known) = state(config, examined) {
        device::enrolled(&known.status, examined);
        device::reached(config, &known, examined);
        if let Some(until) = known.status.paused_until.filter(|until| *until > now().0) {
            let resume = "`nightshift-agent resume` ends it";
            examined.add(Finding::warning("pause", paused(until, now())).advising(resume));
        } else {
            examined.add(Finding::ok("pause", "not paused"));
        }
        machine::conditions(config, known.now.as_ref(), known.usage, examined);
    }
    machine::bases(config, examined);
    machine::text(config, examined);
    machine::service(common, examined);
}

/// Looks whether the state opens, or a daemon has it open. Nothing where neither is so.
fn state(config: &Config, examined: &mut Examined) -> Option<Known> {
    let asked = Asked::now_of(config).and_then(|now| Ok((now, Asked::open(config)?)));
    let (now, asked) = match asked {
        Ok(asked) => asked,
        Err(Failure { code, error }) => {
            examined.add(Finding::fault("state", error.to_string()).code(code));
            return None;
        }
    };
    let read = asked.status().and_then(|status| Ok((status, asked.entries()?)));
    let (status, entries): (Status, Vec<Entry>) = match read {
        Ok(read) => read,
        Err(Failure { code, error }) => {
            examined.add(Finding::fault("state", error.to_string()).code(code));
            return None;
        }
    };
    let records = counted(entries.len(), "record", "records");
    let (what, usage) = match &asked {
        Asked::Daemon(_) => {
            let state = now.as_ref().map_or("", |now| now.state.as_str());
            (format!("an agent runs and has it open, with a ledger of {records}; it is {state}"), None)
        }
        Asked::Folder(device) => {
            let what = format!("it opens, with a ledger of {records} that is whole; no agent runs");
            (what, Some(device.control().usage()))
        }
        Asked::Nothing => ("there is none yet".to_owned(), None),
    };
    examined.add(Finding::ok("state", what));
    if let Some(problem) = now.as_ref().and_then(|now| now.last_problem.as_ref()) {
        let when = super::time::relative(problem.unix_millis, self::now());
        examined.add(Finding::warning("last problem", format!("{when}: {}", problem.what)));
    }
    Some(Known { status, now, usage })
}
