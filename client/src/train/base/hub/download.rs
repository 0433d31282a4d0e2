//! Bringing the bytes of one file into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::{Commit, FetchError, Fetching, Listed, cache, unusable};
use crate::train::base::files::BLOCK_BYTES;

impl Commit<'_> {
    /// Brings the bytes into the cache, from where an interrupted fetch stopped, and makes them a file of the commit.
    pub(super) fn download(
        &self,
        file: &str,
        listed: &Listed,
        progress: &mut (dyn FnMut(Fetching) + Send),
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
        linked.map_err(|source| unusable(&self.fetch.hub.cache, source))
    }

    /// What the bytes of a file are called: by their content, where the hub says what that is.
    fn content(&self, file: &str, listed: &Listed) -> Result<String, FetchError> {
        let sha256 = listed.lfs.as_ref().and_then(|lfs| lfs.sha256.clone());
        match sha256.or_else(|| listed.blob_id.clone()) {
            Some(content)
                if !content.is_empty() && content.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
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
        progress: &mut (dyn FnMut(Fetching) + Send),
    ) -> Result<(), FetchError> {
        let full = |source| unusable(part, source);
        let mut out = OpenOptions::new().create(true).append(true).open(part).map_err(full)?;
        let there = out.metadata().map_err(full)?.len();
        let (endpoint, name) = (&self.fetch.hub.endpoint, self.fetch.repository.name());
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
        let of_bytes = listed.size.or(response.body().content_length().map(|len| from + len)).unwrap_or(0);
        let (mut body, mut block) = (response.into_body().into_reader(), vec![0; BLOCK_BYTES]);
        loop {
            progress(Fetching { file: file.to_owned(), bytes: bytes.min(of_bytes), of_bytes });
            let read = match body.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.fetch.failed(file, &error.into())),
            };
            out.write_all(&block[..read]).map_err(full)?;
            bytes += read as u64;
            if listed.size.is_some_and(|size| bytes > size) {
                // It is not what was announced, however much more of it comes.
                return Ok(());
            }
        }
    }
}

/// What is wrong with a fetched file, if something is.
pub(super) fn wrong(path: &Path, listed: &Listed) -> std::io::Result<Option<String>> {
    let len = path.metadata()?.len();
    if let Some(size) = listed.size.filter(|size| *size != len) {
        return Ok(Some(format!("it has {len} bytes instead of {size}")));
    }
    let Some(expected) = listed.lfs.as_ref().and_then(|lfs| lfs.sha256.as_deref()) else { return Ok(None) };
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut file, mut block) = (File::open(path)?, vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => context.update(&block[..read]),
        }
    }
    let found = hex::encode(context.finish());
    let same = found.eq_ignore_ascii_case(expected);
    Ok((!same).then(|| format!("its SHA-256 is {found} instead of {expected}")))
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
