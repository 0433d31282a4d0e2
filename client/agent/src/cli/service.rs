//! `nightshift-agent service`: the agent as a service of the system.

mod report;

use std::collections::BTreeSet;
use std::env;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use client::DeviceMonitor;
use engine::Source;
use proto::files::{self, Audience, FileError};
use session::conditions::{Condition, Conditions, Judgment, Purpose, judge};
use shell::cli::note;

use report::{Installed, Removed, Status, Untold};

use super::{Common, Failure, failed, path, print};
use crate::config::{Config, SAMPLE, source};
use crate::monitor::{Sources, ThisMachine, untold};
use crate::service::control::{Control, user};
use crate::service::paths::{Places, Surroundings, below, places};
use crate::service::settings::{Answers, below_home, condition, filled, word};
use crate::service::{self, MARKER, Manager, NAME, Scope, Service, ServiceError, launchd, systemd};

#[derive(Args)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the service and, where there is none, the configuration; start it now and with the system
    ///
    /// A configuration that is still the sample counts as none. A new configuration has --state-dir, --base and --data in it. What a person has to do before the service can start is
    /// said in the end.
    Install(InstallArgs),
    /// Stop the service and remove it; the configuration and the device's state stay
    Uninstall(RemoveArgs),
    /// Say whether the service is there, as this version would write it, and runs
    Status(WhichArgs),
}

#[derive(Args)]
struct WhichArgs {
    /// A service of your own, which runs while you are logged in; so it is by default unless root installs it
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// A service of the whole machine, which only root installs
    #[arg(long)]
    system: bool,
    /// Write, remove or look below this folder instead of /, and run nothing
    #[arg(long, value_name = "DIR", value_parser = path())]
    root: Option<PathBuf>,
    /// What starts services, if not what does on this system
    #[arg(long, value_enum)]
    manager: Option<Manager>,
}

#[derive(Args)]
struct InstallArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Conditions that a new configuration takes to hold where this machine cannot tell, as `mains,idle`
    #[arg(long, value_name = "CONDITION", value_delimiter = ',', value_parser = condition)]
    assume: Vec<Condition>,
    /// The user that a service of the whole machine runs as, if not as one of its own
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    run_as: Option<String>,
    /// Do not start it now
    #[arg(long)]
    no_start: bool,
    /// Replace a service of this name that this program did not write
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct RemoveArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Remove a service of this name that this program did not write, too
    #[arg(long)]
    force: bool,
}

pub(super) fn service(common: &Common, args: &ServiceArgs) -> Result<(), Failure> {
    match &args.command {
        Command::Install(args) => {
            let installed = install(common, args)?;
            print(common.format, &installed, || installed.text())
        }
        Command::Uninstall(args) => {
            let removed = uninstall(common, args)?;
            print(common.format, &removed, || removed.text())
        }
        Command::Status(args) => {
            let status = status(common, args)?;
            print(common.format, &status, || status.text())
        }
    }
}

/// Which service is meant, and where its files are.
struct Which {
    manager: Manager,
    scope: Scope,
    root: Option<PathBuf>,
    places: Places,
}

impl Which {
    fn new(args: &WhichArgs) -> Result<Self, Failure> {
        let manager = args.manager.map_or_else(Manager::here, Ok).map_err(refused)?;
        let scope = match (args.user, args.system) {
            (true, _) => Scope::User,
            (_, true) => Scope::System,
            _ if user() == 0 => Scope::System,
            _ => Scope::User,
        };
        let places = places(manager, scope, &Surroundings::from_env()).map_err(refused)?;
        Ok(Self { manager, scope, root: args.root.clone(), places })
    }

    fn at(&self, path: &Path) -> PathBuf {
        below(self.root.as_deref(), path)
    }

    /// A file's text, where there is one.
    fn read(&self, path: &Path) -> Result<Option<String>, Failure> {
        match files::read(&self.at(path)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(refused(error.into())),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<PathBuf, Failure> {
        let path = self.at(path);
        let written = path.parent().map_or(Ok(()), create_folders);
        written.and_then(|()| files::write(&path, text.as_bytes(), Audience::Anyone)).map_err(wrote)?;
        Ok(path)
    }

    /// Refuses what somebody else wrote.
    fn refuse_foreign(&self, path: &Path, force: bool) -> Result<(), Failure> {
        match self.read(path)? {
            Some(text) if !force && !text.contains(MARKER) => {
                Err(refused(ServiceError::Foreign(self.at(path))))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The service by a configuration.
    fn service(
        &self,
        config_path: &Path,
        config: &Config,
        run_as: Option<String>,
    ) -> Result<Service, Failure> {
        let program = env::current_exe().map_err(|error| failed(4)(error.into()))?;
        // Where files are for another machine, this program lies where packages put it.
        let program = if self.root.is_some() { Path::new("/usr/bin").join(NAME) } else { program };
        let mut reads = config.data.clone();
        let folders = config.sources().into_iter().filter_map(|source| match source {
            Source::Path(path) => Some(path),
            Source::Hub(_) => None,
        });
        reads.extend(folders.filter(|folder| !folder.starts_with(&config.state_dir)));
        Ok(Service {
            scope: self.scope,
            program,
            config: config_path.to_owned(),
            state_dir: config.state_dir.clone(),
            reads,
            run_as,
            logs: self.places.logs.clone(),
        })
    }
}

/// The conditions that this machine cannot tell.
fn unknown_here() -> Vec<Judgment> {
    let snapshot = ThisMachine::start(Sources::of_this_machine()).look();
    let judged = [Purpose::Start, Purpose::Transfer]
        .map(|purpose| judge(&snapshot, &Conditions::default(), purpose))
        .concat();
    untold(&judged).into_iter().cloned().collect()
}

fn install(common: &Common, args: &InstallArgs) -> Result<Installed, Failure> {
    let which = Which::new(&args.which)?;
    let live = which.root.is_none();
    let control =
        if live { Some(Control::to_change(which.manager, which.scope).map_err(refused)?) } else { None };
    let config_path = config_path(common, &which)?;
    let judged = if live { unknown_here() } else { Vec::new() };
    // What a package brought is nobody's answer yet.
    let there = which.read(&config_path)?.filter(|text| text != SAMPLE);
    let (config, new) = if let Some(text) = there {
        let config = parse(&text, &which.at(&config_path))?;
        agrees(common, args, &config, &config_path)?;
        if which.scope == Scope::System
            && let Some(path) = below_home(&text)
        {
            return Err(refused(ServiceError::BelowHome { path, config: config_path }));
        }
        (config, None)
    } else {
        let text = filled(&answers(common, args, &which, &judged)?).map_err(refused)?;
        (parse(&text, &config_path)?, Some(text))
    };
    let service = which.service(&config_path, &config, args.run_as.clone())?;
    let texts = service::files(which.manager, &service, &which.places).map_err(refused)?;
    for (path, _) in &texts {
        which.refuse_foreign(path, args.force)?;
    }
    let mut wrote = Vec::new();
    if let Some(text) = new {
        wrote.push(which.write(&config_path, &text)?);
    }
    for (path, text) in &texts {
        wrote.push(which.write(path, text)?);
    }
    let next = next(&which, &service, &config);
    let started = live && !args.no_start && next.is_empty();
    if let Some(control) = control {
        let paths: Vec<&Path> = texts.iter().map(|(path, _)| path.as_path()).collect();
        control
            .prepare(&paths)
            .and_then(|()| control.enable(&which.places.unit, started))
            .map_err(refused)?;
    }
    let assumed = |row: &Judgment| config.conditions.assume.contains(&row.condition);
    let untold = judged.iter().map(|row| Untold {
        condition: word(row.condition),
        wanted: row.threshold.clone(),
        assumed: assumed(row),
    });
    Ok(Installed {
        manager: which.manager,
        scope: which.scope,
        wrote,
        config: config_path,
        state_dir: config.state_dir,
        started,
        untold: untold.collect(),
        next,
    })
}

/// What a person has to do before the service can take part.
fn next(which: &Which, service: &Service, config: &Config) -> Vec<String> {
    let Service { config: path, state_dir, run_as, .. } = service;
    let (path, mut next) = (path.display(), Vec::new());
    if config.data.is_empty() {
        next.push(format!("name the text to train on by `data` in {path}, and install it again"));
    }
    for source in config.sources() {
        if let Source::Path(base) = source
            && !which.at(&base).exists()
        {
            let base = base.display();
            next.push(format!("put a base model into {base}, or name another by `base` in {path}"));
        }
    }
    if !which.at(state_dir).join("keys").is_dir() {
        let by = match (which.manager, which.scope) {
            (Manager::Systemd, Scope::System) => {
                format!("sudo -u {} ", run_as.as_deref().unwrap_or(NAME))
            }
            (Manager::Launchd, _) | (Manager::Systemd, Scope::User) => String::new(),
        };
        next.push(format!("enroll: {by}{NAME} --config {path} enroll --token -"));
    }
    if !next.is_empty() {
        next.push(match (which.manager, which.scope) {
            (Manager::Systemd, Scope::System) => format!("start it: systemctl start {NAME}"),
            (Manager::Systemd, Scope::User) => format!("start it: systemctl --user start {NAME}"),
            (Manager::Launchd, _) => format!("start it: {NAME} service install"),
        });
    }
    next
}

fn uninstall(common: &Common, args: &RemoveArgs) -> Result<Removed, Failure> {
    let which = Which::new(&args.which)?;
    let control = match which.root {
        None => Some(Control::to_change(which.manager, which.scope).map_err(refused)?),
        Some(_) => None,
    };
    let (config_path, config) = known(common, &which)?;
    let mut files = vec![which.places.unit.clone()];
    if (which.manager, which.scope) == (Manager::Systemd, Scope::System) {
        files.extend([systemd::TMPFILES, systemd::SYSUSERS].map(PathBuf::from));
    }
    files.retain(|path| which.at(path).exists());
    for path in &files {
        which.refuse_foreign(path, args.force)?;
    }
    if let Some(control) = control.filter(|_| !files.is_empty()) {
        control.disable().map_err(refused)?;
    }
    let mut removed = Vec::new();
    for path in files.iter().map(|path| which.at(path)) {
        std::fs::remove_file(&path).map_err(FileError::io("remove", &path)).map_err(wrote)?;
        removed.push(path);
    }
    if let Some(control) = control.filter(|_| !removed.is_empty()) {
        control.forget().map_err(refused)?;
    }
    let left = [config_path, config.state_dir].into_iter().map(|path| which.at(&path));
    Ok(Removed { removed, left: left.filter(|path| path.exists()).collect() })
}

/// What is to be said of the service in one line.
pub(super) struct Looked {
    pub(super) installed: bool,
    pub(super) current: bool,
    pub(super) runs: bool,
    pub(super) says: String,
}

/// Looks at the service of this user, and, where there is none, at that of the machine.
pub(super) fn looked_at(common: &Common) -> Result<Looked, Failure> {
    let which = |system| WhichArgs { user: false, system, root: None, manager: None };
    let own = status(common, &which(false))?;
    let found = if own.unit.is_none() { status(common, &which(true))? } else { own };
    Ok(Looked {
        installed: found.unit.is_some(),
        current: found.current,
        runs: found.runs(),
        says: found.line(),
    })
}

fn status(common: &Common, args: &WhichArgs) -> Result<Status, Failure> {
    let which = Which::new(args)?;
    let mut found = None;
    for path in std::iter::once(&which.places.unit).chain(&which.places.packaged) {
        if let Some(text) = which.read(path)? {
            found = Some((path.clone(), text));
            break;
        }
    }
    let chosen = match (&found, which.manager) {
        (Some((_, text)), Manager::Systemd) => systemd::chosen(text),
        _ => systemd::Chosen::default(),
    };
    let (config_path, config) = match (&common.config, chosen.config) {
        (None, Some(path)) => {
            let config = which.read(&path)?.map(|text| parse(&text, &path)).transpose()?;
            (path, config.unwrap_or_else(|| fallback(&which)))
        }
        _ => known(common, &which)?,
    };
    let current = found.as_ref().is_some_and(|(path, text)| {
        // A package's own file names no path of this machine.
        let packaged = *path != which.places.unit;
        let written = which.service(&config_path, &config, chosen.run_as).ok().and_then(|service| {
            let files = service::files(which.manager, &service, &which.places).ok()?;
            files.into_iter().next().map(|(_, text)| text)
        });
        let own = match (which.manager, which.scope) {
            (Manager::Launchd, _) => None,
            (Manager::Systemd, Scope::System) => Some(systemd::SYSTEM_UNIT),
            (Manager::Systemd, Scope::User) => Some(systemd::USER_UNIT),
        };
        if packaged { own == Some(text.as_str()) } else { written.as_ref() == Some(text) }
    });
    let said = match which.root {
        None => Some(Control::of(which.manager, which.scope).and_then(Control::show).map_err(refused)?),
        Some(_) => None,
    };
    let (systemd, launchd) = match which.manager {
        Manager::Systemd => (said.map(|said| systemd::shown(&said)), None),
        Manager::Launchd => (None, said.map(|said| launchd::printed(&said))),
    };
    Ok(Status {
        manager: which.manager,
        scope: which.scope,
        ours: found.as_ref().is_some_and(|(_, text)| text.contains(MARKER)),
        current,
        unit: found.map(|(path, _)| which.at(&path)),
        config: which.at(&config_path),
        state_dir: which.at(&config.state_dir),
        systemd,
        launchd,
    })
}

fn refused(error: ServiceError) -> Failure {
    failed(error.code())(error.into())
}

fn wrote(error: FileError) -> Failure {
    refused(error.into())
}

fn create_folders(folder: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(FileError::io("create", folder))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| failed(4)(error.into()))
}

fn config_path(common: &Common, which: &Which) -> Result<PathBuf, Failure> {
    common.config.as_deref().map_or_else(|| Ok(which.places.config.clone()), absolute)
}

fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
    Config::parse(text, path).map_err(|error| failed(3)(error.into()))
}

/// The configuration, or what it would be where there is none.
fn known(common: &Common, which: &Which) -> Result<(PathBuf, Config), Failure> {
    let path = config_path(common, which)?;
    let config = which.read(&path)?.map(|text| parse(&text, &which.at(&path))).transpose()?;
    Ok((path, config.unwrap_or_else(|| fallback(which))))
}

fn fallback(which: &Which) -> Config {
    Config { state_dir: which.places.state_dir.clone(), ..Config::default() }
}

/// What a new configuration says.
fn answers(
    common: &Common,
    args: &InstallArgs,
    which: &Which,
    judged: &[Judgment],
) -> Result<Answers, Failure> {
    let given = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let state_dir = given(&common.state_dir)?.unwrap_or_else(|| which.places.state_dir.clone());
    let base = named(common.base.as_ref())?.unwrap_or_else(|| state_dir.join("base"));
    let data = common.data.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let mut assume: BTreeSet<Condition> = args.assume.iter().copied().collect();
    if args.assume.is_empty() && io::stdin().is_terminal() {
        assume = judged.iter().filter(|row| ask(row)).map(|row| row.condition).collect();
    }
    Ok(Answers { state_dir, base, data, assume })
}

/// Asks the person at the terminal; whatever is not yes is no.
fn ask(row: &Judgment) -> bool {
    let name = word(row.condition);
    note(&format!(
        "this machine cannot tell `{name}` (wanted: {}). Take it to hold, always? [y/N]",
        row.threshold
    ));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && ["y", "yes"].contains(&line.trim().to_lowercase().as_str())
}

/// A base that was named: a path from here, or a name of the hub's as it is.
fn named(base: Option<&PathBuf>) -> Result<Option<PathBuf>, Failure> {
    let Some(base) = base else { return Ok(None) };
    match source(base).map_err(|error| failed(2)(error.into()))? {
        Source::Path(path) => absolute(&path).map(Some),
        Source::Hub(_) => Ok(Some(base.clone())),
    }
}

/// Refuses options that a configuration which is there says otherwise: it is its owner's to change.
fn agrees(common: &Common, args: &InstallArgs, config: &Config, path: &Path) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let mut check = |option: &str, key: &str, differs: bool| {
        if differs {
            wrong.push(format!("{option} (`{key}`)"));
        }
    };
    let differs = |given: &Option<PathBuf>, found: &Path| -> Result<bool, Failure> {
        Ok(given.as_deref().map(absolute).transpose()?.is_some_and(|given| given != *found))
    };
    check("--state-dir", "state_dir", differs(&common.state_dir, &config.state_dir)?);
    check("--base", "base", named(common.base.as_ref())?.is_some_and(|given| given != config.base));
    let data: Vec<PathBuf> = common.data.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    check("--data", "data", !data.is_empty() && data != config.data);
    let assume: BTreeSet<Condition> = args.assume.iter().copied().collect();
    check("--assume", "conditions.assume", !assume.is_empty() && assume != config.conditions.assume);
    if wrong.is_empty() {
        return Ok(());
    }
    let (wrong, path) = (wrong.join(", "), path.display());
    Err(failed(3)(anyhow::anyhow!(
        "{path} is there already and says otherwise than {wrong}: change the file, or leave the options out"
    )))
}
