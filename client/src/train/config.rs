//! The shape of a decoder, read from a Hugging Face `config.json`.

use serde::Deserialize;
use serde_json::{Map, Value};

/// More decoder blocks than any model has that a device could hold.
const MOST_LAYERS: usize = 1024;

/// The shape of a Llama-like decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Longest sequence.
    pub max_positions: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Whether the embedding is also the output layer.
    pub tied: bool,
    /// Whether the query, key and value layers have a bias.
    pub qkv_bias: bool,
    /// Whether the attention's output layer has a bias.
    pub output_bias: bool,
    /// Whether each head's queries and keys are normed before they are turned.
    pub qk_norm: bool,
    /// The first token of a document, if the folder names one.
    pub bos: Option<u32>,
}

/// A `config.json` that describes no decoder we can run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a value of another type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A decoder of another kind.
    #[error("unknown architecture `{0}`; known are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM")]
    Architecture(String),
    /// A setting that would change the function and is not implemented.
    #[error("{name} = {found} is not supported")]
    Unsupported {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// Numbers that do not fit one another.
    #[error("{0}")]
    Shape(String),
}

/// The file as it is written; unknown keys are other programs' business.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file has them")]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    /// Newer writers keep the angle's base in here.
    rope_parameters: Option<Map<String, Value>>,
    rope_scaling: Option<Map<String, Value>>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    bos_token_id: Option<Value>,
}

impl DecoderConfig {
    /// Reads a `config.json`; fails on another architecture and on settings that are not implemented.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        /// Read before the rest, so that another architecture is named before its missing keys.
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            architectures: Vec<String>,
        }
        let kind: Kind = serde_json::from_slice(bytes)?;
        Family::of(&kind.architectures)?;
        Raw::into_config(serde_json::from_slice(bytes)?)
    }

    /// Whether the numbers fit one another.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_layers),
            ("num_attention_heads", self.num_heads),
            ("num_key_value_heads", self.num_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_positions),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ConfigError::Shape(format!("{name} must be at least 1, found 0")));
        }
        if let Some((name, size)) = sizes.iter().find(|(_, size)| u32::try_from(*size).is_err()) {
            return Err(ConfigError::Shape(format!("{name} must be below 2^32, found {size}")));
        }
        if self.num_layers > MOST_LAYERS {
            let found = self.num_layers;
            return Err(ConfigError::Shape(format!(
                "num_hidden_layers is at most {MOST_LAYERS}, found {found}"
            )));
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let (heads, kv) = (self.num_heads, self.num_kv_heads);
            return Err(ConfigError::Shape(format!("{heads} heads cannot share {kv} key and value heads")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::Shape(format!("head_dim must be even, found {}", self.head_dim)));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
}

impl Family {
    fn of(architectures: &[String]) -> Result<Self, ConfigError> {
        match architectures.first().map(String::as_str) {
            Some("LlamaForCausalLM") => Ok(Self::Llama),
            Some("MistralForCausalLM") => Ok(Self::Mistral),
            Some("Qwen2ForCausalLM") => Ok(Self::Qwen2),
            Some(other) => Err(ConfigError::Architecture(other.to_owned())),
            None => Err(ConfigError::Architecture(String::new())),
        }
    }
}

impl Raw {
    fn into_config(self) -> Result<DecoderConfig, ConfigError> {
        let family = Family::of(&self.architectures)?;
        if let Some(act) = self.hidden_act.filter(|act| act != "silu") {
            return Err(ConfigError::Unsupported { name: "hidden_act", found: act });
        }
        if self.mlp_bias {
            return Err(ConfigError::Unsupported { name: "mlp_bias", found: "true".to_owned() });
        }
        for map in [&self.rope_scaling, &self.rope_parameters].into_iter().flatten() {
            let kind = map.get("rope_type").or_else(|| map.get("type")).and_then(Value::as_str);
            if let Some(kind) = kind.filter(|kind| *kind != "default") {
                return Err(ConfigError::Unsupported { name: "rope_type", found: kind.to_owned() });
            }
        }
        let nested_theta =
            self.rope_parameters.as_ref().and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        // A window as long as the sequence hides nothing, so it is a limit on the sequence.
        let window = match family {
            Family::Mistral => self.sliding_window,
            Family::Qwen2 if self.use_sliding_window => self.sliding_window,
            Family::Qwen2 | Family::Llama => None,
        };
        let bos = match self.bos_token_id {
            Some(Value::Array(ids)) => ids.first().and_then(Value::as_u64),
            Some(id) => id.as_u64(),
            None => None,
        };
        let config = DecoderConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self
                .head_dim
                .unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0)),
            max_positions: self.max_position_embeddings.min(window.unwrap_or(usize::MAX)),
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta.or(nested_theta).unwrap_or(10_000.0),
            tied: self.tie_word_embeddings,
            qkv_bias: family == Family::Qwen2 || (family == Family::Llama && self.attention_bias),
            output_bias: family == Family::Llama && self.attention_bias,
            qk_norm: false,
            bos: bos.and_then(|id| u32::try_from(id).ok()),
        };
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(extra: &str) -> Result<DecoderConfig, ConfigError> {
        let text = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 8,
            "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-5 {extra}}}"#
        );
        DecoderConfig::parse(text.as_bytes())
    }

    #[test]
    fn the_angle_base_is_read_from_either_place() {
        assert!((with("").unwrap().rope_theta - 10_000.0).abs() < 1e-9);
        assert!((with(r#", "rope_theta": 500.0"#).unwrap().rope_theta - 500.0).abs() < 1e-9);
        let nested = r#", "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}"#;
        assert!((with(nested).unwrap().rope_theta - 700.0).abs() < 1e-9);
    }

    #[test]
    fn settings_that_change_the_function_are_refused_by_name() {
        for (extra, expected) in [
            (r#", "rope_scaling": {"rope_type": "llama3"}"#, "rope_type = llama3 is not supported"),
            (r#", "hidden_act": "gelu""#, "hidden_act = gelu is not supported"),
            (r#", "mlp_bias": true"#, "mlp_bias = true is not supported"),
            (r#", "head_dim": 3"#, "head_dim must be even, found 3"),
            (r#", "num_key_value_heads": 3"#, "2 heads cannot share 3 key and value heads"),
            (r#", "num_key_value_heads": 0"#, "num_key_value_heads must be at least 1, found 0"),
        ] {
            assert_eq!(with(extra).unwrap_err().to_string(), expected);
        }
    }
}
