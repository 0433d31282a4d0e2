use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::*;
use crate::base::tokenizer::{encode_fast, guarded};

/// A tokenizer of pairs, which is taken.
fn whole() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]}
    })
}

fn checked(file: &Value) -> Result<(), String> {
    check(&serde_json::to_vec(file).unwrap())
}

/// What is said of the file with another value at one place.
fn refused(at: &str, value: Value) -> String {
    let mut file = whole();
    let (parent, key) = at.rsplit_once('/').unwrap();
    file.pointer_mut(parent).unwrap()[key] = value;
    checked(&file).expect_err(at)
}

#[test]
fn what_tokenizers_are_made_of_is_taken() {
    checked(&whole()).unwrap();
    let references = ["bytes.json", "pieces.json"].map(|name| {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/reference/chat").join(name);
        std::fs::read(path).unwrap()
    });
    for bytes in references {
        check(&bytes).unwrap();
    }
    // How a text is cut off or filled up is left out after reading.
    let mut file = whole();
    file["padding"] = json!({"strategy": {"Fixed": 99_999_999_999_u64}, "direction": "Right",
        "pad_to_multiple_of": 99_999_999_999_u64, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    checked(&file).unwrap();
}

#[test]
fn kinds_that_no_decoder_s_tokenizer_has_are_refused_by_name() {
    // Eight bytes that ask for eight gigabytes.
    let map = json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="});
    assert!(
        refused("/normalizer", map)
            .starts_with("its normalizer `Precompiled` is not known; known are Sequence, ")
    );
    let none = refused("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}));
    assert!(none.starts_with("its pre_tokenizer `FixedLength` is not known"), "{none}");
    assert!(refused("/decoder", json!({"type": "CTC"})).starts_with("its decoder `CTC` is not known"));
    assert!(
        refused("/post_processor", json!({"type": "?"})).starts_with("its post_processor `?` is not known")
    );
    assert!(refused("/model/type", json!("X")).starts_with("its model `X` is not known"));
    let within = json!({"type": "Sequence", "normalizers": [{"type": "Precompiled"}]});
    assert!(refused("/normalizer", within).contains("`Precompiled`"));
}

#[test]
fn numbers_that_no_tokenizer_needs_are_refused() {
    let double = json!({"type": "Replace", "pattern": {"String": "l"}, "content": "ll"});
    let doubles = json!({"type": "Sequence", "normalizers": vec![double; 40]});
    assert!(refused("/normalizer", doubles).contains("make a text up to 128 times as long, at most 64"));
    let long = json!({"type": "Prepend", "prepend": "x".repeat(100_000)});
    assert_eq!(
        refused("/normalizer", long),
        "`prepend` of its normalizer has 100000 bytes, at most 64 are read"
    );
    let many = json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "WhitespaceSplit"}); 1000]});
    assert_eq!(refused("/pre_tokenizer", many), "`pre_tokenizer` has 65 steps, at most 64 are read");
    let strip = json!({"type": "Strip", "content": "e", "start": 0, "stop": 1000});
    assert!(refused("/decoder", strip).starts_with("its decoder `Strip` takes letters off the end"));
    let copies = json!({"type": "Split", "pattern": {"Regex": "((?=a)a){100000}"}, "behavior": "Isolated", "invert": false});
    assert!(refused("/pre_tokenizer", copies).contains("counts further than 1000"));
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    assert!(
        refused("/post_processor/single", json!([text, text])).contains("takes the texts [\"A\", \"A\"]")
    );
    let token = json!([{"SpecialToken": {"id": "zz", "type_id": 0}}, text]);
    assert!(refused("/post_processor/single", token).contains("names `zz`, which it does not have"));
    let added = vec![json!({"id": 9, "content": "x".repeat(1000)}); 2000];
    assert!(refused("/added_tokens", json!(added)).contains("has 2000000 bytes, at most 1048576"));
}

#[test]
fn models_that_stop_the_library_or_need_gigabytes_are_refused() {
    let prefix = refused("/model/continuing_subword_prefix", json!("x".repeat(100)));
    assert!(prefix.contains("is not supported for BPE"), "{prefix}");
    assert!(refused("/model/dropout", json!(0.9)).starts_with("its `dropout` is 0.9"));
    assert!(refused("/model/vocab", json!({"a": 4_294_967_295_u64})).contains("the number 4294967295"));
    assert!(refused("/model/vocab", json!({"x".repeat(5000): 1})).contains("has 5000 bytes in one token"));
    let unigram = |vocab: Value, id: Value| json!({"type": "Unigram", "vocab": vocab, "unk_id": id});
    assert_eq!(
        refused("/model", unigram(json!([]), json!(null))),
        "its model has 0 tokens, and its `unk_id` is none"
    );
    assert_eq!(
        refused("/model", unigram(json!([["a", -1.0]]), json!(9))),
        "its model has 1 tokens, and its `unk_id` is 9"
    );
    let tree = vec![json!(["x".repeat(250), -1.0]); 10_000];
    assert!(refused("/model", unigram(json!(tree), json!(0))).contains("has 2500000 bytes, at most 2097152"));
}

#[test]
fn what_still_stops_the_library_is_an_error() {
    let mut file = whole();
    // Both halves are tokens, but the whole is longer than any.
    file["model"] = json!({"type": "BPE", "vocab": {"aaaa": 0, "bbbb": 1}, "merges": [["aaaa", "bbbb"]]});
    checked(&file).unwrap();
    let bytes = serde_json::to_vec(&file).unwrap();
    let error = guarded(|| Tokenizer::from_bytes(&bytes)).unwrap_err();
    assert!(error.starts_with("the tokenizer library stopped itself"), "{error}");
}

#[test]
fn a_file_with_a_few_changed_bytes_is_refused_or_cuts_a_text() {
    let whole = serde_json::to_vec(&whole()).unwrap();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let words: [&[u8]; 8] = [b"0", b"99999999", b"\"\"", b"null", b"{", b"]", b"\"A\"", b"e99"];
    let mut taken = 0;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(3) {
            let (at, word) = (random(bytes.len()), words[random(words.len())]);
            let end = (at + random(4)).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        if check(&bytes).is_ok()
            && let Ok(tokenizer) = guarded(|| Tokenizer::from_bytes(&bytes))
        {
            taken += 1;
            drop(encode_fast(&tokenizer, "ab abba 1234 é"));
            drop(guarded(|| tokenizer.decode(&[0, 1, 2, 3], true)));
        }
    }
    assert!(taken > 10, "{taken}");
}
