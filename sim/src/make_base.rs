//! Makes the base that comes with the program: a small decoder, from a seed, on text that [`crate::corpus`]
//! invents.

use std::ops::ControlFlow;
use std::path::Path;

use engine::training::pretrain::pretrain;
use engine::{DecoderConfig, RopeScaling};
use engine::{PretrainError, PretrainOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::corpus;
use crate::demo;

/// How the base is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Optimiser steps
    #[arg(long, default_value_t = 9000)]
    pub steps: u32,
    /// Documents of general text
    #[arg(long, default_value_t = 2500)]
    pub documents: usize,
}

/// 0.5 M parameters: large enough to learn the invented language, small enough for the repository, and for hundreds of
/// devices to train in a minute.
fn shape() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 768,
        hidden_size: 96,
        intermediate_size: 256,
        num_layers: 4,
        num_heads: 3,
        num_kv_heads: 1,
        head_dim: 32,
        max_positions: 512,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        gemma: None,
        bos: None,
        eos: Vec::new(),
    }
}

/// General text and the public sample; nothing that anybody has on a device.
fn documents(seed: u64, count: usize) -> Vec<String> {
    let mut documents = corpus::base_corpus(seed, count);
    documents.extend(demo::public_lines());
    documents
}

/// Makes the base in `out`.
pub fn run(options: &Options, out: &Path, seed: u64) -> Result<(), PretrainError> {
    let documents = documents(seed, options.documents);
    let training = PretrainOptions {
        steps: options.steps,
        batch_size: 16,
        sequence_len: 64,
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
