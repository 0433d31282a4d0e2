//! `nightshift-agent bench`: how fast a shape trains on this machine.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use proto::adapter::Factors;
use proto::counted::counted;
use proto::ids::Digest;
use proto::training::{LocalOptimizer, TrainingPlan};
use serde::Serialize;

use super::adapter::{AdapterArgs, ComputeArgs};
use engine::Filled;
use engine::process::peak_bytes;
use engine::{Base, Blocks, DecoderConfig, Engine, Job, Schedule, Step};

/// What to measure.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// What the random weights are held as
    #[arg(long, value_enum, default_value_t = Weights::Bf16)]
    weights: Weights,
    /// Sequences of one step
    #[arg(long, default_value_t = 4)]
    batch: u32,
    /// Tokens of one sequence
    #[arg(long, default_value_t = 128)]
    seq_len: u32,
    /// Steps to measure, after one that is not
    #[arg(long, default_value_t = 5)]
    steps: u32,
    /// Of the weights, the text and the batches
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Weights {
    F32,
    Bf16,
    Q4,
    Q8,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) tokens_per_second: f64,
    seconds_per_step: Vec<f64>,
    pub(super) peak_rss_bytes: Option<u64>,
    parameters: usize,
    trained_parameters: usize,
    device: String,
    threads: usize,
    precision: String,
    losses: Vec<f32>,
}

/// Trains a base of random weights with the shape of this `config.json`.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub(super) fn bench(path: &Path, args: &BenchArgs) -> anyhow::Result<Measured> {
    let json = proto::files::read_regular(path, 1 << 20)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    let config =
        DecoderConfig::parse(&json).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let filled = match args.weights {
        Weights::F32 => Filled::F32,
        Weights::Bf16 => Filled::Bf16,
        Weights::Q4 => Filled::Q4,
        Weights::Q8 => Filled::Q8,
    };
    let compute = args.compute.compute()?;
    let base = Arc::new(Base::random(config, filled, args.seed)?);
    let (parameters, vocab) = (base.parameters(), base.config().vocab_size as u64);
    let precision = compute.precision_name(&base);
    let engine = Engine::new(Arc::clone(&base)).with_compute(compute);
    let seed = Digest::of(&args.seed.to_le_bytes());
    let spec = args.adapter.spec(&base, Factors::Seeded(seed))?;
    let (frozen, start) = (spec.seeded_factors(&seed), spec.initial(&seed, None));
    let length = u64::from(args.seq_len);
    let tokens = (0..=u64::from(args.batch) * length * 4).map(|i| {
        let mixed = (i + args.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        u32::try_from(mixed % vocab).unwrap_or(0) // Below a vocabulary of less than 2³².
    });
    let blocks = Blocks::new(&[tokens.collect()], 0, args.seq_len);
    let plan = TrainingPlan {
        local_steps: args.steps + 1,
        batch_size: args.batch,
        sequence_len: args.seq_len,
        learning_rate: 1e-4,
        warmup_steps: 0,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: 0.01 },
    };
    let job = Job {
        spec: &spec,
        frozen: &frozen,
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule: Schedule::Constant,
        seed: seed.0,
    };
    let mut training = engine.begin(job)?;
    let mut seconds = Vec::new();
    let mut last = None;
    training.run(u32::MAX, &mut |step: Step| {
        if step.is_whole() {
            let now = Instant::now();
            seconds.extend(last.map(|last| now.duration_since(last).as_secs_f64()));
            last = Some(now);
        }
        ControlFlow::Continue(())
    })?;
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(Measured {
        tokens_per_second: f64::from(args.batch) * f64::from(args.seq_len) / median,
        seconds_per_step: seconds,
        peak_rss_bytes: peak_bytes(),
        parameters,
        trained_parameters: spec.trained_len(),
        device: compute.backend.to_string(),
        threads: compute.threads,
        precision,
        losses: training.finish().losses,
    })
}

impl Measured {
    /// What a person reads.
    pub(super) fn text(&self) -> String {
        let memory = self.peak_rss_bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        format!(
            "{:.0} tokens/s on {} with {} ({}), peak memory {memory}; {} parameters, {} trained",
            self.tokens_per_second,
            self.device,
            counted(self.threads, "thread", "threads"),
            self.precision,
            self.parameters,
            self.trained_parameters
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const SHAPE: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 96, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn measured(more: &[&str]) -> anyhow::Result<Measured> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("config.json");
        std::fs::write(&path, SHAPE)?;
        let words = ["bench", "--threads", "1", "--weights", "f32", "--seq-len", "16", "--steps", "2"];
        let line = Line::try_parse_from(words.iter().chain(more))?;
        bench(&path, &line.bench)
    }

    #[test]
    fn the_device_that_was_asked_for_computes_and_is_named() {
        let (own, candle) =
            (measured(&["--device", "cpu"]).unwrap(), measured(&["--device", "candle"]).unwrap());
        assert_eq!((own.device.as_str(), candle.device.as_str()), ("cpu", "candle"));
        assert!(own.text().contains(" tokens/s on cpu with 1 thread (f32), "), "{}", own.text());
        assert!(candle.text().contains(" tokens/s on candle with 1 thread (f32"), "{}", candle.text());
        assert_eq!(serde_json::to_value(&candle).unwrap()["device"], "candle");
        assert_eq!(candle.losses.len(), 3);
        for (found, expected) in candle.losses.iter().zip(&own.losses) {
            assert!((found - expected).abs() < 1e-4 * expected, "{found} {expected}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_before_weights_are_made() {
        let error = measured(&["--device", "cuda:77"]).unwrap_err().to_string();
        assert!(error.contains("`cuda:77`") && error.contains("use the device cpu"), "{error}");
        let error = measured(&["--device", "gpu"]).unwrap_err().to_string();
        assert!(error.contains("unknown device `gpu`; use auto, cpu, candle"), "{error}");
        let auto = measured(&[]).unwrap().device;
        assert!(auto == "cpu" || cfg!(any(feature = "cuda", feature = "metal")), "{auto}");
    }
}
