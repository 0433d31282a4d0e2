//! The shape of a decoder, read from a Hugging Face `config.json`.

use std::f64::consts::PI;

use formats::{Architecture, Family, FamilyError};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::kernels::narrow;
use crate::layers::rope::Rope;
use crate::model::gemma::{self, Gemma, GemmaError, RawGemma};

/// Limit on decoder blocks, above any model that a device could hold.
pub(crate) const MOST_LAYERS: usize = 1024;

/// Qwen3's head dim where the file does not name one.
const QWEN3_HEAD_DIM: usize = 128;

/// RoPE scaling: how the rotary frequencies differ from `theta^(−2i / head_dim)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Unscaled.
    #[default]
    None,
    /// Positions are divided by `factor` (position interpolation).
    Linear {
        /// Above 0; at least 1 to extend the context.
        factor: f64,
    },
    /// Llama 3: low frequencies are divided by `factor`, high ones are kept, those between are interpolated.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// `original_positions` divided by the wavelength from which on a frequency counts as low.
        low_freq_factor: f64,
        /// `original_positions` divided by the wavelength up to which a frequency counts as high.
        high_freq_factor: f64,
        /// Context length before the scaling, in tokens.
        original_positions: usize,
    },
    /// Divisors of the frequencies, highest frequency first, as GGUF files store Llama 3's scaling.
    Divisors(Vec<f32>),
}

/// RoPE angles, of which local blocks may have others.
#[derive(Debug)]
pub(crate) struct Ropes {
    /// Of blocks that see the whole sequence.
    pub(crate) whole: Rope,
    /// Of those that see a window of it, where there are any.
    pub(crate) local: Option<Rope>,
}

/// The shape of a Llama-like decoder.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a difference between families")]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub max_positions: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Scaling of the RoPE frequencies.
    pub rope_scaling: RopeScaling,
    /// Whether the LM head is tied to the embedding.
    pub tied: bool,
    /// Whether the query, key and value layers have a bias.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether each head's queries and keys are normalized before RoPE (QK norm).
    pub qk_norm: bool,
    /// What a Gemma 3 does otherwise; none of the other families has it.
    pub gemma: Option<Gemma>,
    /// The first token of a document, if the folder names one.
    pub bos: Option<u32>,
    /// The tokens that end a text, as far as the model's config names them.
    pub eos: Vec<u32>,
}

/// Why a `config.json` describes no decoder that we can run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a value of another type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A config of an unknown family, or of none.
    #[error(transparent)]
    Family(#[from] FamilyError),
    /// An unknown architecture of a GGUF file.
    #[error("unknown architecture `{found}`; known are {known}")]
    Architecture {
        /// The architecture.
        found: String,
        /// The known ones, by their names in this kind of file.
        known: &'static str,
    },
    /// A setting that changes the model's function and is not implemented.
    #[error("{name} = {found} is not supported")]
    Unsupported {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// Values that are out of range or inconsistent.
    #[error("{0}")]
    Shape(String),
}

/// The sliding window, in tokens, of the families that have one and do not say how long it is.
const DEFAULT_WINDOW: usize = 4096;

#[expect(clippy::unnecessary_wraps, reason = "it is the default of an optional key")]
fn default_window() -> Option<usize> {
    Some(DEFAULT_WINDOW)
}

impl From<GemmaError> for ConfigError {
    fn from(error: GemmaError) -> Self {
        match error {
            GemmaError::Unsupported { name, found } => Self::Unsupported { name, found },
            GemmaError::Shape(reason) => Self::Shape(reason),
        }
    }
}

/// The keys of the file; unknown ones are ignored.
#[derive(Deserialize)]
struct Raw {
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
    /// Newer files hold all of RoPE in here.
    rope_parameters: Option<Map<String, Value>>,
    /// Before `rope_parameters`, as transformers takes it.
    rope_scaling: Option<Map<String, Value>>,
    #[serde(default)]
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    /// Where the key is missing, transformers has a window of [`DEFAULT_WINDOW`]; where it is null, none.
    #[serde(default = "default_window")]
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    /// Llama 3's scaling takes it from here before it looks among the settings of RoPE.
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    quantization_config: Option<Map<String, Value>>,
}

impl DecoderConfig {
    /// Parses a `config.json`; fails if it is not valid JSON, on an unknown architecture, on a setting that is
    /// not implemented, and on inconsistent values.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        /// Parsed first, so that an unknown architecture is reported before the keys that it lacks.
        #[derive(Deserialize)]
        struct Kind {
            architectures: Option<Vec<String>>,
            model_type: Option<String>,
        }
        let Kind { architectures, model_type } = serde_json::from_slice(bytes)?;
        let architecture = architectures.as_ref().and_then(|names| names.first()).map(String::as_str);
        let family = Family::of(architecture, model_type.as_deref())?;
        let config = Raw::into_config(serde_json::from_slice(bytes)?, family, bytes)?;
        config.check()?;
        Ok(config)
    }

    /// Fails if a value is out of range or inconsistent with another.
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
        let numbers = [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)];
        if let Some((name, number)) = numbers.iter().find(|(_, number)| !positive(*number)) {
            return Err(ConfigError::Shape(format!("{name} must be above 0, found {number}")));
        }
        if let Some(&id) = self.bos.iter().chain(&self.eos).find(|&&id| id as usize >= self.vocab_size) {
            let vocab = self.vocab_size;
            return Err(ConfigError::Shape(format!("token {id} is not below vocab_size, which is {vocab}")));
        }
        if let Some(gemma) = &self.gemma {
            gemma.check(self.num_layers)?;
        }
        self.check_scaling()
    }

    fn check_scaling(&self) -> Result<(), ConfigError> {
        match &self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } if positive(*factor) => Ok(()),
            RopeScaling::Linear { factor } => Err(ConfigError::Shape(format!(
                "the factor of the rope scaling must be above 0, found {factor}"
            ))),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_positions,
            } => {
                let sane = positive(*factor) && positive(*low) && positive(*high) && low < high;
                if sane && *original_positions > 0 {
                    return Ok(());
                }
                Err(ConfigError::Shape(format!(
                    "a rope scaling of llama3 needs numbers above 0 and low_freq_factor below high_freq_factor, \
                     found factor {factor}, {low}, {high} and {original_positions} positions"
                )))
            }
            RopeScaling::Divisors(divisors) => {
                if divisors.len() == self.head_dim / 2 && divisors.iter().all(|x| positive(f64::from(*x))) {
                    return Ok(());
                }
                Err(ConfigError::Shape(format!(
                    "rope_freqs must be {} numbers above 0, found {}",
                    self.head_dim / 2,
                    divisors.len()
                )))
            }
        }
    }

    /// The architecture by which llama.cpp knows a base of this shape. A Llama with a bias on queries, keys and
    /// values only is a Qwen2 in everything but its name, and is reported as one.
    pub fn architecture(&self) -> Architecture {
        let heads = |count: usize| u32::try_from(count).unwrap_or(u32::MAX); // `check` keeps both below 2³².
        if self.gemma.is_some() {
            Architecture::Gemma3
        } else if self.qk_norm {
            Architecture::Qwen3
        } else if self.qkv_bias && !self.output_bias {
            Architecture::Qwen2
        } else {
            Architecture::Llama { heads: heads(self.num_heads), kv_heads: heads(self.num_kv_heads) }
        }
    }

    /// RoPE angles of `length` positions.
    pub(crate) fn ropes(&self, length: usize) -> Ropes {
        let rope = |frequencies: Vec<f64>| {
            Rope::new(length, &frequencies.into_iter().map(narrow).collect::<Vec<f32>>())
        };
        let plain = |theta: f64, i: usize| theta.powf(-((2 * i) as f64) / self.head_dim as f64);
        let local = |gemma: &Gemma| (0..self.head_dim / 2).map(|i| plain(gemma.local_theta, i)).collect();
        Ropes { whole: rope(self.rope_frequencies()), local: self.gemma.as_ref().map(local).map(rope) }
    }

    /// What the scores of queries and keys are multiplied by.
    pub(crate) fn attention_scale(&self) -> f32 {
        match &self.gemma {
            None => 1.0 / (self.head_dim as f32).sqrt(),
            Some(gemma) => narrow(gemma.query_scalar.powf(-0.5)),
        }
    }

    /// Whether a block sees no more than a window of the sequence.
    pub(crate) fn local(&self, layer: usize) -> Option<&Gemma> {
        self.gemma.as_ref().filter(|gemma| gemma.is_local.get(layer) == Some(&true))
    }

    /// RoPE frequencies in radians per position, highest first: `head_dim / 2` values, `theta^(−2i / head_dim)`
    /// without scaling.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let plain = |i: usize| self.rope_theta.powf(-((2 * i) as f64) / self.head_dim as f64);
        let scaled = |(i, frequency): (usize, f64)| match &self.rope_scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_positions,
            } => {
                // Rotations within the original context.
                let turns = *original_positions as f64 * frequency / (2.0 * PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
            RopeScaling::Divisors(divisors) => {
                divisors.get(i).map_or(frequency, |divisor| frequency / f64::from(*divisor))
            }
        };
        (0..self.head_dim / 2).map(plain).enumerate().map(scaled).collect()
    }
}

fn positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

impl Raw {
    fn into_config(mut self, family: Family, bytes: &[u8]) -> Result<DecoderConfig, ConfigError> {
        let gemma = match family {
            Family::Gemma3 => Some(self.gemma(serde_json::from_slice(bytes)?)?),
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => None,
        };
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return Err(ConfigError::Unsupported { name: "hidden_act", found: act.clone() });
        }
        if self.mlp_bias {
            return Err(ConfigError::Unsupported { name: "mlp_bias", found: "true".to_owned() });
        }
        if let Some(method) = self.quantization_config.as_ref().map(|map| map.get("quant_method")) {
            let found = method.and_then(Value::as_str).unwrap_or("a method without a name").to_owned();
            return Err(ConfigError::Unsupported { name: "quantization_config", found });
        }
        self.refuse_other_rope()?;
        let rope_scaling = self.rope_scaling()?;
        let nested_theta = self.nested_theta()?;
        // A sliding window as long as the sequence hides nothing, so the window limits the sequence.
        let window = match family {
            Family::Mistral => self.sliding_window,
            Family::Qwen2 | Family::Qwen3 if self.use_sliding_window => self.sliding_window,
            Family::Qwen2 | Family::Qwen3 | Family::Llama | Family::Gemma3 => None,
        };
        let own_width = match family {
            Family::Qwen3 => Some(QWEN3_HEAD_DIM),
            Family::Gemma3 => Some(gemma::HEAD_DIM),
            Family::Llama | Family::Mistral | Family::Qwen2 => None,
        };
        let biased = matches!(family, Family::Llama | Family::Qwen3 | Family::Gemma3) && self.attention_bias;
        let usual_theta = if gemma.is_some() { gemma::THETA } else { 10_000.0 };
        let config = DecoderConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self
                .head_dim
                .or(own_width)
                .unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0)),
            max_positions: self.max_position_embeddings.min(window.unwrap_or(usize::MAX)),
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: nested_theta.or(self.rope_theta).unwrap_or(usual_theta),
            rope_scaling,
            tied: self.tie_word_embeddings.unwrap_or(gemma.is_some()),
            qkv_bias: family == Family::Qwen2 || biased,
            output_bias: biased,
            qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
            gemma,
            bos: token_ids(self.bos_token_id.as_ref()).first().copied(),
            eos: token_ids(self.eos_token_id.as_ref()),
        };
        Ok(config)
    }

    /// What only a Gemma 3 has. Of its settings of RoPE those of blocks that see the whole sequence are left here, as those
    /// of other families.
    fn gemma(&mut self, raw: RawGemma) -> Result<Gemma, ConfigError> {
        let kind = |name: &str| {
            let maps = [&self.rope_scaling, &self.rope_parameters];
            let mut found = maps.into_iter().flatten().filter_map(|map| map.get(name)?.as_object());
            found.next().cloned()
        };
        let (whole, local) = (kind("full_attention"), kind("sliding_attention"));
        if whole.is_some() || local.is_some() {
            (self.rope_scaling, self.rope_parameters) = (None, whole);
        }
        Ok(raw.read(self.num_hidden_layers, self.sliding_window, local.as_ref())?)
    }

    /// The settings of RoPE: one of the two maps, as transformers chooses.
    fn rope_map(&self) -> Option<&Map<String, Value>> {
        [&self.rope_scaling, &self.rope_parameters].into_iter().flatten().find(|map| !map.is_empty())
    }

    /// Fails where RoPE turns a part of each head only, or is another one in some blocks.
    fn refuse_other_rope(&self) -> Result<(), ConfigError> {
        let nested = self.rope_map().and_then(|map| map.get("partial_rotary_factor")).and_then(Value::as_f64);
        if let Some(part) = nested.or(self.partial_rotary_factor).filter(|part| (*part - 1.0).abs() > 1e-9) {
            return Err(ConfigError::Unsupported { name: "partial_rotary_factor", found: part.to_string() });
        }
        let each = self.rope_map().and_then(|map| map.iter().find(|(_, value)| value.is_object()));
        match each {
            Some((kind, _)) => {
                let found = format!("settings of their own for `{kind}`");
                Err(ConfigError::Unsupported { name: "rope_parameters", found })
            }
            None => Ok(()),
        }
    }

    /// The base of the RoPE frequencies among their settings, where it counts before the one outside.
    fn nested_theta(&self) -> Result<Option<f64>, ConfigError> {
        let theta = self.rope_map().and_then(|map| map.get("rope_theta")).filter(|theta| !theta.is_null());
        let number = |theta: &Value| {
            theta.as_f64().ok_or_else(|| {
                ConfigError::Shape(format!(
                    "the `rope_theta` of the rope settings must be a number, found {theta}"
                ))
            })
        };
        theta.map(number).transpose()
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ConfigError> {
        let kind = |map: &Map<String, Value>| {
            let kind = map.get("rope_type").or_else(|| map.get("type")).and_then(Value::as_str);
            kind.filter(|kind| *kind != "default").map(str::to_owned)
        };
        let Some((map, kind)) = self.rope_map().and_then(|map| Some((map, kind(map)?))) else {
            return Ok(RopeScaling::None);
        };
        let number = |name: &str| {
            let number = map.get(name).and_then(Value::as_f64);
            number.ok_or_else(|| {
                ConfigError::Shape(format!("a rope scaling of {kind} needs the number `{name}`"))
            })
        };
        match kind.as_str() {
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => {
                let nested = map.get("original_max_position_embeddings").and_then(Value::as_u64);
                let nested = nested.and_then(|positions| usize::try_from(positions).ok());
                Ok(RopeScaling::Llama3 {
                    factor: number("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original_positions: self
                        .original_max_position_embeddings
                        .or(nested)
                        .unwrap_or(self.max_position_embeddings),
                })
            }
            _ => Err(ConfigError::Unsupported { name: "rope_type", found: kind }),
        }
    }
}

/// Token ids as `bos_token_id` and `eos_token_id` are written: one id or a list.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(other) => id(other).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(folded_delta: &str) -> Result<DecoderConfig, ConfigError> {
        let text = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 8,
            "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-5 {folded_delta}}}"#
        );
        DecoderConfig::parse(text.as_bytes())
    }

    #[test]
    fn the_angle_base_is_read_from_either_place() {
        assert!((with("").unwrap().rope_theta - 10_000.0).abs() < 1e-9);
        assert!((with(r#", "rope_theta": 500.0"#).unwrap().rope_theta - 500.0).abs() < 1e-9);
        let nested = r#", "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}"#;
        assert!((with(nested).unwrap().rope_theta - 700.0).abs() < 1e-9);
        // Where there are several, transformers takes them in this order.
        let scaling = r#", "rope_scaling": {"rope_type": "default", "rope_theta": 900.0}"#;
        for beside in ["", r#", "rope_theta": 500.0"#, nested] {
            assert!(
                (with(&format!("{scaling}{beside}")).unwrap().rope_theta - 900.0).abs() < 1e-9,
                "{beside}"
            );
        }
        let outside =
            r#", "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": null}"#;
        assert!((with(outside).unwrap().rope_theta - 500.0).abs() < 1e-9);
        let two = r#", "rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}"#;
        assert_eq!(with(two).unwrap().rope_scaling, RopeScaling::None);
        let word = with(r#", "rope_scaling": {"rope_type": "default", "rope_theta": "1e6"}"#).unwrap_err();
        assert_eq!(word.to_string(), "the `rope_theta` of the rope settings must be a number, found \"1e6\"");
    }

    #[test]
    fn llama_3_s_scaling_and_windows_are_those_of_transformers() {
        let llama3 =
            r#""rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0"#;
        let positions = |more: &str| match with(more).unwrap().rope_scaling {
            RopeScaling::Llama3 { original_positions, .. } => original_positions,
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Divisors(_) => {
                panic!("another scaling")
            }
        };
        let nested = format!(r#", "rope_scaling": {{{llama3}, "original_max_position_embeddings": 16}}"#);
        assert_eq!(positions(&nested), 16);
        assert_eq!(positions(&format!(r#"{nested}, "original_max_position_embeddings": 8"#)), 8);
        assert_eq!(positions(&format!(r#", "rope_scaling": {{{llama3}}}"#)), 32);
        let shape = r#""vocab_size": 9, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5"#;
        for (more, most) in [
            (r#""model_type": "mistral""#, 4096),
            (r#""model_type": "mistral", "sliding_window": null"#, 8192),
            (r#""model_type": "mistral", "sliding_window": 512"#, 512),
            (r#""model_type": "qwen2""#, 8192),
            (r#""model_type": "qwen2", "sliding_window": 512"#, 8192),
            (r#""model_type": "qwen2", "use_sliding_window": true"#, 4096),
            (r#""model_type": "qwen3", "use_sliding_window": true, "sliding_window": 512"#, 512),
            (r#""model_type": "llama", "sliding_window": 512"#, 8192),
        ] {
            let config = DecoderConfig::parse(format!("{{{more}, {shape}}}").as_bytes()).unwrap();
            assert_eq!(config.max_positions, most, "{more}");
        }
    }

    #[test]
    fn the_type_of_a_model_is_enough_where_no_architecture_is_named() {
        let shape = r#""vocab_size": 9, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-5"#;
        let parse = |names: &str| DecoderConfig::parse(format!("{{{names}{shape}}}").as_bytes());
        let named = parse(r#""architectures": ["Qwen3ForCausalLM"], "#).unwrap();
        for names in [
            r#""model_type": "qwen3", "#,
            r#""architectures": null, "model_type": "qwen3", "#,
            r#""architectures": [], "model_type": "qwen3", "#,
        ] {
            assert_eq!(parse(names).unwrap(), named, "{names}");
        }
        let error = parse("").unwrap_err().to_string();
        assert!(error.starts_with("neither `architectures` nor `model_type` is there"), "{error}");
    }

    #[test]
    fn settings_that_change_the_function_are_refused_by_name() {
        for (folded_delta, expected) in [
            (r#", "rope_scaling": {"rope_type": "yarn"}"#, "rope_type = yarn is not supported"),
            (r#", "rope_scaling": {"type": "dynamic"}"#, "rope_type = dynamic is not supported"),
            (r#", "rope_parameters": {"rope_type": "longrope"}"#, "rope_type = longrope is not supported"),
            (
                r#", "rope_scaling": {"rope_type": "llama3"}"#,
                "a rope scaling of llama3 needs the number `factor`",
            ),
            (
                r#", "quantization_config": {"quant_method": "gptq"}"#,
                "quantization_config = gptq is not supported",
            ),
            (r#", "rope_theta": 0"#, "rope_theta must be above 0, found 0"),
            (r#", "eos_token_id": [2, 9]"#, "token 9 is not below vocab_size, which is 9"),
            (r#", "hidden_act": "gelu""#, "hidden_act = gelu is not supported"),
            (r#", "mlp_bias": true"#, "mlp_bias = true is not supported"),
            (r#", "head_dim": 3"#, "head_dim must be even, found 3"),
            (r#", "partial_rotary_factor": 0.5"#, "partial_rotary_factor = 0.5 is not supported"),
            (
                r#", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}"#,
                "partial_rotary_factor = 0.25 is not supported",
            ),
            (
                r#", "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}"#,
                "rope_parameters = settings of their own for `full_attention` is not supported",
            ),
            (r#", "num_key_value_heads": 3"#, "2 heads cannot share 3 key and value heads"),
            (r#", "num_key_value_heads": 0"#, "num_key_value_heads must be at least 1, found 0"),
        ] {
            assert_eq!(with(folded_delta).unwrap_err().to_string(), expected);
        }
    }
}
