//! Makes the base that comes with the program: a small decoder, from a seed, on text that [`crate::corpus`]
//! invents.

use std::ops::ControlFlow;
use std::path::Path;

use engine::training::pretrain::pretrain;
use engine::{DecoderConfig, RopeScaling};
use engine::{PretrainError, PretrainOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::corpus;

/// One document in so many is a handful of messages.
const CHAT_EVERY: usize = 400;

/// How the base is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Optimiser steps
    #[arg(long, default_value_t = 800)]
    pub steps: u32,
    /// Documents of invented text
    #[arg(long, default_value_t = 8000)]
    pub documents: usize,
}

/// 0.8 M parameters: large enough to learn the invented language, small enough for the repository.
fn shape() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 768,
        hidden_size: 128,
        intermediate_size: 320,
        num_layers: 4,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 32,
        max_positions: 512,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos: None,
        eos: Vec::new(),
    }
}

/// Plain sentences, but for one document in [`CHAT_EVERY`]: a handful of messages, as any large text holds some,
/// so that the base has seen the letters of chat without having learnt to write it.
fn documents(seed: u64, count: usize) -> Vec<String> {
    let mut documents = corpus::base_corpus(seed, count);
    let chats = count / CHAT_EVERY;
    let lines = corpus::public_sample(seed.wrapping_add(1_000_003), 6 * chats);
    for (chat, at) in lines.chunks(6).zip((0..documents.len()).step_by(CHAT_EVERY)) {
        documents[at] = chat.join("\n");
    }
    documents
}

/// Makes the base in `out`.
pub fn run(options: &Options, out: &Path, seed: u64) -> Result<(), PretrainError> {
    let documents = documents(seed, options.documents);
    let training = PretrainOptions {
        steps: options.steps,
        batch_size: 16,
        sequence_len: 128,
        learning_rate: 3e-3,
        warmup_steps: options.steps / 20,
        weight_decay: 0.1,
    };
    let bar = ProgressBar::new(u64::from(options.steps));
    if let Ok(style) = ProgressStyle::with_template("[{bar:36}] {pos}/{len} steps, {msg}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    pretrain(&shape(), &documents, out, seed, &training, &mut |step| {
        bar.set_message(format!("loss {:.3}", step.loss));
        bar.inc(1);
        ControlFlow::Continue(())
    })?;
    bar.finish();
    Ok(())
}
