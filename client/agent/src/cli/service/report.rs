//! What `nightshift-agent service` says of what it did or found.

use std::path::PathBuf;

use serde::Serialize;

use crate::service::{Manager, NAME, Scope, launchd, systemd};

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Installed {
    pub(super) manager: Manager,
    pub(super) scope: Scope,
    pub(super) wrote: Vec<PathBuf>,
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) started: bool,
    /// Conditions for which this machine has no source, and whether they are assumed.
    pub(super) untold: Vec<Untold>,
    /// What a person has to do before it takes part.
    pub(super) next: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Untold {
    pub(super) condition: String,
    pub(super) wanted: String,
    pub(super) assumed: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) removed: Vec<PathBuf>,
    pub(super) left: Vec<PathBuf>,
}

/// What there is.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) manager: Manager,
    pub(super) scope: Scope,
    /// The file, where there is one.
    pub(super) unit: Option<PathBuf>,
    /// Whether this program wrote it.
    pub(super) ours: bool,
    /// Whether this version would write the same, by the configuration as it is now.
    pub(super) current: bool,
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) systemd: Option<systemd::Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launchd: Option<launchd::Printed>,
}

impl Installed {
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.wrote.iter().map(|path| format!("wrote {}", path.display())).collect();
        for Untold { condition, wanted, assumed } in &self.untold {
            let then = if *assumed {
                "it is taken to hold".to_owned()
            } else {
                format!("it counts as not holding, unless `assume` in {} names it", self.config.display())
            };
            lines.push(format!("this machine cannot tell `{condition}` (wanted: {wanted}): {then}"));
        }
        if self.started {
            lines.push(format!("started; `{NAME} service status` says how it is"));
        }
        lines.extend(self.next.iter().map(|next| format!("next: {next}")));
        if (self.manager, self.scope, self.started) == (Manager::Systemd, Scope::User, true) {
            lines.push("it runs while you are logged in; after `loginctl enable-linger` always".to_owned());
        }
        lines.join("\n")
    }
}

impl Removed {
    pub(super) fn text(&self) -> String {
        if self.removed.is_empty() {
            return "there is no service".to_owned();
        }
        let removed = self.removed.iter().map(|path| format!("removed {}", path.display()));
        let left = self.left.iter().map(|path| format!("left as it is: {}", path.display()));
        removed.chain(left).collect::<Vec<_>>().join("\n")
    }
}

impl Status {
    /// Whether the manager says that it runs.
    pub(super) fn runs(&self) -> bool {
        self.systemd.as_ref().is_some_and(|shown| shown.main_pid.is_some())
            || self.launchd.as_ref().is_some_and(|printed| printed.pid.is_some())
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let Some(unit) = &self.unit else { return "no service is installed".to_owned() };
        let runs = if self.runs() { "and runs" } else { "and does not run" };
        let how = if self.current { "" } else { ", otherwise than this version writes it" };
        format!("{} is installed {runs}{how}", unit.display())
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        match &self.unit {
            None => lines.push(format!("no service is installed; `{NAME} service install` does that")),
            Some(path) => {
                let how = match (self.ours, self.current) {
                    (false, _) => "not written by this program",
                    (true, true) => "as this version writes it",
                    (true, false) => {
                        "otherwise than this version writes it by the configuration as it is now; `service install` \
                         writes it again"
                    }
                };
                lines.push(format!("{}: {how}", path.display()));
            }
        }
        if let Some(shown) = self.systemd.as_ref().filter(|shown| shown.load != "not-found") {
            let since = shown.since.as_ref().map_or(String::new(), |since| format!(" since {since}"));
            let process = shown.main_pid.map_or(String::new(), |pid| format!(", process {pid}"));
            lines.push(format!("{}, {} ({}){since}{process}", shown.enabled, shown.active, shown.detail));
            lines.extend(shown.says.clone());
            if let Some(code) = shown.exit_status.filter(|_| shown.main_pid.is_none()) {
                lines.push(format!("ended last by {}, exit code {code}", shown.result));
            }
            if shown.stale {
                lines.push("its file was changed since it was loaded: systemctl daemon-reload".to_owned());
            }
        }
        if let Some(printed) = self.launchd.as_ref().filter(|printed| !printed.state.is_empty()) {
            let process = printed.pid.map_or(String::new(), |pid| format!(", process {pid}"));
            let last =
                printed.last_exit.as_ref().map_or(String::new(), |code| format!(", ended last by {code}"));
            lines.push(format!("{}{process}{last}", printed.state));
        }
        lines.push(format!("configuration {}", self.config.display()));
        lines.push(format!("state {}", self.state_dir.display()));
        lines.join("\n")
    }
}
