//! Why a merged base cannot be written.

use std::path::PathBuf;

use proto::adapter::AdapterError;
use proto::files::FileError;
use safetensors::Dtype;

use crate::kernels::error::ShapeError;
use crate::lora::layout::ModuleError;

/// Why a merged base cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The adapter does not fit the base.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The vectors do not fit the adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder is not empty; its files would be read together with the new ones.
    #[error("{} is not empty; a merged base needs a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// A merged value overflows the dtype in which the base is held.
    #[error(
        "`{tensor}` with the adapter has a number that does not fit {dtype}; hold the base as f32 or bf16"
    )]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The dtype.
        dtype: Dtype,
    },
    /// A `config.json` cannot describe the base's shape.
    #[error(
        "{what} of this GGUF base has no place in a Hugging Face folder; merge into the folder that it was made of"
    )]
    NoPlace {
        /// What it cannot describe.
        what: &'static str,
    },
    /// A config, tokenizer or index cannot be written as JSON.
    #[error("cannot write {name}: {reason}")]
    Text {
        /// The file.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The weights cannot be read.
    #[error("tensor computation failed: {0}")]
    Shape(#[from] ShapeError),
}
