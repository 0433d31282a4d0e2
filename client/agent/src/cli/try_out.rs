//! `nightshift-agent eval` and `nightshift-agent generate`: what a base, or an adapter of it, knows.

use std::path::{Path, PathBuf};

use clap::Args;
use proto::counted::counted;
use proto::ids::Digest;
use proto::shown::shown;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::adapter::ComputeArgs;
use super::local::{TextArgs, corpus, open};
use super::path;
use client::adapter_files::{Adapter, read_peft};
use engine::Loss;
use text::ReadOptions;

/// What to measure.
#[derive(Args, Debug)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    pub(super) text: TextArgs,
    /// The adapter's folder; the base alone where left out
    #[arg(long, value_name = "DIR", value_parser = path())]
    adapter: Option<PathBuf>,
    /// Tokens of one sequence
    #[arg(long, default_value_t = 256)]
    seq_len: u32,
    /// Measure the whole text, not only the part that training holds out
    #[arg(long)]
    all: bool,
}

/// A loss.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    nats_per_token: f64,
    perplexity: f64,
    tokens: u64,
    /// Whose tokens they are: what is named as text.
    data: Vec<PathBuf>,
    /// Whether all of it was measured, and not only what training holds out.
    whole: bool,
    /// The digest of what was measured, as tokens: of the same text by the same base it is the same.
    text: Digest,
    device: String,
}

/// Measures a text.
pub(super) fn eval(
    base: &Path,
    data: &[PathBuf],
    reading: ReadOptions,
    args: &EvalArgs,
) -> anyhow::Result<Measured> {
    let engine = open(base, args.compute, |_, _| 0)?;
    let adapter = args.adapter.as_deref().map(|folder| read_peft(folder, engine.base())).transpose()?;
    let corpus = corpus(engine.base(), data, reading)?;
    let mut blocks = corpus.held_out(args.seq_len);
    if args.all {
        blocks = blocks.and(corpus.train(args.seq_len));
    }
    if blocks.is_empty() {
        anyhow::bail!("the text is so short that none of it is held out; use --all");
    }
    let Loss { nats_per_token, tokens } = match &adapter {
        Some(Adapter { spec, frozen, trained, .. }) => engine.loss(spec, frozen, trained, &blocks)?,
        None => engine.base_loss(&blocks)?,
    };
    let device = engine.compute().backend.to_string();
    let (perplexity, text) = (nats_per_token.exp(), Digest::of(&blocks.to_bytes()));
    Ok(Measured { nats_per_token, perplexity, tokens, data: data.to_vec(), whole: args.all, text, device })
}

impl Measured {
    /// What a person reads.
    pub(super) fn text(&self) -> String {
        let Self { nats_per_token, perplexity, tokens, data, whole, text: _, device } = self;
        let tokens = counted(*tokens, "token", "tokens");
        let part = if *whole { "all of" } else { "what training holds out of" };
        let data: Vec<String> = data.iter().map(|path| shown(&path.to_string_lossy()).to_string()).collect();
        format!(
            "{nats_per_token:.3} nats a token (perplexity {perplexity:.1}) over {tokens}, {part} {}, on {device}",
            data.join(", ")
        )
    }
}

/// What to write.
#[derive(Args, Debug)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    compute: ComputeArgs,
    /// The adapter's folder; the base alone where left out
    #[arg(long, value_name = "DIR", value_parser = path())]
    adapter: Option<PathBuf>,
    /// What comes before
    #[arg(long)]
    prompt: String,
    /// Most tokens to write
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 0.95)]
    top_p: f64,
    /// Of what is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    prompt: String,
    text: String,
    tokens: usize,
}

/// Writes on after a prompt.
pub(super) fn generate(base: &Path, args: &GenerateArgs) -> anyhow::Result<Written> {
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        anyhow::bail!("--temperature must be 0 or more, found {}", args.temperature);
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        anyhow::bail!("--top-p must be above 0 and at most 1, found {}", args.top_p);
    }
    let engine = open(base, args.compute, |_, _| 0)?;
    let base = engine.base();
    let adapter = args.adapter.as_deref().map(|folder| read_peft(folder, base)).transpose()?;
    let mut prompt = vec![base.bos()];
    prompt.extend(base.encode(&args.prompt)?);
    let mut rng = ChaCha20Rng::seed_from_u64(args.seed);
    let adapter = adapter.as_ref().map(|a| (&a.spec, a.frozen.as_slice(), a.trained.as_slice()));
    let written = engine.generate(adapter, &prompt, args.max_tokens, |logits| {
        let next = choose(logits, args.temperature, args.top_p, &mut rng);
        if base.eos().contains(&next) { None } else { Some(next) }
    })?;
    // Together, because a tokenizer may leave out the space before a text's first word.
    let (before, whole) = (base.decode(&prompt)?, base.decode(&[prompt.as_slice(), &written].concat())?);
    let text = match whole.strip_prefix(&before) {
        Some(text) => text.to_owned(),
        None => base.decode(&written)?,
    };
    Ok(Written { prompt: args.prompt.clone(), text, tokens: written.len() })
}

impl Written {
    /// What a person reads.
    pub(super) fn text(&self) -> String {
        format!("{}{}", self.prompt, self.text)
    }
}

/// A token by nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751).
fn choose(logits: &[f32], temperature: f64, top_p: f64, rng: &mut ChaCha20Rng) -> u32 {
    let mut order: Vec<u32> = (0..).zip(logits).map(|(id, _)| id).collect();
    let logit = |id: u32| f64::from(logits[id as usize]);
    order.sort_by(|a, b| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b)));
    let Some(&best) = order.first() else { return 0 };
    if temperature == 0.0 {
        return best;
    }
    let weights: Vec<f64> = order.iter().map(|id| ((logit(*id) - logit(best)) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0.0;
    let nucleus = weights.iter().take_while(|weight| {
        let within = kept < top_p * total;
        kept += **weight;
        within
    });
    let nucleus: Vec<f64> = nucleus.copied().collect();
    let mut left = nucleus.iter().sum::<f64>() * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    for (id, weight) in order.iter().zip(&nucleus) {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_says_of_what_text_it_is() {
        let measured = |whole| Measured {
            nats_per_token: 2.5,
            perplexity: 12.2,
            tokens: 1,
            data: vec!["notes".into(), "mail.jsonl".into()],
            whole,
            text: Digest([1; 32]),
            device: "cpu".to_owned(),
        };
        let said = "2.500 nats a token (perplexity 12.2) over 1 token, what training holds out of notes, mail.jsonl, on cpu";
        assert_eq!(measured(false).text(), said);
        assert!(measured(true).text().contains("over 1 token, all of notes"));
    }

    #[test]
    fn a_token_is_drawn_as_often_as_it_is_likely_and_never_from_the_tail() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let logits = [0.0, 3f32.ln(), -20.0, 1f32.ln()];
        let mut counts = [0u32; 4];
        for _ in 0..5000 {
            counts[choose(&logits, 1.0, 0.999, &mut rng) as usize] += 1;
        }
        assert!(counts[2] == 0 && (2850..3150).contains(&counts[1]), "{counts:?}");
        assert_eq!(choose(&logits, 0.0, 1.0, &mut rng), 1);
        assert!((0..50).all(|_| choose(&logits, 1.0, 0.5, &mut rng) == 1));
    }
}
