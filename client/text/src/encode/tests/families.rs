//! Templates in the manner of further families, each with the same rows.

use super::*;
use crate::Json;

/// What transformers makes of a row; written by `client/text/tests/reference/chat/make_families.py`.
#[derive(Deserialize)]
struct Case {
    template: String,
    bos: Option<String>,
    eos: String,
    name: String,
    row: Json,
    #[serde(default)]
    refused: bool,
    /// The template writes the row without its thoughts, calls or tools.
    #[serde(default)]
    dropped: bool,
    ids: Option<Vec<u32>>,
    learned: Option<Vec<u8>>,
}

fn source(name: &str) -> &'static str {
    match name {
        "gemma" => include_str!("../../../tests/reference/chat/families/gemma.jinja"),
        "gemma_first" => include_str!("../../../tests/reference/chat/families/gemma_first.jinja"),
        "phi3" => include_str!("../../../tests/reference/chat/families/phi3.jinja"),
        "deepseek" => include_str!("../../../tests/reference/chat/families/deepseek.jinja"),
        "llama31" => include_str!("../../../tests/reference/chat/families/llama31.jinja"),
        "smollm3" => include_str!("../../../tests/reference/chat/families/smollm3.jinja"),
        _ => include_str!("../../../tests/reference/chat/families/tekken.jinja"),
    }
}

#[test]
fn rows_become_the_tokens_and_the_masks_of_transformers_or_are_left_out() {
    let tokenizer: &[u8] = include_bytes!("../../../tests/reference/chat/families/tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(tokenizer).unwrap();
    let cases = include_str!("../../../tests/reference/chat/families/families.json");
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 84);
    let mut wrong = Vec::new();
    for case in cases {
        let template =
            ChatTemplate::new(source(&case.template), case.bos.as_deref(), Some(&case.eos)).unwrap();
        let eos = tokenizer.token_to_id(&case.eos).unwrap();
        let encoder = Encoder::with(&tokenizer, Some(template), &[eos]);
        let document = crate::parse::document(&case.row).unwrap().1;
        let name = format!("{}, {}", case.template, case.name);
        match encoder.encode(&document).unwrap() {
            Err(LeftOut::Refused) if case.refused => {}
            Err(LeftOut::Calls | LeftOut::Thoughts | LeftOut::Tools | LeftOut::Turn) if case.dropped => {}
            Err(why) => wrong.push(format!("{name}: {why}")),
            Ok(_) if case.refused || case.dropped => wrong.push(format!("{name}: it is learned")),
            Ok(EncodedDocument { encoded, .. }) => {
                let learned: Vec<u8> = encoded.learned().iter().map(|learned| u8::from(*learned)).collect();
                let are_same = case.ids.as_deref().is_none_or(|ids| encoded.tokens() == ids)
                    && case.learned.is_none_or(|expected| learned == expected);
                if !are_same {
                    let (learned, given) = parts(&tokenizer, &encoded);
                    wrong.push(format!("{name}: learned {learned:?}, given {given:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
