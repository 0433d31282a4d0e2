//! Artefacts in [chunks](crate::chunks). The first request for an artefact reads it as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proto::ids::Digest;
use proto::message::Chunk;

use super::{ArtifactError, Artifacts};
use crate::chunks::{Known, Part};

/// Artefacts whose chunks' hashes are kept: 16 KiB for the largest one. Where there are more, all are forgotten.
const MOST_KNOWN: usize = 1024;

/// Chunks that are read at the same time; each takes a file descriptor.
pub(crate) const READERS: usize = 32;

type Slot = Arc<OnceLock<Known>>;

/// Reads artefacts in chunks.
#[derive(Debug)]
pub(crate) struct PartReader {
    artifacts: Arc<Artifacts>,
    known: Mutex<BTreeMap<Digest, Slot>>,
}

impl PartReader {
    pub(crate) fn new(artifacts: Arc<Artifacts>) -> Self {
        Self { artifacts, known: Mutex::default() }
    }

    /// Bytes from `offset` on, at most to the end of the chunk in which it lies; `None` beyond the artefact's end.
    /// Fails when the artefact is absent or damaged.
    pub(crate) fn chunk(&self, digest: Digest, offset: u64) -> Result<Option<Chunk>, ArtifactError> {
        let slot = self.slot(digest);
        let known = if let Some(known) = slot.get() {
            known
        } else {
            // Two that ask at once may both read it; one is kept.
            let read = self.verify(digest)?;
            slot.get_or_init(|| read)
        };
        let mut file = self.artifacts.open_file(&digest.0)?;
        match known.part(&mut file, offset).map_err(|source| self.artifacts.io(&digest.0, source))? {
            Part::Bytes(chunk) => Ok(Some(chunk)),
            Part::BeyondEnd => Ok(None),
            Part::Changed => {
                Err(ArtifactError::Damaged { hash: digest.to_string(), actual: "another chunk".to_owned() })
            }
        }
    }

    fn slot(&self, digest: Digest) -> Slot {
        // Whatever is in it was verified, so a poisoned lock does no harm.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN && !known.contains_key(&digest) {
            known.clear();
        }
        Arc::clone(known.entry(digest).or_default())
    }

    /// Reads the whole artefact, piece by piece.
    fn verify(&self, digest: Digest) -> Result<Known, ArtifactError> {
        let mut file = self.artifacts.open_file(&digest.0)?;
        let read = Known::read(&mut file).map_err(|source| self.artifacts.io(&digest.0, source))?;
        let (actual, known) = read;
        if actual == digest {
            Ok(known)
        } else {
            Err(ArtifactError::Damaged { hash: digest.to_string(), actual: actual.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proto::message::CHUNK_BYTES;

    use super::*;

    #[test]
    fn an_artifact_comes_in_chunks_and_nothing_beyond_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let whole: Vec<u8> = (0..=250).cycle().take(CHUNK_BYTES + 3).collect();
        let digest = Digest(artifacts.put(&whole).unwrap());
        let reader = PartReader::new(Arc::new(artifacts));
        let first = reader.chunk(digest, 0).unwrap().unwrap();
        let second = reader.chunk(digest, CHUNK_BYTES as u64).unwrap().unwrap();
        assert_eq!(second.bytes.len(), 3);
        assert_eq!([first.bytes, second.bytes].concat(), whole);
        assert!(reader.chunk(digest, whole.len() as u64).unwrap().unwrap().bytes.is_empty());
        assert_eq!(reader.chunk(digest, whole.len() as u64 + 1).unwrap(), None);
        // From within a chunk to its end.
        let part = reader.chunk(digest, 5).unwrap().unwrap();
        assert_eq!(part.bytes, whole[5..CHUNK_BYTES]);
        assert_eq!(
            reader.chunk(Digest([1; 32]), 0).unwrap_err().to_string(),
            format!("artefact {} is not there", "01".repeat(32))
        );
    }

    #[test]
    fn damage_is_found_in_the_whole_and_later_in_the_chunk_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let mut whole = vec![7; 2 * CHUNK_BYTES];
        let digest = Digest(artifacts.put(&whole).unwrap());
        let reader = PartReader::new(Arc::new(artifacts));
        reader.chunk(digest, 0).unwrap();
        let path = folder.path().join(digest.to_string());
        whole[CHUNK_BYTES + 1] = 8;
        fs::write(&path, &whole).unwrap();
        reader.chunk(digest, 0).unwrap();
        let later = CHUNK_BYTES as u64;
        assert!(matches!(reader.chunk(digest, later), Err(ArtifactError::Damaged { .. })));
        // One that has not seen it whole before finds it at once.
        let fresh = PartReader::new(Arc::new(Artifacts::open(folder.path()).unwrap()));
        assert!(matches!(fresh.chunk(digest, 0), Err(ArtifactError::Damaged { .. })));
        // A file that ends early is damaged too, and what is put again is whole.
        fs::write(&path, &whole[..10]).unwrap();
        assert!(matches!(reader.chunk(digest, 0), Err(ArtifactError::Damaged { .. })));
    }
}
