//! What Gemma 3 does otherwise than the other families, read from its config.
//!
//! Beside this, its norms multiply by one more than their weights, the outputs of attention and MLP are normed before they
//! are added to the residual stream, the MLP's gate is a GELU, and the embedding is scaled.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Of so many blocks in a row the last attends to the whole sequence, where the config does not say which do.
const PATTERN: usize = 6;

/// Width of a head where the file does not name one.
pub(super) const HEAD_DIM: usize = 256;

/// The base of the RoPE frequencies of blocks that attend to the whole sequence.
pub(super) const THETA: f64 = 1_000_000.0;

/// The same of the others.
const LOCAL_THETA: f64 = 10_000.0;

/// The attention of a Gemma 3.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemma {
    /// Scores are divided by its square root, which need not be the width of a head.
    pub query_scalar: f64,
    /// Keys that a query sees in a local block, its own included.
    pub window: usize,
    /// Base of the RoPE frequencies in local blocks.
    pub local_theta: f64,
    /// For each block, whether it is local: sees no more than the window.
    pub is_local: Vec<bool>,
}

/// Why such a config describes no decoder that we can run.
#[derive(Debug)]
pub(super) enum GemmaError {
    /// A setting that is not implemented, and its value.
    Unsupported { name: &'static str, found: String },
    /// Values that are out of range or inconsistent.
    Shape(String),
}

/// The keys of the file that other families do not have.
#[derive(Deserialize)]
pub(super) struct RawGemma {
    hidden_activation: Option<String>,
    query_pre_attn_scalar: Option<f64>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    rope_local_base_freq: Option<f64>,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    use_bidirectional_attention: Option<bool>,
}

impl RawGemma {
    /// Fails for a setting that is not implemented. `local_rope` are the settings of RoPE of local blocks.
    pub(super) fn read(
        self,
        layers: usize,
        window: Option<usize>,
        local_rope: Option<&Map<String, Value>>,
    ) -> Result<Gemma, GemmaError> {
        let unsupported = |name, found: String| Err(GemmaError::Unsupported { name, found });
        if let Some(act) = self.hidden_activation.filter(|act| act != "gelu_pytorch_tanh") {
            return unsupported("hidden_activation", act);
        }
        for (name, cap) in [
            ("final_logit_softcapping", self.final_logit_softcapping),
            ("attn_logit_softcapping", self.attn_logit_softcapping),
        ] {
            if let Some(cap) = cap {
                return unsupported(name, cap.to_string());
            }
        }
        if self.use_bidirectional_attention == Some(true) {
            return unsupported("use_bidirectional_attention", "true".to_owned());
        }
        let kind = local_rope.and_then(|map| map.get("rope_type")).and_then(Value::as_str);
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            return unsupported("rope_type", format!("{kind} of `sliding_attention`"));
        }
        let nested = local_rope.and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        let is_local = match self.layer_types {
            None => {
                let pattern = self.sliding_window_pattern.unwrap_or(PATTERN).max(1);
                (1..=layers).map(|layer| !layer.is_multiple_of(pattern)).collect()
            }
            Some(types) => {
                let is_local = |kind: String| match kind.as_str() {
                    "sliding_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    _ => Err(GemmaError::Unsupported { name: "layer_types", found: kind }),
                };
                types.into_iter().map(is_local).collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(Gemma {
            query_scalar: self.query_pre_attn_scalar.unwrap_or(256.0),
            window: window.unwrap_or(usize::MAX),
            local_theta: nested.or(self.rope_local_base_freq).unwrap_or(LOCAL_THETA),
            is_local,
        })
    }
}

impl Gemma {
    /// Fails if a value is out of range, or there are not as many blocks as the decoder has.
    pub(super) fn check(&self, layers: usize) -> Result<(), GemmaError> {
        let is_positive = |number: f64| number.is_finite() && number > 0.0;
        if self.is_local.len() != layers {
            let found = self.is_local.len();
            return Err(GemmaError::Shape(format!("layer_types names {found} blocks, there are {layers}")));
        }
        if self.window == 0 {
            return Err(GemmaError::Shape("sliding_window must be at least 1, found 0".to_owned()));
        }
        for (name, number) in
            [("query_pre_attn_scalar", self.query_scalar), ("rope_local_base_freq", self.local_theta)]
        {
            if !is_positive(number) {
                return Err(GemmaError::Shape(format!("{name} must be above 0, found {number}")));
            }
        }
        Ok(())
    }
}
