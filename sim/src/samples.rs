//! What the base and the adapter write after the same prompts, by the same chance.

use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Base, Engine};
use proto::adapter::State;
use proto::counted::counted;
use proto::ids::Digest;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::inputs::RunError;

/// Tokens of a sample at most.
const MOST_TOKENS: usize = 40;

/// Below 1, likely tokens are drawn more often than the model says.
const TEMPERATURE: f64 = 0.6;

/// How one prompt is written on, before the federation and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What both began with.
    pub prompt: String,
    /// What the base wrote on.
    pub before: String,
    /// What the base wrote on with the adapter.
    pub after: String,
}

/// A sample of each prompt before which `stop` is not set; chance follows from `seed` and is the same before and after.
pub(crate) fn write(
    stop: &AtomicBool,
    engine: &Engine,
    after: &State,
    prompts: &[String],
    seed: &Digest,
) -> Result<Vec<Sample>, RunError> {
    let adapted = engine.with_folded(&after.folded)?;
    prompts
        .iter()
        .enumerate()
        .take_while(|_| !stop.load(Ordering::Relaxed))
        .map(|(place, prompt)| {
            let mut bytes = seed.0.to_vec();
            bytes.extend_from_slice(&(place as u64).to_be_bytes());
            let seed = Digest::of(&bytes).0;
            Ok(Sample {
                prompt: prompt.clone(),
                before: message(engine, None, prompt, seed)?,
                after: message(&adapted, Some(after), prompt, seed)?,
            })
        })
        .collect()
}

/// What a reader has to know where not every prompt has a sample.
pub(crate) fn left_out(samples: &[Sample], prompts: &[String]) -> Option<String> {
    let left = prompts.len().saturating_sub(samples.len());
    let prompts = counted(left, "prompt", "prompts");
    (left > 0)
        .then(|| format!("nothing was written after {prompts}: the run was stopped before that was done"))
}

/// The rest of the message that begins with `prompt`.
fn message(engine: &Engine, state: Option<&State>, prompt: &str, seed: [u8; 32]) -> Result<String, RunError> {
    let base = engine.base();
    let mut tokens = vec![base.bos()];
    tokens.extend(base.encode(prompt)?);
    let mut rng = ChaCha8Rng::from_seed(seed);
    let adapter = state.map(|state| (&state.spec, state.frozen.as_slice(), state.trained.as_slice()));
    let written = engine.generate(adapter, &tokens, MOST_TOKENS, |logits| {
        // A message ends where the next document begins.
        Some(draw(logits, &mut rng)).filter(|token| *token != base.bos() && !base.eos().contains(token))
    })?;
    Ok(rest(base, &tokens, &written)?)
}

/// `written` as text. Both parts are decoded together, because a tokenizer may leave out a text's first blank.
fn rest(base: &Base, prompt: &[u32], written: &[u32]) -> Result<String, engine::DecodeError> {
    let (before, whole) = (base.decode(prompt)?, base.decode(&[prompt, written].concat())?);
    let text =
        whole.strip_prefix(&before).map_or_else(|| base.decode(written), |text| Ok(text.to_owned()))?;
    Ok(text.lines().next().unwrap_or_default().trim_end().to_owned())
}

/// A token at [`TEMPERATURE`].
fn draw(logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - most) / TEMPERATURE).exp();
    let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let mut left = total * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    for (token, logit) in (0..).zip(logits) {
        left -= weight(*logit);
        if left < 0.0 {
            return token;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_far_above_the_others_is_drawn() {
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        for _ in 0..50 {
            assert_eq!(draw(&[0.0, -1.0, 40.0, 2.0], &mut rng), 2);
        }
    }

    #[test]
    fn tokens_of_one_weight_are_all_drawn() {
        let mut rng = ChaCha8Rng::from_seed([4; 32]);
        let drawn: std::collections::BTreeSet<u32> = (0..200).map(|_| draw(&[1.0; 5], &mut rng)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
