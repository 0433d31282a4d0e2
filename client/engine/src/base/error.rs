//! Why a base cannot be opened.

use std::path::PathBuf;

use formats::FormatError;

use crate::model::config::ConfigError;

/// What cannot be opened as a base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file is not there, cannot be read, or is not what its format says.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The config describes no decoder we can run.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A tensor that the config asks for is not there.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The file of weights, or their index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the config asks for.
    #[error("{}: tensor `{tensor}` must be {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the config asks for.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<u64>,
    },
    /// A tensor's numbers are of a type that cannot be held.
    #[error("{}: tensor `{tensor}` must be {known}, found {found}", path.display())]
    Dtype {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What can be held.
        known: &'static str,
        /// What is there.
        found: String,
    },
    /// A tensor that no decoder of this kind has.
    #[error("{}: tensor `{tensor}` is not supported, and to leave it out would change the model", path.display())]
    UnknownTensor {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The tokenizer cannot be used.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
