//! All files of a base, and the digest over them.

use std::path::{Path, PathBuf};

use proto::ids::Digest;

use crate::error::FormatError;
use crate::file::{BLOCK_BYTES, FileStream, Hasher, OpenedFile, SmallFile};
use crate::folder::TokenizerFiles;

/// All files of a base, in the order of its digest. The small ones were read, of the files of weights the headers.
#[derive(Debug)]
pub struct BaseFiles {
    before: Vec<SmallFile>,
    weights: Vec<OpenedFile>,
    after: Vec<SmallFile>,
}

impl BaseFiles {
    /// The files of a Hugging Face folder; `weights` in the order of their names.
    pub fn folder(
        config: SmallFile,
        index: Option<SmallFile>,
        weights: Vec<OpenedFile>,
        tokenizer: TokenizerFiles,
    ) -> Self {
        let before = [Some(config), index].into_iter().flatten().collect();
        let TokenizerFiles { tokenizer, settings, template, generation } = tokenizer;
        let after = [Some(tokenizer), settings, template, generation].into_iter().flatten().collect();
        Self { before, weights, after }
    }

    /// A GGUF file.
    pub fn gguf(file: OpenedFile) -> Self {
        Self { before: Vec::new(), weights: vec![file], after: Vec::new() }
    }

    /// The digest over files in this order, none of which is understood: whoever was told the digest of a base, and finds
    /// it, has that base.
    ///
    /// `go_on` is asked all the time, and told no, there is no digest. Returns an error where a file cannot be read.
    pub fn digest_of(paths: &[PathBuf], go_on: &dyn Fn() -> bool) -> Result<Option<Digest>, FormatError> {
        let mut hasher = Hasher::new();
        for path in paths {
            let opened = OpenedFile::new(path)?;
            let len = opened.len();
            let mut stream = FileStream::new(opened, &mut hasher);
            let mut position = 0;
            while position < len {
                if !go_on() {
                    return Ok(None);
                }
                position = len.min(position + BLOCK_BYTES as u64);
                stream.skim_to(position)?;
            }
            stream.finish()?;
        }
        Ok(Some(hasher.finish()))
    }

    /// Where they are, in the order of the digest.
    pub fn paths(&self) -> Vec<PathBuf> {
        let before = self.before.iter().map(|file| file.path.as_path());
        let weights = self.weights.iter().map(OpenedFile::path);
        let after = self.after.iter().map(|file| file.path.as_path());
        before.chain(weights).chain(after).map(Path::to_owned).collect()
    }

    /// Reads each file of weights to its end and computes the digest of the base.
    ///
    /// `read` gets the index of a file of weights and what follows its header, and may leave bytes of it unread.
    /// Returns its error, or one where a file cannot be read or its length changed.
    ///
    /// The digest is SHA-256 over `nightshift base v1` and then, for each file, its name's length, its name, its length
    /// (both lengths as 8 bytes, little-endian) and its bytes. The files are `config.json`, the index if there is one,
    /// the weights in the order of their names, `tokenizer.json` and, if there, `tokenizer_config.json`,
    /// `chat_template.jinja` and `generation_config.json`; or the one GGUF file.
    pub fn read<E: From<FormatError>>(
        self,
        mut read: impl FnMut(usize, &mut FileStream<'_>) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let mut hasher = Hasher::new();
        self.before.iter().for_each(|file| hasher.add(file));
        for (at, opened) in self.weights.into_iter().enumerate() {
            let mut stream = FileStream::new(opened, &mut hasher);
            read(at, &mut stream)?;
            stream.finish()?;
        }
        self.after.iter().for_each(|file| hasher.add(file));
        Ok(hasher.finish())
    }
}
