//! The base's tokenizer, and what the base says of its special tokens and of conversations.

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::guarded::Stopped;
use crate::model::config::{DecoderConfig, token_ids};

mod file;
mod limits;
mod pattern;
mod steps;

/// How the families without a first token write the one between two texts.
const BETWEEN_TEXTS: &str = "<|endoftext|>";

/// A text that the base's tokenizer cannot split.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer cannot split a text: {0}")]
pub struct EncodeError(String);

/// Tokens that the base's tokenizer cannot put together.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer cannot make a text of tokens: {0}")]
pub struct DecodeError(String);

/// The files of a folder that say something of tokens.
#[derive(Debug)]
pub(crate) struct TokenFiles<'a> {
    /// `tokenizer.json`.
    pub(crate) tokenizer: &'a [u8],
    /// `tokenizer_config.json`.
    pub(crate) settings: Option<&'a [u8]>,
    /// `chat_template.jinja`.
    pub(crate) template: Option<&'a [u8]>,
    /// `generation_config.json`.
    pub(crate) generation: Option<&'a [u8]>,
}

/// What a base says of its special tokens.
#[derive(Debug, Default)]
pub(crate) struct Special {
    /// The first token of a document.
    pub(crate) bos: Option<u32>,
    /// How the tokenizer writes it; none where the base has no such token.
    pub(crate) bos_token: Option<String>,
    /// The tokens that end a text.
    pub(crate) eos: Vec<u32>,
    /// How the tokenizer writes the one of them that it names.
    pub(crate) eos_token: Option<String>,
    pub(crate) chat_template: Option<String>,
}

/// Runs what is the tokenizer library's: where it stops itself instead of failing, that is an error like others. It does
/// not say why, because the reason may hold the user's text.
pub(crate) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match crate::guarded::guarded(run) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(Stopped) => {
            Err("the tokenizer library stopped itself; the tokenizer file is damaged, or asks for what it cannot do"
                .to_owned())
        }
    }
}

/// `Tokenizer::encode_fast` without special tokens, which fails where the library stops itself.
pub fn encode_fast(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, EncodeError> {
    let encoding = guarded(|| tokenizer.encode_fast(text, false)).map_err(EncodeError)?;
    Ok(encoding.get_ids().to_vec())
}

/// `Tokenizer::encode` without special tokens, which fails where the library stops itself.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<tokenizers::Encoding, EncodeError> {
    guarded(|| tokenizer.encode(text, false)).map_err(EncodeError)
}

/// A base's tokenizer without truncation, padding or special tokens, and what the base says of texts.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    bos: u32,
    special: Special,
}

/// The file of a folder that is wrong, and what is wrong with it.
type Fault = (&'static str, String);

impl Tokens {
    /// Reads a folder's files.
    ///
    /// The first token comes from `tokenizer_config.json`, else from the model's config; the last ones from
    /// these and from `generation_config.json`; the chat template from its own file, else from
    /// `tokenizer_config.json`.
    pub(crate) fn parse(files: &TokenFiles<'_>, config: &DecoderConfig) -> Result<Self, Fault> {
        let fault = |reason| ("tokenizer.json", reason);
        file::check(files.tokenizer).map_err(fault)?;
        let tokenizer = guarded(|| Tokenizer::from_bytes(files.tokenizer)).map_err(fault)?;
        let settings = object("tokenizer_config.json", files.settings)?;
        let generation = object("generation_config.json", files.generation)?;
        let named = |key: &str| {
            let token = settings.get(key)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        let id = |token: &Option<String>| token.as_ref().and_then(|token| tokenizer.token_to_id(token));
        let (mut bos_token, mut eos_token) = (named("bos_token"), named("eos_token"));
        let bos = id(&bos_token).or(config.bos);
        let mut eos = token_ids(generation.get("eos_token_id"));
        eos.extend(&config.eos);
        eos.extend(id(&eos_token));
        eos.sort_unstable();
        eos.dedup();
        if files.settings.is_none() {
            bos_token = bos.and_then(|id| tokenizer.id_to_token(id));
            eos_token = eos.first().and_then(|id| tokenizer.id_to_token(*id));
        }
        let chat_template = match files.template {
            Some(bytes) => Some(
                str::from_utf8(bytes).map_err(|error| ("chat_template.jinja", error.to_string()))?.to_owned(),
            ),
            None => template(settings.get("chat_template")),
        };
        let special = Special { bos, bos_token, eos, eos_token, chat_template };
        Self::new(tokenizer, special, config.vocab_size).map_err(|reason| ("tokenizer.json", reason))
    }

    /// A tokenizer for a model of `vocab_size` tokens; fails where it has others, and where none could open a
    /// document.
    ///
    /// Special tokens beyond the model's are no fault: those of Gemma 3 that stand for pictures have no embedding in its
    /// text models, and no text becomes them.
    pub(crate) fn new(mut tokenizer: Tokenizer, special: Special, vocab_size: usize) -> Result<Self, String> {
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let known = tokenizer.get_vocab(true);
        let added = tokenizer.get_added_tokens_decoder();
        let is_word = |id: &u32| !added.get(id).is_some_and(|token| token.special);
        let beyond = known.values().copied().filter(|id| *id as usize >= vocab_size);
        if let Some(most) = beyond.filter(is_word).max() {
            return Err(format!(
                "the tokenizer's tokens go up to {most}, the model's vocab_size is {vocab_size}"
            ));
        }
        let ids = special.bos.iter().chain(&special.eos);
        if let Some(id) = ids.copied().find(|id| *id as usize >= vocab_size) {
            return Err(format!("the special token {id} is not below the model's vocab_size, {vocab_size}"));
        }
        let bos = special.bos.or_else(|| known.get(BETWEEN_TEXTS).copied()).or(special.eos.first().copied());
        let bos = bos.ok_or_else(|| {
            format!("no token can open a document: neither a first one (bos), nor {BETWEEN_TEXTS}, nor a last one (eos)")
        })?;
        Ok(Self { tokenizer, bos, special })
    }

    /// The token that opens a document: the one that the base names as its first (bos), else `<|endoftext|>`, else one that
    /// ends a text.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The tokens that end a text, in order; none where the base names none.
    pub fn eos(&self) -> &[u32] {
        &self.special.eos
    }

    /// How the tokenizer writes its first token; none where the base has no such token.
    pub fn bos_token(&self) -> Option<&str> {
        self.special.bos_token.as_deref()
    }

    /// How the tokenizer writes the token that ends a text; none where the base names none.
    pub fn eos_token(&self) -> Option<&str> {
        self.special.eos_token.as_deref()
    }

    /// The Jinja template that makes one text of a conversation, if the base comes with one.
    pub fn chat_template(&self) -> Option<&str> {
        self.special.chat_template.as_deref()
    }

    /// The tokenizer itself, for what must look at single pieces of a text.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        encode_fast(&self.tokenizer, text)
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String, DecodeError> {
        guarded(|| self.tokenizer.decode(ids, true)).map_err(DecodeError)
    }

    /// The text of tokens, the special ones as they are written; fails where the tokenizer library stops itself.
    pub fn decode_whole(&self, ids: &[u32]) -> Result<String, DecodeError> {
        guarded(|| self.tokenizer.decode(ids, false)).map_err(DecodeError)
    }
}

/// The values of a file; none without the file.
fn object(name: &'static str, bytes: Option<&[u8]>) -> Result<Value, Fault> {
    bytes.map_or(Ok(Value::Null), |bytes| {
        // Python writes the length of a model without a limit as Infinity.
        proto::loose::from_slice(bytes).map_err(|error| (name, error.to_string()))
    })
}

/// A template, or the one called `default` of several.
fn template(value: Option<&Value>) -> Option<String> {
    let value = value?;
    let text = match value.as_array() {
        Some(list) => {
            let name = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
            list.iter().find(name)?.get("template")?
        }
        None => value,
    };
    text.as_str().map(str::to_owned)
}
