//! Where a service's files lie.

use std::path::{Path, PathBuf};

use super::{Manager, NAME, Scope, ServiceError};

/// What the environment says of a person's folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
}

/// Where things are, if nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The file that a manager reads.
    pub unit: PathBuf,
    /// Where it looks after that, for what a package brought.
    pub packaged: Vec<PathBuf>,
    /// The configuration.
    pub config: PathBuf,
    /// The folder of keys, state and ledger.
    pub state_dir: PathBuf,
    /// The log, where the manager keeps none.
    pub logs: PathBuf,
}

impl Surroundings {
    /// By a home, and the folders for configuration and state where they are elsewhere than below it (`XDG_CONFIG_HOME`,
    /// `XDG_STATE_HOME`). What does not begin at the root does not count.
    pub fn of(home: Option<&Path>, config: Option<&Path>, state: Option<&Path>) -> Self {
        let absolute = |path: Option<&Path>| path.filter(|path| path.is_absolute()).map(Path::to_owned);
        Self { home: absolute(home), config: absolute(config), state: absolute(state) }
    }

    /// As the environment of this process says.
    pub fn from_env() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let (home, config, state) = (folder("HOME"), folder("XDG_CONFIG_HOME"), folder("XDG_STATE_HOME"));
        Self::of(home.as_deref(), config.as_deref(), state.as_deref())
    }
}

/// Where a service's files are. Fails where a person's are nowhere.
pub fn places(manager: Manager, scope: Scope, surroundings: &Surroundings) -> Result<Places, ServiceError> {
    let home = || surroundings.home.clone().ok_or(ServiceError::NoHome);
    let (service, plist) = (format!("{NAME}.service"), format!("{NAME}.plist"));
    Ok(match (manager, scope) {
        (Manager::Systemd, Scope::System) => Places {
            unit: Path::new("/etc/systemd/system").join(&service),
            packaged: ["/usr/lib/systemd/system", "/lib/systemd/system"]
                .map(|folder| Path::new(folder).join(&service))
                .into(),
            config: "/etc/nightshift/agent.toml".into(),
            state_dir: "/var/lib/nightshift-agent".into(),
            logs: PathBuf::new(),
        },
        (Manager::Systemd, Scope::User) => {
            let home = home()?;
            let config = surroundings.config.clone().unwrap_or_else(|| home.join(".config"));
            let state = surroundings.state.clone().unwrap_or_else(|| home.join(".local/state"));
            Places {
                unit: config.join("systemd/user").join(&service),
                packaged: vec![Path::new("/usr/lib/systemd/user").join(&service)],
                config: config.join("nightshift/agent.toml"),
                state_dir: state.join(NAME),
                logs: PathBuf::new(),
            }
        }
        (Manager::Launchd, Scope::System) => Places {
            unit: Path::new("/Library/LaunchDaemons").join(&plist),
            packaged: Vec::new(),
            config: "/Library/Application Support/nightshift/agent.toml".into(),
            state_dir: "/Library/Application Support/nightshift-agent".into(),
            logs: "/Library/Logs/nightshift-agent.log".into(),
        },
        (Manager::Launchd, Scope::User) => {
            let library = home()?.join("Library");
            Places {
                unit: library.join("LaunchAgents").join(&plist),
                packaged: Vec::new(),
                config: library.join("Application Support/nightshift/agent.toml"),
                state_dir: library.join("Application Support/nightshift-agent"),
                logs: library.join("Logs/nightshift-agent.log"),
            }
        }
    })
}

/// The same path below another root.
pub fn below(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_s_files_are_where_the_environment_says_or_below_the_home() {
        let of = |config: Option<&str>, state: Option<&str>| {
            let path = |path: &'static str| Path::new(path);
            let surroundings =
                Surroundings::of(Some(path("/home/alex")), config.map(Path::new), state.map(Path::new));
            places(Manager::Systemd, Scope::User, &surroundings).unwrap()
        };
        let found = of(None, Some("relative"));
        assert_eq!(found.config, Path::new("/home/alex/.config/nightshift/agent.toml"));
        assert_eq!(found.state_dir, Path::new("/home/alex/.local/state/nightshift-agent"));
        let found = of(Some("/cfg"), Some("/state"));
        assert_eq!(found.unit, Path::new("/cfg/systemd/user/nightshift-agent.service"));
        assert_eq!(found.state_dir, Path::new("/state/nightshift-agent"));
    }

    #[test]
    fn nobody_s_service_is_nowhere() {
        for manager in [Manager::Systemd, Manager::Launchd] {
            assert!(places(manager, Scope::System, &Surroundings::default()).is_ok());
            let error = places(manager, Scope::User, &Surroundings::default()).unwrap_err();
            assert!(error.to_string().contains("HOME"), "{error}");
        }
    }

    #[test]
    fn another_root_is_put_before_a_path() {
        assert_eq!(below(Some(Path::new("/srv/root")), Path::new("/etc/x")), Path::new("/srv/root/etc/x"));
        assert_eq!(below(None, Path::new("/etc/x")), Path::new("/etc/x"));
    }
}
