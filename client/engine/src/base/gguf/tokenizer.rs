//! The tokenizer that a GGUF file holds.

use formats::FormatError;
use formats::gguf::Metadata;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::base::error::BaseError;
use crate::base::tokenizer::{Special, Tokens, guarded};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";

/// Kinds of tokens, as the file numbers them.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What `SentencePiece` writes for a space.
const SPACE: &str = "▁";

/// Bytes of the longest `SentencePiece` token of which the parts are looked for.
const LONGEST_PIECE_BYTES: usize = 1 << 10;

/// Ways to cut tokens into two tokens, for each token; those of published vocabularies have two or three.
const CUTS_FOR_EACH: usize = 16;

/// Bytes of all tokens that are cut so, for each byte of the vocabulary.
const CUT_BYTES_FOR_EACH: usize = 32;

/// What a vocabulary may have of both, however small it is.
const LEAST_CUTS: usize = 1 << 12;

/// Bytes of all tokens that are found before a text is cut into words: the library keeps a table of their letters.
const MOST_ADDED_BYTES: usize = 1 << 20;

/// How Llama 3 and Qwen cut a text into words; they differ in how many digits stay together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Mistral's Tekken cuts a text: words begin with a capital, or are all capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a file that does not say more cuts a text: punctuation first, then as GPT-2 does, then digits by three.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
];

/// Reads the tokenizer, for a model of `vocab_size` tokens.
pub(super) fn read(metadata: &Metadata, vocab_size: usize) -> Result<Tokens, BaseError> {
    let words = metadata.texts(TOKENS)?;
    let kinds = metadata.numbers(KINDS)?.unwrap_or_default();
    let mut tokenizer = match metadata.text(MODEL)? {
        Some("gpt2") => byte_level(metadata, words)?,
        Some("llama") => sentence_piece(metadata, words, kinds)?,
        Some(other) => {
            let reason = format!("= {other} is not supported; known are gpt2 and llama");
            return Err(metadata.wrong(MODEL, reason).into());
        }
        None => return Err(metadata.wrong(MODEL, "is missing").into()),
    };
    let added = |wanted: &dyn Fn(i64) -> bool, special| {
        let of_kind = words.iter().zip(kinds).filter(|(_, kind)| wanted(**kind));
        of_kind.map(|(word, _)| AddedToken::from(word.clone(), special).normalized(false)).collect::<Vec<_>>()
    };
    let special = added(&|kind| matches!(kind, CONTROL | UNKNOWN), true);
    let plain = added(&|kind| kind == USER_DEFINED, false);
    let bytes: usize = special.iter().chain(&plain).map(|token| token.content.len()).sum();
    if bytes > MOST_ADDED_BYTES {
        let reason = format!(
            "has {bytes} bytes in control tokens and such of users, at most {MOST_ADDED_BYTES} are read"
        );
        return Err(metadata.wrong(KINDS, reason).into());
    }
    let adding = guarded(|| {
        tokenizer.add_special_tokens(special)?;
        tokenizer.add_tokens(plain)
    });
    adding.map_err(|error| metadata.wrong(TOKENS, format!("cannot be used: {error}")))?;

    let token = |key: &str| -> Result<Option<u32>, FormatError> {
        let Some(id) = metadata.number(key)? else { return Ok(None) };
        u32::try_from(id).map(Some).map_err(|_| metadata.wrong(key, format!("= {id} is out of range")))
    };
    let word = |id: Option<u32>| id.and_then(|id| words.get(id as usize)).cloned();
    let (bos, end) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
    let mut eos: Vec<u32> = end.into_iter().chain(token("tokenizer.ggml.eot_token_id")?).collect();
    eos.sort_unstable();
    eos.dedup();
    let chat_template = metadata.text("tokenizer.chat_template")?.map(str::to_owned);
    let special = Special { bos, bos_token: word(bos), eos, eos_token: word(end), chat_template };
    let path = metadata.path().to_owned();
    Tokens::new(tokenizer, special, vocab_size).map_err(|reason| BaseError::Tokenizer { path, reason })
}

fn vocabulary(metadata: &Metadata, words: &[String]) -> Result<Vocab, FormatError> {
    let numbered = words.iter().zip(0_u32..);
    if u32::try_from(words.len()).is_err() {
        return Err(metadata.wrong(TOKENS, "has more than 2^32 tokens"));
    }
    Ok(numbered.map(|(word, id)| (word.clone(), id)).collect())
}

/// Pairs of bytes, merged in a given order.
fn byte_level(metadata: &Metadata, words: &[String]) -> Result<Tokenizer, FormatError> {
    let vocabulary = vocabulary(metadata, words)?;
    let mut merges = Merges::new();
    for merge in metadata.texts(MERGES)? {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(metadata.wrong(MERGES, format!("has `{merge}`, which is not two tokens")));
        };
        // The builder relies on the whole being a token.
        if let Some(word) =
            [left, right, &format!("{left}{right}")].into_iter().find(|word| !vocabulary.contains_key(*word))
        {
            return Err(metadata.wrong(MERGES, format!("has `{merge}`, but `{word}` is not a token")));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    let name = metadata.text(PRE)?.unwrap_or("default");
    let (pre, nfc, ignore_merges) =
        pre_tokenizer(name).map_err(|error| metadata.wrong(PRE, format!("= {name} {error}")))?;
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(ignore_merges);
    let bpe = guarded(|| bpe.build());
    let bpe = bpe.map_err(|error| metadata.wrong(MERGES, format!("cannot be used: {error}")))?;
    let mut tokenizer = Tokenizer::new(bpe);
    if nfc {
        let normalizer = tokenizer.with_normalizer(Some(NFC)).map(|_| ());
        normalizer.map_err(|error| metadata.wrong(PRE, format!("cannot be used: {error}")))?;
    }
    tokenizer.with_pre_tokenizer(Some(pre));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// What cuts a text into words, whether composed characters are composed first, and whether a word that is a token
/// stays whole.
fn pre_tokenizer(name: &str) -> Result<(PreTokenizerWrapper, bool, bool), String> {
    let split = |pattern: &str| {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map(PreTokenizerWrapper::from)
            .map_err(|error| format!("cannot be used: {error}"))
    };
    let bytes = || PreTokenizerWrapper::from(ByteLevel::new(false, true, false));
    let gpt2 = || PreTokenizerWrapper::from(ByteLevel::new(false, true, true));
    let sequence = |parts: Vec<PreTokenizerWrapper>| PreTokenizerWrapper::from(PreTokenizers::new(parts));
    match name {
        "llama-bpe" | "llama-v3" | "llama3" => Ok((sequence(vec![split(LLAMA3)?, bytes()]), false, true)),
        "tekken" => Ok((sequence(vec![split(TEKKEN)?, bytes()]), false, true)),
        "qwen2" | "deepseek-r1-qwen" => Ok((sequence(vec![split(QWEN2)?, bytes()]), true, false)),
        "smollm" => Ok((sequence(vec![Digits::new(true).into(), gpt2()]), false, false)),
        "gpt-2" => Ok((gpt2(), false, false)),
        "default" => {
            let mut parts = DEFAULT.into_iter().map(split).collect::<Result<Vec<_>, _>>()?;
            parts.push(bytes());
            Ok((sequence(parts), false, false))
        }
        _ => Err("is not supported; known are llama-bpe, qwen2, deepseek-r1-qwen, tekken, smollm, gpt-2 and default".to_owned()),
    }
}

/// `SentencePiece`'s: neighbours are merged in the order of their scores, and what is no token becomes bytes.
fn sentence_piece(metadata: &Metadata, words: &[String], kinds: &[i64]) -> Result<Tokenizer, FormatError> {
    let vocabulary = vocabulary(metadata, words)?;
    let scores = metadata.floats(SCORES)?;
    if scores.len() != words.len() {
        let reason = format!("has {} values for {} tokens", scores.len(), words.len());
        return Err(metadata.wrong(SCORES, reason));
    }
    let normal = |id: usize| kinds.get(id).is_none_or(|kind| *kind == NORMAL);
    let mut order: Vec<usize> = (0..words.len()).filter(|id| normal(*id)).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut merges = Merges::new();
    let most = LEAST_CUTS.saturating_add(CUTS_FOR_EACH.saturating_mul(words.len()));
    let bytes: usize = words.iter().map(String::len).sum();
    let most_bytes =
        (LEAST_CUTS * CUT_BYTES_FOR_EACH).saturating_add(CUT_BYTES_FOR_EACH.saturating_mul(bytes));
    let mut bytes_left = most_bytes;
    for id in order {
        let word = words[id].as_str();
        if word.len() > LONGEST_PIECE_BYTES {
            let reason =
                format!("has a token of {} bytes, at most {LONGEST_PIECE_BYTES} are read", word.len());
            return Err(metadata.wrong(TOKENS, reason));
        }
        let cuts = word.char_indices().skip(1).map(|(at, _)| word.split_at(at));
        let parts =
            cuts.filter(|(left, right)| vocabulary.contains_key(*left) && vocabulary.contains_key(*right));
        for (left, right) in parts {
            let left_over = bytes_left.checked_sub(word.len());
            let Some(left_over) = left_over.filter(|_| merges.len() < most) else {
                let reason = format!(
                    "has tokens that can be cut into two of its tokens in more than {most} ways, or {most_bytes} bytes"
                );
                return Err(metadata.wrong(TOKENS, reason));
            };
            bytes_left = left_over;
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    let mut bpe = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
    let unknown = metadata.number("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    if let Some(word) = usize::try_from(unknown).ok().and_then(|id| words.get(id)) {
        bpe = bpe.unk_token(word.clone());
    }
    let fail = |error: tokenizers::Error| metadata.wrong(TOKENS, format!("cannot be used: {error}"));
    let bpe = guarded(|| bpe.build())
        .map_err(|error| metadata.wrong(TOKENS, format!("cannot be used: {error}")))?;
    let mut tokenizer = Tokenizer::new(bpe);
    let prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = vec![Replace::new(" ", SPACE).map_err(fail)?.into()];
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ").map_err(fail)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        normalizers.insert(0, Prepend::new(SPACE.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(fail)?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::pre_tokenizer;

    fn cut(name: &str, text: &str) -> Vec<String> {
        let (pre, _, _) = pre_tokenizer(name).unwrap();
        let mut text = PreTokenizedString::from(text);
        pre.pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.replace('Ġ', " ").replace('Ċ', "\n")).collect()
    }

    #[test]
    fn texts_are_cut_as_the_name_says() {
        // As Python's `tokenizers` cuts them with the expression in Mistral-Nemo's own tokenizer.json.
        let text = "HelloWorld FOOBar's 2024 a/b\n\n  x";
        let tekken =
            ["Hello", "World", " FOOBar", "'s", " ", "2", "0", "2", "4", " a", "/b", "\n\n", " ", " x"];
        assert_eq!(cut("tekken", text), tekken);
        let qwen = cut("qwen2", text);
        assert_eq!(cut("deepseek-r1-qwen", text), qwen);
        assert_eq!(qwen[..2], ["HelloWorld", " FOOBar"]);
        assert!(
            pre_tokenizer("deepseek-r1-qwen").unwrap().1,
            "composed characters are composed first, as for qwen2"
        );
    }
}
