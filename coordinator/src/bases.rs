//! The bases that the coordinator gives to devices which lack them, as the configuration names them.
//!
//! They are read once, beside the serving, because a large one takes minutes; until then devices are asked to come again.
//! A base is public: which one a device asks for says no more than which task it was assigned.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use formats::{BaseInfo, FormatError, locate, name_of_base};
use proto::admin::ServedBase;
use proto::base::{BaseFile, check_files};
use proto::files::{FileError, open_regular};
use proto::ids::Digest;
use proto::message::{Chunk, Rejection};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::chunks::{Known, Part};
use crate::driver;
use crate::seldom::Seldom;

/// Chunks of bases that are read at the same time: fewer than of artefacts, which rounds wait for.
pub(crate) const READERS: usize = 8;

/// Why a base cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServedBaseError {
    /// It is no base.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// One of its files cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its files are not such as devices take.
    #[error("the base {} cannot be served: {why}", path.display())]
    Files {
        /// Where it is.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A file of a base.
#[derive(Debug)]
struct Served {
    path: PathBuf,
    known: Known,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Shelf {
    /// The files of each base.
    bases: BTreeMap<Digest, Vec<BaseFile>>,
    /// What each base is called.
    names: BTreeMap<Digest, String>,
    /// Each file by its hash.
    files: BTreeMap<Digest, Arc<Served>>,
    /// How many bases were not read yet.
    to_read: usize,
}

/// The bases that the coordinator serves. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct ServedBases {
    paths: Arc<Vec<PathBuf>>,
    shelf: Arc<RwLock<Shelf>>,
    readers: Arc<Semaphore>,
}

impl ServedBases {
    /// Looks whether there is something at each path; nothing is read yet.
    pub fn find(paths: &[PathBuf]) -> Result<Self, ServedBaseError> {
        for path in paths {
            locate(path)?;
            std::fs::metadata(path).map_err(FileError::io("find the base", path))?;
        }
        let shelf = Shelf { to_read: paths.len(), ..Shelf::default() };
        Ok(Self {
            paths: Arc::new(paths.to_vec()),
            shelf: Arc::new(RwLock::new(shelf)),
            readers: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Reads them, one after another. One that cannot be read is said and not served.
    pub async fn read(self) {
        for path in self.paths.iter() {
            let (of, shelf) = (path.clone(), Arc::clone(&self.shelf));
            let read = spawn_blocking(move || {
                let read = read(&of);
                let mut shelf = shelf.write().unwrap_or_else(PoisonError::into_inner);
                read.map(|(base, files)| {
                    let listed = files.iter().map(|(file, _)| file.clone()).collect();
                    shelf.bases.insert(base, listed);
                    shelf.names.insert(base, called(&of));
                    let served = files.into_iter().map(|(file, served)| (file.digest, Arc::new(served)));
                    shelf.files.extend(served);
                    base
                })
            });
            let read = read.await;
            self.shelf.write().unwrap_or_else(PoisonError::into_inner).to_read -= 1;
            match read {
                Ok(Ok(base)) => tracing::info!(path = %path.display(), %base, "serves a base"),
                Ok(Err(error)) => tracing::error!("a base is not served: {error}"),
                Err(error) => {
                    tracing::error!(path = %path.display(), "a base is not served: reading it broke: {error}");
                }
            }
        }
    }

    /// The files of a base.
    pub fn files(&self, base: Digest) -> Result<Vec<BaseFile>, Rejection> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        match shelf.bases.get(&base) {
            Some(files) => Ok(files.clone()),
            None if shelf.to_read > 0 => {
                Err(Rejection::Unavailable("the bases that it serves are still read".to_owned()))
            }
            None => Err(Rejection::UnknownArtifact),
        }
    }

    /// What is served, by digest.
    pub fn served(&self) -> Vec<ServedBase> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        let served = |(digest, files): (&Digest, &Vec<BaseFile>)| ServedBase {
            name: shelf.names.get(digest).cloned().unwrap_or_default(),
            digest: *digest,
            bytes: files.iter().map(|file| file.bytes).sum(),
        };
        shelf.bases.iter().map(served).collect()
    }

    /// How many bases were not read yet.
    pub fn to_read(&self) -> u32 {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(shelf.to_read).unwrap_or(u32::MAX)
    }

    /// A part of a file; `None` where no base has a file of this hash.
    pub(crate) async fn chunk(&self, digest: Digest, offset: u64) -> Option<Result<Chunk, Rejection>> {
        static SAID: Seldom = Seldom::new();
        let served = {
            let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(shelf.files.get(&digest)?)
        };
        let turn = Arc::clone(&self.readers).acquire_owned().await;
        let read = spawn_blocking(move || {
            let _turn = turn;
            open(&served.path).and_then(|mut file| {
                let part = served.known.part(&mut file, offset);
                part.map_err(FileError::io("read", &served.path))
            })
        });
        let why = match read.await {
            Ok(Ok(Part::Bytes(chunk))) => return Some(Ok(chunk)),
            Ok(Ok(Part::BeyondEnd)) => return Some(Err(Rejection::UnknownArtifact)),
            Ok(Ok(Part::Changed)) => {
                "it changed since the start; start again to serve what is there".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if SAID.may_say(driver::now()) {
            tracing::error!(file = %digest, "a file of a base cannot be read: {why}");
        }
        Some(Err(Rejection::Unavailable("a file of the base cannot be read".to_owned())))
    }
}

/// The hub's name of a base, or that of its folder or file; of the machine's other folders nothing is said.
fn called(path: &Path) -> String {
    match name_of_base(path) {
        Ok(name) if !Path::new(&name).is_absolute() => name,
        Ok(_) | Err(_) => {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    open_regular(path).map_err(FileError::io("open", path))
}

/// The digest of the base at a path, and each of its files.
fn read(path: &Path) -> Result<(Digest, Vec<(BaseFile, Served)>), ServedBaseError> {
    let info = BaseInfo::open(path)?;
    let mut files = Vec::new();
    for path in info.files() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read = Known::read(&mut open(path)?).map_err(FileError::io("read", path))?;
        let (digest, known) = read;
        let file = BaseFile { name, bytes: known.total_bytes, digest };
        files.push((file, Served { path: path.clone(), known }));
    }
    let listed: Vec<BaseFile> = files.iter().map(|(file, _)| file.clone()).collect();
    check_files(&listed).map_err(|why| ServedBaseError::Files { path: path.to_owned(), why })?;
    Ok((info.digest(), files))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proto::message::CHUNK_BYTES;

    use super::*;

    /// A base of one tensor, larger than a chunk.
    fn write_base(folder: &Path) {
        let floats = CHUNK_BYTES / 4 + 1;
        let header = format!(
            "{{\"t\":{{\"dtype\":\"F32\",\"shape\":[{floats}],\"data_offsets\":[0,{}]}}}}",
            4 * floats
        );
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header.as_bytes());
        weights.extend(vec![3; 4 * floats]);
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("model.safetensors"), weights).unwrap();
        fs::write(folder.join("config.json"), r#"{"num_hidden_layers": 1}"#).unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        // Beside the base, and not of it.
        fs::write(folder.join("notes.txt"), "of nobody's concern").unwrap();
    }

    #[tokio::test]
    async fn all_files_of_a_base_are_served_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        write_base(&path);
        let digest = BaseInfo::open(&path).unwrap().digest();
        let bases = ServedBases::find(std::slice::from_ref(&path)).unwrap();
        assert!(matches!(bases.files(digest), Err(Rejection::Unavailable(_))), "it was not read yet");
        bases.clone().read().await;
        assert!(matches!(bases.files(Digest([1; 32])), Err(Rejection::UnknownArtifact)));
        let [served] = <[ServedBase; 1]>::try_from(bases.served()).unwrap();
        let bytes = ["config.json", "model.safetensors", "tokenizer.json"]
            .map(|name| fs::metadata(path.join(name)).unwrap().len());
        assert_eq!((served.name.as_str(), served.digest, served.bytes), ("base", digest, bytes.iter().sum()));
        assert_eq!(bases.to_read(), 0);
        let files = bases.files(digest).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
        for file in &files {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < file.bytes {
                let chunk = bases.chunk(file.digest, bytes.len() as u64).await.unwrap().unwrap();
                assert_eq!(chunk.total_bytes, file.bytes);
                bytes.extend(chunk.bytes);
            }
            assert_eq!(bytes, fs::read(path.join(&file.name)).unwrap());
            assert!(bases.chunk(file.digest, file.bytes + 1).await.unwrap().is_err());
        }
        let beside = Digest::of(b"of nobody's concern");
        assert!(bases.chunk(beside, 0).await.is_none());
    }

    #[tokio::test]
    async fn what_changed_since_the_start_is_served_to_nobody_and_one_bad_base_keeps_no_other_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        write_base(&good);
        write_base(&bad);
        fs::write(bad.join("config.json"), "no config").unwrap();
        let digest = BaseInfo::open(&good).unwrap().digest();
        let bases = ServedBases::find(&[bad, good.clone()]).unwrap();
        bases.clone().read().await;
        let weights = bases.files(digest).unwrap()[1].clone();
        let mut bytes = fs::read(good.join(&weights.name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(good.join(&weights.name), bytes).unwrap();
        assert!(bases.chunk(weights.digest, 0).await.unwrap().is_ok());
        let changed = bases.chunk(weights.digest, CHUNK_BYTES as u64).await.unwrap();
        assert!(matches!(changed, Err(Rejection::Unavailable(_))), "{changed:?}");
    }
}
