//! The steps of a `tokenizer.json`: what it does to a text before it is cut, how it cuts it, and what comes after.

use serde_json::Value;

use super::pattern;
use crate::base::tokenizer::limits::{MOST_LETTERS, at_most};

/// Steps of a kind, those within others too.
const MOST_STEPS: usize = 64;

/// How much longer the steps of a kind may make a text, multiplied.
const MOST_GROWTH: usize = 64;

/// Cuts by a pattern, each of which goes through all of a text.
const MOST_SPLITS: usize = 8;

/// Bytes that are put before a text, or between its words.
const MOST_PIECE_BYTES: usize = 64;

/// Steps of a template for what is put around a text.
const MOST_PIECES: usize = 64;

const NORMALIZERS: [&str; 14] = [
    "Sequence",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "Nmt",
    "Strip",
    "StripAccents",
    "BertNormalizer",
    "ByteLevel",
    "Prepend",
    "Replace",
    "Metaspace",
];

const PRE_TOKENIZERS: [&str; 10] = [
    "Sequence",
    "ByteLevel",
    "Split",
    "Digits",
    "Metaspace",
    "Whitespace",
    "WhitespaceSplit",
    "Punctuation",
    "BertPreTokenizer",
    "UnicodeScripts",
];

const POST_PROCESSORS: [&str; 5] =
    ["Sequence", "ByteLevel", "RobertaProcessing", "BertProcessing", "TemplateProcessing"];

const DECODERS: [&str; 9] = [
    "Sequence",
    "ByteLevel",
    "Metaspace",
    "Replace",
    "ByteFallback",
    "Fuse",
    "Strip",
    "BPEDecoder",
    "WordPiece",
];

/// What steps there are.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Normalizer,
    PreTokenizer,
    PostProcessor,
    Decoder,
}

/// Fails for a step that no decoder's tokenizer has, and for a number in one that none needs.
pub(super) fn check(kind: Kind, step: Option<&Value>) -> Result<(), String> {
    let (what, known): (_, &[&str]) = match kind {
        Kind::Normalizer => ("normalizer", &NORMALIZERS),
        Kind::PreTokenizer => ("pre_tokenizer", &PRE_TOKENIZERS),
        Kind::PostProcessor => ("post_processor", &POST_PROCESSORS),
        Kind::Decoder => ("decoder", &DECODERS),
    };
    let mut steps = Steps { what, known, count: 0, splits: 0, growth: 1 };
    step.filter(|step| !step.is_null()).map_or(Ok(()), |step| steps.step(step))
}

/// The steps of one kind.
struct Steps {
    what: &'static str,
    known: &'static [&'static str],
    count: usize,
    splits: usize,
    growth: usize,
}

impl Steps {
    /// Goes no deeper than the file is nested, of which its reader is sure.
    fn step(&mut self, step: &Value) -> Result<(), String> {
        let kind = step.get("type").and_then(Value::as_str).unwrap_or_default();
        if !self.known.contains(&kind) {
            return Err(format!(
                "its {} `{kind}` is not known; known are {}",
                self.what,
                self.known.join(", ")
            ));
        }
        self.count += 1;
        at_most(&format!("`{}`", self.what), "steps", self.count, MOST_STEPS)?;
        match kind {
            "Sequence" => {
                for key in ["normalizers", "pretokenizers", "processors", "decoders"] {
                    for inner in step.get(key).and_then(Value::as_array).into_iter().flatten() {
                        self.step(inner)?;
                    }
                }
                Ok(())
            }
            "Replace" => self.replace(step),
            "Split" => {
                self.splits += 1;
                at_most(&format!("`{}`", self.what), "steps `Split`", self.splits, MOST_SPLITS)?;
                self.pattern(step).map(drop)
            }
            // A byte that is no letter of ASCII becomes two.
            "ByteLevel" if matches!(self.what, "normalizer" | "pre_tokenizer") => self.grow(2),
            "NFKC" | "NFKD" => self.grow(4),
            "Prepend" => self.piece(step, "prepend"),
            "Metaspace" => self.piece(step, "replacement"),
            "BPEDecoder" => self.piece(step, "suffix"),
            "WordPiece" => self.piece(step, "prefix"),
            // A decoder: the library counts off the end of a token that may have fewer letters.
            "Strip" if self.what == "decoder" => {
                let count = |key: &str| step.get(key).map_or(Some(0), Value::as_u64);
                match (count("start"), count("stop")) {
                    (Some(0..=MOST_LETTERS), Some(0)) => Ok(()),
                    _ => Err("its decoder `Strip` takes letters off the end, or too many".to_owned()),
                }
            }
            "TemplateProcessing" => self.template(step),
            _ => Ok(()),
        }
    }

    fn piece(&self, step: &Value, key: &str) -> Result<(), String> {
        let len = step.get(key).and_then(Value::as_str).map_or(0, str::len);
        at_most(&format!("`{key}` of its {}", self.what), "bytes", len, MOST_PIECE_BYTES)
    }

    /// The fewest bytes that a pattern finds.
    fn pattern(&self, step: &Value) -> Result<usize, String> {
        let pattern = step.get("pattern");
        let text = |key: &str| pattern.and_then(|pattern| pattern.get(key)).and_then(Value::as_str);
        match (text("String"), text("Regex")) {
            (Some(text), None) if !text.is_empty() => Ok(text.len()),
            (None, Some(regex)) => {
                pattern::check(regex)
                    .map_err(|reason| format!("the pattern of its {} {reason}", self.what))?;
                Ok(1)
            }
            _ => Err(format!("its {} has no pattern, or an empty one", self.what)),
        }
    }

    fn replace(&mut self, step: &Value) -> Result<(), String> {
        let found = self.pattern(step)?;
        self.piece(step, "content")?;
        let content = step.get("content").and_then(Value::as_str).map_or(0, str::len);
        // A pattern that finds nothing between two letters puts its content there too.
        let between = usize::from(step.get("pattern").is_some_and(|pattern| pattern.get("Regex").is_some()));
        self.grow(content.div_ceil(found) * (between + 1))
    }

    /// A step makes a text up to so many times as long.
    fn grow(&mut self, times: usize) -> Result<(), String> {
        self.growth = self.growth.saturating_mul(times).max(self.growth);
        if self.growth > MOST_GROWTH {
            let (what, growth) = (self.what, self.growth);
            return Err(format!(
                "the steps of its {what} make a text up to {growth} times as long, at most {MOST_GROWTH}"
            ));
        }
        Ok(())
    }

    /// One text goes into a template once: more often would be longer for each.
    fn template(&self, step: &Value) -> Result<(), String> {
        for key in ["single", "pair"] {
            let Some(pieces) = step.get(key) else { continue };
            let Some(pieces) = pieces.as_array() else {
                return Err(format!("`{key}` of its {} is no list", self.what));
            };
            at_most(&format!("`{key}` of its {}", self.what), "pieces", pieces.len(), MOST_PIECES)?;
            let mut texts: Vec<&str> = Vec::new();
            for piece in pieces {
                if let Some(id) = piece.pointer("/SpecialToken/id").and_then(Value::as_str) {
                    let ids = step
                        .pointer("/special_tokens")
                        .and_then(|tokens| tokens.get(id)?.get("ids")?.as_array());
                    let Some(ids) = ids else {
                        return Err(format!(
                            "`{key}` of its {} names `{id}`, which it does not have",
                            self.what
                        ));
                    };
                    at_most(&format!("`{id}` of its {}", self.what), "tokens", ids.len(), MOST_PIECES)?;
                } else if let Some(id) = piece.pointer("/Sequence/id").and_then(Value::as_str) {
                    texts.push(id);
                } else {
                    return Err(format!(
                        "`{key}` of its {} has a piece that is neither a token nor a text",
                        self.what
                    ));
                }
            }
            texts.sort_unstable();
            let expected: &[&str] = if key == "single" { &["A"] } else { &["A", "B"] };
            if texts != expected {
                return Err(format!(
                    "`{key}` of its {} takes the texts {texts:?}, expected {expected:?}",
                    self.what
                ));
            }
        }
        Ok(())
    }
}
