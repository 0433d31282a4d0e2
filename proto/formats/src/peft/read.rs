//! Reads a PEFT adapter folder, whoever wrote it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};
use proto::adapter::{AdapterError, AdapterSpec, Factors, Method, Module};
use proto::ids::Digest;
use regex::Regex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::names::{PEFT_CONFIG, PEFT_TENSORS, PREFIX};
use super::targets::leaving_out;
use crate::file::POINTER;

/// Settings that add something to the base beside `B · A`, or change the base. Each is `null`, `false`, 0 or empty
/// where it is not used.
const REFUSED: [&str; 15] = [
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
];

/// Ways to begin that leave the base as it is; the others move a part of it into the adapter.
const HARMLESS_BEGINNINGS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// A PEFT folder that is no adapter of ours.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// The configuration is not JSON, or a value of it has another type.
    #[error("adapter_config.json cannot be read: {0}")]
    Config(#[from] serde_json::Error),
    /// The tensors are not a safetensors file.
    #[error("adapter_model.safetensors is damaged: {0}")]
    Tensors(#[from] safetensors::SafeTensorError),
    /// What git-lfs puts in the place of a file that was not fetched.
    #[error("{0} is a pointer of git-lfs and not the file itself: run `git lfs pull` in its folder")]
    LfsPointer(&'static str),
    /// Another method than LoRA.
    #[error("peft_type = {0} is not supported; only LORA is")]
    Kind(String),
    /// A setting that would change the function.
    #[error("{name} = {found} is not supported, and to leave it out would change the adapter")]
    Unsupported {
        /// The setting.
        name: String,
        /// Its value.
        found: String,
    },
    /// A module in the file that the configuration does not mean.
    #[error(
        "`{module}` is in the file, and PEFT leaves it out because of {name}; take its tensors out of the file, or change {name}"
    )]
    LeftOut {
        /// The module.
        module: String,
        /// The setting.
        name: &'static str,
    },
    /// A tensor that is no factor of a layer.
    #[error(
        "tensor `{0}` is not supported; an adapter has base_model.model.….lora_A.weight and lora_B.weight"
    )]
    UnknownTensor(String),
    /// A tensor's numbers are of another type.
    #[error("tensor `{tensor}` must be F32, F16 or BF16, found {found}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// What is there.
        found: String,
    },
    /// One factor without the other.
    #[error("`{module}` has no tensor {missing}")]
    Half {
        /// The module.
        module: String,
        /// The factor that is not there.
        missing: &'static str,
    },
    /// A factor has another shape than the configuration asks for.
    #[error("tensor `{tensor}` is {found:?}, which is not {expected} for a rank of {rank}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// What it should be, in words.
        expected: &'static str,
        /// The rank.
        rank: u32,
        /// What is there.
        found: Vec<usize>,
    },
    /// The modules have different ranks or scales.
    #[error("{name} gives modules different {what}: {found}; adapters here have one for all modules")]
    NotUniform {
        /// The setting.
        name: &'static str,
        /// Ranks or scales.
        what: &'static str,
        /// Its value.
        found: String,
    },
    /// What was read cannot be an adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    peft_type: Option<String>,
    r: u32,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    init_lora_weights: Option<Value>,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, u32>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
}

/// Reads the two files of a PEFT LoRA folder for a causal language model as an adapter that trains both factors.
///
/// The alpha of the adapter is the one that gives the true scale: `lora_alpha`, or with `use_rslora`
/// `lora_alpha · √r`. Modules are in the order of their names, blocks by number. Fails with the name of the setting or of
/// the tensor that is not supported, missing or wrong. Whether a base has such modules is for the caller to check.
pub fn read_peft(config: &[u8], tensors: &[u8]) -> Result<(AdapterSpec, Vec<f32>), PeftError> {
    if let Some((name, _)) = [(PEFT_CONFIG, config), (PEFT_TENSORS, tensors)]
        .into_iter()
        .find(|(_, bytes)| bytes.starts_with(POINTER))
    {
        return Err(PeftError::LfsPointer(name));
    }
    let settings: Map<String, Value> = serde_json::from_slice(config)?;
    let config: Config = serde_json::from_slice(config)?;
    refuse(&settings, &config)?;
    let file = SafeTensors::deserialize(tensors)?;
    let names = names(&file)?;
    let (rank, alpha) = (uniform_rank(&config, &names)?, uniform_alpha(&config, &names)?);
    let mut modules = Vec::new();
    for name in names {
        if let Some(setting) = leaving_out(&settings, &name) {
            return Err(PeftError::LeftOut { module: name, name: setting });
        }
        let (a, b) = (view(&file, &name, "lora_A")?, view(&file, &name, "lora_B")?);
        modules.push((module(&name, rank, &a, &b)?, a, b));
    }
    let rank_root = f64::from(rank).sqrt();
    let alpha = if config.use_rslora { alpha * rank_root } else { alpha };
    let mut trained = Vec::new();
    for (module, a, b) in &modules {
        for (factor, tensor) in [("lora_A", a), ("lora_B", b)] {
            let tensor_name = || format!("{PREFIX}{}.{factor}.weight", module.name);
            numbers(tensor, &mut trained)
                .map_err(|found| PeftError::Dtype { tensor: tensor_name(), found })?;
        }
    }
    let spec = AdapterSpec {
        method: Method::Both,
        rank,
        alpha: narrow(alpha),
        factors: Factors::Seeded(Digest([0; 32])),
        modules: modules.into_iter().map(|(module, _, _)| module).collect(),
    };
    spec.check_local()?;
    spec.check_trained(&trained)?;
    Ok((spec, trained))
}

fn refuse(settings: &Map<String, Value>, config: &Config) -> Result<(), PeftError> {
    match config.peft_type.as_deref() {
        Some(kind) if kind.eq_ignore_ascii_case("lora") => {}
        kind => return Err(PeftError::Kind(kind.unwrap_or("nothing").to_owned())),
    }
    // A variant that is newer than we are is switched on by a word like those of before.
    let is_refused =
        |name: &str| REFUSED.contains(&name) || (name.starts_with("use_") && name != "use_rslora");
    if let Some((name, value)) = settings.iter().find(|(name, value)| is_refused(name) && is_used(value)) {
        return Err(PeftError::Unsupported { name: name.clone(), found: value.to_string() });
    }
    if let Some(bias) = config.bias.as_ref().filter(|bias| *bias != "none") {
        return Err(PeftError::Unsupported { name: "bias".to_owned(), found: bias.clone() });
    }
    match &config.init_lora_weights {
        Some(Value::String(way)) if !HARMLESS_BEGINNINGS.contains(&way.as_str()) => {
            Err(PeftError::Unsupported { name: "init_lora_weights".to_owned(), found: way.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

fn is_used(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(used) => *used,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
    }
}

/// The one value of all modules: the configuration's, or the one that its pattern gives to every module.
///
/// A pattern's key is an expression for the end of a module's name, as PEFT matches it: what is before it ends in a dot.
/// One that matches no module changes nothing. Where several match one module, they must say the same, because which is
/// the first is not known here. `None` where there are several values, or an expression cannot be read.
fn uniform<T: Copy + Ord>(pattern: &BTreeMap<String, T>, otherwise: T, modules: &[String]) -> Option<T> {
    let compiled: Option<Vec<(Regex, T)>> = pattern
        .iter()
        .map(|(key, value)| Some((Regex::new(&format!(r"^(.*\.)?({key})$")).ok()?, *value)))
        .collect();
    let compiled = compiled?;
    let mut values = BTreeSet::new();
    for module in modules {
        let own = compiled.iter().filter(|(key, _)| key.is_match(module)).map(|(_, value)| *value);
        let own: BTreeSet<T> = own.collect();
        values.extend(if own.is_empty() { BTreeSet::from([otherwise]) } else { own });
    }
    match (values.pop_first(), values.is_empty()) {
        (None, _) => Some(otherwise),
        (Some(value), is_one) => is_one.then_some(value),
    }
}

/// The one rank of all modules; fails where a pattern gives several.
fn uniform_rank(config: &Config, modules: &[String]) -> Result<u32, PeftError> {
    let pattern = config.rank_pattern.clone().unwrap_or_default();
    let found = || serde_json::to_string(&pattern);
    match uniform(&pattern, config.r, modules) {
        Some(rank) => Ok(rank),
        None => Err(PeftError::NotUniform { name: "rank_pattern", what: "ranks", found: found()? }),
    }
}

/// The one alpha of all modules; fails where a pattern gives several.
fn uniform_alpha(config: &Config, modules: &[String]) -> Result<f64, PeftError> {
    let pattern = config.alpha_pattern.clone().unwrap_or_default();
    let found = || serde_json::to_string(&pattern);
    let bits = pattern.iter().map(|(key, alpha)| (key.clone(), alpha.to_bits())).collect();
    match uniform(&bits, config.lora_alpha.to_bits(), modules) {
        Some(alpha) => Ok(f64::from_bits(alpha)),
        None => Err(PeftError::NotUniform { name: "alpha_pattern", what: "scales", found: found()? }),
    }
}

/// The modules of all tensors, in order; fails on a tensor that is no factor.
fn names(file: &SafeTensors<'_>) -> Result<Vec<String>, PeftError> {
    let mut modules = BTreeSet::new();
    for tensor in file.names() {
        let module = tensor.strip_prefix(PREFIX).and_then(|rest| {
            let factor = rest.strip_suffix(".lora_A.weight").or_else(|| rest.strip_suffix(".lora_B.weight"));
            factor.filter(|module| !module.is_empty())
        });
        match module {
            Some(module) => modules.insert(module.to_owned()),
            None => return Err(PeftError::UnknownTensor(tensor.to_owned())),
        };
    }
    let mut modules: Vec<String> = modules.into_iter().collect();
    modules.sort_by(|x, y| by_parts(x, y));
    Ok(modules)
}

/// Part by part, numbers by size: block 2 before block 10.
fn by_parts(x: &str, y: &str) -> Ordering {
    let key = |part: &str| (part.parse::<u32>().ok(), part.to_owned());
    x.split('.').map(key).cmp(y.split('.').map(key))
}

fn view<'a>(file: &SafeTensors<'a>, module: &str, factor: &'static str) -> Result<TensorView<'a>, PeftError> {
    match file.tensor(&format!("{PREFIX}{module}.{factor}.weight")) {
        Ok(view) => Ok(view),
        Err(_) => Err(PeftError::Half { module: module.to_owned(), missing: factor }),
    }
}

fn module(name: &str, rank: u32, a: &TensorView<'_>, b: &TensorView<'_>) -> Result<Module, PeftError> {
    let wrong = |factor: &str, expected, found: &[usize]| PeftError::Shape {
        tensor: format!("{PREFIX}{name}.{factor}.weight"),
        expected,
        rank,
        found: found.to_vec(),
    };
    let size = |x: usize| u32::try_from(x).ok();
    let inputs = match *a.shape() {
        [rows, inputs] if size(rows) == Some(rank) => size(inputs),
        _ => None,
    };
    let outputs = match *b.shape() {
        [outputs, columns] if size(columns) == Some(rank) => size(outputs),
        _ => None,
    };
    Ok(Module {
        name: name.to_owned(),
        inputs: inputs.ok_or_else(|| wrong("lora_A", "(rank, inputs)", a.shape()))?,
        outputs: outputs.ok_or_else(|| wrong("lora_B", "(outputs, rank)", b.shape()))?,
    })
}

/// Adds a tensor's numbers as f32; fails with the name of a type that is not known.
fn numbers(tensor: &TensorView<'_>, out: &mut Vec<f32>) -> Result<(), String> {
    let bytes = tensor.data();
    let (words, halves) = (bytes.as_chunks().0.iter(), bytes.as_chunks().0.iter());
    if tensor.dtype() == Dtype::F32 {
        out.extend(words.map(|x| f32::from_le_bytes(*x)));
    } else if tensor.dtype() == Dtype::F16 {
        out.extend(halves.map(|x| f16::from_le_bytes(*x).to_f32()));
    } else if tensor.dtype() == Dtype::BF16 {
        out.extend(halves.map(|x| bf16::from_le_bytes(*x).to_f32()));
    } else {
        return Err(tensor.dtype().to_string());
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}
