//! Why a merged folder cannot be written.

use std::path::PathBuf;

use proto::adapter::AdapterError;
use proto::files::FileError;
use safetensors::Dtype;

use crate::kernels::error::ShapeError;
use crate::lora::layout::ModuleError;

/// A merged folder that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The adapter is not one of this base.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The vectors are not of the adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds something, which would be read together with what is written.
    #[error("{} is not empty; a merged base needs a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The sum does not fit the type in which the base is stored.
    #[error(
        "`{tensor}` with the adapter has a number that does not fit {dtype}; hold the base as f32 or bf16"
    )]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The type.
        dtype: Dtype,
    },
    /// The base's shape has no place in a `config.json`.
    #[error(
        "{what} of this GGUF base has no place in a Hugging Face folder; merge into the folder that it was made of"
    )]
    NoPlace {
        /// What of it.
        what: &'static str,
    },
    /// A configuration or an index has no place in JSON.
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
