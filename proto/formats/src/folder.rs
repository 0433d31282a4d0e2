//! A Hugging Face folder: which files a base has there, and which of them hold its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::FormatError;
use crate::file::SmallFile;

/// The decoder's config.
pub const CONFIG: &str = "config.json";

/// The weights, where they are one file.
pub const SINGLE: &str = "model.safetensors";

/// The list of the files of weights, where they are several.
pub const INDEX: &str = "model.safetensors.index.json";

/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";

/// The tokenizer's settings.
pub const SETTINGS: &str = "tokenizer_config.json";

/// The Jinja template that makes one text of a conversation.
pub const TEMPLATE: &str = "chat_template.jinja";

/// What a generation begins and ends with.
pub const GENERATION: &str = "generation_config.json";

/// The files that a base may lack.
pub const OPTIONAL: [&str; 3] = [SETTINGS, TEMPLATE, GENERATION];

/// The largest size in bytes of a base's small file of this name; files of weights are never read whole.
pub fn most_bytes(name: &str) -> u64 {
    match name {
        TOKENIZER => 64 << 20,
        INDEX => 8 << 20,
        SETTINGS => 4 << 20,
        _ => 1 << 20,
    }
}

/// Reads `config.json`, and does not parse it.
pub fn config(dir: &Path) -> Result<SmallFile, FormatError> {
    if !dir.join(CONFIG).exists() && dir.join("adapter_config.json").exists() {
        let advice = "the folder has an adapter; name the folder of its base".to_owned();
        return Err(FormatError::Absent { path: dir.join(CONFIG), advice });
    }
    small(dir, CONFIG)
}

/// Reads a small file of the folder.
fn small(dir: &Path, name: &str) -> Result<SmallFile, FormatError> {
    SmallFile::read(dir.join(name), most_bytes(name))
}

/// Reads a small file of the folder, if it is there.
fn small_if_there(dir: &Path, name: &str) -> Result<Option<SmallFile>, FormatError> {
    if dir.join(name).exists() { small(dir, name).map(Some) } else { Ok(None) }
}

/// The files of a folder that hold weights.
#[derive(Debug)]
pub struct WeightFiles {
    /// The file that lists the tensors: the index, or the only file of weights.
    pub list: PathBuf,
    /// The index, where there is one and no `model.safetensors`.
    pub index: Option<SmallFile>,
    /// The files of weights, in the order of their names.
    pub files: Vec<PathBuf>,
}

/// The part of a base that has no language model's head; a folder that was written from it alone has tensors without
/// this name before theirs.
const INNER: &str = "model.";

/// The name that a tensor has in a folder of the whole model. Where only its inner part was saved (transformers'
/// `LlamaModel` and its like), `layers.0.…` is `model.layers.0.…`, and so for the embedding and the last norm.
pub fn whole_name(name: String) -> String {
    let is_inner = ["layers.", "embed_tokens.", "norm."].iter().any(|part| name.starts_with(part));
    if is_inner { format!("{INNER}{name}") } else { name }
}

/// Finds the files of weights, and opens none of them. Returns an error where there is an index that cannot be read or
/// that names a file outside the folder, and where there are weights in other forms only.
pub fn weight_files(dir: &Path) -> Result<WeightFiles, FormatError> {
    let (single, list) = (dir.join(SINGLE), dir.join(INDEX));
    if !single.exists() && !list.exists() {
        absent_weights(dir, &single)?;
    }
    if single.exists() || !list.exists() {
        return Ok(WeightFiles { list: single.clone(), index: None, files: vec![single] });
    }
    let index = small(dir, INDEX)?;
    let names = shards(&list, &index.bytes)?;
    let files = names.into_iter().map(|name| dir.join(name)).collect();
    Ok(WeightFiles { list, index: Some(index), files })
}

/// Returns an error where there are weights in another form than is read, with what to do.
fn absent_weights(dir: &Path, single: &Path) -> Result<(), FormatError> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let found = |is: &dyn Fn(&str) -> bool| names.iter().find(|name| is(name)).cloned();
    let is_shard =
        |name: &str| name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
    let is_torch = |name: &str| {
        [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end)) && !name.starts_with("training_args")
    };
    let is_adapter = |name: &str| name == "adapter_config.json";
    let advice = if let Some(shard) = found(&is_shard) {
        format!("there is `{shard}`, one of several files, but not their list; fetch {INDEX} beside it")
    } else if found(&is_adapter).is_some() {
        "the folder has an adapter; name the folder of its base".to_owned()
    } else if let Some(torch) = found(&is_torch) {
        format!(
            "there is `{torch}`, which is not read because it may run code; write the folder anew by Python's \
             AutoModelForCausalLM.from_pretrained(IN).save_pretrained(OUT)"
        )
    } else if let Some(other) = found(&|name| name.ends_with(".safetensors")) {
        format!(
            "there is `{other}`, which is no file of transformers' by its name; fetch {SINGLE}, or {INDEX} and what it lists"
        )
    } else {
        return Ok(());
    };
    Err(FormatError::Absent { path: single.to_owned(), advice })
}

/// The names of the files in the index at `path`, in order and once each. Returns an error where its bytes are no index,
/// or name something else than a file beside it.
pub fn shards(path: &Path, bytes: &[u8]) -> Result<Vec<String>, FormatError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index =
        serde_json::from_slice(bytes).map_err(|error| FormatError::damaged(path, error.to_string()))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    match files.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => {
            let reason = format!("`{name}` is not the name of a file in this folder");
            Err(FormatError::damaged(path, reason))
        }
        None => Ok(files),
    }
}

/// The files of a folder that say how a text becomes tokens.
#[derive(Debug)]
pub struct TokenizerFiles {
    /// [`TOKENIZER`].
    pub tokenizer: SmallFile,
    /// [`SETTINGS`], if there.
    pub settings: Option<SmallFile>,
    /// [`TEMPLATE`], if there.
    pub template: Option<SmallFile>,
    /// [`GENERATION`], if there.
    pub generation: Option<SmallFile>,
}

/// Returns an error where there is a tokenizer in another form than is read, with what to do.
fn absent_tokenizer(dir: &Path) -> Result<(), FormatError> {
    let others = ["tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"];
    let Some(other) = others.iter().find(|name| dir.join(name).exists()) else { return Ok(()) };
    let advice = format!(
        "there is `{other}` only, which is not read; write it by Python's \
         AutoTokenizer.from_pretrained(IN).save_pretrained(OUT)"
    );
    Err(FormatError::Absent { path: dir.join(TOKENIZER), advice })
}

/// Reads the tokenizer and what there is of its settings, and parses none of them.
pub fn tokenizer_files(dir: &Path) -> Result<TokenizerFiles, FormatError> {
    if !dir.join(TOKENIZER).exists() {
        absent_tokenizer(dir)?;
    }
    Ok(TokenizerFiles {
        tokenizer: small(dir, TOKENIZER)?,
        settings: small_if_there(dir, SETTINGS)?,
        template: small_if_there(dir, TEMPLATE)?,
        generation: small_if_there(dir, GENERATION)?,
    })
}
