//! The files of a Hugging Face folder besides the weights: copied, or generated from a GGUF base.

use std::path::Path;

use formats::Architecture;
use serde_json::{Map, Value, json};

use super::error::MergeError;
use crate::base::Base;
use crate::model::config::{DecoderConfig, RopeScaling};
use proto::files;
use proto::files::FileError;

/// Extensions of files that hold weights, in any format.
const WEIGHTS: [&str; 8] = ["safetensors", "bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack"];

/// Name and contents of the files besides the weights, for a base that was read from `source`.
pub(super) fn of(base: &Base, source: &Path) -> Result<Vec<(String, Vec<u8>)>, MergeError> {
    if !source.join("config.json").exists() {
        return made(base);
    }
    let mut copies = copied(source)?;
    for (name, bytes) in &mut copies {
        if name == "config.json" {
            set_tied(bytes, base.config().tied)?;
        }
    }
    Ok(copies)
}

/// Lets a config say whether the head is tied, where it says otherwise than the weights: what is tied by the config alone
/// loses its head in programs that believe it.
fn set_tied(config: &mut Vec<u8>, tied: bool) -> Result<(), MergeError> {
    let wrong =
        |error: serde_json::Error| MergeError::Text { name: "config.json", reason: error.to_string() };
    let mut map: Map<String, Value> = serde_json::from_slice(config).map_err(wrong)?;
    if map.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false) == tied {
        return Ok(());
    }
    map.insert("tie_word_embeddings".to_owned(), tied.into());
    *config = serde_json::to_vec_pretty(&map).map_err(wrong)?;
    Ok(())
}

/// The largest file beside the weights that is copied.
const MOST_COPIED_BYTES: u64 = 256 << 20;

fn copied(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, MergeError> {
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(FileError::io("list", folder))? {
        let path = entry.map_err(FileError::io("list", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_weights = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| WEIGHTS.contains(&end.to_ascii_lowercase().as_str()));
        let hidden = name.starts_with('.') || name == formats::MANIFEST_FILE;
        // Follows links: in a hub's cache, files are links.
        if path.is_file() && !is_weights && !hidden && !name.ends_with(".index.json") {
            let bytes =
                files::read_regular(&path, MOST_COPIED_BYTES).map_err(FileError::io("read", &path))?;
            copies.push((name.to_owned(), bytes));
        }
    }
    copies.sort();
    Ok(copies)
}

fn made(base: &Base) -> Result<Vec<(String, Vec<u8>)>, MergeError> {
    let text = |name: &'static str, value: &Value| match serde_json::to_vec_pretty(value) {
        Ok(bytes) => Ok((name.to_owned(), bytes)),
        Err(error) => Err(MergeError::Text { name, reason: error.to_string() }),
    };
    let tokenizer = base
        .tokenizer()
        .to_string(false)
        .map_err(|error| MergeError::Text { name: "tokenizer.json", reason: error.to_string() })?;
    let mut settings = Map::new();
    settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    for (key, value) in [
        ("bos_token", base.bos_token()),
        ("eos_token", base.eos_token()),
        ("chat_template", base.chat_template()),
    ] {
        settings.extend(value.map(|value| (key.to_owned(), Value::from(value))));
    }
    Ok(vec![
        text("config.json", &config(base.config(), base.eos())?)?,
        ("tokenizer.json".to_owned(), tokenizer.into_bytes()),
        text("tokenizer_config.json", &settings.into())?,
    ])
}

/// A `config.json` of this shape.
fn config(config: &DecoderConfig, eos: &[u32]) -> Result<Value, MergeError> {
    let (class, kind, biased) = match config.architecture() {
        Architecture::Llama { .. } => ("LlamaForCausalLM", "llama", config.qkv_bias),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2", config.output_bias),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3", config.qkv_bias),
        Architecture::Gemma3 => return Err(MergeError::NoPlace { what: "the config of a Gemma 3" }),
    };
    if biased != config.output_bias {
        return Err(MergeError::NoPlace { what: "a bias of some attention layers and not of others" });
    }
    let scaling = match &config.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_positions,
        }),
        RopeScaling::Divisors(_) => return Err(MergeError::NoPlace { what: "rope_freqs.weight" }),
    };
    Ok(json!({
        "architectures": [class],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied,
        "attention_bias": biased,
        "mlp_bias": false,
        "use_sliding_window": false,
        "bos_token_id": config.bos,
        "eos_token_id": eos,
        "torch_dtype": "bfloat16",
    }))
}
