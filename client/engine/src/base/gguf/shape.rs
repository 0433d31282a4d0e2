//! The decoder that a GGUF file holds, and which tensor is which.

use std::collections::BTreeMap;
use std::path::Path;

use formats::gguf::{Metadata, to_gguf};
use formats::{FormatError, TensorHeader};

use crate::base::error::BaseError;
use crate::base::plan::DIVISORS;
use crate::base::tensor::{FileDtype, TensorInfo};
use crate::model::config::{ConfigError, DecoderConfig, RopeScaling};
use crate::model::weights::tensor_shapes;

/// What the numbers of a tensor may be stored as.
const KNOWN: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K or Q6_K";

/// A decoder's shape.
pub(super) struct Shape {
    pub(super) config: DecoderConfig,
    /// Whether the rows of queries and keys are in interleaved order, as the converter writes Llama's.
    interleaved: bool,
}

/// Reads the shape from the metadata, and from which tensors there are.
pub(super) fn read(
    metadata: &Metadata,
    tensors: &BTreeMap<String, TensorHeader>,
) -> Result<Shape, BaseError> {
    let kind = metadata.text("general.architecture")?;
    let kind = kind.ok_or_else(|| metadata.wrong("general.architecture", "is missing"))?;
    let config_error = |source| BaseError::Config { path: metadata.path().to_owned(), source };
    if !matches!(kind, "llama" | "qwen2" | "qwen3") {
        let (found, known) = (kind.to_owned(), "llama, qwen2, qwen3");
        return Err(config_error(ConfigError::Architecture { found, known }));
    }
    let keys = Keys { metadata, kind };
    let there = |name: &str| tensors.contains_key(name);
    let embedding = tensors.get("token_embd.weight").map(|info| info.shape.as_slice());
    let Some(&[vocab, _]) = embedding else {
        let (path, tensor) = (metadata.path().to_owned(), "token_embd.weight".to_owned());
        return Err(BaseError::MissingTensor { path, tensor });
    };
    keys.refuse_experts()?;
    let (hidden, heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let head_dim = match keys.optional("attention.key_length")? {
        Some(width) => width,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(width) = keys.optional(key)?.filter(|width| *width != head_dim) {
            let reason = format!("= {width} is not supported where a head's width is {head_dim}");
            return Err(metadata.wrong(&keys.name(key), reason).into());
        }
    }
    // A window as long as the sequence hides nothing, so it is a limit on the sequence.
    let window = if kind == "llama" { keys.optional("attention.sliding_window")? } else { None };
    let window = window.filter(|window| *window > 0).unwrap_or(usize::MAX);
    let token = |key: &str| -> Result<Option<u32>, BaseError> {
        let id = metadata.number(key)?;
        Ok(id.and_then(|id| u32::try_from(id).ok()))
    };
    let config = DecoderConfig {
        vocab_size: keys.fit("token_embd.weight", vocab)?,
        hidden_size: hidden,
        intermediate_size: keys.size("feed_forward_length")?,
        num_layers: keys.size("block_count")?,
        num_heads: heads,
        num_kv_heads: keys.optional("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        max_positions: keys.size("context_length")?.min(window),
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?,
        rope_theta: metadata.float(&keys.name("rope.freq_base"))?.unwrap_or(10_000.0),
        rope_scaling: keys.scaling()?,
        tied: !there("output.weight"),
        qkv_bias: there("blk.0.attn_q.bias"),
        output_bias: there("blk.0.attn_output.bias"),
        qk_norm: kind == "qwen3",
        gemma: None,
        bos: token("tokenizer.ggml.bos_token_id")?,
        eos: token("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
    };
    config.check().map_err(config_error)?;
    if config.rope_scaling != RopeScaling::None && there(DIVISORS) {
        let reason = format!("is not supported beside `{DIVISORS}`");
        return Err(metadata.wrong(&keys.name("rope.scaling.type"), reason).into());
    }
    Ok(Shape { config, interleaved: kind == "llama" })
}

/// The metadata of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    kind: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.kind)
    }

    fn fit(&self, key: &str, number: u64) -> Result<usize, FormatError> {
        usize::try_from(number).map_err(|_| self.metadata.wrong(key, format!("= {number} is out of range")))
    }

    fn optional(&self, key: &str) -> Result<Option<usize>, FormatError> {
        let name = self.name(key);
        self.metadata.same(&name)?.map(|number| self.fit(&name, number)).transpose()
    }

    fn size(&self, key: &str) -> Result<usize, FormatError> {
        self.optional(key)?.ok_or_else(|| self.metadata.wrong(&self.name(key), "is missing"))
    }

    fn float(&self, key: &str) -> Result<f64, FormatError> {
        let name = self.name(key);
        self.metadata.float(&name)?.ok_or_else(|| self.metadata.wrong(&name, "is missing"))
    }

    fn refuse_experts(&self) -> Result<(), FormatError> {
        match self.optional("expert_count")?.filter(|count| *count > 0) {
            Some(count) => {
                Err(self.metadata.wrong(&self.name("expert_count"), format!("= {count} is not supported")))
            }
            None => Ok(()),
        }
    }

    fn scaling(&self) -> Result<RopeScaling, FormatError> {
        let key = self.name("rope.scaling.type");
        let factor = self.metadata.float(&self.name("rope.scaling.factor"))?;
        match self.metadata.text(&key)? {
            None => {
                // As older converters wrote it.
                let factor = self.metadata.float(&self.name("rope.scale_linear"))?;
                let factor = factor.filter(|factor| (factor - 1.0).abs() > f64::EPSILON);
                Ok(factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }))
            }
            Some("none") => Ok(RopeScaling::None),
            Some("linear") => match factor {
                Some(factor) => Ok(RopeScaling::Linear { factor }),
                None => Err(self.metadata.wrong(&self.name("rope.scaling.factor"), "is missing")),
            },
            Some(other) => Err(self.metadata.wrong(&key, format!("= {other} is not supported"))),
        }
    }
}

impl Shape {
    /// The tensors to read, in the order in which they are in the file, with the divisors among them where there
    /// are some. Fails where one is missing, of another shape or type, overlaps another, or is not known: to leave it
    /// out would change the function.
    pub(super) fn entries(
        &self,
        path: &Path,
        mut tensors: BTreeMap<String, TensorHeader>,
    ) -> Result<Vec<TensorInfo>, BaseError> {
        let mut entries = Vec::new();
        let divisors =
            tensors.contains_key(DIVISORS).then(|| (DIVISORS.to_owned(), vec![self.config.head_dim / 2]));
        for (name, shape) in tensor_shapes(&self.config).into_iter().chain(divisors) {
            let tensor = to_gguf(&name);
            match tensors.remove(&tensor) {
                Some(info) => entries.push(self.entry(path, name, tensor, shape, &info)?),
                None => return Err(BaseError::MissingTensor { path: path.to_owned(), tensor }),
            }
        }
        if let Some(tensor) = tensors.into_keys().next() {
            return Err(BaseError::UnknownTensor { path: path.to_owned(), tensor });
        }
        entries.sort_by_key(|entry| entry.start);
        for pair in entries.windows(2) {
            if let [first, second] = pair
                && first.end() > second.start
            {
                let reason = format!("its tensors `{}` and `{}` overlap", first.name, second.name);
                return Err(FormatError::damaged(path, reason).into());
            }
        }
        Ok(entries)
    }

    fn entry(
        &self,
        path: &Path,
        name: String,
        tensor: String,
        expected: Vec<usize>,
        header: &TensorHeader,
    ) -> Result<TensorInfo, BaseError> {
        let path = path.to_owned();
        let Some(stored) = FileDtype::of(&header.dtype) else {
            return Err(BaseError::Dtype { path, tensor, known: KNOWN, found: header.dtype.to_string() });
        };
        if !header.shape.iter().copied().eq(expected.iter().map(|size| *size as u64)) {
            return Err(BaseError::Shape { path, tensor, expected, found: header.shape.clone() });
        }
        if let (FileDtype::Blocks(_), 1) = (stored, expected.len()) {
            let found = header.dtype.to_string();
            return Err(BaseError::Dtype { path, tensor, known: "F32, F16 or BF16", found });
        }
        let turned = [".q_proj.", ".k_proj."].iter().any(|part| name.contains(part));
        let interleaved = (self.interleaved && turned).then_some(self.config.head_dim);
        Ok(TensorInfo { name, stored, shape: expected, start: header.start, interleaved })
    }
}
