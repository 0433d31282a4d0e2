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

    /// Whether a text spells one.
    pub(super) fn is_in(&self, text: &str) -> bool {
        (0..text.len()).any(|place| self.at(text, place).is_some())
    }
}
