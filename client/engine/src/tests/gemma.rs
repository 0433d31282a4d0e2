//! Gemma 3, against transformers and autograd (`make_gemma.py`).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::lora::merge::write_merged;
use crate::model::compute::Recompute;

fn folder() -> PathBuf {
    reference().join("gemma")
}

fn said() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(reference().join("gemma.safetensors"), &Device::Cpu).unwrap()
}

fn batch() -> Vec<Vec<u32>> {
    let rows: Vec<Vec<f32>> = said()["tokens"].to_vec2().unwrap();
    let whole = |x: f32| (0..64).find(|&id| f64::from(id) + 0.5 > f64::from(x)).unwrap();
    rows.into_iter().map(|row| row.into_iter().map(whole).collect()).collect()
}

fn single() -> Compute {
    Compute { precision: Some(Precision::F32), ..Compute::default() }
}

fn engine_of(base: Base, compute: Compute) -> Engine {
    Engine::new(Arc::new(base)).with_compute(compute)
}

/// The mean loss over all targets of [`batch`].
fn loss(engine: &Engine) -> f32 {
    let batch = batch();
    let learned = vec![true; batch[0].len()];
    let rows: Vec<_> = batch.iter().map(|tokens| Sequence { tokens, learned: &learned }).collect();
    let mut executor = Executor::new(engine.setup(), learned.len());
    let deltas = executor.no_deltas().unwrap();
    let targets: usize = rows.iter().map(Sequence::targets).sum();
    let loss = executor.loss(&deltas, &rows).unwrap() / targets as f64;
    kernels::narrow(loss)
}

/// A copy of the folder with these keys in its config, and without those that are null.
fn changed(changes: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(folder().join(file), dir.path().join(file)).unwrap();
    }
    let config = std::fs::read(folder().join("config.json")).unwrap();
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&config).unwrap();
    config.extend(changes.as_object().unwrap().clone());
    config.retain(|_, value| !value.is_null());
    std::fs::write(dir.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    dir
}

/// The adapter of the reference, its trained vector and that one's gradient.
fn adapter(base: &Base) -> (AdapterSpec, Vec<f32>, Vec<f32>) {
    let (said, spec) = (said(), spec(base, Method::Both, 3, 6.0));
    let (mut trained, mut gradient) = (vec![0.0; spec.trained_len()], vec![0.0; spec.trained_len()]);
    for slots in spec.slots() {
        for (factor, slot) in [("lora_A", slots.a), ("lora_B", slots.b)] {
            let Slot::Trained(range) = slot else { panic!("both factors are trained") };
            let name = format!("{}.{factor}", slots.module.name);
            trained[range.clone()].copy_from_slice(&numbers(&said[&name]));
            gradient[range].copy_from_slice(&numbers(&said[&format!("grad {name}")]));
        }
    }
    (spec, trained, gradient)
}

fn number(name: &str) -> f32 {
    numbers(&said()[name])[0]
}

fn off(found: &[f32], expected: &[f32]) -> f64 {
    let length = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let off: Vec<f32> = found.iter().zip(expected).map(|(x, y)| x - y).collect();
    length(&off) / length(expected)
}

#[test]
fn loss_and_gradients_are_those_of_transformers() {
    for recompute in [Recompute::Never, Recompute::Blocks] {
        for (precision, allowed) in [(Precision::F32, 1e-4), (Precision::fine(), 2e-2)] {
            let compute = Compute { precision: Some(precision), recompute, ..Compute::default() };
            let engine = engine_of(Base::open(&folder()).unwrap(), compute);
            let found = loss(&engine);
            assert!((found - number("loss")).abs() < 10.0 * narrow(allowed), "{found}");
            let (spec, trained, expected) = adapter(engine.base());
            let (found, gradient) = gradient(&engine, &spec, (&[], &trained), &batch());
            assert!((found - number("adapted")).abs() < 10.0 * narrow(allowed), "{found}");
            let relative = off(&gradient, &expected);
            println!("{precision:?} {recompute:?}: {relative:.1e}");
            assert!(relative < allowed, "{precision:?} {recompute:?}: {relative:.1e}");
            if precision == Precision::F32 {
                for slots in spec.slots() {
                    for slot in [slots.a, slots.b] {
                        let Slot::Trained(range) = slot else { panic!("both factors are trained") };
                        let relative = off(&gradient[range.clone()], &expected[range]);
                        assert!(relative < 1e-4, "{}: {relative:.1e}", slots.module.name);
                    }
                }
            }
        }
    }
}

fn narrow(x: f64) -> f32 {
    kernels::narrow(x)
}

#[test]
fn windows_and_the_config_of_before_count_as_they_do_for_transformers() {
    let old = json!({
        "rope_parameters": null, "layer_types": null, "rope_theta": 90_000.0, "rope_local_base_freq": 800.0,
        "sliding_window_pattern": 2,
    });
    for (name, changes) in [
        ("loss", json!({})),
        ("window 1", json!({"sliding_window": 1})),
        ("window 64", json!({"sliding_window": 64})),
        ("old config", old),
    ] {
        let found = loss(&engine_of(Base::open(changed(&changes).path()).unwrap(), single()));
        let expected = number(name);
        assert!((found - expected).abs() < 2e-5, "{name}: {found} where transformers has {expected}");
    }
    // The embedding's scale is rounded as its numbers are.
    let options = BaseOptions { dtype: WeightDtype::Bf16 };
    let found = loss(&engine_of(Base::open_with(&folder(), options).unwrap(), single()));
    assert!((found - number("bf16")).abs() < 2e-5, "{found}");
}

#[test]
fn what_is_read_token_by_token_is_what_is_read_at_once() {
    let engine = engine_of(Base::open(&folder()).unwrap(), single());
    let tokens = &batch()[0];
    let expected = numbers(&said()["logits"]);
    let all = engine.logits(tokens).unwrap();
    assert!(off(&all, &expected) < 1e-5, "{}", off(&all, &expected));
    // What follows the first token, given the true ones one by one.
    let (mut at, mut found) = (1, Vec::new());
    let choose = |logits: &[f32]| {
        found.extend_from_slice(logits);
        let next = tokens.get(at).copied();
        at += 1;
        next
    };
    engine.generate(None, &tokens[..1], tokens.len(), choose).unwrap();
    assert!(off(&found, &expected) < 1e-5, "{}", off(&found, &expected));
}

#[test]
fn a_merged_gemma_is_read_again_with_the_same_loss() {
    let base = Base::open(&folder()).unwrap();
    let (spec, trained, _) = adapter(&base);
    let to = tempfile::tempdir().unwrap();
    write_merged(to.path(), &base, &folder(), (&spec, &[], &trained), u64::MAX).unwrap();
    let found = loss(&engine_of(Base::open(to.path()).unwrap(), single()));
    assert!((found - number("adapted")).abs() < 2e-5, "{found}");
}

#[test]
fn what_a_gemma_may_not_have_is_refused_by_name() {
    for (changes, expected) in [
        (json!({"hidden_activation": "silu"}), "hidden_activation = silu is not supported"),
        (json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping = 30 is not supported"),
        (json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping = 50 is not supported"),
        (json!({"use_bidirectional_attention": true}), "use_bidirectional_attention = true is not supported"),
        (json!({"layer_types": ["full_attention"]}), "layer_types names 1 blocks, there are 5"),
        (json!({"layer_types": ["linear_attention"]}), "layer_types = linear_attention is not supported"),
        (json!({"sliding_window": 0}), "sliding_window must be at least 1, found 0"),
        (json!({"query_pre_attn_scalar": 0}), "query_pre_attn_scalar must be above 0, found 0"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}),
            "rope_type = yarn is not supported",
        ),
        (
            json!({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}}),
            "rope_type = linear of `sliding_attention` is not supported",
        ),
    ] {
        let error = Base::open(changed(&changes).path()).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    let candle = Compute { backend: Backend::Candle(CandleDevice::Cpu), ..Compute::default() };
    let error = engine_of(Base::open(&folder()).unwrap(), candle).prepare().unwrap_err().to_string();
    assert!(error.contains("a Gemma 3 is computed by our own kernels only"), "{error}");
}

#[test]
fn a_special_token_beyond_the_vocabulary_is_no_fault_and_a_word_is() {
    let open = |is_special: bool| {
        let dir = changed(&json!({}));
        let path = dir.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let token = json!({
            "id": 64, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_special,
        });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        std::fs::write(&path, serde_json::to_vec(&tokenizer).unwrap()).unwrap();
        Base::open(dir.path()).map(|base| base.encode("<image>").unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(open(true).unwrap(), [64]);
    let error = open(false).unwrap_err();
    assert!(error.ends_with("the tokenizer's tokens go up to 64, the model's vocab_size is 64"), "{error}");
}
