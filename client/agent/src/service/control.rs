//! Runs the commands of service managers, and says what went wrong in one of them.

use std::path::Path;
use std::process::Command;

use super::systemd::PROPERTIES;
use super::{Manager, NAME, Scope, ServiceError};

/// The commands of a manager for the services of the machine or of one person.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    manager: Manager,
    scope: Scope,
}

impl Control {
    /// The manager of this system. Fails where it is another one, does not run, or takes no orders from this user.
    pub fn of(manager: Manager, scope: Scope) -> Result<Self, ServiceError> {
        let here = Manager::here()?;
        if here != manager {
            return Err(ServiceError::Elsewhere { wanted: manager.name(), system: std::env::consts::OS });
        }
        let control = Self { manager, scope };
        if manager == Manager::Systemd {
            control.run("systemctl", &["--version"])?;
            // systemd's own way to say that it runs: sd_booted(3).
            if !Path::new("/run/systemd/system").is_dir() {
                return Err(ServiceError::NotRunning);
            }
        }
        Ok(control)
    }

    /// The same, for what changes a service.
    pub fn to_change(manager: Manager, scope: Scope) -> Result<Self, ServiceError> {
        let control = Self::of(manager, scope)?;
        let user = user();
        if scope == Scope::System && user != 0 { Err(ServiceError::NotRoot { user }) } else { Ok(control) }
    }

    /// Makes what a service needs before it starts: its user and its folder, where it brings them.
    pub fn prepare(self, files: &[&Path]) -> Result<(), ServiceError> {
        for file in files {
            let file = file.to_string_lossy();
            if *file == *super::systemd::SYSUSERS {
                self.run("systemd-sysusers", &[&file])?;
            }
        }
        for file in files {
            let file = file.to_string_lossy();
            if *file == *super::systemd::TMPFILES {
                self.run("systemd-tmpfiles", &["--create", &file])?;
            }
        }
        Ok(())
    }

    /// Tells the manager of the file, that the service starts with the system or with its person, and to start it now
    /// where `now` says so.
    pub fn enable(self, unit: &Path, now: bool) -> Result<(), ServiceError> {
        match self.manager {
            Manager::Systemd => {
                self.systemctl(&["daemon-reload"])?;
                self.systemctl(&["enable", NAME])?;
                if now {
                    // One that runs already runs by the old file.
                    self.systemctl(&["restart", NAME])?;
                }
            }
            Manager::Launchd if now => {
                // What is loaded stays as it was; that nothing is loaded is no failure.
                drop(self.launchctl("bootout", None));
                self.launchctl("bootstrap", Some(unit))?;
            }
            // It is read at the next login or start of the system.
            Manager::Launchd => {}
        }
        Ok(())
    }

    /// Stops the service, and tells the manager that it starts no more.
    pub fn disable(self) -> Result<(), ServiceError> {
        match self.manager {
            Manager::Systemd => {
                self.systemctl(&["disable", "--now", NAME])?;
            }
            Manager::Launchd => drop(self.launchctl("bootout", None)),
        }
        Ok(())
    }

    /// Tells the manager that the file is gone.
    pub fn forget(self) -> Result<(), ServiceError> {
        if self.manager == Manager::Systemd {
            self.systemctl(&["daemon-reload"])?;
            // There is nothing to reset where it never failed.
            drop(self.systemctl(&["reset-failed", NAME]));
        }
        Ok(())
    }

    /// What the manager says of the service, in its own form; nothing where it knows none.
    pub fn show(self) -> Result<String, ServiceError> {
        match self.manager {
            Manager::Systemd => self.systemctl(&["show", NAME, "--property", PROPERTIES]),
            Manager::Launchd => match self.launchctl("print", None) {
                Err(ServiceError::Command { .. }) => Ok(String::new()),
                other => other,
            },
        }
    }

    fn systemctl(self, arguments: &[&str]) -> Result<String, ServiceError> {
        let whose: &[&str] = if self.scope == Scope::User { &["--user"] } else { &[] };
        self.run("systemctl", &[whose, &["--no-pager", "--quiet"], arguments].concat())
    }

    fn launchctl(self, what: &str, file: Option<&Path>) -> Result<String, ServiceError> {
        let domain = match self.scope {
            Scope::System => "system".to_owned(),
            Scope::User => format!("gui/{}", user()),
        };
        match file {
            Some(file) => self.run("launchctl", &[what, &domain, &file.to_string_lossy()]),
            None => self.run("launchctl", &[what, &format!("{domain}/{NAME}")]),
        }
    }

    fn run(self, program: &str, arguments: &[&str]) -> Result<String, ServiceError> {
        let command = || format!("{program} {}", arguments.join(" "));
        let output =
            Command::new(program).args(arguments).output().map_err(|source| ServiceError::NoCommand {
                command: program.to_owned(),
                what: "installed, removed or asked",
                source,
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { "it said nothing" } else { said.trim() };
        let more = match (self.manager, self.scope) {
            (Manager::Systemd, Scope::System) => "; `journalctl --unit nightshift-agent` says more",
            (Manager::Systemd, Scope::User) => {
                "; `journalctl --user --unit nightshift-agent` says more. Without a login of that person there is no \
                 manager of theirs: `loginctl enable-linger` keeps one"
            }
            (Manager::Launchd, _) => "",
        };
        Err(ServiceError::Command {
            command: command(),
            status: output.status,
            said: format!("{said}{more}"),
        })
    }
}

/// Who runs this program.
#[cfg(unix)]
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Who runs this program: where the system knows no numbers, nobody who may install a service of the machine.
#[cfg(not(unix))]
pub fn user() -> u32 {
    u32::MAX
}
