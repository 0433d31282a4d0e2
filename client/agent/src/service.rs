//! The agent as a service of the system: what is written where, and what its manager says.
//!
//! [`Service`] is what one machine has of its own in these texts; [`systemd`] and [`launchd`] write them, [`settings`]
//! writes the configuration beside them, [`paths`] says where they lie. All of that is pure. [`control`] runs the
//! manager's commands. What people type is in `cli/service.rs`.

pub mod control;
pub mod launchd;
pub mod paths;
pub mod settings;
pub mod systemd;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

/// The service's name, and the program's.
pub const NAME: &str = "nightshift-agent";

/// Stands in every file that [`NAME`]` service install` writes for a manager. One without it is somebody else's.
pub const MARKER: &str = "Written by `nightshift-agent service install`";

/// What starts services on a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// On Linux
    Systemd,
    /// On macOS
    Launchd,
}

/// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The machine's: it runs whether or not anybody is logged in.
    System,
    /// One person's: it runs while that person is logged in.
    User,
}

/// What a service is on this machine and not on every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Whose it is.
    pub scope: Scope,
    /// The program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// The folder of its keys, state and ledger.
    pub state_dir: PathBuf,
    /// What it reads beside that: the user's text, and the base.
    pub reads: Vec<PathBuf>,
    /// Whom a service of the machine runs as, if not as the user that it brings.
    pub run_as: Option<String>,
    /// Where a person's logs are, where the manager keeps none.
    pub logs: PathBuf,
}

/// Why there is no such service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The system has no manager that we know.
    #[error(
        "this version installs no service on {0}: let the system start `nightshift-agent --config FILE run` when you \
         log in (on Windows by the Task Scheduler), or write the files of another system by --root DIR --manager"
    )]
    NoManager(&'static str),
    /// The manager is another system's.
    #[error(
        "{wanted} does not run on {system}: give --root DIR, so that its files are written and nothing is run"
    )]
    Elsewhere {
        /// The manager.
        wanted: &'static str,
        /// This system.
        system: &'static str,
    },
    /// The manager is installed and does not run, as in a container.
    #[error(
        "this system was not started by systemd (there is no /run/systemd/system): start `nightshift-agent --config \
         FILE run` by what starts other services here, or give --root DIR, so that files are written and nothing is run"
    )]
    NotRunning,
    /// A command is not there, or does not start.
    #[error("cannot run {command}: {source}; without it no service can be {what}")]
    NoCommand {
        /// The command.
        command: String,
        /// What cannot be done.
        what: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {said}")]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        said: String,
    },
    /// The machine's services are root's.
    #[error(
        "a service of the whole machine is installed and removed by root, and this is user {user}: run it again by \
         `sudo`, or give --user for a service of your own"
    )]
    NotRoot {
        /// Who asks.
        user: u32,
    },
    /// Nobody knows where this person's files are.
    #[error("the environment has no HOME, below which a person's service lies: set it, or give --system")]
    NoHome,
    /// There is a service of this name that is not ours.
    #[error(
        "{} is not of `nightshift-agent service install`: it lacks its mark. Look at it; --force replaces or removes it",
        .0.display()
    )]
    Foreign(PathBuf),
    /// A path has no place in a unit or a configuration.
    #[error("{} cannot be named in a service's files: {why}; give it another name", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A configuration of the machine names a folder of whoever runs it.
    #[error(
        "{} in {} is below the home folder of whoever runs the agent, and its service runs as another user than you: \
         write the whole path",
        path.display(),
        config.display()
    )]
    BelowHome {
        /// The path as it is written.
        path: PathBuf,
        /// The configuration.
        config: PathBuf,
    },
    /// The program lies where its service cannot see it.
    #[error(
        "{} is in a folder that a service of the whole machine does not see: copy it to /usr/local/bin and run it from \
         there, or give --user for a service of your own",
        .0.display()
    )]
    HiddenProgram(PathBuf),
    /// The name of a user is none.
    #[error("{0:?} is not the name of a user: letters, digits, `.`, `_` and `-`, a letter or `_` first")]
    UserName(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] proto::files::FileError),
}

impl ServiceError {
    /// The exit code: 2 where it was asked for in the wrong way, 3 where the configuration is, 4 where the system is in the
    /// way.
    pub fn code(&self) -> u8 {
        match self {
            Self::NoManager(_)
            | Self::Elsewhere { .. }
            | Self::NotRoot { .. }
            | Self::NoHome
            | Self::Path { .. }
            | Self::HiddenProgram(_)
            | Self::UserName(_) => 2,
            Self::BelowHome { .. } => 3,
            Self::NotRunning
            | Self::NoCommand { .. }
            | Self::Command { .. }
            | Self::Foreign(_)
            | Self::File(_) => 4,
        }
    }
}

impl Manager {
    /// The one of this system. Fails where it has none that we know.
    pub fn here() -> Result<Self, ServiceError> {
        match std::env::consts::OS {
            "linux" => Ok(Self::Systemd),
            "macos" => Ok(Self::Launchd),
            other => Err(ServiceError::NoManager(other)),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
        }
    }
}

/// What is written for a manager, each at its path.
pub fn files(
    manager: Manager,
    service: &Service,
    places: &paths::Places,
) -> Result<Vec<(PathBuf, String)>, ServiceError> {
    if let Some(name) = &service.run_as {
        check_user(name)?;
    }
    Ok(match (manager, service.scope) {
        (Manager::Launchd, _) => vec![(places.unit.clone(), launchd::plist(service)?)],
        (Manager::Systemd, Scope::User) => vec![(places.unit.clone(), systemd::unit(service)?)],
        (Manager::Systemd, Scope::System) => {
            let mut files = vec![
                (places.unit.clone(), systemd::unit(service)?),
                (PathBuf::from(systemd::TMPFILES), systemd::tmpfiles(service)?),
            ];
            if service.run_as.is_none() {
                files.push((PathBuf::from(systemd::SYSUSERS), systemd::sysusers()));
            }
            files
        }
    })
}

/// As a text, where it can stand in a file of a manager or a configuration.
fn text(path: &Path) -> Result<&str, ServiceError> {
    let wrong = |why| ServiceError::Path { path: path.to_owned(), why };
    let text = path.to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
    if text.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return Err(wrong("it has a quotation mark, a backslash or a control character"));
    }
    if !path.is_absolute() {
        return Err(wrong("it does not begin at the root"));
    }
    Ok(text)
}

fn check_user(name: &str) -> Result<(), ServiceError> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c));
    if first && rest { Ok(()) } else { Err(ServiceError::UserName(name.to_owned())) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn service(scope: Scope) -> Service {
        let (config, state_dir) = match scope {
            Scope::System => ("/etc/nightshift/agent.toml", "/var/lib/nightshift-agent"),
            Scope::User => {
                ("/home/alex/.config/nightshift/agent.toml", "/home/alex/.local/state/nightshift-agent")
            }
        };
        Service {
            scope,
            program: "/usr/bin/nightshift-agent".into(),
            config: config.into(),
            state_dir: state_dir.into(),
            reads: Vec::new(),
            run_as: None,
            logs: "/home/alex/Library/Logs/nightshift-agent.log".into(),
        }
    }

    fn names(manager: Manager, scope: Scope, run_as: Option<&str>) -> Vec<String> {
        let service = Service { run_as: run_as.map(str::to_owned), ..service(scope) };
        let home = Some(Path::new("/home/alex"));
        let places = paths::places(manager, scope, &paths::Surroundings::of(home, None, None)).unwrap();
        let files = files(manager, &service, &places).unwrap();
        for (path, text) in &files {
            assert!(text.contains(MARKER), "{}", path.display());
        }
        files.into_iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn each_file_has_the_mark_and_its_place() {
        assert_eq!(
            names(Manager::Systemd, Scope::System, None),
            [
                "/etc/systemd/system/nightshift-agent.service",
                "/etc/tmpfiles.d/nightshift-agent.conf",
                "/etc/sysusers.d/nightshift-agent.conf"
            ]
        );
        assert_eq!(names(Manager::Systemd, Scope::System, Some("alex")).len(), 2);
        assert_eq!(
            names(Manager::Systemd, Scope::User, None),
            ["/home/alex/.config/systemd/user/nightshift-agent.service"]
        );
        assert_eq!(
            names(Manager::Launchd, Scope::User, None),
            ["/home/alex/Library/LaunchAgents/nightshift-agent.plist"]
        );
    }

    #[test]
    fn paths_that_would_change_a_file_s_meaning_are_refused_by_name() {
        for path in ["/home/a\nExecStart=/bin/sh", "/home/a\"b", "/home/a\\b", "notes"] {
            let message = text(Path::new(path)).unwrap_err().to_string();
            assert!(message.contains("another name"), "{message}");
        }
        assert_eq!(text(Path::new("/home/alex/my notes: 100 %")).unwrap(), "/home/alex/my notes: 100 %");
    }

    #[test]
    fn a_user_that_would_add_a_line_is_refused() {
        for name in ["", "a\nUser=root", "1st", "-", "a b"] {
            assert!(check_user(name).is_err(), "{name:?}");
        }
        assert!(check_user("alex.b-c_2").is_ok());
    }
}
