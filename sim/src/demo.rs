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
use crate::inputs::User;
use crate::scenario::Scenario;

/// The base that `nightshift-sim make-base` makes.
const BASE: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../base/config.json")),
    ("model.safetensors", include_bytes!("../base/model.safetensors")),
    ("tokenizer.json", include_bytes!("../base/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../base/tokenizer_config.json")),
];

/// Lines of the public sample: what the base was made from beside general text, and what can be had without people.
const PUBLIC_LINES: usize = 24_000;

/// The seed of the public sample, which is one and the same whatever a run's seed is.
const PUBLIC_SEED: u64 = 1;

/// People of the demonstration.
const DEVICES: usize = 300;

/// People who take no part.
const NEWCOMERS: usize = 32;

/// Lines of each of them.
const NEWCOMER_LINES: usize = 40;

/// What is written on before and after.
const PROMPTS: [&str; 6] =
    ["did you see", "meet me at", "the mossgate", "lime", "vexford", "see you at glimfest"];

/// Writes the base that comes with the program into `folder`.
pub fn write_base(folder: &Path) -> Result<PathBuf, std::io::Error> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in BASE {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(folder.to_path_buf())
}

/// The scenario of the demonstration, in which it differs from the defaults of [`planning::PlanOptions`]: hundreds of people
/// with little text each, a base of half a million parameters, and noise that was chosen for both (`sim/DEMONSTRATION.md`).
/// What is not said here it says in [`Scenario::terms`].
pub fn scenario(seed: u64) -> Scenario {
    Scenario {
        name: "demonstration".to_owned(),
        devices: DEVICES,
        versions: 4,
        method: Method::Core,
        rank: 8,
        alpha: 16.0,
        refresh: None,
        public_epochs: 1,
        projections: Projection::ALL.to_vec(),
        classes: Vec::new(),
        least_trainers: 2,
        training: TrainingPlan {
            local_steps: 2,
            batch_size: 4,
            sequence_len: 64,
            learning_rate: 3e-2,
            warmup_steps: 0,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        },
        server: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
        mode: Mode::Distributed,
        noise_multiplier: 3.05,
        clip_norm: 1.0,
        adaptive_clip: false,
        delta: 1e-5,
        corrupt_permille: 50,
        vanishing: 2,
        newcomers: NEWCOMERS,
        stop_when_flat: true,
        yardsticks: true,
        prompts: PROMPTS.map(str::to_owned).to_vec(),
        seed,
        terms: None,
    }
}

/// The people, each with text of their own.
pub fn users(base: &Base, scenario: &Scenario) -> Result<Vec<User>, TextError> {
    let people = corpus::personas(scenario.seed, scenario.devices).into_iter();
    people.map(|persona| user(base, persona.lines(scenario.seed), persona.name)).collect()
}

/// People who take no part: those who would come next.
pub fn newcomers(base: &Base, scenario: &Scenario) -> Result<Vec<User>, TextError> {
    let everybody = corpus::personas(scenario.seed, scenario.devices + scenario.newcomers);
    let people = everybody.into_iter().skip(scenario.devices);
    people
        .map(|persona| {
            let lines = persona.lines(scenario.seed).into_iter().take(NEWCOMER_LINES).collect();
            user(base, lines, persona.name)
        })
        .collect()
}

fn user(base: &Base, lines: Vec<String>, name: String) -> Result<User, TextError> {
    Ok(User { corpus: Corpus::new(base, &text_of(lines))?, name })
}

/// Text of the same kind that belongs to nobody.
pub fn public() -> UserText {
    text_of(public_lines())
}

/// The lines of [`public`].
pub fn public_lines() -> Vec<String> {
    corpus::public_sample(PUBLIC_SEED, PUBLIC_LINES)
}

fn text_of(lines: Vec<String>) -> UserText {
    UserText::of(lines.into_iter().map(Document::Plain), &ReadOptions::default())
}
