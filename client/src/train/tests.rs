//! The engine as a whole: against PyTorch and PEFT, against differences, and against itself.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use proto::adapter::{AdapterSpec, Factors, Method, Slot};
use proto::ids::Digest;
use proto::training::{LocalOptimizer, TrainingPlan};

use super::decoder::{Changes, Pass, Weights};
use super::places::Places;
use super::*;

/// The folder that `client/tests/reference/make_reference.py` writes.
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

/// Factors and a trained vector of which no part is zero.
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

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn loss_and_gradients_agree_with_pytorch_and_peft() {
    let engine = engine();
    let tensors =
        candle_core::safetensors::load(reference().join("reference.safetensors"), &Device::Cpu).unwrap();
    let spec = spec(engine.base(), Method::Both, 3, 5.0);
    let mut trained = vec![0.0; spec.trained_len()];
    let mut expected: Vec<(String, std::ops::Range<usize>, Vec<f32>)> = Vec::new();
    for slots in spec.slots() {
        for (factor, slot) in [("a", slots.a), ("b", slots.b)] {
            let Slot::Trained(range) = slot else { panic!("both factors are trained") };
            let name = format!("{factor}.{}", slots.module.name);
            trained[range.clone()].copy_from_slice(&numbers(&tensors[&name]));
            let gradient = numbers(&tensors[&format!("d{name}")]);
            expected.push((name, range, gradient));
        }
    }
    let tokens: Vec<Vec<f32>> = tensors["tokens"].to_vec2().unwrap();
    let batch: Vec<Vec<u32>> = tokens
        .iter()
        .map(|row| {
            row.iter().map(|x| (0..64).find(|&id| f64::from(id) + 0.5 > f64::from(*x)).unwrap()).collect()
        })
        .collect();
    let batch: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
    let (loss, gradient) =
        engine.gradient(&mut Places::new(engine.base(), &spec).unwrap(), &[], &trained, &batch).unwrap();
    let peft = tensors["loss"].to_scalar::<f32>().unwrap();
    assert!((loss - peft).abs() < 1e-5, "{loss}, PEFT {peft}");
    assert_eq!(expected.len(), 28);
    for (name, range, expected) in expected {
        let length = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let off: Vec<f32> = gradient[range].iter().zip(&expected).map(|(x, y)| x - y).collect();
        let relative = length(&off) / length(&expected);
        assert!(relative < 1e-4, "{name}: off by {relative:.1e}");
    }
}

#[test]
fn the_gradient_of_the_trained_vector_agrees_with_differences_for_every_method() {
    let engine = engine();
    let blocks = blocks(3, 12);
    let batch: Vec<&[u32]> = blocks.as_slice().iter().map(Vec::as_slice).collect();
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(engine.base(), method, 2, 6.0);
        let (frozen, trained) = vectors(&spec);
        let mut places = Places::new(engine.base(), &spec).unwrap();
        let (_, gradient) = engine.gradient(&mut places, &frozen, &trained, &batch).unwrap();
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
    let base = engine.base();
    let blocks = blocks(2, 10);
    let batch: Vec<&[u32]> = blocks.as_slice().iter().map(Vec::as_slice).collect();
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(base, method, 3, 5.0);
        let (frozen, trained) = vectors(&spec);
        let mut merged = base.weights().clone();
        for (i, pair) in spec.pairs(&frozen, &trained).unwrap().iter().enumerate() {
            let (inputs, outputs) = (pair.module.inputs as usize, pair.module.outputs as usize);
            let linear = merged.blocks[i / 7].linear_mut(Projection::ALL[i % 7]);
            let mut weight = numbers(&linear.weight);
            for row in 0..outputs {
                for column in 0..inputs {
                    let change: f32 = (0..3).map(|k| pair.b[row * 3 + k] * pair.a[k * inputs + column]).sum();
                    weight[row * inputs + column] += 5.0 / 3.0 * change;
                }
            }
            linear.weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu).unwrap();
        }
        let changes = Places::new(base, &spec).unwrap().constants(&frozen, &trained).unwrap();
        let hidden = |weights: &Weights, changes: &Changes| {
            numbers(&Pass::new(base.config(), weights, changes, &batch).hidden().unwrap())
        };
        let apart = hidden(base.weights(), &changes);
        let together = hidden(&merged, &Changes::default());
        let plain = hidden(base.weights(), &Changes::default());
        let far = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(far(&apart, &together) < 1e-4, "{method:?}: {}", far(&apart, &together));
        assert!(far(&apart, &plain) > 1e-2, "{method:?}: the adapter changes nothing");
    }
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
    let fail = |change: &dyn Fn(&mut AdapterSpec), blocks: &Blocks| {
        let mut spec = good.clone();
        change(&mut spec);
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
    change: impl Fn(&mut BTreeMap<String, Tensor>, &Path),
) -> (tempfile::TempDir, Result<Base, BaseError>) {
    let (from, to) = (reference().join("base"), tempfile::tempdir().unwrap());
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    let tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    change(&mut tensors, to.path());
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

/// What opening a changed folder says, without the folder's path.
fn complaint(change: impl Fn(&mut BTreeMap<String, Tensor>, &Path)) -> String {
    let (dir, base) = copy(change);
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

#[test]
fn a_bad_line_is_counted_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("user.jsonl");
    let mut bytes =
        b"{\"text\": \"w5 w6\"}\nnot json\n\n{\"other\": 1}\n\"\xff\"\n{\"text\": \" \"}\n".to_vec();
    bytes.extend(b"{\"messages\": [{\"role\": \"user\", \"content\": \"w7\"}, {\"role\": \"x\", \"content\": \"w8\"}]}\r\n");
    bytes.extend(b"{\"prompt\": \"w9 \", \"completion\": \"w10\"}");
    std::fs::write(&path, bytes).unwrap();
    let text = read_jsonl(&path).unwrap();
    assert_eq!(text.lines, ["w5 w6", "w7\nw8", "w9 w10"]);
    let skipped: Vec<(u64, SkipReason)> = text.skipped.iter().map(|skip| (skip.line, skip.reason)).collect();
    let expected = [
        (2, SkipReason::NotJson { column: 2 }),
        (4, SkipReason::NoText),
        (5, SkipReason::NotUtf8),
        (6, SkipReason::Empty),
    ];
    assert_eq!(skipped, expected);
    let corpus = Corpus::new(engine().base(), &text).unwrap();
    assert_eq!(corpus.train(16).as_slice(), [vec![1, 5, 6, 1, 7, 8]]);
    assert_eq!(corpus.held_out(16).as_slice(), [vec![1, 9, 10]]);
}

#[test]
fn text_that_cannot_be_used_says_which_file_or_how_many_lines() {
    let missing = read_jsonl(Path::new("nowhere/user.jsonl")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read nowhere/user.jsonl: "), "{missing}");
    let skipped = vec![Skipped { line: 1, reason: SkipReason::NotUtf8 }; 3];
    let none = Corpus::new(engine().base(), &UserText { lines: Vec::new(), skipped }).unwrap_err();
    assert_eq!(none.to_string(), "no usable text (3 lines were skipped)");
}

#[test]
fn the_last_tenth_is_held_out_and_blocks_are_cut_like_the_peers() {
    let base = Arc::new(Base::open(&reference().join("base")).unwrap());
    let lines: Vec<String> = (0..25).map(|i| format!("w{}", i + 3)).collect();
    let corpus = Corpus::new(&base, &UserText { lines, skipped: Vec::new() }).unwrap();
    // 23 documents of two tokens: 46 tokens, blocks at 0 … 35.
    assert_eq!(corpus.train(10).len(), 4);
    assert_eq!(corpus.held_out(10).as_slice(), [vec![1, 26, 1, 27]]);
    assert_eq!(corpus.train(46).len(), 1);
    assert_eq!(corpus.train(23).as_slice().len(), 1);
    assert_eq!(Blocks::new(&[], 1, 8).targets(), 0);
}
