//! The base's tokenizer and the token that opens a document.

use serde_json::Value;
use tokenizers::Tokenizer;

/// A text that the base's tokenizer cannot split.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer cannot split a text: {0}")]
pub struct EncodeError(String);

impl From<tokenizers::Error> for EncodeError {
    fn from(error: tokenizers::Error) -> Self {
        Self(error.to_string())
    }
}

/// A tokenizer without truncation, padding or special tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    bos: u32,
}

impl Tokens {
    /// Reads `tokenizer.json`; `bos` comes from `tokenizer_config.json`, else from the model's config.
    pub(crate) fn parse(json: &[u8], settings: Option<&[u8]>, fallback: Option<u32>) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let named = match settings {
            Some(bytes) => {
                let value: Value = serde_json::from_slice(bytes)
                    .map_err(|error| format!("tokenizer_config.json: {error}"))?;
                let token = value.get("bos_token");
                token
                    .and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()))
                    .map(str::to_owned)
            }
            None => None,
        };
        let bos = named
            .and_then(|token| tokenizer.token_to_id(&token))
            .or(fallback)
            .ok_or("neither tokenizer_config.json nor config.json names a first token (bos)")?;
        Ok(Self { tokenizer, bos })
    }

    pub(crate) fn bos(&self) -> u32 {
        self.bos
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|error| EncodeError(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}
