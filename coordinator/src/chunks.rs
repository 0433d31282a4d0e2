//! A file in chunks, each read and verified alone.
//!
//! A file is read once, in pieces, and the hash of each chunk is kept: 32 bytes for 512 KiB. From then on a chunk is one
//! read at its place, and is compared with its hash. Memory is that of the chunks under way, however many devices ask
//! for however large a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use proto::ids::Digest;
use proto::message::{CHUNK_BYTES, Chunk};
use ring::digest::{Context, SHA256};

/// What is known of a file that was read as a whole.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its length.
    pub(crate) total_bytes: u64,
    /// The hash of each chunk.
    chunks: Vec<Digest>,
}

/// What there is at a place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The bytes from there on, at most to the end of the chunk.
    Bytes(Chunk),
    /// The file ends before.
    BeyondEnd,
    /// It is not the file any more that was read as a whole.
    Changed,
}

impl Known {
    /// Reads a whole file, piece by piece. Returns its hash, too.
    pub(crate) fn read(file: &mut File) -> io::Result<(Digest, Self)> {
        let (mut whole, mut known) = (Context::new(&SHA256), Self { total_bytes: 0, chunks: Vec::new() });
        loop {
            let chunk = next_chunk(file)?;
            if chunk.is_empty() {
                break;
            }
            whole.update(&chunk);
            known.total_bytes += chunk.len() as u64;
            known.chunks.push(Digest::of(&chunk));
        }
        let mut digest = Digest([0; 32]);
        digest.0.copy_from_slice(whole.finish().as_ref());
        Ok((digest, known))
    }

    /// What the file has from `offset` on.
    pub(crate) fn part(&self, file: &mut File, offset: u64) -> io::Result<Part> {
        let total_bytes = self.total_bytes;
        if offset >= total_bytes {
            let end = Chunk { total_bytes, offset, bytes: Vec::new() };
            return Ok(if offset == total_bytes { Part::Bytes(end) } else { Part::BeyondEnd });
        }
        let chunk_bytes = CHUNK_BYTES as u64;
        let (number, within) = (offset / chunk_bytes, offset % chunk_bytes);
        file.seek(SeekFrom::Start(number * chunk_bytes))?;
        let mut bytes = next_chunk(file)?;
        let expected = usize::try_from(number).ok().and_then(|number| self.chunks.get(number));
        if expected != Some(&Digest::of(&bytes)) {
            return Ok(Part::Changed);
        }
        bytes.drain(..usize::try_from(within).unwrap_or(usize::MAX).min(bytes.len()));
        Ok(Part::Bytes(Chunk { total_bytes, offset, bytes }))
    }
}

/// The next whole chunk, or what is left of the file.
fn next_chunk(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    file.take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
