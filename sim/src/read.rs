//! What a run reads: from files, or what the program makes up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Base, Blocks};
use nightshift_sim::demo;
use nightshift_sim::inputs::{Inputs, User, read_user};
use nightshift_sim::record::{Files, Record};
use nightshift_sim::scenario::{FEWEST_DEVICES, Scenario, ScenarioError};
use proto::shown::message;
use text::{Corpus, ReadOptions, UserText};

/// A base and text.
pub(crate) struct Read {
    /// The base.
    pub(crate) base: Arc<Base>,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Where it comes from, if it is not made up.
    pub(crate) files: Option<Files>,
    /// One for each device.
    pub(crate) users: Vec<User>,
    /// People who take no part.
    pub(crate) newcomers: Vec<User>,
    /// Text that belongs to nobody.
    pub(crate) public: Option<Corpus>,
}

/// How many of a folder's users are read: who takes part, all that a round takes where it is left out, and who does not.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) devices: Option<usize>,
    pub(crate) newcomers: usize,
}

impl Read {
    /// What the program makes up; the base is written into `folder`.
    pub(crate) fn made_up(scenario: &Scenario, folder: &Path) -> anyhow::Result<Self> {
        let folder = demo::write_base(folder).map_err(|e| {
            anyhow::anyhow!("cannot write {}: {e}; choose another folder with --out", folder.display())
        })?;
        let base = Arc::new(Base::open(&folder)?);
        Ok(Self {
            users: demo::users(&base, scenario)?,
            newcomers: demo::newcomers(&base, scenario)?,
            public: Some(Corpus::new(&base, &demo::public())?),
            files: None,
            folder,
            base,
        })
    }

    /// What somebody has as files.
    pub(crate) fn of_files(files: Files, wanted: Wanted) -> anyhow::Result<Self> {
        let base = Arc::new(Base::open(&files.base)?);
        let (users, newcomers) = read_users(&files.data, wanted, &base)?;
        let public = match &files.public {
            None => None,
            Some(path) => {
                let text = UserText::read(std::slice::from_ref(path), &ReadOptions::default())?;
                Some(Corpus::new(&base, &text)?)
            }
        };
        Ok(Self { folder: files.base.clone(), files: Some(files), base, users, newcomers, public })
    }

    /// All public text, in blocks.
    pub(crate) fn public(&self, sequence_len: u32) -> Option<Blocks> {
        self.public.as_ref().map(|corpus| corpus.train(sequence_len).and(corpus.held_out(sequence_len)))
    }

    /// For a run.
    pub(crate) fn inputs<'a>(&'a self, public: Option<&'a Blocks>) -> Inputs<'a> {
        Inputs { base: &self.base, users: &self.users, newcomers: &self.newcomers, public }
    }

    /// The record of a run on it.
    pub(crate) fn record(&self, scenario: &Scenario, public: Option<&Blocks>) -> Record {
        Record { files: self.files.clone(), ..Record::of(scenario, &self.inputs(public)) }
    }
}

/// The first users by file name, and those after them who take no part. Lines that cannot be read are counted and
/// reported; a user with no usable text is left out and named.
fn read_users(folder: &Path, wanted: Wanted, base: &Base) -> anyhow::Result<(Vec<User>, Vec<User>)> {
    let paths = jsonl_files(folder)?;
    let most = paths.len().min(aggregation::MAX_COHORT + wanted.newcomers);
    let whole = wanted.devices.map_or(most, |devices| devices + wanted.newcomers);
    let (mut users, mut skipped) = (Vec::new(), 0);
    for path in &paths {
        if users.len() == whole {
            break;
        }
        match read_user(base, path) {
            Ok((user, lines)) => {
                users.push(user);
                skipped += lines;
            }
            Err(error) => {
                complain(&format!("left out: the user of {}: {error}", path.display()));
            }
        }
    }
    if skipped > 0 {
        complain(&format!("{skipped} lines could not be read, or look like secrets, and were skipped"));
    }
    if wanted.devices.is_some() && users.len() < whole {
        let (found, folder) = (users.len(), folder.display());
        anyhow::bail!("{whole} devices were asked for, {folder} has {found} users with usable text");
    }
    let devices = users.len().saturating_sub(wanted.newcomers);
    if devices < FEWEST_DEVICES {
        return Err(ScenarioError::TooFewDevices { found: devices }.into());
    }
    let newcomers = users.split_off(devices);
    Ok((users, newcomers))
}

#[expect(clippy::print_stderr, reason = "the command line's own output")]
fn complain(line: &str) {
    eprintln!("{}", message(line));
}

/// The JSONL files of a folder, by name.
fn jsonl_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(folder)
        .map_err(|e| anyhow::anyhow!("cannot read the folder {}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
