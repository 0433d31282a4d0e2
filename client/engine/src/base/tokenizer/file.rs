//! What a `tokenizer.json` may ask for, looked at before the library reads it.
//!
//! The file comes from a hub, and the library takes it at its word: kinds that no decoder's tokenizer has, and numbers
//! that no tokenizer needs, make it ask for gigabytes or stop the program. So the kinds are a closed list, by name, and
//! their numbers are bounded. How a text is cut off or filled up is not ours: both are left out after reading.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::limits::{MOST_LETTERS, at_most};
use super::steps;
use crate::base::tokenizer::steps::Kind;

/// The largest file; the largest that are published have some 35 MiB.
const MOST_BYTES: usize = 64 << 20;

/// Tokens of a vocabulary, and merges of two of them.
const MOST_TOKENS: usize = 1 << 19;
const MOST_MERGES: usize = 1 << 20;

/// Bytes of one token.
const MOST_TOKEN_BYTES: usize = 1 << 12;

/// Bytes of a vocabulary whose words the library keeps letter by letter, in a map of some 350 bytes for each, and of one
/// of its words.
const MOST_TREE_BYTES: usize = 2 << 20;
const MOST_TREE_TOKEN_BYTES: usize = 256;

/// Tokens that are added to the vocabulary, and their bytes.
const MOST_ADDED: usize = 1 << 17;
const MOST_ADDED_BYTES: usize = 1 << 20;

/// Values and bytes of text of all steps.
const MOST_VALUES: usize = 1 << 19;

/// Fails for a file that asks for more than a tokenizer needs, or for what no decoder's tokenizer has; says which.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, at most {MOST_BYTES} are read", bytes.len()));
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_added(&file.added_tokens)?;
    check_model(file.model.as_ref().ok_or("it has no model")?)?;
    let steps = [
        (Kind::Normalizer, &file.normalizer),
        (Kind::PreTokenizer, &file.pre_tokenizer),
        (Kind::PostProcessor, &file.post_processor),
        (Kind::Decoder, &file.decoder),
    ];
    steps.into_iter().try_for_each(|(kind, step)| steps::check(kind, step.as_ref()))
}

/// The file without the words of its vocabulary.
#[derive(Default)]
struct File {
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tokenizer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let mut file = File::default();
                let left = Cell::new(MOST_VALUES);
                let mut seen = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "added_tokens" => file.added_tokens = map.next_value()?,
                        "normalizer" => file.normalizer = Some(map.next_value_seed(Tree(&left))?),
                        "pre_tokenizer" => file.pre_tokenizer = Some(map.next_value_seed(Tree(&left))?),
                        "post_processor" => file.post_processor = Some(map.next_value_seed(Tree(&left))?),
                        "decoder" => file.decoder = Some(map.next_value_seed(Tree(&left))?),
                        "model" => file.model = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    }
                    // The library takes the last of two, and each of them must be looked at.
                    if seen.contains(&key) {
                        return Err(A::Error::custom(format!("it has the key `{key}` twice")));
                    }
                    seen.push(key);
                }
                Ok(file)
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// A value of few values in all: each takes many times the memory of its text.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Cell<usize>);

impl Tree<'_> {
    fn spend<E: Error>(self, values: usize) -> Result<(), E> {
        match self.0.get().checked_sub(values) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => {
                Err(E::custom(format!("its steps have more than {MOST_VALUES} values and bytes of text")))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.spend(1)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.spend(1)?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.spend(1)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.spend(1)?;
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.spend(1 + text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        self.spend(1)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.spend(1)?;
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.spend(1 + key.len())?;
            let value = map.next_value_seed(self)?;
            if values.insert(key, value).is_some() {
                return Err(A::Error::custom("a step has a key twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    vocab: Option<Words>,
    merges: Option<Merges>,
    unk_id: Option<u64>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<u64>,
    dropout: Option<f64>,
}

/// How many words there are, and how long they are.
#[derive(Default)]
struct Words {
    count: usize,
    bytes: usize,
    longest: usize,
    /// The largest number of one.
    most: u64,
}

impl Words {
    fn add(&mut self, word_bytes: usize, number: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(word_bytes);
        self.longest = self.longest.max(word_bytes);
        self.most = self.most.max(number);
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("words with their numbers, or pairs of a word and its score")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut words = Words::default();
                while let Some(bytes) = map.next_key_seed(Length)? {
                    words.add(bytes, map.next_value()?);
                }
                Ok(words)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Words::default();
                while let Some((Counted(bytes), _)) = list.next_element::<(Counted, f64)>()? {
                    words.add(bytes, words.count as u64);
                }
                Ok(words)
            }
        }
        deserializer.deserialize_any(Of)
    }
}

/// How many merges there are.
struct Merges(usize);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Merges(count))
            }
        }
        deserializer.deserialize_seq(Of)
    }
}

/// A text's length.
struct Counted(usize);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Length.deserialize(deserializer).map(Self)
    }
}

struct Length;

impl<'de> DeserializeSeed<'de> for Length {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Length {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<usize, E> {
        Ok(text.len())
    }
}

fn check_added(added: &[Added]) -> Result<(), String> {
    let bytes: usize = added.iter().map(|token| token.content.len()).sum();
    at_most("`added_tokens`", "tokens", added.len(), MOST_ADDED)?;
    at_most("`added_tokens`", "bytes", bytes, MOST_ADDED_BYTES)
}

fn check_model(model: &Model) -> Result<(), String> {
    let kind = model.kind.as_str();
    if !["BPE", "Unigram", "WordLevel", "WordPiece"].contains(&kind) {
        return Err(format!(
            "its model `{kind}` is not known; known are BPE, Unigram, WordLevel and WordPiece"
        ));
    }
    let words = model.vocab.as_ref().ok_or("its model has no vocab")?;
    at_most("`vocab`", "tokens", words.count, MOST_TOKENS)?;
    at_most("`vocab`", "bytes in one token", words.longest, MOST_TOKEN_BYTES)?;
    if words.most > u64::from(u32::MAX >> 4) {
        return Err(format!("`vocab` has a token with the number {}, which is too large", words.most));
    }
    at_most("`merges`", "pairs", model.merges.as_ref().map_or(0, |merges| merges.0), MOST_MERGES)?;
    if kind == "Unigram" {
        at_most("`vocab`", "bytes", words.bytes, MOST_TREE_BYTES)?;
        at_most("`vocab`", "bytes in one token", words.longest, MOST_TREE_TOKEN_BYTES)?;
        if words.count == 0 || model.unk_id.is_some_and(|id| id >= words.count as u64) {
            let id = model.unk_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(format!("its model has {} tokens, and its `unk_id` is {id}", words.count));
        }
    }
    // The library cuts it off each right half of a merge, which need not be as long.
    if let Some(prefix) =
        model.continuing_subword_prefix.as_ref().filter(|text| kind == "BPE" && !text.is_empty())
    {
        return Err(format!("its `continuing_subword_prefix` `{prefix}` is not supported for BPE"));
    }
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(format!("its `dropout` is {dropout}; a text must be cut the same way each time"));
    }
    match model.max_input_chars_per_word.filter(|most| *most > MOST_LETTERS) {
        Some(most) => {
            Err(format!("its `max_input_chars_per_word` is {most}, at most {MOST_LETTERS} are looked at"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
