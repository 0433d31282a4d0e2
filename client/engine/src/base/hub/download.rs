//! Bringing the bytes of one file into the cache.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use formats::BLOCK_BYTES;
use formats::folder::most_bytes;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::cache;
use super::error::{FetchError, unusable};
use super::fetch::{Commit, Fetching, Progress};
use super::listing::Listed;

/// The largest file of weights that is fetched.
const MOST_WEIGHT_BYTES: u64 = 1 << 40;

/// Bytes of the disk that are left to other programs.
const RESERVED_BYTES: u64 = 64 << 20;

impl Commit<'_> {
    /// Brings the bytes into the cache, from where an interrupted fetch stopped, and makes them a file of the commit.
    pub(super) fn download(
        &self,
        file: &str,
        listed: &Listed,
        progress: Progress<'_>,
    ) -> Result<PathBuf, FetchError> {
        let content = self.content(file, listed)?;
        let blob = self.fetch.folder.blob(&content);
        let lock = cache::lock(&blob).map_err(|source| unusable(&blob, source))?;
        let Some(_held) = lock else {
            let (base, lock) = (self.fetch.repository.to_string(), blob.with_extension("lock"));
            return Err(FetchError::Busy { base, file: file.to_owned(), lock });
        };
        let part = blob.with_extension("part");
        drop_unusable(&part, &blob, listed.size)?;
        if !blob.exists() {
            self.receive(file, listed, &part, progress)?;
            fs::rename(&part, &blob).map_err(|source| unusable(&blob, source))?;
        }
        let linked = self.fetch.folder.link(self.sha, file, &content);
        linked.map_err(|source| unusable(self.fetch.cache, source))
    }

    /// What the bytes of a file are called: by their content, where the hub says what that is.
    fn content(&self, file: &str, listed: &Listed) -> Result<String, FetchError> {
        let sha256 = listed.lfs.as_ref().and_then(|lfs| lfs.sha256.clone());
        match sha256.or_else(|| listed.blob_id.clone()) {
            Some(content)
                if (1..=128).contains(&content.len())
                    && content.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                Ok(content)
            }
            Some(content) => {
                Err(self.fetch.answer(format!("its name for the content of a file is `{content}`")))
            }
            None => {
                let name = format!("{}/{file}", self.sha);
                Ok(hex::encode(ring::digest::digest(&ring::digest::SHA256, name.as_bytes())))
            }
        }
    }

    /// Writes what is missing of a file to `part`.
    fn receive(
        &self,
        file: &str,
        listed: &Listed,
        part: &Path,
        progress: Progress<'_>,
    ) -> Result<(), FetchError> {
        let full = |source| unusable(part, source);
        let most = self.most(file, listed)?;
        let mut out = OpenOptions::new().create(true).append(true).open(part).map_err(full)?;
        let there = out.metadata().map_err(full)?.len();
        let (endpoint, name) = (&self.fetch.endpoint, self.fetch.repository.name());
        let address = format!("{endpoint}/{name}/resolve/{}/{file}", self.sha);
        let answered = self.fetch.requests.get(&address, there);
        let response = answered.map_err(|error| self.fetch.failed(file, &error))?;
        let from = first_byte(&response);
        if from != there {
            // A hub that does not go on from there begins again.
            out.set_len(0).map_err(full)?;
            if from != 0 {
                let reason = format!("asked for {file} from byte {there} on, it sends it from {from} on");
                return Err(self.fetch.answer(reason));
            }
        }
        let mut bytes = from;
        let announced = response.body().content_length().map(|len| from.saturating_add(len));
        let expected = listed.size.or(announced);
        if let Some(bytes) = expected.filter(|bytes| *bytes > most) {
            return Err(self.too_large(file, Some(bytes), most));
        }
        let available = fs4::available_space(part.parent().unwrap_or(part)).map_err(full)?;
        let available = available.saturating_sub(RESERVED_BYTES);
        // Of an unknown length, no more than there is room for.
        let needed = expected.map_or(1, |expected| expected.saturating_sub(from));
        if needed > available {
            return Err(self.no_room(file, needed, available));
        }
        let room = from.saturating_add(available);
        let of_bytes = expected.unwrap_or(0);
        let (mut body, mut block) = (response.into_body().into_reader(), vec![0; BLOCK_BYTES]);
        loop {
            if progress(Fetching { file: file.to_owned(), bytes: bytes.min(of_bytes), of_bytes }).is_break() {
                return Err(FetchError::Stopped { base: self.fetch.repository.to_string() });
            }
            let read = match body.read(&mut block) {
                // What has a name of its own must be whole after a power loss too: nobody asks for it again.
                Ok(0) => return out.sync_all().map_err(full),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.fetch.failed(file, &error.into())),
            };
            // It is not what was announced, however much more of it comes: one byte too many says so.
            let limit = listed.size.map_or(most, |size| size.saturating_add(1)).min(room);
            let kept = usize::try_from(limit.saturating_sub(bytes)).unwrap_or(usize::MAX).min(read);
            out.write_all(&block[..kept]).map_err(full)?;
            bytes += kept as u64;
            if listed.size.is_some_and(|size| bytes > size) {
                return out.sync_all().map_err(full);
            }
            if kept < read {
                drop(out);
                fs::remove_file(part).map_err(full)?;
                return Err(if bytes >= room {
                    self.no_room(file, (read - kept) as u64, available)
                } else {
                    self.too_large(file, None, most)
                });
            }
        }
    }

    /// The most bytes of a file of this name; fails where the hub says that it has more.
    fn most(&self, file: &str, listed: &Listed) -> Result<u64, FetchError> {
        let weights = Path::new(file)
            .extension()
            .is_some_and(|end| ["safetensors", "gguf"].iter().any(|known| end.eq_ignore_ascii_case(known)));
        let most = if weights { MOST_WEIGHT_BYTES } else { most_bytes(file) };
        match listed.size.filter(|size| *size > most) {
            Some(size) => Err(self.too_large(file, Some(size), most)),
            None => Ok(most),
        }
    }

    fn too_large(&self, file: &str, bytes: Option<u64>, most: u64) -> FetchError {
        FetchError::TooLarge { base: self.fetch.repository.to_string(), file: file.to_owned(), bytes, most }
    }

    fn no_room(&self, file: &str, needed: u64, available: u64) -> FetchError {
        let (base, cache) = (self.fetch.repository.to_string(), self.fetch.cache.to_owned());
        FetchError::NoRoom { base, file: file.to_owned(), needed, available, cache }
    }
}

/// Removes what an interrupted fetch left where it cannot be gone on from: as many bytes as there should be, or more,
/// or nobody knows how many; and bytes that are not as many as they should be.
fn drop_unusable(part: &Path, blob: &Path, size: Option<u64>) -> Result<(), FetchError> {
    let len = |path: &Path| path.metadata().ok().map(|metadata| metadata.len());
    let wrong = [
        len(part).is_some_and(|len| size.is_none_or(|size| len >= size)),
        len(blob).is_some_and(|len| size.is_some_and(|size| len != size)),
    ];
    for (path, wrong) in [part, blob].into_iter().zip(wrong) {
        if wrong {
            fs::remove_file(path).map_err(|source| unusable(path, source))?;
        }
    }
    Ok(())
}

/// The byte of a file with which an answer begins.
fn first_byte(response: &Response<Body>) -> u64 {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return 0;
    }
    let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first.unwrap_or(0)
}
