//! systemd's files: units from the two in `deploy/systemd`, with the lines changed that are one machine's own; and what
//! `systemctl show` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{MARKER, NAME, Scope, Service, ServiceError, text};

/// The unit of the whole machine, as packages install it.
pub const SYSTEM_UNIT: &str = include_str!("../../../../deploy/systemd/nightshift-agent.service");
/// The unit of one person.
pub const USER_UNIT: &str = include_str!("../../../../deploy/systemd/user/nightshift-agent.service");
const SYSUSERS_TEXT: &str = include_str!("../../../../deploy/systemd/nightshift-agent.sysusers");
const TMPFILES_TEXT: &str = include_str!("../../../../deploy/systemd/nightshift-agent.tmpfile");

/// Where the user of the machine's service is declared.
pub const SYSUSERS: &str = "/etc/sysusers.d/nightshift-agent.conf";
/// Where its folder is.
pub const TMPFILES: &str = "/etc/tmpfiles.d/nightshift-agent.conf";

/// The folder of the state in the texts above.
const STATE_DIR: &str = "/var/lib/nightshift-agent";

/// Folders of which the machine's service sees only what is bound.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// The line of the machine's unit below which what it may read is bound.
const BIND_HERE: &str = "# BindReadOnlyPaths=";

/// What of a unit is a choice, and not this version's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The configuration.
    pub config: Option<PathBuf>,
    /// Whom it runs as, where that is not the user that it brings.
    pub run_as: Option<String>,
}

/// The unit of a service. Fails where one of its paths has no place in one.
pub fn unit(service: &Service) -> Result<String, ServiceError> {
    let start =
        format!("ExecStart={} --config {} run", argument(&service.program)?, argument(&service.config)?);
    let mut lines = Vec::new();
    let template = match service.scope {
        Scope::System if hidden(&service.program) => {
            return Err(ServiceError::HiddenProgram(service.program.clone()));
        }
        Scope::System => SYSTEM_UNIT,
        Scope::User => USER_UNIT,
    };
    for line in template.lines() {
        match (line.split_once('=').map_or("", |(key, _)| key), &service.run_as) {
            ("ExecStart", _) => lines.push(start.clone()),
            ("User", Some(name)) => lines.push(format!("User={name}")),
            ("Group", Some(_)) => {}
            // The file beside the unit is the one that is started with, wherever that is.
            ("ConditionPathExists", _) => {
                lines.push(format!("ConditionPathExists={}", bare(&service.config)?));
            }
            ("StateDirectory" | "StateDirectoryMode", _) if !own_state(service) => {}
            _ => lines.push(line.to_owned()),
        }
        if line.starts_with(BIND_HERE) {
            for path in &service.reads {
                lines.push(format!("BindReadOnlyPaths=-{}", bound(path)?));
            }
            if !own_state(service) {
                let key = if hidden(&service.state_dir) { "BindPaths" } else { "ReadWritePaths" };
                lines.push(format!("{key}={}", bound(&service.state_dir)?));
            }
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// The user that a service of the machine brings.
pub fn sysusers() -> String {
    format!("# {MARKER}.\n{SYSUSERS_TEXT}")
}

/// The folder of a service of the machine, there before it is enrolled.
pub fn tmpfiles(service: &Service) -> Result<String, ServiceError> {
    let folder = format!("\"{}\"", text(&service.state_dir)?.replace('%', "%%"));
    let mut lines = TMPFILES_TEXT.replace(STATE_DIR, &folder);
    if let Some(name) = &service.run_as {
        lines = lines.replace(&format!(" {NAME} {NAME} "), &format!(" {name} - "));
    }
    Ok(format!("# {MARKER}.\n{lines}"))
}

/// What was chosen when a unit was written, so that the same can be written again.
pub fn chosen(unit: &str) -> Chosen {
    let value = |key: &str| {
        unit.lines().find_map(|line| line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
    };
    let config = value("ExecStart").and_then(|start| {
        let (_, rest) = start.split_once(" --config \"")?;
        let (config, _) = rest.split_once('"')?;
        Some(PathBuf::from(config.replace("%%", "%").replace("$$", "$")))
    });
    Chosen { config, run_as: value("User").filter(|name| *name != NAME).map(str::to_owned) }
}

fn own_state(service: &Service) -> bool {
    service.scope == Scope::User || service.state_dir == Path::new(STATE_DIR)
}

fn hidden(path: &Path) -> bool {
    HIDDEN.iter().any(|folder| path.starts_with(folder))
}

/// As a word of a command line.
fn argument(path: &Path) -> Result<String, ServiceError> {
    Ok(format!("\"{}\"", text(path)?.replace('%', "%%").replace('$', "$$")))
}

/// As a word of a list of paths; a colon between quotes divides nothing.
fn bound(path: &Path) -> Result<String, ServiceError> {
    Ok(format!("\"{}\"", bare(path)?))
}

/// As all that stands behind a key.
fn bare(path: &Path) -> Result<String, ServiceError> {
    Ok(text(path)?.replace('%', "%%"))
}

/// What is asked of `systemctl show`.
pub const PROPERTIES: &str = "LoadState,ActiveState,SubState,UnitFileState,FragmentPath,ActiveEnterTimestamp,MainPID,\
                              Result,ExecMainStatus,StatusText,NeedDaemonReload";

/// What the manager says of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `loaded`, `not-found` and the like.
    pub load: String,
    /// `enabled`, `disabled` and the like; empty where there is no unit.
    pub enabled: String,
    /// `active`, `activating`, `inactive`, `failed` and the like.
    pub active: String,
    /// The same in more detail, as `running`.
    pub detail: String,
    /// Since when it is active, as the manager writes times.
    pub since: Option<String>,
    /// The process.
    pub main_pid: Option<u32>,
    /// How it ended last, as `success`, `exit-code` or `watchdog`.
    pub result: String,
    /// The code that it exited with last.
    pub exit_status: Option<i32>,
    /// What it says of itself.
    pub says: Option<String>,
    /// The unit that is loaded.
    pub unit: Option<PathBuf>,
    /// Whether the unit was changed since it was loaded.
    pub stale: bool,
}

/// Reads what `systemctl show` printed: lines of a key and a value.
pub fn shown(printed: &str) -> Shown {
    let values: BTreeMap<&str, &str> = printed.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |key: &str| values.get(key).copied().unwrap_or_default().to_owned();
    let some = |key: &str| Some(value(key)).filter(|value| !value.is_empty());
    let ran = some("ActiveEnterTimestamp").is_some() || value("Result") != "success";
    Shown {
        load: value("LoadState"),
        enabled: value("UnitFileState"),
        active: value("ActiveState"),
        detail: value("SubState"),
        since: some("ActiveEnterTimestamp").filter(|_| value("ActiveState") == "active"),
        main_pid: value("MainPID").parse().ok().filter(|process| *process != 0),
        result: value("Result"),
        exit_status: value("ExecMainStatus").parse().ok().filter(|_| ran),
        says: some("StatusText"),
        unit: some("FragmentPath").map(PathBuf::from),
        stale: value("NeedDaemonReload") == "yes",
    }
}

#[cfg(test)]
mod tests;
