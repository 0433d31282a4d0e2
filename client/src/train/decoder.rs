//! The decoder: its weights and its forward pass.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::base::Projection;
use super::config::DecoderConfig;

/// A linear layer `y = x · Wᵀ + bias`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `W`: (outputs, inputs).
    pub(crate) weight: Tensor,
    /// (outputs).
    pub(crate) bias: Option<Tensor>,
}

/// One decoder block.
#[derive(Clone, Debug)]
pub(crate) struct BlockWeights {
    /// (hidden).
    pub(crate) input_norm: Tensor,
    /// (hidden).
    pub(crate) post_norm: Tensor,
    /// In the order of [`Projection::ALL`].
    pub(crate) linears: Vec<Linear>,
}

/// All tensors of a decoder, in f32.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    /// (vocab, hidden).
    pub(crate) embed: Tensor,
    pub(crate) blocks: Vec<BlockWeights>,
    /// (hidden).
    pub(crate) norm: Tensor,
    /// (vocab, hidden); the embedding again when they are tied.
    pub(crate) head: Tensor,
}

/// The tensors that a base of this shape must have, by their names in the folder.
pub(crate) fn tensor_shapes(config: &DecoderConfig) -> BTreeMap<String, Vec<usize>> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut shapes = BTreeMap::new();
    shapes.insert("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]);
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    if !config.tied {
        shapes.insert("lm_head.weight".to_owned(), vec![vocab, hidden]);
    }
    for layer in 0..config.num_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.insert(format!("model.layers.{layer}.{norm}.weight"), vec![hidden]);
        }
        for projection in Projection::ALL {
            let ((outputs, inputs), name) = (projection.shape(config), projection.name(layer));
            shapes.insert(format!("{name}.weight"), vec![outputs, inputs]);
            if has_bias(config, projection) {
                shapes.insert(format!("{name}.bias"), vec![outputs]);
            }
        }
    }
    shapes
}

fn has_bias(config: &DecoderConfig, projection: Projection) -> bool {
    match projection {
        Projection::Q | Projection::K | Projection::V => config.qkv_bias,
        Projection::O => config.output_bias,
        Projection::Gate | Projection::Up | Projection::Down => false,
    }
}

impl Weights {
    /// Puts tensors in their places; none if one of [`tensor_shapes`] is not there.
    pub(crate) fn new(config: &DecoderConfig, tensors: &BTreeMap<String, Tensor>) -> Option<Self> {
        let get = |name: &str| tensors.get(name).cloned();
        let embed = get("model.embed_tokens.weight")?;
        let head = if config.tied { embed.clone() } else { get("lm_head.weight")? };
        let mut blocks = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let norm = |name: &str| get(&format!("model.layers.{layer}.{name}.weight"));
            let linear = |projection: Projection| {
                let name = projection.name(layer);
                let weight = get(&format!("{name}.weight"))?;
                let bias =
                    if has_bias(config, projection) { Some(get(&format!("{name}.bias"))?) } else { None };
                Some(Linear { weight, bias })
            };
            blocks.push(BlockWeights {
                input_norm: norm("input_layernorm")?,
                post_norm: norm("post_attention_layernorm")?,
                linears: Projection::ALL.into_iter().map(linear).collect::<Option<Vec<_>>>()?,
            });
        }
        Some(Self { embed, blocks, norm: get("model.norm.weight")?, head })
    }
}
