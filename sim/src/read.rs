//! What a run reads: from files, or what the program makes up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Base, Blocks, Source};
use formats::HubCache;
use nightshift_sim::demo;
use nightshift_sim::inputs::{Inputs, User, read_user};
use nightshift_sim::record::{Files, Record};
use nightshift_sim::scenario::{FEWEST_DEVICES, Scenario, ScenarioError};
use proto::counted::counted;
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
    /// All where nothing is asked for, but no more.
    pub(crate) most: usize,
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
        let folder = base_path(&files.base)?;
        let base = Arc::new(Base::open(&folder)?);
        let (users, newcomers) = read_users(&files.data, wanted, &base)?;
        let public = match &files.public {
            None => None,
            Some(path) => {
                let text = UserText::read(std::slice::from_ref(path), &ReadOptions::default())?;
                Some(Corpus::new(&base, &text)?)
            }
        };
        Ok(Self { folder, files: Some(files), base, users, newcomers, public })
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

/// Where a base lies that is named on the command line; one of the hub is in the cache or nowhere, for a simulation uses no
/// network.
fn base_path(name: &Path) -> anyhow::Result<PathBuf> {
    let repository = match name.to_string_lossy().parse()? {
        Source::Path(_) => return Ok(name.to_path_buf()),
        Source::Hub(repository) => repository,
    };
    let Some(cache) = HubCache::from_env() else {
        anyhow::bail!(
            "{repository} is of the hub, and neither HF_HOME nor a home says where what came from it lies"
        );
    };
    repository.cached(&cache).ok_or_else(|| {
        anyhow::anyhow!(
            "{repository} is not in {}, and a simulation uses no network; fetch it with `nightshift-agent --base {} \
             generate --prompt hello`",
            cache.folder().display(),
            name.display()
        )
    })
}

/// Blocks of some length: whether there are any is the same for all.
const LEN: u32 = 64;

/// The first users by file name, and those after them who take no part. Lines that cannot be read are counted and
/// reported; a user with no usable text is left out and named.
fn read_users(folder: &Path, wanted: Wanted, base: &Base) -> anyhow::Result<(Vec<User>, Vec<User>)> {
    let paths = entries(folder)?;
    complain(&kinds(&paths));
    let most = paths.len().min(wanted.most.saturating_add(wanted.newcomers));
    let whole = wanted.devices.map_or(most, |devices| devices + wanted.newcomers);
    let (mut users, mut skipped) = (Vec::new(), 0);
    for path in &paths {
        if users.len() == whole {
            break;
        }
        match read_user(base, path) {
            // What each user holds out is what a run is measured on.
            Ok((user, _)) if user.corpus.train(LEN).is_empty() || user.corpus.held_out(LEN).is_empty() => {
                complain(&format!(
                    "left out: the user of {}: a single document, of which nothing can be held out; cut it by blank lines, or add more",
                    path.display()
                ));
            }
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
        let skipped = counted(skipped, "line was", "lines were");
        complain(&format!("{skipped} skipped: not readable, or like a secret"));
    }
    if wanted.devices.is_some() && users.len() < whole {
        let (found, folder) = (users.len(), folder.display());
        anyhow::bail!(
            "{} asked for, {folder} has {} with usable text",
            counted(whole, "device was", "devices were"),
            counted(found, "user", "users")
        );
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

/// What ends the names of files that hold a user's text; each may be packed as `.gz` too.
const ENDINGS: [&str; 9] = ["jsonl", "ndjson", "json", "csv", "tsv", "txt", "text", "md", "markdown"];

/// What a file of text ends in; `None` for others.
fn ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let (_, end) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?;
    ENDINGS.into_iter().find(|known| *known == end)
}

/// One file or folder for each user, by name; what is hidden and what is no text is nobody's.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if folder.is_file() {
        anyhow::bail!(
            "--data is a folder with a file or a folder for each user, and {} is a file",
            folder.display()
        );
    }
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(folder)
        .map_err(|e| anyhow::anyhow!("cannot read the folder {}: {e}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, is_hidden) = (entry.path(), entry.file_name().as_encoded_bytes().starts_with(b"."));
        if !is_hidden && (path.is_dir() || ending(&path).is_some()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// How many users there are by what their text lies in: a file that is nobody's text is seen here.
fn kinds(paths: &[PathBuf]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        let kind =
            if path.is_dir() { "folder".to_owned() } else { format!(".{}", ending(path).unwrap_or("?")) };
        *counts.entry(kind).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(
        "each of these is one user: {}",
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_text_and_each_folder_is_a_user_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.md", "a.jsonl", "c.TXT.gz", "photo.png", ".hidden.txt", "README"] {
            std::fs::write(root.path().join(name), "text").unwrap();
        }
        std::fs::create_dir(root.path().join("dora")).unwrap();
        std::fs::create_dir(root.path().join(".git")).unwrap();
        let found = entries(root.path()).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.jsonl", "b.md", "c.TXT.gz", "dora"]);
        assert_eq!(kinds(&found), "each of these is one user: 1 .jsonl, 1 .md, 1 .txt, 1 folder");
        let error = entries(&root.path().join("b.md")).unwrap_err().to_string();
        assert!(error.contains("b.md is a file"), "{error}");
    }

    #[test]
    fn a_base_is_a_path_or_in_the_hubs_cache() {
        assert_eq!(base_path(Path::new("some/where")).unwrap(), Path::new("some/where"));
        let error = base_path(Path::new("hf:nobody-at-all/nothing")).unwrap_err().to_string();
        assert!(error.contains("nightshift-agent --base hf:nobody-at-all/nothing generate"), "{error}");
        assert!(base_path(Path::new("hf:o")).unwrap_err().to_string().contains("hf:owner/name"));
    }
}
