//! The reading of bases: against transformers, gguf, tokenizers and `SentencePiece`, and of what is no base.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::*;
use crate::backend::compute::Compute;
use crate::engine::Engine;
use crate::kernels::matmul::Precision;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::model::config::RopeScaling;

mod broken;
mod folders;

/// The folder that `make_families.py` writes to.
fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

const FAMILIES: [&str; 7] = ["llama", "smollm2", "llama3", "linear", "mistral", "qwen2", "qwen3"];

const FILES: [&str; 7] = ["f16", "q8_0", "q4_0", "mixed", "k", "qwen2", "qwen3"];

fn family(name: &str) -> PathBuf {
    reference().join("families").join(name)
}

fn file(name: &str) -> PathBuf {
    reference().join("gguf").join(format!("{name}.gguf"))
}

/// Every base that there is to read.
fn all() -> Vec<PathBuf> {
    FAMILIES.into_iter().map(family).chain(FILES.into_iter().map(file)).collect()
}

/// What the other programs say of a base.
fn said(path: &Path) -> BTreeMap<String, Tensor> {
    let tensors = candle_core::safetensors::load(path.with_extension("safetensors"), &Device::Cpu).unwrap();
    tensors.into_iter().collect()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Matrices and vectors by their Hugging Face names.
fn held(base: &Base) -> (BTreeMap<String, &Matrix>, BTreeMap<String, Vec<f32>>) {
    let (mut matrices, mut vectors) = (BTreeMap::new(), BTreeMap::new());
    let weights = base.weights();
    matrices.insert("model.embed_tokens.weight".to_owned(), &weights.embed);
    matrices.extend(weights.head.as_ref().map(|head| ("lm_head.weight".to_owned(), head)));
    vectors.insert("model.norm.weight".to_owned(), weights.norm.clone());
    for (layer, block) in weights.blocks.iter().enumerate() {
        for projection in Projection::ALL {
            let (name, linear) = (projection.name(layer), block.linear(projection));
            matrices.insert(format!("{name}.weight"), &linear.weight);
            vectors.extend(linear.bias.clone().map(|bias| (format!("{name}.bias"), bias)));
        }
        let mut norm = |name: &str, norm: &[f32]| {
            vectors.insert(format!("model.layers.{layer}.{name}.weight"), norm.to_vec());
        };
        norm("input_layernorm", &block.input_norm);
        norm("post_attention_layernorm", &block.post_norm);
        if let Some([q, k]) = &block.head_norms {
            norm("self_attn.q_norm", q);
            norm("self_attn.k_norm", k);
        }
    }
    (matrices, vectors)
}

fn bytes(matrix: &Matrix) -> usize {
    let count = matrix.rows() * matrix.columns();
    match matrix.numbers() {
        Numbers::F32(_) => count * 4,
        Numbers::F16(_) | Numbers::Bf16(_) => count * 2,
        Numbers::Quantized(blocks) => blocks.as_bytes().len(),
    }
}

fn widened(matrix: &Matrix) -> Vec<f32> {
    let mut numbers = vec![0.0; matrix.rows() * matrix.columns()];
    matrix.widen(0..matrix.rows(), &mut numbers).unwrap();
    numbers
}

/// All numbers of a base, by name.
fn values(base: &Base) -> BTreeMap<String, Vec<f32>> {
    let (matrices, mut values) = held(base);
    values.extend(matrices.into_iter().map(|(name, matrix)| (name, widened(matrix))));
    values
}

#[test]
fn every_family_is_read_as_it_is_stored() {
    for (name, dtype) in [
        ("llama", "f32"),
        ("smollm2", "bf16"),
        ("llama3", "f16"),
        ("linear", "bf16"),
        ("mistral", "bf16"),
        ("qwen2", "f16"),
        ("qwen3", "bf16"),
    ] {
        let base = Base::open(&family(name)).unwrap();
        let mut stored = BTreeMap::new();
        for entry in std::fs::read_dir(family(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                stored.extend(candle_core::safetensors::load(path, &Device::Cpu).unwrap());
            }
        }
        let values = values(&base);
        assert_eq!(values.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, values) in values {
            assert_eq!(values, numbers(&stored[&tensor]), "{name}: {tensor}");
        }
        let (matrices, _) = held(&base);
        assert!(matrices.values().all(|matrix| matrix.numbers().name() == dtype), "{name}");
    }
}

#[test]
fn what_families_differ_in_is_known() {
    let config = |name| Base::open(&family(name)).unwrap().config().clone();
    let llama = config("llama");
    assert!(llama.qkv_bias && llama.output_bias && !llama.tied && !llama.qk_norm);
    let qwen2 = config("qwen2");
    assert!(qwen2.qkv_bias && !qwen2.output_bias && qwen2.tied);
    let qwen3 = config("qwen3");
    assert!(qwen3.qk_norm && !qwen3.qkv_bias && qwen3.head_dim == 16 && qwen3.hidden_size == 32);
    assert_eq!(config("mistral").head_dim, 12);
    assert_eq!(config("linear").rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_positions: 32,
    };
    assert_eq!(config("llama3").rope_scaling, scaling);
    assert_eq!((config("llama3").bos, config("llama3").eos), (Some(1), vec![2, 5]));
}

#[test]
fn rotary_frequencies_agree_with_transformers() {
    for path in all() {
        let base = Base::open(&path).unwrap();
        let (found, expected) = (base.config().rope_frequencies(), numbers(&said(&path)["frequencies"]));
        assert_eq!(found.len(), expected.len(), "{}", path.display());
        for (found, expected) in found.iter().zip(expected) {
            // transformers computes them in f32.
            assert!(
                (found / f64::from(expected) - 1.0).abs() < 1e-6,
                "{}: {found}, {expected}",
                path.display()
            );
        }
    }
}

#[test]
fn every_type_of_a_gguf_file_is_kept_and_means_what_gguf_says() {
    let mut types = BTreeMap::new();
    for name in FILES {
        let base = Base::open(&file(name)).unwrap();
        let (matrices, _) = held(&base);
        let said = said(&file(name));
        let rows = said.keys().filter(|key| key.starts_with("row.")).count();
        assert_eq!(rows, matrices.len(), "{name}");
        for (tensor, matrix) in matrices {
            let values = widened(matrix);
            let (row, sum) = (&said[&format!("row.{tensor}")], &said[&format!("sum.{tensor}")]);
            let found: f64 = values.iter().map(|x| f64::from(*x)).sum();
            let size: f64 = values.iter().map(|x| f64::from(x.abs())).sum();
            for (x, y) in values.iter().zip(numbers(row)) {
                assert!((x - y).abs() <= 1e-6 * y.abs().max(0.01), "{name}: {tensor}: {x}, gguf {y}");
            }
            assert!((found - f64::from(numbers(sum)[0])).abs() < 1e-6 * size, "{name}: {tensor}");
            *types.entry(matrix.numbers().name()).or_insert(0) += 1;
        }
    }
    let types: Vec<&str> = types.keys().map(String::as_str).collect();
    let expected = [
        "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "bf16", "f16", "f32",
    ];
    assert_eq!(types, expected);
}

#[test]
fn a_gguf_file_tells_the_decoder_s_shape() {
    let config = |name| Base::open(&file(name)).unwrap().config().clone();
    let f16 = config("f16");
    assert_eq!((f16.vocab_size, f16.hidden_size, f16.intermediate_size), (384, 64, 96));
    assert_eq!((f16.num_layers, f16.num_heads, f16.num_kv_heads, f16.head_dim), (1, 4, 2, 16));
    assert_eq!((f16.max_positions, f16.bos, f16.eos.as_slice()), (64, Some(1), [2].as_slice()));
    assert!((f16.rms_norm_eps - 1e-5).abs() < 1e-11 && (f16.rope_theta - 10_000.0).abs() < 1e-9);
    assert!(f16.qkv_bias && f16.output_bias && !f16.tied && !f16.qk_norm);
    assert!(config("k").tied && config("qwen2").qkv_bias && config("qwen3").qk_norm);
    assert_eq!((config("qwen3").head_dim, config("mixed").head_dim), (32, 32));
    assert_eq!(config("q4_0").rope_scaling, RopeScaling::Linear { factor: 2.0 });
    let RopeScaling::Divisors(divisors) = config("q8_0").rope_scaling else { panic!("no divisors") };
    assert!(divisors.len() == 8 && (divisors[7] - 8.0).abs() < 1e-4);
}

#[test]
fn texts_become_the_tokens_that_the_tokenizer_s_own_program_makes() {
    let said: BTreeMap<String, Vec<Value>> =
        serde_json::from_slice(&std::fs::read(reference().join("gguf/words.json")).unwrap()).unwrap();
    assert!(said.keys().map(String::as_str).eq(["f16", "k", "mixed", "q4_0", "q8_0", "qwen2", "qwen3"]));
    for (name, texts) in said {
        let base = Base::open(&file(&name)).unwrap();
        for entry in texts {
            let text = entry["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(entry["tokens"].clone()).unwrap();
            let found = base.encode(text).unwrap();
            assert_eq!(found, expected, "{name}: {text:?}");
            // What is composed does not come apart again.
            let composed = base.config().bos.is_none() && text.contains('\u{301}');
            if !composed && !text.contains("<|") {
                assert_eq!(base.decode(&found).unwrap(), text, "{name}");
            }
        }
    }
}

#[test]
fn special_tokens_and_the_template_are_known() {
    let pieces = Base::open(&file("f16")).unwrap();
    assert_eq!((pieces.bos(), pieces.eos()), (1, [2].as_slice()));
    assert_eq!((pieces.bos_token(), pieces.eos_token()), (Some("<s>"), Some("</s>")));
    assert!(pieces.chat_template().unwrap().starts_with("{{ bos_token }}"));
    assert_eq!(pieces.decode(&[1, 2]).unwrap(), "");
    // No first token: the one between texts opens a document.
    let qwen = Base::open(&file("qwen2")).unwrap();
    assert_eq!((qwen.config().bos, qwen.bos(), qwen.eos()), (None, 0, [1].as_slice()));
    assert_eq!((qwen.bos_token(), qwen.eos_token()), (None, Some("<|im_end|>")));
    let llama3 = Base::open(&family("llama3")).unwrap();
    assert_eq!((llama3.eos(), llama3.chat_template()), ([2, 5].as_slice(), None));
}

/// How far the engine's logits are from those that transformers computes in f32, at most, as a part of the largest.
fn off(base: Base, precision: Precision, said: &BTreeMap<String, Tensor>) -> f32 {
    let engine = Engine::new(Arc::new(base));
    let compute = Compute { precision: Some(precision), ..Compute::default() };
    let engine = engine.with_compute(compute);
    let (tokens, logits) = (&said["tokens"], numbers(&said["logits"]));
    let most = logits.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
    let mut found = Vec::new();
    for row in tokens.to_vec2::<f32>().unwrap() {
        let id = |x: f32| (0..1024).find(|id| f64::from(*id) + 0.5 > f64::from(x)).unwrap();
        let row: Vec<u32> = row.into_iter().map(id).collect();
        found.extend(engine.logits(&row).unwrap());
    }
    assert_eq!(found.len(), logits.len());
    found.iter().zip(&logits).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / most
}

#[test]
fn the_logits_of_every_family_and_type_agree_with_transformers() {
    for path in all() {
        let said = said(&path);
        for dtype in [WeightDtype::AsStored, WeightDtype::F32] {
            let base = Base::open_with(&path, BaseOptions { dtype }).unwrap();
            let off = off(base, Precision::F32, &said);
            assert!(off < 2e-5, "{} {dtype:?}: off by {off:.1e}", path.display());
        }
        let off = off(Base::open(&path).unwrap(), Precision::Int16, &said);
        assert!(off < 5e-3, "{} in 16 bits: off by {off:.1e}", path.display());
    }
}

#[test]
fn the_logits_of_a_trained_model_agree_with_transformers() {
    let Some(data) = std::env::var_os("NIGHTSHIFT_DATA") else {
        println!("NIGHTSHIFT_DATA names no folder with models/stories260k: nothing is compared");
        return;
    };
    let base = Base::open(&Path::new(&data).join("models/stories260k")).unwrap();
    let said = said(&reference().join("stories260k"));
    let mut tokens = vec![base.bos()];
    tokens.extend(base.encode("Once upon a time, there was a little owl.").unwrap());
    let expected: Vec<f32> = numbers(&said["tokens"]);
    assert!(tokens.iter().map(|id| *id as f32).eq(expected));
    let off = off(base, Precision::F32, &said);
    assert!(off < 2e-5, "off by {off:.1e}");
}

/// A copy of a folder, with more files.
fn with_files(name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(family(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    for (name, text) in files {
        std::fs::write(to.path().join(name), text).unwrap();
    }
    to
}

#[test]
fn a_folder_s_settings_name_its_special_tokens_and_template() {
    let settings = r#"{"bos_token": {"content": "w7"}, "eos_token": "w9",
        "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
    let dir = with_files("smollm2", &[("tokenizer_config.json", settings)]);
    let base = Base::open(dir.path()).unwrap();
    assert_eq!((base.bos(), base.eos()), (7, [2, 9].as_slice()));
    assert_eq!((base.bos_token(), base.eos_token()), (Some("w7"), Some("w9")));
    assert_eq!(base.chat_template(), Some("yes"));
    let own = with_files("smollm2", &[("tokenizer_config.json", settings), ("chat_template.jinja", "own")]);
    assert_eq!(Base::open(own.path()).unwrap().chat_template(), Some("own"));
    assert_ne!(Base::open(own.path()).unwrap().digest(), base.digest());
    let more = r#"{"eos_token_id": [5, 2]}"#;
    let dir = with_files("smollm2", &[("generation_config.json", more)]);
    let base = Base::open(dir.path()).unwrap();
    assert_eq!((base.bos(), base.eos()), (1, [2, 5].as_slice()));
    assert_eq!((base.bos_token(), base.eos_token()), (Some("<s>"), Some("</s>")));
}

#[test]
fn weights_are_held_as_they_are_asked_for_and_as_many_bytes_as_announced() {
    for path in all() {
        let stored = Base::open(&path).unwrap();
        for dtype in [WeightDtype::AsStored, WeightDtype::F32, WeightDtype::Bf16] {
            let options = BaseOptions { dtype };
            let base = Base::open_with(&path, options).unwrap();
            assert_eq!(base.digest(), stored.digest());
            let (matrices, vectors) = held(&base);
            let bytes = matrices.values().map(|matrix| bytes(matrix)).sum::<usize>()
                + vectors.values().map(|vector| vector.len() * 4).sum::<usize>();
            assert_eq!(
                Base::needed_bytes(&path, options).unwrap(),
                bytes as u64,
                "{} {dtype:?}",
                path.display()
            );
            for (name, expected) in values(&stored) {
                let Some(matrix) = matrices.get(&name) else {
                    assert_eq!(vectors[&name], expected, "{name}");
                    continue;
                };
                let found = widened(matrix);
                match dtype {
                    WeightDtype::AsStored => {}
                    WeightDtype::F32 => {
                        assert_eq!(matrix.numbers().name(), "f32");
                        assert_eq!(found, expected, "{name}");
                    }
                    WeightDtype::Bf16 => {
                        assert_eq!(matrix.numbers().name(), "bf16");
                        let rounded: Vec<f32> =
                            expected.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
                        assert_eq!(found, rounded, "{name}");
                    }
                }
            }
        }
    }
}
