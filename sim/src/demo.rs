//! The run without arguments: a base and people that the project made up, and a privacy that is on.

use std::fs;
use std::path::{Path, PathBuf};

use engine::Base;
use engine::Projection;
use proto::adapter::Method;
use proto::plan::Mode;
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};
use text::{Corpus, Document, ReadOptions, TextError, UserText};

use crate::corpus;
use crate::run::User;
use crate::scenario::Scenario;

/// The base that `nightshift-sim make-base` makes.
const BASE: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../base/config.json")),
    ("model.safetensors", include_bytes!("../base/model.safetensors")),
    ("tokenizer.json", include_bytes!("../base/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../base/tokenizer_config.json")),
];

/// Lines of the public sample that the adapter's frozen factors come from.
const PUBLIC_LINES: usize = 400;

/// People of the demonstration.
const DEVICES: usize = 64;

/// Writes the base that comes with the program into `folder`.
pub fn write_base(folder: &Path) -> Result<PathBuf, std::io::Error> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in BASE {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(folder.to_path_buf())
}

/// The scenario of the demonstration.
pub fn scenario(seed: u64) -> Scenario {
    Scenario {
        name: "demonstration".to_owned(),
        devices: DEVICES,
        versions: 6,
        method: Method::Core,
        rank: 4,
        alpha: 16.0,
        refresh: None,
        public_epochs: 1,
        projections: Projection::ALL.to_vec(),
        classes: Vec::new(),
        least_trainers: 2,
        training: TrainingPlan {
            local_steps: 3,
            batch_size: 4,
            sequence_len: 64,
            learning_rate: 3e-2,
            warmup_steps: 0,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        },
        server: ServerOptimizer::FedAvg { rate: 1.0 },
        mode: Mode::Distributed,
        noise_multiplier: 4.0,
        clip_norm: 0.5,
        adaptive_clip: false,
        delta: 1e-5,
        corrupt_permille: 50,
        vanishing: 2,
        seed,
    }
}

/// The people, each with text of their own.
pub fn users(base: &Base, scenario: &Scenario) -> Result<Vec<User>, TextError> {
    corpus::personas(scenario.seed, scenario.devices)
        .into_iter()
        .map(|persona| {
            let text = text_of(persona.lines(scenario.seed));
            Ok(User { corpus: Corpus::new(base, &text)?, name: persona.name })
        })
        .collect()
}

/// Text of the same kind that belongs to nobody.
pub fn public(seed: u64) -> UserText {
    text_of(public_lines(seed))
}

/// The lines of [`public`].
pub fn public_lines(seed: u64) -> Vec<String> {
    corpus::public_sample(seed, PUBLIC_LINES)
}

fn text_of(lines: Vec<String>) -> UserText {
    UserText::of(lines.into_iter().map(Document::Plain), &ReadOptions::default())
}
