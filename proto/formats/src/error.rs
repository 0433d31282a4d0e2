//! Why a file of another program cannot be read, or an adapter cannot be written as one.

use std::io;
use std::path::{Path, PathBuf};

use proto::adapter::AdapterError;

/// Why the files of a base cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The path is neither a folder nor a GGUF file.
    #[error("{} is neither a folder nor a file that ends in .gguf", .0.display())]
    Kind(PathBuf),
    /// The folder has no config and several GGUF files.
    #[error("{} has no config.json and {count} GGUF files; name the one you want", path.display())]
    Several {
        /// The folder.
        path: PathBuf,
        /// Number of GGUF files.
        count: usize,
    },
    /// The operating system refused, or the file is not a regular one or too large.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What git-lfs puts in the place of a file that was not fetched.
    #[error("{} is a pointer of git-lfs and not the file itself: run `git lfs pull` in its folder", .0.display())]
    LfsPointer(PathBuf),
    /// A file is not there, and something else is from which it can be made or which was meant.
    #[error("{} is not there: {advice}", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// What is there instead, and what to do.
        advice: String,
    },
    /// The file's content breaks its format.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A metadata value of a GGUF file is missing, wrong or not supported.
    #[error("{}: `{key}` {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
}

impl FormatError {
    /// [`Self::Damaged`] for the file at `path`.
    pub fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    /// [`Self::Read`] for the file at `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    /// The file grew or shrank between two reads.
    pub(crate) fn length_changed(path: &Path) -> Self {
        Self::damaged(path, "its length changed while it was read")
    }
}

/// An adapter that cannot be laid out in another program's form.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The parameters are not of the adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Two modules would be written under one name.
    #[error("the adapter names `{0}` twice")]
    RepeatedModule(String),
    /// A module that has no name in a GGUF file.
    #[error(
        "`{0}` has no name in a GGUF file; llama.cpp can load adapters of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj"
    )]
    UnknownModule(String),
    /// The rows of queries or keys are not whole heads.
    #[error("`{module}` has {outputs} rows, which are not {heads} heads of an even width")]
    Heads {
        /// The module.
        module: String,
        /// Its rows.
        outputs: u32,
        /// Heads of the base.
        heads: u32,
    },
    /// A tensor has no place in the file's format.
    #[error("the adapter cannot be laid out: {0}")]
    Layout(#[from] safetensors::SafeTensorError),
    /// The configuration has no place in JSON.
    #[error("the adapter's configuration cannot be written: {0}")]
    Config(#[from] serde_json::Error),
}
