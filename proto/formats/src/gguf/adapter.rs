//! A LoRA adapter as the GGUF file that llama.cpp loads.
//!
//! The file: `GGUF`, the version, the counts of tensors and of metadata, the metadata, then for each tensor its name,
//! its sizes with the fastest one first, its type and its place, and then their numbers, each tensor at a multiple of 32.

use std::collections::BTreeSet;

use proto::adapter::AdapterSpec;
use serde::Deserialize;

use super::metadata::Metadata;
use super::names::LINEAR_LAYERS;
use crate::error::{ExportError, FormatError};
use crate::family::{Family, FamilyError};

/// The version of the format.
const VERSION: u32 = 3;

/// To what tensors' places are rounded up where the file does not say otherwise.
const ALIGNMENT: usize = 32;

/// Types of metadata, and of numbers.
const FLOAT32: u32 = 6;
const STRING: u32 = 8;
const F32_NUMBERS: u32 = 0;

/// The base's architecture, by llama.cpp's names. An adapter is loaded beside a base of the same one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `llama`: Llama, SmolLM2, Mistral. The rows of each query and key head are in interleaved order there: numbers
    /// that turn together are neighbours, while in a Hugging Face folder they are half a head apart.
    Llama {
        /// Heads of the queries.
        heads: u32,
        /// Heads of the keys.
        kv_heads: u32,
    },
    /// `qwen2`: rows as in a Hugging Face folder.
    Qwen2,
    /// `qwen3`: rows as in a Hugging Face folder.
    Qwen3,
    /// `gemma3`: rows as in a Hugging Face folder.
    Gemma3,
}

/// A `config.json` that says of no architecture that llama.cpp and we both know.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// Not JSON, or a value of another type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Another family, or none.
    #[error(transparent)]
    Family(#[from] FamilyError),
}

impl Architecture {
    /// Reads a Hugging Face `config.json`.
    pub fn of_config(json: &[u8]) -> Result<Self, ArchitectureError> {
        #[derive(Deserialize)]
        struct Config {
            architectures: Option<Vec<String>>,
            model_type: Option<String>,
            num_attention_heads: u32,
            num_key_value_heads: Option<u32>,
        }
        let config: Config = serde_json::from_slice(json)?;
        let heads = config.num_attention_heads;
        let architectures = config.architectures.unwrap_or_default();
        match Family::of(architectures.first().map(String::as_str), config.model_type.as_deref()) {
            Ok(Family::Llama | Family::Mistral) => {
                Ok(Self::Llama { heads, kv_heads: config.num_key_value_heads.unwrap_or(heads) })
            }
            Ok(Family::Qwen2) => Ok(Self::Qwen2),
            Ok(Family::Qwen3) => Ok(Self::Qwen3),
            Ok(Family::Gemma3) => Ok(Self::Gemma3),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what a base's GGUF file says of itself. Fails where it names no architecture of these.
    pub fn of_gguf(metadata: &Metadata) -> Result<Self, FormatError> {
        const KEY: &str = "general.architecture";
        let name = metadata.text(KEY)?.ok_or_else(|| metadata.wrong(KEY, "is missing"))?;
        let number = |key: &str| -> Result<Option<u32>, FormatError> {
            let number = metadata.number(key)?.map(u32::try_from);
            number.transpose().map_err(|_| metadata.wrong(key, "is out of range"))
        };
        match name {
            "llama" => {
                let key = "llama.attention.head_count";
                let heads = number(key)?.ok_or_else(|| metadata.wrong(key, "is missing"))?;
                let kv_heads = number("llama.attention.head_count_kv")?.unwrap_or(heads);
                Ok(Self::Llama { heads, kv_heads })
            }
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3" => Ok(Self::Gemma3),
            other => {
                Err(metadata
                    .wrong(KEY, format!("= {other} is not known; known are llama, qwen2, qwen3, gemma3")))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Llama { .. } => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    /// The heads whose rows this layer's are in interleaved order.
    fn interleaved(self, layer: &str) -> Option<u32> {
        match (self, layer) {
            (Self::Llama { heads, .. }, "attn_q") => Some(heads),
            (Self::Llama { kv_heads, .. }, "attn_k") => Some(kv_heads),
            (Self::Llama { .. } | Self::Qwen2 | Self::Qwen3 | Self::Gemma3, _) => None,
        }
    }
}

struct Tensor {
    name: String,
    /// The fastest first.
    sizes: [usize; 2],
    numbers: Vec<f32>,
}

/// The bytes of a GGUF file with this adapter. Fails where the vectors are not of the adapter, and where llama.cpp has
/// no name for one of its layers.
///
/// `blk.N.….weight.lora_a` is `A` and `….lora_b` is `B`, both in f32. llama.cpp adds `alpha / rank · B · A` with the
/// rank that it sees in `B`, so `adapter.lora.alpha` is the adapter's own alpha, which is the true scale times that rank.
pub fn gguf_adapter(
    spec: &AdapterSpec,
    frozen: &[f32],
    trained: &[f32],
    architecture: Architecture,
) -> Result<Vec<u8>, ExportError> {
    let rank = spec.rank as usize;
    let (mut tensors, mut seen) = (Vec::new(), BTreeSet::new());
    for pair in spec.pairs(frozen, trained)? {
        let module = pair.module;
        let (block, layer) =
            place(&module.name).ok_or_else(|| ExportError::UnknownModule(module.name.clone()))?;
        if !seen.insert((block, layer)) {
            return Err(ExportError::RepeatedModule(module.name.clone()));
        }
        let b = match architecture.interleaved(layer) {
            None => pair.b,
            Some(heads) => interleave(&pair.b, rank, module.outputs, heads).ok_or_else(|| {
                let (module, outputs) = (module.name.clone(), module.outputs);
                ExportError::Heads { module, outputs, heads }
            })?,
        };
        let name = format!("blk.{block}.{layer}.weight");
        let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
        tensors.push(Tensor { name: format!("{name}.lora_a"), sizes: [inputs, rank], numbers: pair.a });
        tensors.push(Tensor { name: format!("{name}.lora_b"), sizes: [rank, outputs], numbers: b });
    }
    Ok(file(architecture, spec.alpha, &tensors))
}

/// The block and the layer that a module of a Hugging Face folder is.
fn place(module: &str) -> Option<(u32, &'static str)> {
    let (block, layer) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let canonical = block == "0" || !block.starts_with(['0', '+']);
    let (short, _) = LINEAR_LAYERS.iter().find(|(_, long)| *long == layer)?;
    block.parse().ok().filter(|_| canonical).map(|block| (block, *short))
}

/// Rows of `heads` heads, each first all first halves of pairs and then all second ones, as pairs: row `2i + j` of a head is
/// its row `i + j · width / 2`. None where they are not whole heads of an even width.
fn interleave(rows: &[f32], columns: usize, count: u32, heads: u32) -> Option<Vec<f32>> {
    let width = count.checked_div(heads).filter(|width| *width > 0 && width.is_multiple_of(2))?;
    if width * heads != count {
        return None;
    }
    let (width, mut out) = (width as usize, Vec::with_capacity(rows.len()));
    for head in rows.chunks_exact(width * columns) {
        for pair in 0..width / 2 {
            for row in [pair, pair + width / 2] {
                out.extend_from_slice(head.get(row * columns..(row + 1) * columns)?);
            }
        }
    }
    Some(out)
}

fn file(architecture: Architecture, alpha: f32, tensors: &[Tensor]) -> Vec<u8> {
    let texts = [
        ("general.architecture", architecture.name()),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((texts.len() as u64 + 1).to_le_bytes());
    for (key, value) in texts {
        text(&mut out, key);
        out.extend(STRING.to_le_bytes());
        text(&mut out, value);
    }
    text(&mut out, "adapter.lora.alpha");
    out.extend(FLOAT32.to_le_bytes());
    out.extend(alpha.to_le_bytes());
    let mut start = 0;
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend(2u32.to_le_bytes());
        tensor.sizes.iter().for_each(|size| out.extend((*size as u64).to_le_bytes()));
        out.extend(F32_NUMBERS.to_le_bytes());
        out.extend((start as u64).to_le_bytes());
        start += (tensor.numbers.len() * 4).next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(tensor.numbers.iter().flat_map(|x| x.to_le_bytes()));
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
