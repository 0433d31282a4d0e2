//! The decoder: its weights and its forward pass.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use candle_core::{Result, Tensor};

use super::base::Projection;
use super::config::DecoderConfig;
use super::ops::{self, Add, Attention, CrossEntropy, Embedding, LoraLinear, RmsNorm, Rope, SwiGlu};
use super::tape::{Gradients, Tape};

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
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
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

fn has_bias(config: &DecoderConfig, projection: Projection) -> bool {
    match projection {
        Projection::Q | Projection::K | Projection::V => config.qkv_bias,
        Projection::O => config.output_bias,
        Projection::Gate | Projection::Up | Projection::Down => false,
    }
}

impl Weights {
    /// Puts tensors in their places; none if one of the base's tensors is not there.
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
                q: linear(Projection::Q)?,
                k: linear(Projection::K)?,
                v: linear(Projection::V)?,
                o: linear(Projection::O)?,
                gate: linear(Projection::Gate)?,
                up: linear(Projection::Up)?,
                down: linear(Projection::Down)?,
            });
        }
        Some(Self { embed, blocks, norm: get("model.norm.weight")?, head })
    }
}

/// The factors that change one linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Factors {
    /// (rank, inputs).
    pub(crate) a: Tensor,
    /// (outputs, rank).
    pub(crate) b: Tensor,
    /// (rank, rank); the change is then `B · core · A`, and `a` is frozen.
    pub(crate) core: Option<Tensor>,
}

/// What an adapter changes: factors by block and projection, and their common scale.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// `s`.
    pub(crate) scale: f32,
    pub(crate) factors: BTreeMap<(usize, Projection), Factors>,
}

/// One forward pass over sequences of one length.
pub(crate) struct Pass<'a> {
    config: &'a DecoderConfig,
    weights: &'a Weights,
    changes: &'a Changes,
    sequences: &'a [&'a [u32]],
    rope: Arc<Rope>,
    tape: Tape,
}

impl<'a> Pass<'a> {
    /// A pass over `sequences`, which all have one length.
    pub(crate) fn new(
        config: &'a DecoderConfig,
        weights: &'a Weights,
        changes: &'a Changes,
        sequences: &'a [&'a [u32]],
    ) -> Self {
        let length = sequences.first().map_or(0, |sequence| sequence.len());
        let rope = Arc::new(Rope::new(length, config.head_dim, config.rope_theta));
        Self { config, weights, changes, sequences, rope, tape: Tape::default() }
    }

    /// Mean loss over the predicted tokens: ().
    pub(crate) fn loss(&self) -> Result<Tensor> {
        let hidden = self.hidden()?;
        let loss = CrossEntropy::new(self.sequences, &hidden, &self.weights.head);
        self.tape.two([&hidden, &self.weights.head], loss)
    }

    /// The mean loss, and its gradients with respect to the variables among weights and factors.
    pub(crate) fn gradients(&self) -> Result<(f32, Gradients)> {
        let loss = self.loss()?;
        Ok((loss.to_scalar()?, self.tape.gradients(&loss)?))
    }

    /// The input of the output layer: (batch · length, hidden).
    pub(crate) fn hidden(&self) -> Result<Tensor> {
        let tokens = self.sequences.concat();
        let mut x = self.tape.one(&self.weights.embed, Embedding { tokens })?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            x = self.block(layer, block, &x)?;
        }
        self.norm(&x, &self.weights.norm)
    }

    /// `x`: (batch · length, hidden), result: the same.
    fn block(&self, layer: usize, block: &BlockWeights, x: &Tensor) -> Result<Tensor> {
        let linear = |projection, x: &Tensor| self.linear(layer, block, projection, x);
        let normed = self.norm(x, &block.input_norm)?;
        let attention = Attention {
            batch: self.sequences.len(),
            length: self.sequences.first().map_or(0, |sequence| sequence.len()),
            heads: self.config.num_heads,
            kv_heads: self.config.num_kv_heads,
            width: self.config.head_dim,
            rope: Arc::clone(&self.rope),
            saved: OnceLock::new(),
        };
        let (q, k) = (linear(Projection::Q, &normed)?, linear(Projection::K, &normed)?);
        let v = linear(Projection::V, &normed)?;
        let mixed = self.tape.three([&q, &k, &v], attention)?;
        let x = self.tape.two([x, &linear(Projection::O, &mixed)?], Add)?;
        let normed = self.norm(&x, &block.post_norm)?;
        let (gate, up) = (linear(Projection::Gate, &normed)?, linear(Projection::Up, &normed)?);
        let inner = self.tape.two([&gate, &up], SwiGlu)?;
        self.tape.two([&x, &linear(Projection::Down, &inner)?], Add)
    }

    fn linear(
        &self,
        layer: usize,
        block: &BlockWeights,
        projection: Projection,
        x: &Tensor,
    ) -> Result<Tensor> {
        let Linear { weight, bias } = block.linear(projection);
        match self.changes.factors.get(&(layer, projection)) {
            Some(Factors { a, b, core }) => {
                let lora = LoraLinear {
                    weight: weight.clone(),
                    bias: bias.clone(),
                    scale: self.changes.scale,
                    changed: OnceLock::new(),
                };
                match core {
                    Some(core) => {
                        // core · A = core · (Aᵀ)ᵀ: (rank, inputs)
                        let frozen = a.t()?.contiguous()?;
                        let a = self.tape.two([core, &frozen], ops::Linear { bias: None })?;
                        self.tape.three([x, &a, b], lora)
                    }
                    None => self.tape.three([x, a, b], lora),
                }
            }
            None => self.tape.two([x, weight], ops::Linear { bias: bias.clone() }),
        }
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
        let eps = self.config.rms_norm_eps as f32;
        self.tape.two([x, weight], RmsNorm { eps })
    }
}

impl BlockWeights {
    /// The linear layer of this projection.
    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::Q => &self.q,
            Projection::K => &self.k,
            Projection::V => &self.v,
            Projection::O => &self.o,
            Projection::Gate => &self.gate,
            Projection::Up => &self.up,
            Projection::Down => &self.down,
        }
    }

    /// The linear layer of this projection, to be replaced.
    pub(crate) fn linear_mut(&mut self, projection: Projection) -> &mut Linear {
        match projection {
            Projection::Q => &mut self.q,
            Projection::K => &mut self.k,
            Projection::V => &mut self.v,
            Projection::O => &mut self.o,
            Projection::Gate => &mut self.gate,
            Projection::Up => &mut self.up,
            Projection::Down => &mut self.down,
        }
    }
}
