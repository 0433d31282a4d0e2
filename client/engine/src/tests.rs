//! The engine as a whole: against PyTorch and PEFT, against finite differences, and against itself.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use proto::adapter::{AdapterSpec, Factors, Method, Slot};
use proto::ids::Digest;
use proto::training::{LocalOptimizer, TrainingPlan};

use crate::backend::executor::Executor;
use crate::backend::partial_step::PartialStep;
use crate::kernels::pool::Team;
use crate::lora::layout::AdapterLayout;
use crate::model::batch::Sequence;
use crate::model::kv_cache::LogitsFor;
use crate::training::optimizer::Optimizer;
use crate::*;

mod gemma;
mod pytorch;
mod resume;

/// The folder that `client/engine/tests/reference/make_reference.py` writes.
fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

fn engine() -> Engine {
    Engine::new(Arc::new(Base::open(&reference().join("base")).unwrap()))
}

fn spec(base: &Base, method: Method, rank: u32, alpha: f32) -> AdapterSpec {
    let modules = base.modules(&Projection::ALL);
    AdapterSpec { method, rank, alpha, factors: Factors::Seeded(Digest([4; 32])), modules }
}

/// Frozen factors and a trained vector of which no part is zero.
fn vectors(spec: &AdapterSpec) -> (Vec<f32>, Vec<f32>) {
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let trained = (0..spec.trained_len()).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
    (frozen, trained)
}

fn blocks(count: u32, length: u32) -> Blocks {
    let document = (0..=count * length).map(|i| (i * i * 7 + i / 3) % 61 + 3).collect();
    Blocks::new(&[document], 1, length)
}

fn plan() -> TrainingPlan {
    TrainingPlan {
        local_steps: 5,
        batch_size: 3,
        sequence_len: 12,
        learning_rate: 0.01,
        warmup_steps: 2,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: 0.01 },
    }
}

/// The loss of a batch and the trained vector's gradient.
fn gradient(
    engine: &Engine,
    spec: &AdapterSpec,
    (frozen, trained): (&[f32], &[f32]),
    batch: &[Vec<u32>],
) -> (f32, Vec<f32>) {
    let learned = vec![true; batch[0].len()];
    let batch: Vec<_> = batch.iter().map(|tokens| Sequence { tokens, learned: &learned }).collect();
    let places = AdapterLayout::new(engine.base(), spec).unwrap();
    let mut executor = Executor::new(engine.setup(), learned.len());
    let deltas = executor.deltas(&places, frozen, trained).unwrap();
    executor
        .gradient(&deltas, trained.len(), &batch, &mut PartialStep::default(), |_, _| true)
        .unwrap()
        .unwrap()
}

fn tokens(blocks: &Blocks) -> Vec<Vec<u32>> {
    blocks.as_slice().iter().map(|block| block.tokens().to_vec()).collect()
}

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_gradient_of_the_trained_vector_agrees_with_differences_for_every_method() {
    let engine = engine();
    let blocks = blocks(3, 12);
    let batch = tokens(&blocks);
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(engine.base(), method, 2, 6.0);
        let (frozen, trained) = vectors(&spec);
        let (_, gradient) = gradient(&engine, &spec, (&frozen, &trained), &batch);
        for direction in 0..12u32 {
            let way: Vec<f32> = (0..trained.len())
                .map(|i| ((i as f32 + 1.0) * (direction as f32 + 1.3) * 0.7).sin())
                .collect();
            let along = |by: f32| {
                let moved: Vec<f32> = trained.iter().zip(&way).map(|(x, w)| x + by * w).collect();
                engine.loss(&spec, &frozen, &moved, &blocks).unwrap().nats_per_token
            };
            let expected = (along(1e-3) - along(-1e-3)) / 2e-3;
            let found: f64 = gradient.iter().zip(&way).map(|(g, w)| f64::from(g * w)).sum();
            assert!(
                (found - expected).abs() < 5e-3 * (1.0 + expected.abs()),
                "{method:?} {direction}: {found}, by differences {expected}"
            );
        }
    }
}

#[test]
fn a_merged_adapter_is_the_same_function() {
    let engine = engine();
    let sequence: Vec<u32> = (0..10).map(|i| (i * i * 7 + 3) % 64).collect();
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(engine.base(), method, 3, 5.0);
        let (frozen, trained) = vectors(&spec);
        let (_dir, merged) = copy(|tensors, _| {
            for pair in spec.pairs(&frozen, &trained).unwrap() {
                let (inputs, outputs) = (pair.module.inputs as usize, pair.module.outputs as usize);
                let name = format!("{}.weight", pair.module.name);
                let mut weight = numbers(&tensors[&name]);
                for row in 0..outputs {
                    for column in 0..inputs {
                        let delta: f32 =
                            (0..3).map(|k| pair.b[row * 3 + k] * pair.a[k * inputs + column]).sum();
                        weight[row * inputs + column] += 5.0 / 3.0 * delta;
                    }
                }
                let weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu).unwrap();
                tensors.insert(name, weight);
            }
        });
        let together = Engine::new(Arc::new(merged.unwrap())).logits(&sequence).unwrap();
        let plain = engine.logits(&sequence).unwrap();
        // Twice: with the deltas in each product, and with effective weights computed once.
        for fold in [false, true] {
            let places = AdapterLayout::new(engine.base(), &spec).unwrap();
            let executor = Executor::new(engine.setup(), 10);
            let mut deltas = places.deltas(&frozen, &trained).unwrap();
            if fold {
                deltas.fold(engine.base().weights()).unwrap();
            }
            let decoder = executor.decoder(&deltas, Team::ALONE);
            let (mut space, mut cache) = Default::default();
            let apart = decoder.logits(&mut space, &mut cache, &sequence, LogitsFor::All).unwrap();
            let far = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(far(&apart, &together) < 1e-4, "{method:?}: {}", far(&apart, &together));
            assert!(far(&apart, &plain) > 1e-2, "{method:?}: the adapter changes nothing");
        }
    }
}

#[test]
fn every_way_to_compute_gives_the_same_gradient() {
    let base = Arc::clone(&Arc::new(Base::random(wide(), Filled::Bf16, 5).unwrap()));
    let spec = spec(&base, Method::Both, 2, 6.0);
    let trained: Vec<f32> = (0..spec.trained_len()).map(|i| 0.1 * (i as f32 * 1.7).sin()).collect();
    let batch: Vec<Vec<u32>> = (0..3).map(|b| (0..40).map(|i| (i * 13 + b * 7) % 96).collect()).collect();
    let with = |precision, recompute, threads| {
        let compute = Compute { threads, precision: Some(precision), recompute, ..Compute::default() };
        let engine = Engine::new(Arc::clone(&base)).with_compute(compute);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradient(&engine, &spec, (&[], &trained), &batch))
    };
    let (loss, expected) = with(Precision::F32, Recompute::Never, 1);
    let long = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for precision in [Precision::F32, Precision::fine(), Precision::fastest()] {
        let (_, first) = with(precision, Recompute::Never, 1);
        for recompute in [Recompute::Never, Recompute::Blocks] {
            for threads in [1, 2] {
                let (found_loss, found) = with(precision, recompute, threads);
                assert!((found_loss - loss).abs() < 1e-3, "{precision:?}: {found_loss} {loss}");
                let off: Vec<f32> = found.iter().zip(&expected).map(|(x, y)| x - y).collect();
                let relative = long(&off) / long(&expected);
                let allowed = allowed(precision, 1e-5);
                println!("{precision:?}: {relative:.1e}");
                assert!(relative < allowed, "{precision:?} {recompute:?} {threads}: {relative}");
                assert!(found == first, "{precision:?} {recompute:?} {threads}: other bits");
            }
        }
    }
}

/// Largest allowed relative error of a gradient.
fn allowed(precision: Precision, single: f64) -> f64 {
    match precision {
        Precision::F32 => single,
        Precision::Int16 => 5e-3,
        Precision::Int8 => 2e-2,
    }
}

/// A config too large for threads to take whole micro-batches.
fn wide() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 96,
        hidden_size: 256,
        intermediate_size: 1088,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        max_positions: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: true,
        gemma: None,
        bos: None,
        eos: Vec::new(),
    }
}

#[test]
fn only_learned_tokens_count() {
    let engine = engine();
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let trained: Vec<f32> = (0..spec.trained_len()).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
    let tokens: Vec<u32> = (0..12).map(|i| (i * 5 + 3) % 64).collect();
    let places = AdapterLayout::new(engine.base(), &spec).unwrap();
    let mut executor = Executor::new(engine.setup(), 12);
    let deltas = executor.deltas(&places, &[], &trained).unwrap();
    let mut run = |learned: &[bool]| {
        let batch = [Sequence { tokens: &tokens, learned }];
        executor
            .gradient(&deltas, trained.len(), &batch, &mut PartialStep::default(), |_, _| true)
            .unwrap()
            .unwrap()
    };
    // The loss over all target tokens is the mean of the losses over each.
    let (all_loss, all) = run(&[true; 12]);
    let mut losses = 0.0;
    let mut sum = vec![0.0; all.len()];
    for at in 1..12 {
        let learned: Vec<bool> = (0..12).map(|i| i == at).collect();
        let (loss, gradient) = run(&learned);
        losses += loss / 11.0;
        sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g / 11.0);
    }
    assert!((losses - all_loss).abs() < 1e-5, "{losses} {all_loss}");
    let far = sum.iter().zip(&all).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{far}");
}

#[test]
fn a_text_that_is_read_on_gets_the_logits_of_the_whole() {
    let engine = engine();
    let tokens: Vec<u32> = (0..9).map(|i| (i * 11 + 5) % 64).collect();
    let whole = engine.logits(&tokens).unwrap();
    let mut seen = Vec::new();
    let mut at = 4;
    let written = engine.generate(None, &tokens[..4], 5, |logits| {
        seen.extend_from_slice(logits);
        let next = tokens.get(at).copied();
        at += 1;
        next
    });
    assert_eq!(written.unwrap(), tokens[4..]);
    let far = seen.iter().zip(&whole[3 * 64..]).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(seen.len() == 5 * 64 && far < 1e-4, "{far}");
}

#[test]
fn training_lowers_the_loss_and_leaves_the_base_as_it_was() {
    let engine = engine();
    let blocks = blocks(3, 12);
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(engine.base(), method, 2, 6.0);
        let frozen = spec.seeded_factors(&Digest([4; 32]));
        let start = spec.initial(&Digest([4; 32]), None);
        let before = engine.loss(&spec, &frozen, &start, &blocks).unwrap();
        let trained = engine.train(&spec, &frozen, &start, &blocks, &plan(), [1; 32], &mut go_on).unwrap();
        let after = engine.loss(&spec, &frozen, &trained.parameters, &blocks).unwrap();
        assert!(after.nats_per_token < before.nats_per_token, "{method:?}: {before:?} {after:?}");
        assert_eq!((before.tokens, trained.tokens, trained.losses.len()), (33, 5 * 33, 5));
        assert_eq!(engine.loss(&spec, &frozen, &start, &blocks).unwrap(), before, "{method:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_however_many_train_at_once() {
    let engine = engine();
    let blocks = blocks(6, 12);
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let start = spec.initial(&Digest([4; 32]), None);
    let train = |seed: u8| {
        let trained = engine.train(&spec, &[], &start, &blocks, &plan(), [seed; 32], &mut go_on).unwrap();
        trained.parameters.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let alone = train(1);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (first, second) = pool.install(|| rayon::join(|| train(1), || train(1)));
        assert!(first == alone && second == alone, "{threads} threads");
    }
    assert_ne!(train(2), alone);
}

#[test]
fn a_training_stops_where_it_is_told_to() {
    let engine = engine();
    let spec = spec(engine.base(), Method::Both, 2, 6.0);
    let start = spec.initial(&Digest([4; 32]), None);
    let mut heard = Vec::new();
    let mut progress = |step: Step| {
        heard.push(step.step);
        if step.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error =
        engine.train(&spec, &[], &start, &blocks(3, 12), &plan(), [1; 32], &mut progress).unwrap_err();
    assert!(matches!(error, TrainError::Stopped { steps: 2 }), "{error}");
    assert_eq!(heard, [1, 2]);
}

#[test]
fn gradient_factors_are_orthonormal_and_repeatable() {
    let engine = engine();
    let spec = spec(engine.base(), Method::Core, 2, 4.0);
    let factors = engine.gradient_factors(&spec, &blocks(4, 12), [1; 32]).unwrap();
    spec.check_frozen(&factors).unwrap();
    assert_eq!(factors, engine.gradient_factors(&spec, &blocks(4, 12), [1; 32]).unwrap());
    for slots in spec.slots() {
        let (Slot::Frozen(a), Slot::Frozen(b)) = (slots.a, slots.b) else {
            panic!("both factors are frozen")
        };
        let (a, b) = (&factors[a], &factors[b]);
        let inputs = slots.module.inputs as usize;
        let across: f32 = (0..inputs).map(|i| a[i] * a[inputs + i]).sum();
        let long: f32 = b.chunks(2).map(|row| row[0] * row[0]).sum();
        assert!(across.abs() < 1e-5 && (long - 1.0).abs() < 1e-5, "{}", slots.module.name);
    }
}

#[test]
fn an_adapter_or_text_that_does_not_fit_the_base_is_refused_by_name() {
    let engine = engine();
    let good = spec(engine.base(), Method::Both, 2, 6.0);
    let start = good.initial(&Digest([4; 32]), None);
    let fail = |delta: &dyn Fn(&mut AdapterSpec), blocks: &Blocks| {
        let mut spec = good.clone();
        delta(&mut spec);
        engine.train(&spec, &[], &start, blocks, &plan(), [1; 32], &mut go_on).unwrap_err().to_string()
    };
    let fine = blocks(3, 12);
    assert_eq!(
        fail(&|spec| spec.modules[1].name = "model.x".into(), &fine),
        "the base has no layer `model.x`"
    );
    assert_eq!(
        fail(&|spec| spec.modules[1] = spec.modules[0].clone(), &fine),
        "the adapter names `model.layers.0.self_attn.q_proj` twice"
    );
    assert_eq!(
        fail(&|spec| spec.modules[0].inputs = 15, &fine),
        "the base's `model.layers.0.self_attn.q_proj` is (16, 16) (outputs, inputs), the adapter's (16, 15)"
    );
    assert_eq!(fail(&|_| (), &Blocks::default()), "there is no text of two tokens or more");
    assert_eq!(fail(&|_| (), &blocks(1, 33)), "a block has 33 tokens, the base reads at most 32");
    let strange = Blocks::new(&[vec![5, 64]], 1, 8);
    assert_eq!(fail(&|_| (), &strange), "token 64 is not below the base's vocabulary of 64");
    let short = engine.train(&good, &[], &start[1..], &fine, &plan(), [1; 32], &mut go_on).unwrap_err();
    assert!(short.to_string().starts_with("the trained parameters of this adapter are"), "{short}");
}

/// A copy of the reference base to change.
fn copy(
    delta: impl Fn(&mut BTreeMap<String, Tensor>, &Path),
) -> (tempfile::TempDir, Result<Base, BaseError>) {
    let (from, to) = (reference().join("base"), tempfile::tempdir().unwrap());
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    let tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    delta(&mut tensors, to.path());
    if !tensors.is_empty() {
        write(&to.path().join("model.safetensors"), &tensors);
    }
    let base = Base::open(to.path());
    (to, base)
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// The error of opening a changed folder, without the folder's path.
fn complaint(delta: impl Fn(&mut BTreeMap<String, Tensor>, &Path)) -> String {
    let (dir, base) = copy(delta);
    base.unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_folder_that_is_no_base_is_refused_by_file_and_tensor() {
    let missing = |name: &'static str| {
        complaint(move |tensors, dir| {
            if name == "model.safetensors" {
                tensors.clear();
            } else {
                std::fs::remove_file(dir.join(name)).unwrap();
            }
        })
    };
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let said = missing(name);
        assert!(said.starts_with(&format!("cannot read {name}: ")), "{said}");
    }
    let damaged = complaint(|tensors, dir| {
        tensors.clear();
        std::fs::write(dir.join("model.safetensors"), b"not a header").unwrap();
    });
    assert!(damaged.starts_with("model.safetensors is damaged: "), "{damaged}");
    let absent = complaint(|tensors, _| {
        tensors.remove("model.layers.1.mlp.up_proj.weight");
    });
    assert_eq!(absent, "model.safetensors has no tensor `model.layers.1.mlp.up_proj.weight`");
    let shape = complaint(|tensors, _| {
        let norm = Tensor::zeros(15, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert("model.norm.weight".into(), norm);
    });
    assert_eq!(shape, "model.safetensors: tensor `model.norm.weight` must be [16], found [15]");
    let dtype = complaint(|tensors, _| {
        let norm = Tensor::zeros(16, candle_core::DType::F64, &Device::Cpu).unwrap();
        tensors.insert("model.norm.weight".into(), norm);
    });
    assert_eq!(dtype, "model.safetensors: tensor `model.norm.weight` must be F32, F16 or BF16, found F64");
    let other = complaint(|_, dir| {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("LlamaForCausalLM", "GPT2LMHeadModel");
        std::fs::write(path, text).unwrap();
    });
    assert!(other.starts_with("config.json: unknown architecture `GPT2LMHeadModel`"), "{other}");
    let tokenizer = complaint(|_, dir| std::fs::write(dir.join("tokenizer.json"), "{}").unwrap());
    assert!(tokenizer.starts_with("tokenizer.json: "), "{tokenizer}");
    let outside = complaint(|tensors, dir| {
        tensors.clear();
        let index = r#"{"weight_map": {"model.norm.weight": "../secret.safetensors"}}"#;
        std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    });
    assert!(outside.contains("`../secret.safetensors` is not the name of a file"), "{outside}");
}

#[test]
fn shards_and_half_precision_are_read_like_one_file() {
    let one = engine();
    let (_dir, sharded) = copy(|tensors, dir| {
        let mut second = tensors.split_off("model.layers.1");
        let map: BTreeMap<&String, &str> = tensors
            .keys()
            .map(|name| (name, "a.safetensors"))
            .chain(second.keys().map(|name| (name, "b.safetensors")))
            .collect();
        let index = serde_json::json!({ "weight_map": map });
        std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        write(&dir.join("a.safetensors"), tensors);
        write(&dir.join("b.safetensors"), &second);
        second.clear();
        tensors.clear();
    });
    let (_dir, half) = copy(|tensors, _| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(candle_core::DType::BF16).unwrap();
        }
    });
    let spec = spec(one.base(), Method::Both, 2, 6.0);
    let start = spec.initial(&Digest([4; 32]), None);
    let (sharded, half) = (Engine::new(Arc::new(sharded.unwrap())), Engine::new(Arc::new(half.unwrap())));
    let loss = |engine: &Engine| engine.loss(&spec, &[], &start, &blocks(3, 12)).unwrap().nats_per_token;
    assert_eq!(loss(&one).to_bits(), loss(&sharded).to_bits());
    assert!((loss(&one) - loss(&half)).abs() < 0.05, "{} {}", loss(&one), loss(&half));
    assert_ne!(one.base().digest(), sharded.base().digest());
    assert_eq!(one.base().digest(), engine().base().digest());
}

#[test]
fn a_projection_reads_back_from_its_names() {
    for projection in Projection::ALL {
        assert_eq!(projection.to_string().parse(), Ok(projection));
    }
    assert_eq!("q".parse(), Ok(Projection::Q));
    assert!(
        "w_proj".parse::<Projection>().unwrap_err().to_string().starts_with("unknown projection `w_proj`")
    );
}
