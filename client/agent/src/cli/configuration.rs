//! Which configuration a command has: the file that is named, else that of the user, else the system's, else every key at its
//! default.

use std::path::{Path, PathBuf};

use super::Common;
use crate::config::{Config, source};
use crate::service::Manager;
use crate::service::Scope;
use crate::service::control::user;
use crate::service::paths::{Places, Surroundings, places};

/// The configuration, with what the command line says instead.
pub(super) fn configuration(common: &Common) -> anyhow::Result<Config> {
    let mut config = match &common.config {
        Some(path) => Config::load(path)?,
        None => usual(&of_this_process(), &|path| path.is_file())?,
    };
    if let Some(folder) = &common.state_dir {
        config.state_dir.clone_from(folder);
    }
    if let Some(folder) = &common.base {
        source(folder)?;
        config.base.clone_from(folder);
    }
    if !common.data.is_empty() {
        config.data.clone_from(&common.data);
    }
    Ok(config)
}

/// The file that the configuration is of; none where there is none.
pub(super) fn in_use(common: &Common) -> Option<PathBuf> {
    let Where { person, system } = of_this_process();
    let usual = person.or(system).map(|places| places.config).filter(|path| path.is_file());
    common.config.clone().or(usual)
}

/// Where a person's files are, where this process is not the system's own, and the system's.
#[derive(Clone, Debug, Default)]
struct Where {
    person: Option<Places>,
    system: Option<Places>,
}

fn of_this_process() -> Where {
    // Where no service can be, there are no such places either.
    let Ok(manager) = Manager::here() else { return Where::default() };
    let surroundings = Surroundings::from_env();
    let person = places(manager, Scope::User, &surroundings).ok().filter(|_| user() != 0);
    Where { person, system: places(manager, Scope::System, &surroundings).ok() }
}

/// The configuration where none is named. A person without any has their state in a folder of their own.
fn usual(Where { person, system }: &Where, is_there: &dyn Fn(&Path) -> bool) -> anyhow::Result<Config> {
    if let Some(person) = person {
        let (mut config, says) = if is_there(&person.config) {
            let text = std::fs::read_to_string(&person.config).unwrap_or_default();
            (Config::load(&person.config)?, text.parse::<toml::Table>().unwrap_or_default())
        } else {
            (Config::default(), toml::Table::new())
        };
        // What their file does not say is in their own folder, as without a file.
        if !says.contains_key("state_dir") {
            config.state_dir.clone_from(&person.state_dir);
        }
        if !says.contains_key("base") {
            config.base = config.state_dir.join("base");
        }
        return Ok(config);
    }
    match system {
        Some(system) if is_there(&system.config) => Ok(Config::load(&system.config)?),
        Some(_) | None => Ok(Config::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(home: &Path) -> Where {
        let surroundings = Surroundings::of(Some(home), None, None);
        let of = |scope| places(Manager::Systemd, scope, &surroundings).ok();
        Where { person: of(Scope::User), system: of(Scope::System) }
    }

    #[test]
    fn a_person_has_a_file_and_a_state_of_their_own_and_the_system_has_its_own() {
        let home = tempfile::tempdir().unwrap();
        let config = usual(&of(home.path()), &|path| path.is_file()).unwrap();
        let state = home.path().join(".local/state/nightshift-agent");
        assert_eq!((config.state_dir, config.base), (state.clone(), state.join("base")));
        let file = home.path().join(".config/nightshift/agent.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "state_dir = '/srv/mine'\n").unwrap();
        let config = usual(&of(home.path()), &|path| path.is_file()).unwrap();
        assert_eq!(config.state_dir, Path::new("/srv/mine"));
        std::fs::write(&file, "data = ['/srv/notes']\n").unwrap();
        let config = usual(&of(home.path()), &|path| path.is_file()).unwrap();
        assert_eq!((config.state_dir, config.base), (state.clone(), state.join("base")));
        assert_eq!(config.data, [Path::new("/srv/notes")]);
        let system = Where { person: None, ..of(home.path()) };
        assert_eq!(usual(&system, &|_| false).unwrap(), Config::default());
        // One that is there is read, whoever may not do so is told.
        assert!(usual(&system, &|_| true).unwrap_err().to_string().contains("/etc/nightshift/agent.toml"));
    }
}
