//! On-device training: a frozen base, a trained adapter, and the user's text between them.
//!
//! [`Base`] is a Hugging Face folder or a GGUF file in memory, [`Corpus`] one user's text as tokens, and [`Engine`]
//! trains and measures an adapter of [`proto::adapter::AdapterSpec`]. Nothing here knows of clocks,
//! networks, rounds or privacy. The quantised types and the container of GGUF are candle's. What computes is our
//! own: products with frozen weights (`product`), the operations between them (`ops`), the way there and back
//! (`decoder`), because on a CPU candle cuts the gradient at its fused operations, computes one for frozen weights,
//! and keeps more than is needed. For devices that these kernels do not know there is the same decoder on candle's
//! tensors (`candle`); [`Place`] says which of the two computes.
//!
//! Start reading at `engine`, then `training` and `decoder`.

pub mod base;
mod cache;
mod candle;
mod change;
pub mod checkpoint;
pub mod config;
mod decoder;
pub mod engine;
mod gemm;
pub mod merged;
mod micro;
mod ops;
pub mod optimizer;
pub mod passes;
pub mod place;
pub mod pretrain;
mod product;
mod reader;
mod singular;
mod sized;
mod stored;
mod team;
pub mod template;
pub mod text;
mod thread;
mod tokens;
pub mod training;
mod vectors;
mod view;
mod wanted;
mod weights;
mod workspace;

pub use base::{
    Base, BaseError, BaseOptions, FetchError, Fetching, Hold, Hub, Patience, Projection, Repository, Source,
    SourceError, UnknownProjection,
};
pub use checkpoint::CheckpointError;
pub use config::{ConfigError, DecoderConfig, RopeScaling};
pub use decoder::Recompute;
pub use engine::{Engine, Loss, TrainError};
pub use merged::{MergeError, write_merged};
pub use optimizer::Schedule;
pub use passes::Compute;
pub use place::{CandleDevice, Place, PlaceChoice, PlaceError};
pub use pretrain::{PretrainError, PretrainOptions, pretrain};
pub use product::Arithmetic;
pub use template::{ChatTemplate, TemplateError};
pub use text::{Block, Blocks, Corpus, Document, ReadOptions, Reading, TextError, UserText};
pub use tokens::{DecodeError, EncodeError};
pub use training::{Job, Step, Trained, Training};
pub use vectors::{VectorsError, check_vectors};

/// Rounds to the nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests;
