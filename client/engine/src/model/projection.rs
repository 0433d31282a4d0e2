//! The linear layers of a decoder block, which are an adapter's possible target modules.

use std::fmt;
use std::str::FromStr;

use crate::model::config::DecoderConfig;

/// One kind of linear layer in a decoder block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// `self_attn.q_proj`.
    Q,
    /// `self_attn.k_proj`.
    K,
    /// `self_attn.v_proj`.
    V,
    /// `self_attn.o_proj`.
    O,
    /// `mlp.gate_proj`.
    Gate,
    /// `mlp.up_proj`.
    Up,
    /// `mlp.down_proj`.
    Down,
}

impl Projection {
    /// All seven, in the order of a block's tensors.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name inside a block, such as `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Rows and columns of the weight: (outputs, inputs).
    pub(crate) fn shape(self, config: &DecoderConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (config.num_heads * config.head_dim, hidden),
            Self::K | Self::V => (config.num_kv_heads * config.head_dim, hidden),
            Self::O => (hidden, config.num_heads * config.head_dim),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }

    /// The layer's name in the base, such as `model.layers.3.self_attn.q_proj`.
    pub(crate) fn name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path())
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        f.write_str(path.split_once('.').map_or(path, |(_, name)| name))
    }
}

/// A name that is no projection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown projection `{0}`; known are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj")]
pub struct UnknownProjection(String);

impl FromStr for Projection {
    type Err = UnknownProjection;

    fn from_str(word: &str) -> Result<Self, UnknownProjection> {
        let bare = word.strip_suffix("_proj").unwrap_or(word);
        let known = |projection: &Self| projection.to_string().strip_suffix("_proj") == Some(bare);
        Self::ALL.into_iter().find(known).ok_or_else(|| UnknownProjection(word.to_owned()))
    }
}
