//! One fetch of a base: which files it needs, and what each is held against.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use formats::folder::{CONFIG, INDEX, OPTIONAL, SINGLE, TOKENIZER, most_bytes, shards};
use formats::{HubCache, is_commit, is_gguf};
use proto::files::read_regular;

use super::cache::Folder;
use super::error::{FetchError, unusable};
use super::listing::{Listed, Listing, wrong};
use super::requests::Requests;
use crate::base::source::Repository;

/// How far the fetching of a file has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// The file.
    pub file: String,
    /// Bytes that are here.
    pub bytes: u64,
    /// Its length.
    pub of_bytes: u64,
}

/// Who hears how a fetch goes, and says whether it goes on.
pub type Progress<'a> = &'a mut (dyn FnMut(Fetching) -> ControlFlow<()> + Send);

/// One fetch under way.
pub(super) struct Fetch<'a> {
    pub(super) endpoint: &'a str,
    pub(super) cache: &'a Path,
    pub(super) repository: &'a Repository,
    pub(super) requests: Requests,
    pub(super) folder: Folder,
}

impl Fetch<'_> {
    pub(super) fn run(&self, progress: Progress<'_>) -> Result<PathBuf, FetchError> {
        let listing = match self.listing() {
            Err(FetchError::Unreachable { base, endpoint, reason, cache }) => {
                let unreachable = FetchError::Unreachable { base, endpoint, reason, cache };
                return self.cached().ok_or(unreachable);
            }
            other => other?,
        };
        if !is_commit(&listing.sha) {
            return Err(self.answer(format!("its commit is `{}`", listing.sha)));
        }
        let files: BTreeMap<&str, &Listed> =
            listing.siblings.iter().map(|listed| (listed.rfilename.as_str(), listed)).collect();
        let base = Commit { fetch: self, sha: &listing.sha, files }.all(progress)?;
        let written = self.folder.set_commit(self.repository.revision(), &listing.sha);
        written.map_err(|source| unusable(self.cache, source))?;
        Ok(base)
    }

    fn listing(&self) -> Result<Listing, FetchError> {
        let (name, revision) = (self.repository.name(), self.repository.revision().replace('/', "%2F"));
        let address = format!("{}/api/models/{name}/revision/{revision}?blobs=true", self.endpoint);
        let silent = |error: &ureq::Error| {
            self.unreachable(format!("{} when asked for its list of files", self.requests.reason(error)))
        };
        let mut response = self.requests.get(&address, 0).map_err(|error| match self.refused(&error) {
            Some(refused) => refused,
            None if matches!(error, ureq::Error::Timeout(_)) => silent(&error),
            None => self.unreachable(error.to_string()),
        })?;
        let listing = response.body_mut().with_config().limit(16 << 20).read_json();
        listing.map_err(|error| {
            if matches!(error, ureq::Error::Timeout(_)) {
                silent(&error)
            } else {
                self.answer(format!("its list of files cannot be read: {error}"))
            }
        })
    }

    /// What an earlier fetch left: a revision is written down when all of its files are here.
    pub(super) fn cached(&self) -> Option<PathBuf> {
        self.repository.cached(&HubCache::new(self.cache.to_owned()))
    }

    /// A status that says that there is nothing; none for an error without a status.
    fn refused(&self, error: &ureq::Error) -> Option<FetchError> {
        let ureq::Error::StatusCode(status) = *error else { return None };
        let (base, endpoint) = (self.repository.to_string(), self.endpoint.to_owned());
        Some(match status {
            401 | 403 | 404 => FetchError::NotThere { base, endpoint, status },
            _ => self.answer(format!("it answers with HTTP status {status}")),
        })
    }

    /// Why a file did not come.
    pub(super) fn failed(&self, file: &str, error: &ureq::Error) -> FetchError {
        self.refused(error).unwrap_or_else(|| FetchError::Interrupted {
            base: self.repository.to_string(),
            endpoint: self.endpoint.to_owned(),
            file: file.to_owned(),
            reason: self.requests.reason(error),
        })
    }

    fn unreachable(&self, reason: String) -> FetchError {
        let (base, endpoint) = (self.repository.to_string(), self.endpoint.to_owned());
        FetchError::Unreachable { base, endpoint, reason, cache: self.cache.to_owned() }
    }

    pub(super) fn answer(&self, reason: String) -> FetchError {
        let (base, endpoint) = (self.repository.to_string(), self.endpoint.to_owned());
        FetchError::Answer { base, endpoint, reason }
    }

    fn no_base(&self, reason: String) -> FetchError {
        FetchError::NoBase { base: self.repository.to_string(), reason }
    }
}

/// The files of one commit.
pub(super) struct Commit<'a> {
    pub(super) fetch: &'a Fetch<'a>,
    pub(super) sha: &'a str,
    pub(super) files: BTreeMap<&'a str, &'a Listed>,
}

impl Commit<'_> {
    /// Fetches all that a base needs: the folder, or the file.
    fn all(&self, progress: Progress<'_>) -> Result<PathBuf, FetchError> {
        if let Some(file) = self.fetch.repository.file() {
            return self.one(file, progress);
        }
        if !self.files.contains_key(CONFIG) {
            return self.one(self.only_gguf()?, progress);
        }
        let config = self.one(CONFIG, progress)?;
        for file in OPTIONAL.into_iter().filter(|file| self.files.contains_key(file)) {
            self.one(file, progress)?;
        }
        self.one(TOKENIZER, progress)?;
        if self.files.contains_key(SINGLE) || !self.files.contains_key(INDEX) {
            self.one(SINGLE, progress)?;
        } else {
            let index = self.one(INDEX, progress)?;
            let bytes = read_regular(&index, most_bytes(INDEX)).map_err(|source| unusable(&index, source))?;
            let shards = shards(&index, &bytes).map_err(|error| self.fetch.no_base(error.to_string()))?;
            for shard in &shards {
                self.one(shard, progress)?;
            }
        }
        Ok(config.parent().map(Path::to_owned).unwrap_or_default())
    }

    fn only_gguf(&self) -> Result<&str, FetchError> {
        let files: Vec<&str> = self
            .files
            .keys()
            .copied()
            .filter(|file| is_gguf(Path::new(file)) && !file.contains('/'))
            .collect();
        match files.as_slice() {
            [file] => Ok(file),
            [] => Err(self.fetch.no_base(format!("it has neither {CONFIG} nor a GGUF file"))),
            [first, ..] => {
                let (count, name) = (files.len(), self.fetch.repository.name());
                let reason =
                    format!("it has {count} GGUF files; name the one you want, such as hf:{name}/{first}");
                Err(self.fetch.no_base(reason))
            }
        }
    }

    /// A file of the cache, fetched where it is not there or not whole.
    fn one(&self, file: &str, progress: Progress<'_>) -> Result<PathBuf, FetchError> {
        let Some(listed) = self.files.get(file) else {
            return Err(self.fetch.no_base(format!("it has no {file}")));
        };
        if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(self.fetch.answer(format!("its list of files has `{file}`")));
        }
        let cached = Some(self.fetch.folder.snapshot(self.sha).join(file));
        let whole = |path: &PathBuf| {
            let len = path.metadata().map(|metadata| metadata.len());
            len.is_ok_and(|len| listed.size.is_none_or(|size| len == size))
        };
        if let Some(path) = cached.filter(whole) {
            return Ok(path);
        }
        let path = self.download(file, listed, progress)?;
        match wrong(&path, listed).map_err(|source| unusable(&path, source))? {
            None => Ok(path),
            Some(reason) => {
                // The cache's name for it is a link to the bytes.
                for path in path.canonicalize().into_iter().chain([path.clone()]) {
                    fs::remove_file(&path).map_err(|source| unusable(&path, source))?;
                }
                let base = self.fetch.repository.to_string();
                Err(FetchError::Damaged { base, file: file.to_owned(), reason })
            }
        }
    }
}
