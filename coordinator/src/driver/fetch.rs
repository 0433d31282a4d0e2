//! Artefacts in chunks: the last few stay in memory, since each is asked for in many parts by many devices.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use proto::ids::Digest;
use proto::message::{CHUNK_BYTES, Chunk};

use crate::artefacts::{ArtefactError, Artefacts};

/// Artefacts in memory: plan, adapter and factors of a few tasks, 64 MiB each at most.
const KEPT: usize = 6;

type Kept = VecDeque<(Digest, Arc<[u8]>)>;

/// Reads artefacts in chunks.
#[derive(Debug)]
pub(super) struct ArtefactReader {
    artefacts: Arc<Artefacts>,
    // The newest use first.
    kept: Mutex<Kept>,
}

impl ArtefactReader {
    pub(super) fn new(artefacts: Arc<Artefacts>) -> Self {
        Self { artefacts, kept: Mutex::default() }
    }

    /// The chunk that begins at `offset`; `None` beyond the artefact's end.
    pub(super) fn chunk(&self, digest: Digest, offset: u64) -> Result<Option<Chunk>, ArtefactError> {
        let bytes = self.bytes(digest)?;
        let total_bytes = bytes.len() as u64;
        let part = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        Ok(part.map(|part| {
            let bytes = part.get(..CHUNK_BYTES).unwrap_or(part).to_vec();
            Chunk { total_bytes, offset, bytes }
        }))
    }

    fn bytes(&self, digest: Digest) -> Result<Arc<[u8]>, ArtefactError> {
        if let Some(bytes) = self.with_kept(|kept| recall(kept, digest)) {
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = self.artefacts.get(&digest.0)?.into();
        self.with_kept(|kept| {
            if recall(kept, digest).is_none() {
                kept.push_front((digest, Arc::clone(&bytes)));
                kept.truncate(KEPT);
            }
        });
        Ok(bytes)
    }

    fn with_kept<T>(&self, run: impl FnOnce(&mut Kept) -> T) -> T {
        // Whatever is in memory was verified when it was read, so a poisoned lock does no harm.
        run(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Finds an artefact and makes it the newest used.
fn recall(kept: &mut Kept, digest: Digest) -> Option<Arc<[u8]>> {
    let at = kept.iter().position(|(known, _)| *known == digest)?;
    let entry = kept.remove(at)?;
    let bytes = Arc::clone(&entry.1);
    kept.push_front(entry);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artefact_comes_in_chunks_and_nothing_beyond_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let artefacts = Artefacts::open(folder.path()).unwrap();
        let whole: Vec<u8> = (0..=250).cycle().take(CHUNK_BYTES + 3).collect();
        let digest = Digest(artefacts.put(&whole).unwrap());
        let reader = ArtefactReader::new(Arc::new(artefacts));
        let first = reader.chunk(digest, 0).unwrap().unwrap();
        let second = reader.chunk(digest, CHUNK_BYTES as u64).unwrap().unwrap();
        assert_eq!(second.bytes.len(), 3);
        assert_eq!([first.bytes, second.bytes].concat(), whole);
        assert!(reader.chunk(digest, whole.len() as u64).unwrap().unwrap().bytes.is_empty());
        assert_eq!(reader.chunk(digest, whole.len() as u64 + 1).unwrap(), None);
    }
}
