//! Pretraining of a small base from scratch: a byte-level BPE tokenizer and all weights of a decoder, from
//! given text.
//!
//! Used once to make a base that a simulation can adapt; devices never do this. Start reading at [`pretrain`].

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use proto::training::{LocalOptimizer, TrainingPlan};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use safetensors::tensor::TensorView;
use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::TrainError;
use crate::kernels::error::ShapeError;
use crate::kernels::matmul::Precision;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::narrow;
use crate::kernels::pool::Team;
use crate::model::batch::Sequence;
use crate::model::compute::Recompute;
use crate::model::config::{ConfigError, DecoderConfig, RopeScaling, Ropes};
use crate::model::decoder::Decoder;
use crate::model::delta::LoraDeltas;
use crate::model::gradient_target::{GradientTarget, Rest, WeightGradients};
use crate::model::projection::Projection;
use crate::model::sample::below;
use crate::model::weights::{Read, Weights, tensor_shapes};
use crate::model::workspace::Workspace;
use crate::training::job::Step;
use crate::training::optimizer::{Optimizer, Schedule};
use crate::training::threads::on_threads;

const BOS: &str = "<s>";
const EOS: &str = "</s>";

/// Settings of a pretraining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainOptions {
    /// Optimizer steps.
    pub steps: u32,
    /// Sequences per step.
    pub batch_size: u32,
    /// Tokens per sequence.
    pub sequence_len: u32,
    /// Peak learning rate; a cosine schedule takes it down to a tenth.
    pub learning_rate: f64,
    /// Warmup steps, over which the learning rate rises from zero.
    pub warmup_steps: u32,
    /// Weight decay of AdamW, which is multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for PretrainOptions {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch_size: 8,
            sequence_len: 128,
            learning_rate: 3e-3,
            warmup_steps: 100,
            weight_decay: 0.01,
        }
    }
}

/// Why a base could not be pretrained.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The decoder's config is invalid, or has a setting that cannot be pretrained.
    #[error(transparent)]
    Shape(#[from] ConfigError),
    /// The text does not fill one sequence.
    #[error("the text has {found} tokens, one sequence needs {needed}")]
    TooLittleText {
        /// Tokens in the text.
        found: usize,
        /// Tokens of a sequence.
        needed: usize,
    },
    /// The tokenizer could not be trained.
    #[error("cannot make a tokenizer: {0}")]
    Tokenizer(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Training failed or was stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Trains a tokenizer and a decoder of `shape` on `docs`, and writes them to `out` as a Hugging Face folder
/// with weights in bf16. Returns the mean loss of each step's batch, before the update. Fails as the variants
/// of [`PretrainError`] say.
///
/// `shape.vocab_size` is the tokenizer's target size; little text gives fewer tokens, and `config.json` says
/// how many. The same arguments give the same files on one machine.
pub fn pretrain(
    shape: &DecoderConfig,
    docs: &[String],
    out: &Path,
    seed: u64,
    options: &PretrainOptions,
    progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<Vec<f32>, PretrainError> {
    shape.check()?;
    if shape.qkv_bias || shape.output_bias {
        return Err(ConfigError::Unsupported { name: "attention_bias", found: "true".to_owned() }.into());
    }
    if shape.qk_norm {
        return Err(ConfigError::Unsupported { name: "qk_norm", found: "true".to_owned() }.into());
    }
    if shape.gemma.is_some() {
        return Err(ConfigError::Unsupported { name: "model_type", found: "gemma3_text".to_owned() }.into());
    }
    if shape.rope_scaling != RopeScaling::None {
        let found = format!("{:?}", shape.rope_scaling);
        return Err(ConfigError::Unsupported { name: "rope_scaling", found }.into());
    }
    let tokenizer = train_tokenizer(docs, shape.vocab_size).map_err(PretrainError::Tokenizer)?;
    let mut config = shape.clone();
    config.vocab_size = tokenizer.get_vocab_size(true);
    config.bos = tokenizer.token_to_id(BOS);
    let mut ids = Vec::new();
    for doc in docs {
        let encoding = tokenizer
            .encode_fast(doc.as_str(), false)
            .map_err(|e| PretrainError::Tokenizer(e.to_string()))?;
        ids.extend(config.bos);
        ids.extend_from_slice(encoding.get_ids());
    }
    let length = options.sequence_len as usize;
    if ids.len() < length || length < 2 {
        return Err(PretrainError::TooLittleText { found: ids.len(), needed: length.max(2) });
    }
    if length > config.max_positions {
        return Err(TrainError::TooLong { found: length, most: config.max_positions }.into());
    }
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let layout = Layout::new(&config);
    let mut parameters = layout.initial(&config, &mut rng);
    let losses = on_threads(1, progress, |report| {
        train(&config, &layout, &mut parameters, &ids, options, &mut rng, report)
    })?;
    write_folder(out, &config, &tokenizer, &layout, &parameters)?;
    Ok(losses)
}

fn train(
    config: &DecoderConfig,
    layout: &Layout,
    parameters: &mut [f32],
    ids: &[u32],
    options: &PretrainOptions,
    rng: &mut ChaCha20Rng,
    report: &mut (dyn FnMut(Step) -> ControlFlow<()> + Send),
) -> Result<Vec<f32>, TrainError> {
    let plan = TrainingPlan {
        local_steps: options.steps,
        batch_size: options.batch_size,
        sequence_len: options.sequence_len,
        learning_rate: options.learning_rate,
        warmup_steps: options.warmup_steps,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: options.weight_decay },
    };
    plan.check()?;
    let length = options.sequence_len as usize;
    let schedule = Schedule::Cosine { floor: 0.1 };
    let mut optimizer = Optimizer::new(&plan, parameters.len()).with_schedule(schedule);
    let (mut losses, mut tokens) = (Vec::new(), 0);
    let (ropes, mut space) = (config.ropes(length), Workspace::default());
    let learned = vec![true; length];
    for step in 1..=options.steps {
        let batch: Vec<Sequence<'_>> = (0..options.batch_size)
            .map(|_| {
                let from = below(rng, ids.len() - length + 1);
                Sequence { tokens: &ids[from..from + length], learned: &learned }
            })
            .collect();
        let (loss, mut gradient) = layout.gradient(config, &ropes, &mut space, parameters, &batch)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, what: "loss" });
        }
        optimizer.step(parameters, &mut gradient).map_err(|what| TrainError::Diverged { step, what })?;
        losses.push(loss);
        tokens += u64::from(options.batch_size) * u64::from(options.sequence_len - 1);
        let said = Step { step, of: options.steps, micro_batch: 1, micro_batches: 1, loss, tokens };
        if report(said).is_break() {
            return Err(TrainError::Stopped { steps: step });
        }
    }
    Ok(losses)
}

/// Where each tensor is in the flat vector of all weights.
struct Layout {
    tensors: Vec<(String, Vec<usize>, Range<usize>)>,
    len: usize,
}

impl Layout {
    fn new(config: &DecoderConfig) -> Self {
        let mut len = 0;
        let tensors = tensor_shapes(config)
            .into_iter()
            .map(|(name, shape)| {
                let from = len;
                len += shape.iter().product::<usize>();
                (name, shape, from..len)
            })
            .collect();
        Self { tensors, len }
    }

    /// Initial weights: norms are 1; matrices are nearly normal, with deviation `0.5 / √inputs` in blocks and
    /// 0.02 in embedding and LM head. Those that write to the residual stream are divided by `√(2 · layers)`.
    fn initial(&self, config: &DecoderConfig, rng: &mut ChaCha20Rng) -> Vec<f32> {
        let mut parameters = vec![1.0; self.len];
        for (name, shape, range) in &self.tensors {
            let [_, inputs] = shape.as_slice() else { continue };
            let deviation = if name.contains("layers") { 0.5 / (*inputs as f32).sqrt() } else { 0.02 };
            let writes = name.contains("o_proj") || name.contains("down_proj");
            let depth = if writes { (2.0 * config.num_layers as f32).sqrt() } else { 1.0 };
            for x in &mut parameters[range.clone()] {
                let uniform = |rng: &mut ChaCha20Rng| rng.next_u32() as f32 / 4_294_967_296.0;
                // The sum of twelve uniform values, centered, has variance 1.
                let bell = (0..12).map(|_| uniform(rng)).sum::<f32>() - 6.0;
                *x = bell * deviation / depth;
            }
        }
        parameters
    }

    /// The batch's mean loss per target token, and its gradient with respect to every weight.
    fn gradient(
        &self,
        config: &DecoderConfig,
        ropes: &Ropes,
        space: &mut Workspace,
        parameters: &[f32],
        batch: &[Sequence<'_>],
    ) -> Result<(f32, Vec<f32>), ShapeError> {
        let mut tensors = BTreeMap::new();
        for (name, shape, range) in &self.tensors {
            let numbers = parameters[range.clone()].to_vec();
            let read = match *shape.as_slice() {
                [rows, columns] => Read::Matrix(Matrix::new(rows, columns, Numbers::F32(numbers))?),
                _ => Read::Vector(numbers),
            };
            tensors.insert(name.clone(), read);
        }
        let weights = Weights::new(config, tensors).map_err(ShapeError::new)?;
        let deltas = LoraDeltas::default();
        let decoder = Decoder {
            config,
            weights: &weights,
            deltas: &deltas,
            ropes,
            precision: Precision::F32,
            team: Team::ALONE,
            recompute: Recompute::Never,
        };
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let norms = || [vec![0.0; hidden], vec![0.0; hidden]];
        let mut gradients = WeightGradients {
            linears: BTreeMap::new(),
            rest: Some(Rest {
                embed: vec![0.0; vocab * hidden],
                head: (!config.tied).then(|| vec![0.0; vocab * hidden]),
                norm: vec![0.0; hidden],
                norms: (0..config.num_layers).map(|_| norms()).collect(),
            }),
        };
        for layer in 0..config.num_layers {
            for projection in Projection::ALL {
                let (outputs, inputs) = projection.shape(config);
                gradients.linears.insert((layer, projection), vec![0.0; outputs * inputs]);
            }
        }
        let targets: usize = batch.iter().map(Sequence::targets).sum();
        let share = 1.0 / targets.max(1) as f32;
        let total = decoder.gradient(space, batch, share, GradientTarget::Weights(&mut gradients))?;
        Ok((narrow(total / targets.max(1) as f64), self.gather(gradients)))
    }

    /// All gradients as one vector, in this layout.
    fn gather(&self, gradients: WeightGradients) -> Vec<f32> {
        let mut by_name = BTreeMap::new();
        for ((layer, projection), gradient) in gradients.linears {
            by_name.insert(format!("{}.weight", projection.name(layer)), gradient);
        }
        if let Some(Rest { embed, head, norm, norms }) = gradients.rest {
            by_name.insert("model.embed_tokens.weight".to_owned(), embed);
            by_name.extend(head.map(|head| ("lm_head.weight".to_owned(), head)));
            by_name.insert("model.norm.weight".to_owned(), norm);
            for (layer, [input, post]) in norms.into_iter().enumerate() {
                by_name.insert(format!("model.layers.{layer}.input_layernorm.weight"), input);
                by_name.insert(format!("model.layers.{layer}.post_attention_layernorm.weight"), post);
            }
        }
        let mut all = vec![0.0; self.len];
        for (name, _, range) in &self.tensors {
            if let Some(gradient) = by_name.get(name) {
                all[range.clone()].copy_from_slice(gradient);
            }
        }
        all
    }
}

fn train_tokenizer(docs: &[String], vocab_size: usize) -> Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let special = [BOS, EOS].map(|token| AddedToken::from(token, true)).to_vec();
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer: TrainerWrapper = trainer.into();
    tokenizer.train(&mut trainer, docs.iter()).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

fn write_folder(
    out: &Path,
    config: &DecoderConfig,
    tokenizer: &Tokenizer,
    layout: &Layout,
    parameters: &[f32],
) -> Result<(), PretrainError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| PretrainError::Write { path, source }
    };
    std::fs::create_dir_all(out).map_err(fail(out))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, bytes).map_err(fail(&path))
    };
    let settings = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": config.bos,
        "eos_token_id": tokenizer.token_to_id(EOS),
        "torch_dtype": "bfloat16",
    });
    write("config.json", format!("{settings:#}\n").as_bytes())?;
    let names = json!({
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": config.max_positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    write("tokenizer_config.json", format!("{names:#}\n").as_bytes())?;
    let vocabulary =
        tokenizer.to_string(false).map_err(|error| PretrainError::Tokenizer(error.to_string()))?;
    write("tokenizer.json", vocabulary.as_bytes())?;
    write(
        "model.safetensors",
        &weights_file(layout, parameters).map_err(fail(&out.join("model.safetensors")))?,
    )
}

fn weights_file(layout: &Layout, parameters: &[f32]) -> std::io::Result<Vec<u8>> {
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = layout
        .tensors
        .iter()
        .map(|(name, shape, range)| {
            let bytes = parameters[range.clone()].iter().flat_map(|x| bf16(*x).to_le_bytes()).collect();
            (name.as_str(), shape.as_slice(), bytes)
        })
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for (name, shape, bytes) in &bytes {
        let view = TensorView::new(safetensors::Dtype::BF16, shape.to_vec(), bytes);
        views.push((*name, view.map_err(std::io::Error::other)?));
    }
    // Loaders such as transformers require this entry.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(about)).map_err(std::io::Error::other)
}

/// The nearest bf16, ties to even, of a finite number.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    u16::try_from(rounded).unwrap_or(u16::MAX) // Sixteen bits are left.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Base;
    use crate::model::blocks::Blocks;

    fn shape() -> DecoderConfig {
        DecoderConfig {
            vocab_size: 300,
            hidden_size: 16,
            intermediate_size: 24,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 4,
            max_positions: 32,
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

    fn docs() -> Vec<String> {
        (0..40).map(|i| format!("the {} cat sat on the {} mat; so it goes\n", i % 7, i % 5)).collect()
    }

    fn options() -> PretrainOptions {
        PretrainOptions {
            steps: 60,
            batch_size: 4,
            sequence_len: 16,
            learning_rate: 0.02,
            warmup_steps: 5,
            weight_decay: 0.01,
        }
    }

    fn go_on(_: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_base_is_made_from_text_and_opens() {
        let dir = tempfile::tempdir().unwrap();
        let losses = pretrain(&shape(), &docs(), dir.path(), 1, &options(), &mut go_on).unwrap();
        assert!(losses[0] > 5.0 && losses[59] < losses[0] - 2.0, "{} {}", losses[0], losses[59]);
        let base = Base::open(dir.path()).unwrap();
        assert!(base.config().vocab_size <= 300);
        let ids = base.encode("the cat, ünknown").unwrap();
        assert!(!ids.is_empty() && !ids.contains(&base.bos()));
        assert_eq!(Blocks::new(&[ids], base.bos(), 32).len(), 1);
    }

    #[test]
    fn the_same_seed_makes_the_same_base() {
        let made = |seed| {
            let dir = tempfile::tempdir().unwrap();
            let short = PretrainOptions { steps: 3, ..options() };
            pretrain(&shape(), &docs(), dir.path(), seed, &short, &mut go_on).unwrap();
            Base::open(dir.path()).unwrap().digest()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn the_gradient_of_every_weight_agrees_with_differences() {
        let config = DecoderConfig { vocab_size: 12, num_layers: 1, tied: false, ..shape() };
        let layout = Layout::new(&config);
        let parameters = layout.initial(&config, &mut ChaCha20Rng::seed_from_u64(3));
        let learned = [true; 5];
        let tokens = [[1, 5, 3, 9, 2], [4, 4, 11, 0, 7]];
        let batch = [0, 1].map(|i: usize| Sequence { tokens: &tokens[i], learned: &learned });
        let (ropes, mut space) = (config.ropes(5), Workspace::default());
        let (_, gradient) = layout.gradient(&config, &ropes, &mut space, &parameters, &batch).unwrap();
        for (name, _, range) in &layout.tensors {
            let mut along = |by: f32| {
                let mut moved = parameters.clone();
                for i in range.clone() {
                    moved[i] += by * (i as f32 * 1.3).sin();
                }
                f64::from(layout.gradient(&config, &ropes, &mut space, &moved, &batch).unwrap().0)
            };
            let expected = (along(2e-3) - along(-2e-3)) / 4e-3;
            let found: f64 = range.clone().map(|i| f64::from(gradient[i] * (i as f32 * 1.3).sin())).sum();
            assert!((found - expected).abs() < 1e-3 + 1e-2 * expected.abs(), "{name}: {found} {expected}");
        }
    }

    #[test]
    fn too_little_text_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let error = pretrain(&shape(), &["a".to_owned()], dir.path(), 1, &options(), &mut go_on).unwrap_err();
        assert_eq!(error.to_string(), "the text has 2 tokens, one sequence needs 16");
    }

    #[test]
    fn rounding_to_half_width_is_to_nearest() {
        for x in [1.0f32, -0.3, 3.3, 1e-20, 65_504.0] {
            let backward = f32::from_bits(u32::from(bf16(x)) << 16);
            assert!(((backward - x) / x).abs() <= 1.0 / 256.0, "{x} {backward}");
        }
    }
}
