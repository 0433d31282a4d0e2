//! Fetching a base from the Hugging Face hub into the cache that its other programs use too.
//!
//! All files come from the commit that the revision names when the fetch begins. A file is taken as whole only when
//! it has the length that the hub announced and, where the hub announced what its content hashes to, that too: the
//! SHA-256 of a large file, the name that git gives a small one. Nothing is written beyond the length that a file of its
//! kind may have, or where the disk has no room for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use proto::files::read_regular;
use serde::Deserialize;

use crate::base::files::most_bytes;
use crate::base::folder::shards;
use crate::base::source::Repository;
use cache::Folder;
use download::wrong;
use requests::Requests;

mod cache;
mod download;
mod requests;

pub use requests::Patience;

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// What is read of a folder where it is there.
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

/// A hub and the cache on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    patience: Patience,
}

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

/// A base that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no place for the cache.
    #[error("there is no home folder to keep bases in; name one in HF_HOME")]
    NoHome,
    /// There is no network, or nothing answers.
    #[error(
        "cannot fetch `{base}`: {endpoint} cannot be reached ({reason}), and the base is not in the cache {}; \
         go online, or name a folder or a GGUF file", cache.display()
    )]
    Unreachable {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// What went wrong.
        reason: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The network went away during a fetch.
    #[error(
        "the fetch of `{file}` of `{base}` from {endpoint} was interrupted ({reason}); fetch it again, and it goes on from there"
    )]
    Interrupted {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub knows no such base.
    #[error("there is no `{base}` at {endpoint}, or it is not open to you (HTTP status {status})")]
    NotThere {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// The hub's answer.
        status: u16,
    },
    /// The hub's answer cannot be used.
    #[error("cannot fetch `{base}` from {endpoint}: {reason}")]
    Answer {
        /// The base.
        base: String,
        /// The hub.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository holds no base.
    #[error("`{base}` is no base: {reason}")]
    NoBase {
        /// The base.
        base: String,
        /// What is missing.
        reason: String,
    },
    /// A fetched file is not what was announced; it is not kept.
    #[error("`{file}` of `{base}` came damaged and was removed ({reason}); fetch it again")]
    Damaged {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is larger than one of its kind is.
    #[error(
        "`{file}` of `{base}` has {}, at most {most} bytes are fetched of such a file; this is no base to use",
        bytes.map_or_else(|| format!("more than {most} bytes"), |bytes| format!("{bytes} bytes"))
    )]
    TooLarge {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// Its bytes, where the hub says how many.
        bytes: Option<u64>,
        /// The most that are fetched.
        most: u64,
    },
    /// The disk has no room for a file.
    #[error(
        "there is no room for `{file}` of `{base}` in {}: {needed} bytes are missing of it, {available} are free; \
         make room, or name another folder in HF_HOME", cache.display()
    )]
    NoRoom {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// Bytes that are still to be fetched.
        needed: u64,
        /// Bytes that may be written.
        available: u64,
        /// The cache.
        cache: PathBuf,
    },
    /// Another program fetches the same file into the same cache.
    #[error("another program is fetching `{file}` of `{base}` (it holds {}); wait until it is done", lock.display())]
    Busy {
        /// The base.
        base: String,
        /// The file.
        file: String,
        /// What the other program holds.
        lock: PathBuf,
    },
    /// The cache cannot be used.
    #[error("cannot use the cache {}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What the hub says of a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Listed>,
}

/// What it says of a file.
#[derive(Deserialize)]
struct Listed {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

impl Hub {
    /// The hub at `HF_ENDPOINT` (huggingface.co without it), and the cache in `HF_HOME`
    /// (`~/.cache/huggingface` without it).
    ///
    /// Fails where neither says where the cache is.
    pub fn from_env() -> Result<Self, FetchError> {
        let given = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let home = match given("HF_HOME") {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir().ok_or(FetchError::NoHome)?.join(".cache/huggingface"),
        };
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self::new(&endpoint, home.join("hub")))
    }

    /// The hub at an address, and a folder for what comes from it.
    pub fn new(endpoint: &str, cache: PathBuf) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), cache, patience: Patience::default() }
    }

    /// The same hub, which is waited for as long as this.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The folder, or the GGUF file, that holds a base of the hub; what is not in the cache is fetched.
    ///
    /// Fetches `config.json`, the weights, the tokenizer and what there is of chat template and settings, or the one
    /// GGUF file, and nothing else. Where the hub cannot be reached, what an earlier fetch of the same revision left
    /// is taken. Fails where there is neither, where a file is not what the hub announced, and where the hub is silent
    /// for too long.
    pub fn fetch(
        &self,
        repository: &Repository,
        progress: &mut (dyn FnMut(Fetching) + Send),
    ) -> Result<PathBuf, FetchError> {
        let requests = Requests::new(&self.endpoint, &self.cache, self.patience);
        let folder = Folder::new(&self.cache, repository.name());
        Fetch { hub: self, repository, requests, folder }.run(progress)
    }
}

/// One fetch under way.
struct Fetch<'a> {
    hub: &'a Hub,
    repository: &'a Repository,
    requests: Requests,
    folder: Folder,
}

impl Fetch<'_> {
    fn run(&self, progress: &mut (dyn FnMut(Fetching) + Send)) -> Result<PathBuf, FetchError> {
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
        written.map_err(|source| unusable(&self.hub.cache, source))?;
        Ok(base)
    }

    fn listing(&self) -> Result<Listing, FetchError> {
        let (name, revision) = (self.repository.name(), self.repository.revision().replace('/', "%2F"));
        let address = format!("{}/api/models/{name}/revision/{revision}?blobs=true", self.hub.endpoint);
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
    fn cached(&self) -> Option<PathBuf> {
        let folder = self.folder.snapshot(&self.folder.commit(self.repository.revision())?);
        match self.repository.file() {
            Some(file) => Some(folder.join(file)).filter(|path| path.exists()),
            None if folder.join(CONFIG).exists() => {
                let index = folder.join(INDEX);
                let mut wanted = vec![TOKENIZER.to_owned()];
                if folder.join(SINGLE).exists() || !index.exists() {
                    wanted.push(SINGLE.to_owned());
                } else {
                    wanted.extend(shards(&index, &read_regular(&index, most_bytes(INDEX)).ok()?).ok()?);
                }
                wanted.iter().all(|file| folder.join(file).exists()).then_some(folder)
            }
            None => {
                let files = fs::read_dir(folder).ok()?;
                let mut files = files.filter_map(|file| Some(file.ok()?.path())).filter(|file| is_gguf(file));
                files.next().filter(|_| files.next().is_none())
            }
        }
    }

    /// A status that says that there is nothing; none for an error without a status.
    fn refused(&self, error: &ureq::Error) -> Option<FetchError> {
        let ureq::Error::StatusCode(status) = *error else { return None };
        let (base, endpoint) = (self.repository.to_string(), self.hub.endpoint.clone());
        Some(match status {
            401 | 403 | 404 => FetchError::NotThere { base, endpoint, status },
            _ => self.answer(format!("it answers with HTTP status {status}")),
        })
    }

    /// Why a file did not come.
    fn failed(&self, file: &str, error: &ureq::Error) -> FetchError {
        self.refused(error).unwrap_or_else(|| FetchError::Interrupted {
            base: self.repository.to_string(),
            endpoint: self.hub.endpoint.clone(),
            file: file.to_owned(),
            reason: self.requests.reason(error),
        })
    }

    fn unreachable(&self, reason: String) -> FetchError {
        let (base, endpoint) = (self.repository.to_string(), self.hub.endpoint.clone());
        FetchError::Unreachable { base, endpoint, reason, cache: self.hub.cache.clone() }
    }

    fn answer(&self, reason: String) -> FetchError {
        let (base, endpoint) = (self.repository.to_string(), self.hub.endpoint.clone());
        FetchError::Answer { base, endpoint, reason }
    }

    fn no_base(&self, reason: String) -> FetchError {
        FetchError::NoBase { base: self.repository.to_string(), reason }
    }
}

fn unusable(path: &Path, source: std::io::Error) -> FetchError {
    FetchError::Cache { path: path.to_owned(), source }
}

/// Whether a text is the name of a commit: it becomes the name of a folder.
fn is_commit(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The files of one commit.
struct Commit<'a> {
    fetch: &'a Fetch<'a>,
    sha: &'a str,
    files: BTreeMap<&'a str, &'a Listed>,
}

impl Commit<'_> {
    /// Fetches all that a base needs: the folder, or the file.
    fn all(&self, progress: &mut (dyn FnMut(Fetching) + Send)) -> Result<PathBuf, FetchError> {
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
    fn one(&self, file: &str, progress: &mut (dyn FnMut(Fetching) + Send)) -> Result<PathBuf, FetchError> {
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

#[cfg(test)]
mod tests;
