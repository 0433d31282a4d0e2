//! Writes an adapter as a PEFT folder.

use std::collections::{BTreeMap, HashMap};

use proto::adapter::AdapterSpec;
use proto::plan::vector_to_bytes;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::names::{PEFT_CONFIG, PEFT_TENSORS, PREFIX};
use crate::error::ExportError;

/// The two files of a PEFT folder, [`PEFT_CONFIG`] and [`PEFT_TENSORS`], as transformers with PEFT, vLLM and mistral.rs
/// load them. Fails where the vectors are not of this adapter.
///
/// One rank for all modules, the true scale in `lora_alpha`, tensors in f32, named as PEFT 0.21 writes them.
/// `base_name` is where a reader finds the base.
pub fn peft_files(
    spec: &AdapterSpec,
    frozen: &[f32],
    trained: &[f32],
    base_name: &str,
) -> Result<Vec<(&'static str, Vec<u8>)>, ExportError> {
    Ok(vec![(PEFT_CONFIG, config(spec, base_name)?), (PEFT_TENSORS, tensors(spec, frozen, trained)?)])
}

fn config(spec: &AdapterSpec, base_name: &str) -> Result<Vec<u8>, ExportError> {
    let mut targets: Vec<&str> =
        spec.modules.iter().filter_map(|module| module.name.rsplit('.').next()).collect();
    targets.sort_unstable();
    targets.dedup();
    // Where only some blocks have an adapter, their last names would match in all of them.
    let whole: Vec<&str> = spec.modules.iter().map(|module| module.name.as_str()).collect();
    let config = serde_json::json!({
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": spec.rank,
        "target_modules": if is_regular(&whole, &targets) { targets } else { whole },
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    Ok(serde_json::to_vec_pretty(&config)?)
}

/// Whether every block has the same modules from block 0 on, so that their last names say it all.
fn is_regular(whole: &[&str], last: &[&str]) -> bool {
    let mut blocks: BTreeMap<u32, usize> = BTreeMap::new();
    for name in whole {
        let mut parts = name.split('.');
        let block = parts.find_map(|part| part.parse().ok());
        match block {
            Some(block) => *blocks.entry(block).or_default() += 1,
            None => return false,
        }
    }
    blocks.keys().zip(0..).all(|(block, expected)| *block == expected)
        && blocks.values().all(|count| *count == last.len())
}

fn tensors(spec: &AdapterSpec, frozen: &[f32], trained: &[f32]) -> Result<Vec<u8>, ExportError> {
    let rank = spec.rank as usize;
    let mut tensors = BTreeMap::new();
    for pair in spec.pairs(frozen, trained)? {
        let (inputs, outputs) = (pair.module.inputs as usize, pair.module.outputs as usize);
        let name = |factor: &str| format!("{PREFIX}{}.{factor}.weight", pair.module.name);
        tensors.insert(name("lora_A"), (vec![rank, inputs], vector_to_bytes(&pair.a)));
        if tensors.insert(name("lora_B"), (vec![outputs, rank], vector_to_bytes(&pair.b))).is_some() {
            return Err(ExportError::RepeatedModule(pair.module.name.clone()));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    // Readers of Hugging Face's ask for this word.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(serialize(views, Some(metadata))?)
}
