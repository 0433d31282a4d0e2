//! Checkpoints: the state of a stopped training on disk, and hashes of what it depends on.
//!
//! A checkpoint is a safetensors file of f32 vectors, so that any tool can inspect it. Its metadata holds the
//! hashes of everything that the training depends on, and one of its own contents. Between two micro-batches of a
//! step it also holds the sums of those that are done; at the end of a step these entries are absent. Whoever stores it where
//! others could read it must seal it; the copies of its bytes that are made here are wiped.

use std::collections::{BTreeMap, HashMap};

use proto::ids::Digest;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use zeroize::Zeroizing;

use crate::backend::partial_step::PartialStep;
use crate::backend::setup::Setup;
use crate::model::batch::Sequence;
use crate::training::job::{Job, Trained};

const FORMAT: &str = "nightshift checkpoint v1";

/// The entries of a partial step: numbers in the metadata, and a vector.
const MICRO_BATCHES: &str = "partial.micro_batches";
const SEQUENCES: &str = "partial.sequences";
const LOSS: &str = "partial.loss";
const GRADIENT: &str = "partial.gradient";

/// Why a checkpoint cannot be resumed; training starts over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint, or not as it was written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// Of another training; names what differs.
    #[error("the checkpoint is of another {0}")]
    Foreign(&'static str),
}

/// Hashes of everything that a training depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject([(&'static str, Digest); 7]);

/// The state of a training after a micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    pub(crate) done: Trained,
    pub(crate) optimizer_step: u32,
    /// First and second moments of every parameter; empty where the optimizer has none.
    pub(crate) moments: [Vec<f32>; 2],
    /// RNG state: the words drawn so far, for whole steps, from the stream of the job's seed.
    pub(crate) rng_position: u128,
    /// The step after those of `done`.
    pub(crate) partial: PartialStep,
}

impl Subject {
    pub(crate) fn new(setup: Setup<'_>, job: &Job<'_>) -> Self {
        let Setup { base, folded_deltas, compute, .. } = setup;
        let numbers = |numbers: &[f32]| Digest::of(&bytes(numbers));
        let mut adapter = format!("{:?}", job.spec).into_bytes();
        adapter.extend(numbers(job.frozen).0);
        let mut version = numbers(job.start).0.to_vec();
        version.extend(format!("{:?}", folded_deltas.keys()).into_bytes());
        version.extend(folded_deltas.values().flat_map(|folded_delta| {
            numbers(folded_delta.a()).0.into_iter().chain(numbers(folded_delta.b()).0)
        }));
        let plan = format!("{:?} {:?}", job.plan, job.schedule);
        let mut text = Vec::new();
        for block in job.blocks.as_slice() {
            let sequence = Sequence::of(block);
            text.extend((sequence.tokens.len() as u64).to_le_bytes());
            text.extend(sequence.tokens.iter().flat_map(|token| token.to_le_bytes()));
            text.extend(sequence.learned.iter().map(|learned| u8::from(*learned)));
        }
        Self([
            ("base", base.digest()),
            // In another precision, or on another device, the rest would have other bits.
            ("arithmetic", Digest::of(compute.precision_in_checkpoint(base).as_bytes())),
            ("adapter", Digest::of(&adapter)),
            ("version", Digest::of(&version)),
            ("plan", Digest::of(plan.as_bytes())),
            ("text", Digest::of(&text)),
            ("seed", Digest::of(&job.seed)),
        ])
    }
}

impl Progress {
    /// Serializes to the bytes of a checkpoint file.
    pub(crate) fn write(&self, subject: &Subject) -> Result<Vec<u8>, CheckpointError> {
        let mut metadata: HashMap<String, String> = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("tokens".to_owned(), self.done.tokens.to_string()),
            ("examples".to_owned(), self.done.examples.to_string()),
            ("optimizer_step".to_owned(), self.optimizer_step.to_string()),
            ("rng_position".to_owned(), self.rng_position.to_string()),
        ]);
        if self.partial.is_begun() {
            metadata.insert(MICRO_BATCHES.to_owned(), self.partial.micro_batches.to_string());
            metadata.insert(SEQUENCES.to_owned(), self.partial.sequences.to_string());
            // Reads back as the same bits.
            metadata.insert(LOSS.to_owned(), self.partial.loss.to_string());
        }
        for (name, digest) in &subject.0 {
            metadata.insert((*name).to_owned(), digest.to_string());
        }
        let vectors = self.vectors().into_iter();
        let vectors: Vec<_> = vectors.map(|(name, numbers)| (name, numbers.len(), bytes(numbers))).collect();
        let contents = Digest::of(&contents(&metadata, vectors.iter().map(|(_, _, bytes)| bytes.as_slice())));
        metadata.insert("contents".to_owned(), contents.to_string());
        let damaged = |error: safetensors::SafeTensorError| CheckpointError::Damaged(error.to_string());
        let mut views = BTreeMap::new();
        for (name, len, bytes) in &vectors {
            let view = TensorView::new(safetensors::Dtype::F32, vec![*len], bytes).map_err(damaged)?;
            views.insert(*name, view);
        }
        safetensors::serialize(views, Some(metadata)).map_err(damaged)
    }

    fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        let mut vectors: Vec<(_, &[f32])> = vec![
            ("losses", &self.done.losses),
            ("moments.first", &self.moments[0]),
            ("moments.second", &self.moments[1]),
            ("parameters", &self.done.parameters),
        ];
        if self.partial.is_begun() {
            vectors.push((GRADIENT, &self.partial.gradient));
        }
        vectors
    }

    /// Reads a file of [`Self::write`]; fails if it is damaged or of another subject.
    pub(crate) fn read(file: &[u8], subject: &Subject) -> Result<Self, CheckpointError> {
        let damaged = |error: &dyn std::fmt::Display| CheckpointError::Damaged(error.to_string());
        let tensors = SafeTensors::deserialize(file).map_err(|error| damaged(&error))?;
        let (_, header) = SafeTensors::read_metadata(file).map_err(|error| damaged(&error))?;
        let Some(mut metadata) = header.metadata().clone() else {
            return Err(damaged(&"it says nothing of itself"));
        };
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(damaged(&format!("it is not of the format `{FORMAT}`")));
        }
        let vector = |name: &str| tensors.tensor(name).map_err(|error| damaged(&error));
        let is_partial = metadata.contains_key(MICRO_BATCHES);
        let mut names = vec!["losses", "moments.first", "moments.second", "parameters"];
        names.extend(is_partial.then_some(GRADIENT));
        let mut vectors = Vec::new();
        for name in names {
            let tensor = vector(name)?;
            if tensor.dtype() != safetensors::Dtype::F32 {
                return Err(damaged(&format!("`{name}` is not f32")));
            }
            vectors.push(Zeroizing::new(tensor.data().to_vec()));
        }
        let expected = metadata.remove("contents");
        let found = Digest::of(&contents(&metadata, vectors.iter().map(|vector| vector.as_slice())));
        if expected != Some(found.to_string()) {
            return Err(damaged(&"its contents are not those that were written"));
        }
        for (name, digest) in &subject.0 {
            if metadata.get(*name) != Some(&digest.to_string()) {
                return Err(CheckpointError::Foreign(name));
            }
        }
        let number = |name: &str| {
            metadata.get(name).and_then(|text| text.parse::<u128>().ok()).ok_or_else(|| damaged(&name))
        };
        let narrow = |name: &str| u32::try_from(number(name)?).map_err(|error| damaged(&error));
        let numbers = |bytes: &[u8]| {
            let (numbers, _) = bytes.as_chunks::<4>();
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>()
        };
        let partial = if is_partial {
            let loss = metadata.get(LOSS).and_then(|text| text.parse().ok());
            PartialStep {
                micro_batches: narrow(MICRO_BATCHES)?,
                sequences: usize::try_from(number(SEQUENCES)?).map_err(|error| damaged(&error))?,
                loss: loss.ok_or_else(|| damaged(&LOSS))?,
                gradient: numbers(&vectors[4]),
            }
        } else {
            PartialStep::default()
        };
        Ok(Self {
            done: Trained {
                parameters: numbers(&vectors[3]),
                losses: numbers(&vectors[0]),
                tokens: u64::try_from(number("tokens")?).map_err(|error| damaged(&error))?,
                examples: narrow("examples")?,
            },
            optimizer_step: narrow("optimizer_step")?,
            moments: [numbers(&vectors[1]), numbers(&vectors[2])],
            rng_position: number("rng_position")?,
            partial,
        })
    }
}

/// Values as little-endian bytes, allocated at full length, like [`contents`]: growing would leave a copy that
/// is not wiped.
fn bytes(numbers: &[f32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 * numbers.len()));
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The bytes that a checkpoint's own hash covers: its sorted metadata and its vectors.
fn contents<'a>(
    metadata: &HashMap<String, String>,
    vectors: impl Iterator<Item = &'a [u8]> + Clone,
) -> Zeroizing<Vec<u8>> {
    let sorted: BTreeMap<&String, &String> = metadata.iter().collect();
    let head = format!("{sorted:?}").into_bytes();
    let len = vectors.clone().map(|vector| vector.len() + 8).sum::<usize>() + head.len();
    let mut all = Zeroizing::new(Vec::with_capacity(len));
    all.extend(head);
    for vector in vectors {
        all.extend((vector.len() as u64).to_le_bytes());
        all.extend_from_slice(vector);
    }
    all
}
