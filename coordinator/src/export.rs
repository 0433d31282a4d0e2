//! What comes out of a task: the adapter in the form that transformers and PEFT load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::adapter::{AdapterError, AdapterSpec};
use proto::plan::vector_to_bytes;
use safetensors::tensor::{Dtype, TensorView, serialize};

/// An adapter that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The parameters are not of the adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A tensor has no place in the file's format.
    #[error("the adapter cannot be laid out: {0}")]
    Layout(#[from] safetensors::SafeTensorError),
    /// The configuration has no place in JSON.
    #[error("the adapter's configuration cannot be written: {0}")]
    Config(#[from] serde_json::Error),
    /// The disk refuses.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`: `trained` and `frozen` of an adapter
/// that is all of the change, as [`proto::adapter::State::shipped`] gives it.
///
/// One rank for all modules, the true scale in `lora_alpha`, tensors named as PEFT 0.21 writes them.
pub fn write_peft(
    folder: &Path,
    spec: &AdapterSpec,
    frozen: &[f32],
    trained: &[f32],
    base: &str,
) -> Result<(), ExportError> {
    let config = peft_config(spec, base)?;
    let tensors = peft_tensors(spec, frozen, trained)?;
    let refuse = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ExportError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(refuse(folder))?;
    for (name, bytes) in [("adapter_config.json", config), ("adapter_model.safetensors", tensors)] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(refuse(&path))?;
    }
    Ok(())
}

fn peft_config(spec: &AdapterSpec, base: &str) -> Result<Vec<u8>, ExportError> {
    let mut targets: Vec<&str> =
        spec.modules.iter().filter_map(|module| module.name.rsplit('.').next()).collect();
    targets.sort_unstable();
    targets.dedup();
    let config = serde_json::json!({
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": spec.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_rslora": false,
    });
    Ok(serde_json::to_vec_pretty(&config)?)
}

fn peft_tensors(spec: &AdapterSpec, frozen: &[f32], trained: &[f32]) -> Result<Vec<u8>, ExportError> {
    let rank = spec.rank as usize;
    let mut tensors = BTreeMap::new();
    for pair in spec.pairs(frozen, trained)? {
        let (inputs, outputs) = (pair.module.inputs as usize, pair.module.outputs as usize);
        let name = |factor: &str| format!("base_model.model.{}.{factor}.weight", pair.module.name);
        tensors.insert(name("lora_A"), (vec![rank, inputs], vector_to_bytes(&pair.a)));
        tensors.insert(name("lora_B"), (vec![outputs, rank], vector_to_bytes(&pair.b)));
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(serialize(views, None)?)
}

#[cfg(test)]
mod tests {
    use proto::adapter::{Factors, Method, Module};
    use proto::ids::Digest;
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn a_core_adapter_is_written_as_two_factors() {
        let spec = AdapterSpec {
            method: Method::Core,
            rank: 2,
            alpha: 6.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: vec![Module { name: "model.layers.0.mlp.up_proj".into(), inputs: 5, outputs: 3 }],
        };
        let frozen = spec.seeded_factors(&Digest([1; 32]));
        let trained = [1.0, 2.0, 3.0, 4.0];
        let folder = tempfile::tempdir().unwrap();
        write_peft(folder.path(), &spec, &frozen, &trained, "a-base").unwrap();
        let bytes = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let a = file.tensor("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight").unwrap();
        assert_eq!(a.shape(), [2, 5]);
        let first = f32::from_le_bytes(a.data()[..4].try_into().unwrap());
        assert!((first - (frozen[0] + 2.0 * frozen[5])).abs() < 1e-6);
        let config = std::fs::read(folder.path().join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["r"], 2);
        assert_eq!(config["lora_alpha"], 6.0);
        assert_eq!(config["target_modules"][0], "up_proj");
    }

    #[test]
    fn parameters_of_another_adapter_are_refused() {
        let spec = AdapterSpec {
            method: Method::FrozenA,
            rank: 1,
            alpha: 1.0,
            factors: Factors::Seeded(Digest([1; 32])),
            modules: vec![Module { name: "m".into(), inputs: 2, outputs: 2 }],
        };
        let folder = tempfile::tempdir().unwrap();
        let error = write_peft(folder.path(), &spec, &[0.0; 2], &[0.0; 3], "b").unwrap_err();
        assert_eq!(error.to_string(), "the trained parameters of this adapter are 2 numbers, found 3");
        assert!(!folder.path().join("adapter_config.json").exists());
    }
}
