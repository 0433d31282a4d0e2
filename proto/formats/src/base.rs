//! What a plan needs to know of a base: its digest and the shapes of its linear layers.
//!
//! Only the headers of the weights are understood; their numbers are hashed and nothing else. The digest and
//! the order of modules must agree with the device's own reading (`client::train::base`); a cross test in
//! `tests/` holds both to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use proto::adapter::Module;
use proto::files;
use proto::ids::Digest;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

mod gguf;

/// The linear layers of a decoder block, in the order of its tensors.
const PROJECTIONS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The largest header that is read.
const HEADER_LIMIT_BYTES: u64 = 16 << 20;

/// The largest small file that is read.
const MOST_SMALL_BYTES: u64 = 8 << 20;

/// Bytes that are hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What is no base, or a target that it does not have.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A word that names no linear layer.
    #[error(
        "unknown target `{0}`; known are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and all"
    )]
    Target(String),
    /// The weights lack a layer.
    #[error("the weights in {} have no tensor `{tensor}`", dir.display())]
    MissingTensor {
        /// The base.
        dir: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A layer's weight is no matrix.
    #[error("the tensor `{tensor}` must be a matrix, found {found:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
    },
}

/// A frozen base, as far as a plan must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    dir: PathBuf,
    layers: usize,
    shapes: BTreeMap<String, Vec<u64>>,
    digest: Digest,
}

impl Base {
    /// Reads a Hugging Face folder: `config.json`, `model.safetensors` (or the shards of
    /// `model.safetensors.index.json`), `tokenizer.json` and, if there, `tokenizer_config.json`,
    /// `chat_template.jinja` and `generation_config.json`. Or a GGUF file, which is itself `path`, or the only one
    /// in a folder without a `config.json`.
    ///
    /// Fails with the name of the file that is missing or wrong.
    pub fn open(path: &Path) -> Result<Self, BaseError> {
        match gguf_file(path) {
            Some(file) => Self::open_gguf(&file),
            None => Self::open_folder(path),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, BaseError> {
        let mut hasher = Hasher::new();
        let gguf::Header { layers, shapes } = hasher.skim_gguf(path)?;
        Ok(Self { dir: path.to_owned(), layers, shapes, digest: hasher.finish() })
    }

    fn open_folder(dir: &Path) -> Result<Self, BaseError> {
        #[derive(Deserialize)]
        struct Config {
            num_hidden_layers: usize,
        }
        let mut hasher = Hasher::new();
        let path = dir.join("config.json");
        let config: Config = serde_json::from_slice(&hasher.read(&path)?)
            .map_err(|error| BaseError::Damaged { path, reason: error.to_string() })?;
        let shapes = read_weights(dir, &mut hasher)?;
        hasher.skim(&dir.join("tokenizer.json"))?;
        for name in ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
            let path = dir.join(name);
            if path.exists() {
                hasher.skim(&path)?;
            }
        }
        Ok(Self { dir: dir.to_owned(), layers: config.num_hidden_layers, shapes, digest: hasher.finish() })
    }

    /// What names this base everywhere: SHA-256 over `nightshift base v1` and then, for each file read,
    /// its name's length, its name, its length (both lengths as 8 bytes, little-endian) and its bytes.
    ///
    /// The files are `config.json`, the index if there is one, the weights in the order of their names,
    /// `tokenizer.json` and, if there, `tokenizer_config.json`, `chat_template.jinja` and
    /// `generation_config.json`; or the one GGUF file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The layers that an adapter of these targets (such as `q_proj` or `q`, or `all`) changes, block by
    /// block, in the order given. Fails on an unknown target and on a layer that the weights lack.
    pub fn modules(&self, targets: &[String]) -> Result<Vec<Module>, BaseError> {
        let mut paths = Vec::new();
        for target in targets {
            if target == "all" {
                paths.extend(PROJECTIONS);
            } else {
                paths.push(projection(target).ok_or_else(|| BaseError::Target(target.clone()))?);
            }
        }
        let mut modules = Vec::new();
        for layer in 0..self.layers {
            for path in &paths {
                modules.push(self.module(format!("model.layers.{layer}.{path}"))?);
            }
        }
        Ok(modules)
    }

    fn module(&self, name: String) -> Result<Module, BaseError> {
        let tensor = format!("{name}.weight");
        let Some(shape) = self.shapes.get(&tensor) else {
            return Err(BaseError::MissingTensor { dir: self.dir.clone(), tensor });
        };
        let side = |size: u64| u32::try_from(size).ok();
        match shape.as_slice() {
            [outputs, inputs] => side(*outputs)
                .zip(side(*inputs))
                .map(|(outputs, inputs)| Module { name, inputs, outputs })
                .ok_or_else(|| BaseError::Shape { tensor, found: shape.clone() }),
            _ => Err(BaseError::Shape { tensor, found: shape.clone() }),
        }
    }
}

fn projection(target: &str) -> Option<&'static str> {
    let bare = target.strip_suffix("_proj").unwrap_or(target);
    let name = |path: &str| path.split_once('.').map(|(_, name)| name.to_owned());
    PROJECTIONS.into_iter().find(|path| name(path) == Some(format!("{bare}_proj")))
}

/// The GGUF file that is meant: `path`, or the only one in a folder without a `config.json`.
fn gguf_file(path: &Path) -> Option<PathBuf> {
    let is_gguf =
        |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if !path.is_dir() {
        return is_gguf(path).then(|| path.to_owned());
    }
    if path.join("config.json").exists() {
        return None;
    }
    let files = std::fs::read_dir(path).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files = files.filter(|file| is_gguf(file) && file.is_file());
    files.next().filter(|_| files.next().is_none())
}

fn read_weights(dir: &Path, hasher: &mut Hasher) -> Result<BTreeMap<String, Vec<u64>>, BaseError> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    let files = if single.exists() || !index.exists() {
        vec![single]
    } else {
        let names = shards(&index, &hasher.read(&index)?)?;
        names.into_iter().map(|name| dir.join(name)).collect()
    };
    let mut shapes = BTreeMap::new();
    for path in files {
        let header = hasher.skim_safetensors(&path)?;
        shapes.extend(header);
    }
    Ok(shapes)
}

/// The names of the files in an index, in order and once each.
fn shards(path: &Path, bytes: &[u8]) -> Result<Vec<String>, BaseError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let damaged = |reason| BaseError::Damaged { path: path.to_owned(), reason };
    let index: Index = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    // An index may only name files beside it.
    match files.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(damaged(format!("`{name}` is not the name of a file in this folder"))),
        None => Ok(files),
    }
}

/// The shapes in the header of a safetensors file: a length of 8 bytes, little-endian, and as much JSON.
fn parse_header(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u64>>, String> {
    #[derive(Deserialize)]
    struct Tensor {
        shape: Vec<u64>,
    }
    let mut entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("its header is no JSON: {error}"))?;
    entries.remove("__metadata__");
    let shape = |(name, entry)| match serde_json::from_value::<Tensor>(entry) {
        Ok(tensor) => Ok((name, tensor.shape)),
        Err(error) => Err(format!("`{name}`: {error}")),
    };
    entries.into_iter().map(shape).collect()
}

/// Reads files and hashes them as it goes.
struct Hasher(Context);

impl Hasher {
    fn new() -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"nightshift base v1");
        Self(context)
    }

    /// A small file, whole.
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, BaseError> {
        let bytes = files::read_regular(path, MOST_SMALL_BYTES).map_err(refused(path))?;
        self.begin(path, bytes.len() as u64);
        self.0.update(&bytes);
        Ok(bytes)
    }

    /// A file that is hashed and forgotten.
    fn skim(&mut self, path: &Path) -> Result<(), BaseError> {
        let (mut file, len) = open(path)?;
        self.begin(path, len);
        self.rest(path, &mut file, len)
    }

    /// A file of weights: its header is kept.
    fn skim_safetensors(&mut self, path: &Path) -> Result<BTreeMap<String, Vec<u64>>, BaseError> {
        let damaged = |reason: String| BaseError::Damaged { path: path.to_owned(), reason };
        let (mut file, len) = open(path)?;
        self.begin(path, len);
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(refused(path))?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > HEADER_LIMIT_BYTES || header_len + 8 > len {
            return Err(damaged(format!("its header would have {header_len} bytes")));
        }
        let mut header = Vec::new();
        file.by_ref().take(header_len).read_to_end(&mut header).map_err(refused(path))?;
        self.0.update(&prefix);
        self.0.update(&header);
        self.rest(path, &mut file, len - 8 - header.len() as u64)?;
        parse_header(&header).map_err(damaged)
    }

    /// A GGUF file: what a plan needs of its header is kept.
    fn skim_gguf(&mut self, path: &Path) -> Result<gguf::Header, BaseError> {
        let (file, len) = open(path)?;
        self.begin(path, len);
        let mut source = Hashed { source: BufReader::new(file), hasher: self, read: 0 };
        let header = gguf::read(&mut source).map_err(|fault| match fault {
            gguf::Fault::Read(source) => BaseError::Read { path: path.to_owned(), source },
            gguf::Fault::Damaged(reason) => BaseError::Damaged { path: path.to_owned(), reason },
        })?;
        let Hashed { source: mut file, read, .. } = source;
        self.rest(path, &mut file, len.saturating_sub(read))?;
        Ok(header)
    }

    fn begin(&mut self, path: &Path, len: u64) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&len.to_le_bytes());
    }

    fn rest(&mut self, path: &Path, file: &mut impl Read, expected: u64) -> Result<(), BaseError> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut found = 0;
        loop {
            let read = file.read(&mut block).map_err(refused(path))?;
            if read == 0 {
                break;
            }
            self.0.update(block.get(..read).unwrap_or_default());
            found += read as u64;
        }
        if found == expected {
            return Ok(());
        }
        let reason = "its length changed while it was read".to_owned();
        Err(BaseError::Damaged { path: path.to_owned(), reason })
    }

    fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

/// Hashes what is read of a file.
struct Hashed<'a, R> {
    source: R,
    hasher: &'a mut Hasher,
    read: u64,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(bytes)?;
        self.hasher.0.update(bytes.get(..read).unwrap_or_default());
        self.read += read as u64;
        Ok(read)
    }
}

fn open(path: &Path) -> Result<(File, u64), BaseError> {
    let file = files::open_regular(path).map_err(refused(path))?;
    let len = file.metadata().map_err(refused(path))?.len();
    Ok((file, len))
}

fn refused(path: &Path) -> impl FnOnce(io::Error) -> BaseError {
    let path = path.to_owned();
    move |source| BaseError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_block_by_block_in_the_order_given() {
        let dir = tempfile::tempdir().unwrap();
        write_base(dir.path());
        let base = Base::open(dir.path()).unwrap();
        let modules = base.modules(&["v".to_owned(), "q_proj".to_owned()]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.q_proj"]);
        assert_eq!((modules[0].inputs, modules[0].outputs), (4, 2));
    }

    #[test]
    fn an_unknown_target_and_a_missing_layer_are_named() {
        let dir = tempfile::tempdir().unwrap();
        write_base(dir.path());
        let base = Base::open(dir.path()).unwrap();
        let error = base.modules(&["embed".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with("unknown target `embed`"));
        let error = base.modules(&["all".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("model.layers.0.self_attn.k_proj.weight"));
    }

    #[test]
    fn one_other_byte_makes_another_base() {
        let dir = tempfile::tempdir().unwrap();
        write_base(dir.path());
        let before = Base::open(dir.path()).unwrap().digest();
        std::fs::write(dir.path().join("tokenizer.json"), "{ }").unwrap();
        assert_ne!(Base::open(dir.path()).unwrap().digest(), before);
    }

    #[test]
    fn a_gguf_file_has_the_modules_of_a_folder() {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client/engine/tests/reference/gguf");
        let base = Base::open(&files.join("qwen3.gguf")).unwrap();
        let modules = base.modules(&["all".to_owned()]).unwrap();
        let sizes: Vec<(u32, u32)> = modules.iter().map(|module| (module.outputs, module.inputs)).collect();
        assert_eq!(sizes, [(128, 64), (64, 64), (64, 64), (64, 128), (96, 64), (96, 64), (64, 96)]);
        assert_eq!(modules[0].name, "model.layers.0.self_attn.q_proj");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qwen3.gguf");
        let whole = std::fs::read(files.join("qwen3.gguf")).unwrap();
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Base::open(dir.path()).unwrap().digest(), base.digest());
        for (change, expected) in [
            (
                Box::new(|bytes: &mut Vec<u8>| bytes.truncate(1000)) as Box<dyn Fn(&mut Vec<u8>)>,
                "it ends within",
            ),
            (Box::new(|bytes| bytes[0] = b'X'), "it does not begin with `GGUF`"),
            (Box::new(|bytes| bytes[4] = 9), "its version is 9"),
            (Box::new(|bytes| bytes[14] = 9), "at most 65536 are read"),
            (Box::new(|bytes| bytes[30] = 9), "its header has more than 67108864 bytes"),
        ] {
            let mut bytes = whole.clone();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let error = Base::open(&path).unwrap_err().to_string();
            assert!(error.contains("qwen3.gguf is damaged: ") && error.contains(expected), "{error}");
        }
    }

    fn write_base(dir: &Path) {
        std::fs::write(dir.join("config.json"), r#"{"num_hidden_layers": 1}"#).unwrap();
        std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
        let header = r#"{"__metadata__":{"format":"pt"},
            "model.layers.0.self_attn.q_proj.weight":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]},
            "model.layers.0.self_attn.v_proj.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[64,96]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 96]);
        std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
    }
}
