//! Why a base cannot be opened.

use std::path::PathBuf;

use crate::model::config::ConfigError;

/// What cannot be opened as a base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Neither a folder nor a GGUF file.
    #[error("{} is neither a folder nor a file that ends in .gguf", .0.display())]
    Kind(PathBuf),
    /// A folder without a config holds several GGUF files.
    #[error("{} has no config.json and {count} GGUF files; name the one you want", path.display())]
    Several {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The config describes no decoder we can run.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A file of weights, or their index, is not what it should be.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
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
        found: Vec<usize>,
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
    /// What a GGUF file says of itself is missing, wrong or not supported.
    #[error("{}: `{key}` {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
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
