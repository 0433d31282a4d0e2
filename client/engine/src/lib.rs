//! A decoder that learns and writes: LoRA training and generation on a CPU, or on a device of candle's.
//!
//! [`Base`] is a Hugging Face folder or a GGUF file in memory, [`Blocks`] are one user's text as tokens, and [`Engine`]
//! trains and measures an adapter of [`proto::adapter::AdapterSpec`] and generates with it. Nothing here knows of
//! clocks, rounds, privacy or of text that is not yet tokens.
//!
//! The floors of the house, each of which names only those below:
//!
//! | floor | what it is |
//! | --- | --- |
//! | [`guarded`], [`process`] | panics of libraries as errors; this process's memory and time |
//! | `kernels` | matrix products and vector code, slices in and slices out; all unsafe code and CPU detection |
//! | `layers` | one layer of a decoder a file, forward and backward |
//! | [`model`] | the decoder: config, weights, LoRA deltas, forward and backward pass, saved activations, KV cache |
//! | [`base`] | weights and tokenizer from a disk or a hub |
//! | [`lora`] | an adapter's vectors in the base's layers, frozen factors, merged weights |
//! | `backend` | where passes are computed, and in what precision: our kernels, or candle's tensors |
//! | `error`, `checks` | [`TrainError`], and whether tokens fit a base |
//! | [`training`], `generation` | steps, optimizer, checkpoints; incremental decoding |
//! | [`engine`] | all of it for one base |
//!
//! What computes on a CPU is our own, because candle cuts the gradient at its fused operations there, computes one for
//! frozen weights, and keeps more than is needed. Start reading at [`engine`], then [`training`] and `model::decoder`.
//!
#![doc = include_str!("../DESIGN.md")]

mod backend;
pub mod base;
mod checks;
pub mod engine;
mod error;
mod generation;
pub mod guarded;
mod kernels;
mod layers;
pub mod lora;
pub mod model;
pub mod process;
pub mod training;

pub use backend::compute::Compute;
pub use backend::device::{Backend, CandleDevice, DeviceError, DeviceRequest};
pub use backend::error::ComputeError;
pub use base::tokenizer::{DecodeError, EncodeError};
pub use base::{Base, BaseError, BaseOptions, Filled, Repository, Source, SourceError, WeightDtype};
#[cfg(feature = "hub")]
pub use base::{FetchError, Fetching, Hub, Patience, Progress};
pub use engine::{Engine, Loss};
pub use error::TrainError;
pub use kernels::error::ShapeError;
pub use kernels::instructions::{VectorsError, check_vectors};
pub use kernels::matmul::Precision;
pub use lora::layout::{ModuleError, check_modules};
pub use lora::merge::{MergeError, write_merged};
pub use model::batch::BatchShape;
pub use model::blocks::{Block, Blocks, Encoded};
pub use model::compute::Recompute;
pub use model::config::{ConfigError, DecoderConfig, RopeScaling};
pub use model::projection::{Projection, UnknownProjection};
pub use training::Training;
pub use training::checkpoint::{self, CheckpointError};
pub use training::job::{Job, Step, Trained};
pub use training::optimizer::Schedule;
#[cfg(feature = "pretrain")]
pub use training::pretrain::{self, PretrainError, PretrainOptions};

#[cfg(test)]
mod tests;
