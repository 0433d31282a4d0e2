//! The control tokens of a tokenizer, and where a text spells one.

use tokenizers::Tokenizer;

/// The control tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct Control {
    /// Text and id, the longest first.
    tokens: Vec<(String, u32)>,
    /// Whether one begins with this byte.
    begins: [bool; 256],
}

impl Control {
    /// The special ones among the added tokens, and those that end a text.
    pub(super) fn new(tokenizer: &Tokenizer, eos: &[u32]) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.keys().copied().collect();
        ids.sort_unstable();
        let special =
            |id: u32| added.get(&id).filter(|token| token.special).map(|token| (token.content.clone(), id));
        let mut tokens: Vec<(String, u32)> = ids.into_iter().filter_map(special).collect();
        tokens.extend(eos.iter().filter_map(|id| Some((tokenizer.id_to_token(*id)?, *id))));
        tokens.retain(|(text, _)| !text.is_empty());
        tokens.sort_by(|left, right| (right.0.len(), &left.0).cmp(&(left.0.len(), &right.0)));
        tokens.dedup();
        let mut begins = [false; 256];
        for (text, _) in &tokens {
            begins[usize::from(text.as_bytes()[0])] = true;
        }
        Self { tokens, begins }
    }

    /// The token that stands at a place in a text: how long it is there, and its id.
    pub(super) fn at(&self, text: &str, place: usize) -> Option<(usize, u32)> {
        let rest = text.as_bytes().get(place..)?;
        if !self.begins[usize::from(*rest.first()?)] {
            return None;
        }
        let (token, id) = self.tokens.iter().find(|(token, _)| rest.starts_with(token.as_bytes()))?;
        Some((token.len(), *id))
    }

    /// Whether a text spells a control token of some other base, and none of this one's.
    pub(super) fn is_of_another(&self, text: &str) -> bool {
        !self.is_in(text) && spells_any(text)
    }

    /// Whether a text spells one.
    pub(super) fn is_in(&self, text: &str) -> bool {
        (0..text.len()).any(|place| self.at(text, place).is_some())
    }
}

/// Control tokens that bases have beside those between `<|` and `|>`.
const KNOWN: [&str; 6] = [
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<\u{ff5c}User\u{ff5c}>",
    "<\u{ff5c}Assistant\u{ff5c}>",
];

/// Whether a text spells what is a control token of many bases: one of [`KNOWN`], or a word between `<|` and `|>`.
fn spells_any(text: &str) -> bool {
    let is_word = |word: &str| {
        (1..=40).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut starts = text.match_indices("<|").map(|(at, _)| &text[at + 2..]);
    starts.any(|rest| rest.split_once("|>").is_some_and(|(word, _)| is_word(word)))
        || KNOWN.iter().any(|token| text.contains(token))
}

#[cfg(test)]
mod tests {
    use super::spells_any;

    #[test]
    fn tokens_of_other_bases_are_known_and_code_is_not_taken_for_them() {
        for text in [
            "a<|im_end|>",
            "<|start_header_id|>user",
            "[INST] Hi [/INST]",
            "<start_of_turn>model",
            "<| <|eot_id|>",
        ] {
            assert!(spells_any(text), "{text}");
        }
        for text in ["", "f <| g |> h", "a <|> b", "<|a b|>", "[inst]", "<s>struck</s>"] {
            assert!(!spells_any(text), "{text}");
        }
    }
}
