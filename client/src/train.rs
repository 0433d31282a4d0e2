//! On-device training: a frozen base, a trained adapter, and the user's text between them.
//!
//! [`Base`] is a Hugging Face folder or a GGUF file in memory, [`Corpus`] one user's text as tokens, and [`Engine`]
//! trains and measures an adapter of [`proto::adapter::AdapterSpec`]. Nothing here knows of clocks,
//! networks, rounds or privacy. Tensors are candle's; the operations with a gradient are our own
//! (`ops`), because candle's fused ones have none and its matmul computes a gradient for frozen weights; the way
//! back through them (`tape`) is ours too.
//!
//! Start reading at `engine`.

pub mod base;
pub mod config;
mod decoder;
pub mod engine;
mod ops;
mod optimizer;
mod places;
pub mod pretrain;
mod singular;
mod tape;
pub mod text;
mod thread;
mod tokens;
mod weights;

pub use base::{
    Base, BaseError, BaseOptions, FetchError, Fetching, Hold, Hub, Projection, Repository, Source,
    SourceError, UnknownProjection,
};
pub use config::{ConfigError, DecoderConfig, RopeScaling};
pub use engine::{Engine, Loss, Step, TrainError, Trained};
pub use pretrain::{PretrainError, PretrainOptions, pretrain};
pub use text::{Blocks, Corpus, SkipReason, Skipped, TextError, UserText, read_jsonl};
pub use tokens::{DecodeError, EncodeError};

#[cfg(test)]
mod tests;
