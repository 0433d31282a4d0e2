//! A decoder's weights. Matrices keep the dtype in which they were loaded.

use std::collections::BTreeMap;

use crate::kernels::matrix::{Matrix, Numbers};
use crate::model::config::DecoderConfig;
use crate::model::projection::Projection;

/// The name of the embedding in a Hugging Face folder.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The name of the LM head in a Hugging Face folder.
pub(crate) const HEAD: &str = "lm_head.weight";

/// All weights of a decoder.
#[derive(Debug)]
pub(crate) struct Weights {
    /// (vocab, hidden).
    pub(crate) embed: Matrix,
    pub(crate) blocks: Vec<BlockWeights>,
    /// (hidden).
    pub(crate) norm: Vec<f32>,
    /// (vocab, hidden); `None` where the LM head is tied to the embedding.
    pub(crate) head: Option<Matrix>,
}

/// One decoder block.
#[derive(Debug)]
pub(crate) struct BlockWeights {
    /// (hidden).
    pub(crate) input_norm: Vec<f32>,
    /// (hidden).
    pub(crate) post_norm: Vec<f32>,
    /// Norms of the outputs of attention and of the MLP, where the model has them: (hidden) each.
    pub(crate) output_norms: Option<[Vec<f32>; 2]>,
    /// QK norms, where the model has them: (head dim) each, of queries and of keys.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// In the order of [`Projection::ALL`].
    linears: [Linear; 7],
}

/// A linear layer `y = x · Wᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `W`: (outputs, inputs).
    pub(crate) weight: Matrix,
    /// (outputs).
    pub(crate) bias: Option<Vec<f32>>,
}

/// A tensor as it was read from the base.
#[derive(Debug)]
pub(crate) enum Read {
    /// Two dimensions.
    Matrix(Matrix),
    /// One dimension.
    Vector(Vec<f32>),
}

/// The tensors that a base of this shape must have, by their names in a Hugging Face folder.
pub(crate) fn tensor_shapes(config: &DecoderConfig) -> BTreeMap<String, Vec<usize>> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut shapes = BTreeMap::new();
    shapes.insert(EMBEDDING.to_owned(), vec![vocab, hidden]);
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    if !config.tied {
        shapes.insert(HEAD.to_owned(), vec![vocab, hidden]);
    }
    for layer in 0..config.num_layers {
        for norm in norms(config) {
            shapes.insert(format!("model.layers.{layer}.{norm}.weight"), vec![hidden]);
        }
        if config.qk_norm {
            for norm in ["q_norm", "k_norm"] {
                shapes.insert(format!("model.layers.{layer}.self_attn.{norm}.weight"), vec![config.head_dim]);
            }
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

/// A block's norms of the residual stream by their names: before attention, before the MLP, and behind both where the model
/// has these.
pub(crate) fn norms(config: &DecoderConfig) -> &'static [&'static str] {
    match config.gemma {
        None => &["input_layernorm", "post_attention_layernorm"],
        Some(_) => &[
            "input_layernorm",
            "pre_feedforward_layernorm",
            "post_attention_layernorm",
            "post_feedforward_layernorm",
        ],
    }
}

/// What the norms' weights in a file are less than what they multiply by.
pub(crate) fn norm_offset(config: &DecoderConfig) -> f32 {
    if config.gemma.is_some() { 1.0 } else { 0.0 }
}

fn has_bias(config: &DecoderConfig, projection: Projection) -> bool {
    match projection {
        Projection::Q | Projection::K | Projection::V => config.qkv_bias,
        Projection::O => config.output_bias,
        Projection::Gate | Projection::Up | Projection::Down => false,
    }
}

impl Weights {
    /// Assembles the weights from tensors by name; fails with the name of one of [`tensor_shapes`] that is
    /// missing or has another number of dimensions.
    pub(crate) fn new(config: &DecoderConfig, mut tensors: BTreeMap<String, Read>) -> Result<Self, String> {
        let matrix = |tensors: &mut BTreeMap<String, Read>, name: String| match tensors.remove(&name) {
            Some(Read::Matrix(matrix)) => Ok(matrix),
            Some(Read::Vector(_)) | None => Err(name),
        };
        let vector = |tensors: &mut BTreeMap<String, Read>, name: String| match tensors.remove(&name) {
            Some(Read::Vector(vector)) => Ok(vector),
            Some(Read::Matrix(_)) | None => Err(name),
        };
        let offset = norm_offset(config);
        let lifted = |mut weights: Vec<f32>| {
            for weight in &mut weights {
                *weight += offset;
            }
            weights
        };
        let all = &mut tensors;
        let embed = matrix(all, EMBEDDING.to_owned())?;
        let head = if config.tied { None } else { Some(matrix(all, HEAD.to_owned())?) };
        let mut blocks = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let mut linears = Vec::with_capacity(Projection::ALL.len());
            for projection in Projection::ALL {
                let name = projection.name(layer);
                let weight = matrix(all, format!("{name}.weight"))?;
                let bias = if has_bias(config, projection) {
                    Some(vector(all, format!("{name}.bias"))?)
                } else {
                    None
                };
                linears.push(Linear { weight, bias });
            }
            let mut norm =
                |name: &str| vector(all, format!("model.layers.{layer}.{name}.weight")).map(lifted);
            let head_norms = if config.qk_norm {
                Some([norm("self_attn.q_norm")?, norm("self_attn.k_norm")?])
            } else {
                None
            };
            let (input_norm, post_norm, output_norms) = match norms(config) {
                [input, post, attention, mlp] => {
                    (norm(input)?, norm(post)?, Some([norm(attention)?, norm(mlp)?]))
                }
                _ => (norm("input_layernorm")?, norm("post_attention_layernorm")?, None),
            };
            let linears = linears.try_into().map_err(|_| Projection::Q.name(layer))?;
            blocks.push(BlockWeights { input_norm, post_norm, output_norms, head_norms, linears });
        }
        let norm = vector(all, "model.norm.weight".to_owned()).map(lifted)?;
        Ok(Self { embed, blocks, norm, head })
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = self.blocks.iter().flat_map(|block| &block.linears).map(|linear| &linear.weight);
        linears.chain([&self.embed]).chain(&self.head)
    }

    /// Whether any matrix is held as f32.
    pub(crate) fn is_single(&self) -> bool {
        self.matrices().any(|matrix| matches!(matrix.numbers(), Numbers::F32(_)))
    }

    /// Parameters of all matrices, without biases and norms.
    pub(crate) fn parameters(&self) -> usize {
        self.matrices().map(|matrix| matrix.rows() * matrix.columns()).sum()
    }

    /// The LM head, which may be tied to the embedding: (vocab, hidden).
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embed)
    }
}

impl BlockWeights {
    /// The linear layer of this projection.
    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::Q => &self.linears[0],
            Projection::K => &self.linears[1],
            Projection::V => &self.linears[2],
            Projection::O => &self.linears[3],
            Projection::Gate => &self.linears[4],
            Projection::Up => &self.linears[5],
            Projection::Down => &self.linears[6],
        }
    }
}
